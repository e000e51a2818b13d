"""A sweep's curves as a picture: inline SVG with its own colours, light and dark, no script and no file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from openheart.i18n import decimal_mark, language, message
from openheart.printers.css import sheet
from openheart.printers.digits import MINUS, shown

if TYPE_CHECKING:
    from openheart.surgery.sweep import Sweep

__all__ = ["chosen_lines", "palette", "sweep_svg", "ticks"]

SHOWN = 6
"""A picture has no more curves than this; those that move most are drawn."""
HEIGHT, FONT = 330, 13
SHADES = ("address", "negative", "warn", "positive", "good", "bad")


def palette(scope: str) -> str:
    """The fragments' colours as CSS for another root, light and dark, a notebook's theme included."""
    found = re.findall(r"([^{}]*)\{([^{}]*--oh-ink[^{}]*)\}", sheet("fragment"))
    light = next(body for _, body in found)
    dark = next(body for _, body in found[1:])
    bright = f'[data-jp-theme-light="true"] {scope},[data-theme="light"] {scope},body.vscode-light {scope}'
    dim = f'[data-jp-theme-light="false"] {scope},[data-theme="dark"] {scope},body.vscode-dark {scope}'
    return (
        f"{scope}{{{light}}}@media(prefers-color-scheme:dark){{{scope}{{{dark}}}}}"
        f"{bright}{{{light}}}{dim}{{{dark}}}"
    )


def chosen_lines(sweep: Sweep) -> tuple[list[tuple[str, list[float], float]], int]:
    """(address, numbers, number as recorded) of the curves that move most, and how many are left out."""
    found = []
    for name, numbers in sweep.lines().items():
        if numbers.dtype.is_complex:
            continue
        whole = numbers.double().tolist()
        finite = [number for number in whole if math.isfinite(number)]
        reach = max(finite) - min(finite) if finite else 0.0
        found.append((reach, name, whole))
    order = sorted(range(len(found)), key=lambda place: -found[place][0])[:SHOWN]
    recorded = _recorded(sweep)
    lines = [(found[p][1], found[p][2], recorded.get(found[p][1], math.nan)) for p in sorted(order)]
    return lines, len(found) - len(lines)


def _recorded(sweep: Sweep) -> dict[str, float]:
    numbers: dict[str, float] = {}
    names = iter(sweep.lines())
    for watched in sweep.curves:
        flat = sweep.recorded[watched].reshape(-1)
        for number in flat.tolist():
            name = next(names)
            if not isinstance(number, complex):
                numbers[name] = float(number)
    return numbers


def ticks(low: float, high: float, most: int) -> list[tuple[float, str]]:
    """Round numbers between two, at most about `most`, each with exactly the digits that it has."""
    reach = high - low
    if not reach > 0:
        return [(low, shown(low).text(decimal_mark()))]
    exponent = math.floor(math.log10(reach / most))
    step = Decimal(1).scaleb(exponent)
    for factor in (1, 2, 5, 10):
        step = Decimal(factor).scaleb(exponent)
        if reach / float(step) <= most:
            break
    first = math.ceil(low / float(step) - 1e-9)
    last = math.floor(high / float(step) + 1e-9)
    return [(float(step * place), _written(step * place)) for place in range(first, last + 1)]


def _written(number: Decimal) -> str:
    """A round number in full, or with a power of ten where that would be long."""
    if number == 0:
        return "0"
    plain = f"{abs(number):f}"
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    if len(plain) > 6:
        sign, figures, _ = number.normalize().as_tuple()
        digits = "".join(map(str, figures))
        plain = f"{digits[0]}{'.' + digits[1:] if digits[1:] else ''}e{number.adjusted():+03d}"
        del sign
    return (MINUS if number < 0 else "") + plain.replace(".", decimal_mark())


def _logarithmic(values: Sequence[float]) -> bool:
    """Whether values lie at equal ratios rather than at equal distances."""
    ordered = sorted(set(values))
    if len(ordered) < 4 or ordered[0] <= 0 or ordered[-1] / ordered[0] < 30:
        return False
    logs = [math.log10(value) for value in ordered]

    def uneven(row: list[float]) -> float:
        gaps = [b - a for a, b in pairwise(row)]
        return max(gaps) / min(gaps)

    return uneven(logs) < uneven(ordered)


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    first, last = math.ceil(low - 1e-9), math.floor(high + 1e-9)
    every = max(1, (last - first) // 6 + 1)
    return [(float(p), _written(Decimal(1).scaleb(p))) for p in range(first, last + 1, every)]


def sweep_svg(sweep: Sweep, digits: int = 4, lang: str | None = None, width: int = 720) -> str:
    """The curves over the values, with the recorded point marked; `width` in pixels, from about 300 up."""
    spoken = language(lang)
    lines, more = chosen_lines(sweep)
    values = sweep.values.tolist()
    log = _logarithmic(values)
    xs = [math.log10(value) if log else value for value in values]
    low, high = min(xs), max(xs)
    origin = sweep.origin
    if origin is not None and (not math.isfinite(origin) or (log and origin <= 0)):
        origin = None
    mark = None if origin is None else math.log10(origin) if log else origin
    inside = mark is not None and low <= mark <= high
    heights = [y for _, numbers, _ in lines for y in numbers if math.isfinite(y)]
    heights += [at for _, _, at in lines if inside and math.isfinite(at)]
    bottom, top = (min(heights), max(heights)) if heights else (0.0, 1.0)
    pad = 0.06 * (top - bottom) or max(abs(top), 1.0) * 0.05
    bottom, top = bottom - pad, top + pad
    if high == low:
        low, high = low - 1, high + 1
    sides = ticks(bottom, top, 6)
    left = 14 + max((len(said) for _, said in sides), default=1) * 7.6
    rows = _legend_rows([name for name, _, _ in lines], width - left)
    right, up, down = width - 16, 30, HEIGHT - 50
    height = HEIGHT + 20 * len(rows) + (20 if more else 0)

    def across(x: float) -> float:
        return left + (x - low) / (high - low) * (right - left)

    def along(y: float) -> float:
        return down - (y - bottom) / (top - bottom) * (down - up)

    drawn: list[str] = []
    for y, said in sides:
        drawn.append(f'<path class="grid" d="M{left:.1f} {along(y):.1f}H{right:.1f}"/>')
        drawn.append(f'<text class="side" x="{left - 8:.1f}" y="{along(y) + 4.5:.1f}">{escape(said)}</text>')
    for x, said in _decades(low, high) if log else ticks(low, high, max(3, int(width / 110))):
        drawn.append(f'<path class="axis" d="M{across(x):.1f} {down}v5"/>')
        drawn.append(f'<text class="under" x="{across(x):.1f}" y="{down + 20}">{escape(said)}</text>')
    drawn.append(f'<path class="axis" d="M{left:.1f} {down}H{right:.1f}"/>')
    if inside and mark is not None and origin is not None:
        drawn.append(f'<path class="then" d="M{across(mark):.1f} {up}V{down}"/>')
        said = message("sweep.recorded", spoken, value=shown(origin, digits).text(decimal_mark()))
        room = len(said) * 3.4
        place = min(max(across(mark), left + room), right - room)
        drawn.append(f'<text class="under then" x="{place:.1f}" y="{up - 10}">{escape(said)}</text>')
    for shade, (name, numbers, _) in zip(SHADES, lines, strict=False):
        drawn.append(_curve(name, xs, values, numbers, shade, across, along, digits))
    if inside and mark is not None:
        drawn += [
            f'<circle class="point {shade}" cx="{across(mark):.1f}" cy="{along(at):.1f}" r="4.5"/>'
            for shade, (_, _, at) in zip(SHADES, lines, strict=False)
            if math.isfinite(at)
        ]
    title = _axis(sweep, spoken)
    drawn.append(f'<text class="title" x="{(left + right) / 2:.1f}" y="{down + 40}">{escape(title)}</text>')
    drawn += _legend(rows, left, HEIGHT + 14)
    if more:
        said = message("list.more", spoken, count=more)
        y = HEIGHT + 14 + 20 * len(rows)
        drawn.append(f'<text class="key faint" x="{left:.1f}" y="{y}">{escape(said)}</text>')
    about = escape(message("sweep.about", spoken, address=sweep.address), quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="oh-chart" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{about}" lang="{spoken}">'
        f"<style>{palette('.oh-chart')}{_STYLE}</style>"
        f'<rect class="paper" width="{width}" height="{height}"/>{"".join(drawn)}</svg>'
    )


def _axis(sweep: Sweep, lang: str) -> str:
    if sweep.kind in ("scale", "add"):
        return message(f"sweep.axis.{sweep.kind}", lang, address=sweep.address)
    return sweep.address


def _curve(
    name: str,
    xs: Sequence[float],
    values: Sequence[float],
    numbers: Sequence[float],
    shade: str,
    across: Callable[[float], float],
    along: Callable[[float], float],
    digits: int,
) -> str:
    """One curve, broken where a number is not finite; its points where they are few."""
    order = sorted(range(len(xs)), key=lambda place: xs[place])
    pieces: list[list[int]] = [[]]
    for place in order:
        if math.isfinite(numbers[place]):
            pieces[-1].append(place)
        elif pieces[-1]:
            pieces.append([])
    path = "".join(
        "M" + "L".join(f"{across(xs[p]):.1f} {along(numbers[p]):.1f}" for p in piece)
        for piece in pieces
        if piece
    )
    dots = ""
    mark = decimal_mark()
    if len(xs) <= 60:
        size = 2.4 if len(xs) <= 30 else 1.6
        dots = "".join(
            f'<circle class="dot {shade}" cx="{across(xs[p]):.1f}" cy="{along(numbers[p]):.1f}" r="{size}">'
            f"<title>{escape(f'{name} = {shown(numbers[p], digits).text(mark)}')} "
            f"({escape(shown(values[p], digits).text(mark))})</title></circle>"
            for piece in pieces
            for p in piece
        )
    return f'<path class="curve {shade}" d="{path}"/>{dots}' if path else ""


def _legend_rows(names: Sequence[str], room: float) -> list[list[tuple[str, str]]]:
    rows: list[list[tuple[str, str]]] = []
    used = 0.0
    for shade, name in zip(SHADES, names, strict=False):
        need = 48 + 7.9 * len(name)
        if not rows or used + need > room:
            rows.append([])
            used = 0.0
        rows[-1].append((shade, name))
        used += need
    return rows


def _legend(rows: Sequence[Sequence[tuple[str, str]]], left: float, y: float) -> list[str]:
    drawn = []
    for row in rows:
        x = left
        for shade, name in row:
            drawn.append(f'<path class="curve {shade}" d="M{x:.1f} {y - 4.5:.1f}h22"/>')
            drawn.append(f'<text class="key" x="{x + 29:.1f}" y="{y:.1f}">{escape(name)}</text>')
            x += 48 + 7.9 * len(name)
        y += 20
    return drawn


_MONO = 'ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace'
_STYLE = (
    ".oh-chart{display:block;max-width:100%;height:auto;"
    'font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;'
    "font-variant-numeric:tabular-nums}"
    ".oh-chart .paper{fill:var(--oh-paper)}.oh-chart text{fill:var(--oh-ink)}"
    ".oh-chart .grid{stroke:var(--oh-line);stroke-width:1}.oh-chart .axis{stroke:var(--oh-faint);fill:none}"
    ".oh-chart .side{text-anchor:end;fill:var(--oh-faint)}"
    ".oh-chart .under{text-anchor:middle;fill:var(--oh-faint)}"
    ".oh-chart .title{text-anchor:middle}"
    f".oh-chart .title,.oh-chart .key{{font-family:{_MONO}}}.oh-chart .faint{{fill:var(--oh-faint)}}"
    ".oh-chart path.then{stroke:var(--oh-faint);stroke-dasharray:3 4;fill:none}"
    ".oh-chart .curve{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".oh-chart .point{fill:var(--oh-paper);stroke-width:2.2}"
    + "".join(
        f".oh-chart .curve.{shade},.oh-chart .point.{shade}{{stroke:var(--oh-{shade})}}"
        f".oh-chart .dot.{shade}{{fill:var(--oh-{shade})}}"
        for shade in SHADES
    )
)
