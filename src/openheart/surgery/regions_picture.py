"""Linear regions as a picture (SVG), text, HTML and data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from openheart.i18n import decimal_mark, language, message
from openheart.printers.css import style_tag
from openheart.printers.digits import constant, shown
from openheart.printers.json import number

if TYPE_CHECKING:
    from openheart.surgery.regions import Regions

LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 48
TICKS = 6
TOLD = 400
"""Of at most this many regions each says its map when pointed at."""
VERSION = 1
STYLE = (
    ".oh-regions{--oh-axis:#1d2433;--oh-edge:#1d2433}"
    "@media (prefers-color-scheme:dark){.oh-regions{--oh-axis:#e6e9f0;--oh-edge:#10131a}}"
    '[data-theme="light"] .oh-regions,[data-jp-theme-light="true"] .oh-regions'
    "{--oh-axis:#1d2433;--oh-edge:#1d2433}"
    '[data-theme="dark"] .oh-regions,[data-jp-theme-light="false"] .oh-regions'
    "{--oh-axis:#e6e9f0;--oh-edge:#10131a}"
    '.oh-regions text{fill:var(--oh-axis);font:12px system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}'
    ".oh-regions .oh-axis{stroke:var(--oh-axis);stroke-width:1;fill:none}"
    ".oh-regions .oh-region{stroke:var(--oh-edge);stroke-opacity:.55;stroke-width:.8}"
)


def text(regions: Regions, lang: str | None = None) -> str:
    """How many regions, and how they were counted."""
    return "\n".join(sentences(regions, language(lang)))


def sentences(regions: Regions, lang: str) -> Iterator[str]:
    """What is said of the regions, the count first."""
    yield counted(regions, lang)
    yield message("regions.how.exact" if regions.exact else "regions.how.seen", lang)
    if regions.merged:
        small = shown(regions.least, 1).text(decimal_mark())
        yield message("regions.merged", lang, count=regions.merged, area=small)


def counted(regions: Regions, lang: str) -> str:
    """The count in a sentence."""
    between = [
        f"[{_plain(a)}{';' if decimal_mark() == ',' else ','} {_plain(b)}]"
        for a, b in zip(regions.low, regions.high, strict=True)
    ]
    key = "regions.count.exact" if regions.exact else "regions.count.seen"
    return message(key, lang, count=regions.count, box=" × ".join(between), resolution=regions.resolution)


def _plain(value: float) -> str:
    return constant(float(value)).text(decimal_mark())


# The picture ----------------------------------------------------------------------------------------


def svg(regions: Regions, width: int = 520, lang: str | None = None) -> str:
    """The rectangle with its regions, axes with ticks, a title and a description."""
    spoken = language(lang)
    (a, b), (c, d) = regions.low, regions.high
    inner = width - LEFT - RIGHT
    tall = round(inner * min(max((d - b) / (c - a), 0.25), 2.0))
    height = tall + TOP + BOTTOM
    frame = _Frame(a, b, inner / (c - a), tall / (d - b), tall)
    drawn = _polygons(regions, frame) if regions.exact else _cells(regions, frame)
    title, told = escape(message("regions.title", spoken)), escape(counted(regions, spoken))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="oh-regions" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" lang="{spoken}" style="max-width:100%;height:auto">'
        f"<title>{title}: {told}</title><style>{STYLE}</style>{''.join(drawn)}"
        f'<rect class="oh-axis" x="{LEFT}" y="{TOP}" width="{inner}" height="{tall}"/>'
        f"{''.join(_axes(regions, frame, inner, tall))}</svg>"
    )


class _Frame:
    """From the inputs to the picture's places."""

    def __init__(self, left: float, low: float, across: float, up: float, tall: int) -> None:
        self.left, self.low, self.across, self.up, self.tall = left, low, across, up, tall

    def x(self, value: float) -> float:
        return LEFT + (value - self.left) * self.across

    def y(self, value: float) -> float:
        return TOP + self.tall - (value - self.low) * self.up


def _polygons(regions: Regions, frame: _Frame) -> Iterator[str]:
    slopes = [np.asarray(weight[0]) if len(weight) else np.zeros(2) for weight, _ in regions.maps]
    steepest = max((float(np.hypot(*s)) for s in slopes), default=0.0)
    for polygon, slope, (_, bias) in zip(regions.polygons, slopes, regions.maps, strict=True):
        corners = " ".join(f"{frame.x(x):.2f},{frame.y(y):.2f}" for x, y in polygon)
        told = f"<title>{escape(_map(slope, bias))}</title>" if len(regions.polygons) <= TOLD else ""
        fill = _colour(slope, steepest)
        yield f'<polygon class="oh-region" points="{corners}" fill="{fill}">{told}</polygon>'


def _colour(slope: Any, steepest: float) -> str:
    """Hue from the gradient's direction, strength from its size; gray where the network is flat."""
    size = float(np.hypot(*slope))
    if size <= 1e-12 * steepest or steepest == 0:
        return "hsl(220 5% 66%)"
    share = math.sqrt(size / steepest)
    hue = math.degrees(math.atan2(float(slope[1]), float(slope[0]))) % 360
    return f"hsl({hue:.0f} {25 + 45 * share:.0f}% {74 - 18 * share:.0f}%)"


def _map(slope: Any, bias: Any) -> str:
    """The first output's map: y = 0.5·x₀ − 2·x₁ + 1."""
    first, second, rest = (float(v) for v in (*slope, bias[0] if len(bias) else 0.0))
    mark = decimal_mark()

    def term(value: float, name: str) -> str:
        sign = "−" if value < 0 else "+"
        return f" {sign} {shown(abs(value)).text(mark)}{name}"

    return f"y = {shown(first).text(mark)}·x₀{term(second, '·x₁')}{term(rest, '')}"


def _cells(regions: Regions, frame: _Frame) -> Iterator[str]:
    """The grid's points as cells, those of one pattern side by side as one bar."""
    labels = regions.labels
    count = len(labels)
    across, up = (h - low for low, h in zip(regions.low, regions.high, strict=True))
    dx, dy = across / count * frame.across, up / count * frame.up
    for row, line in enumerate(labels):
        starts = [0, *(np.flatnonzero(np.diff(line)) + 1).tolist(), count]
        y = TOP + frame.tall - (row + 1) * dy
        for start, stop in pairwise(starts):
            colour = f"hsl({int(line[start]) * 137.508 % 360:.0f} 48% {58 + int(line[start]) % 3 * 7}%)"
            yield (
                f'<rect x="{LEFT + start * dx:.2f}" y="{y:.2f}" width="{(stop - start) * dx + 0.3:.2f}" '
                f'height="{dy + 0.3:.2f}" fill="{colour}"/>'
            )


def _axes(regions: Regions, frame: _Frame, inner: int, tall: int) -> Iterator[str]:
    floor = TOP + tall
    for value in ticks(regions.low[0], regions.high[0]):
        x = frame.x(value)
        yield f'<path class="oh-axis" d="M{x:.1f} {floor}v5"/>'
        yield f'<text x="{x:.1f}" y="{floor + 19}" text-anchor="middle">{_plain(value)}</text>'
    for value in ticks(regions.low[1], regions.high[1]):
        y = frame.y(value)
        yield f'<path class="oh-axis" d="M{LEFT} {y:.1f}h-5"/>'
        yield f'<text x="{LEFT - 9}" y="{y + 4:.1f}" text-anchor="end">{_plain(value)}</text>'
    yield f'<text x="{LEFT + inner / 2:.0f}" y="{floor + 38}" text-anchor="middle">x₀</text>'
    middle = TOP + tall / 2
    yield f'<text x="14" y="{middle:.0f}" text-anchor="middle">x₁</text>'


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [round(n * step, decimals) + 0.0 for n in range(first, last + 1)]


# HTML and data --------------------------------------------------------------------------------------


def html(regions: Regions, lang: str | None = None) -> str:
    """The picture with what is said of it."""
    spoken = language(lang)
    first, *rest = sentences(regions, spoken)
    colour = message("regions.colour" if regions.exact else "regions.colour.seen", spoken)
    notes = "".join(f'<p class="oh-more">{escape(said)}</p>' for said in (*rest, colour))
    title = escape(message("regions.title", spoken))
    return (
        f'{style_tag()}<article class="oh" lang="{spoken}"><div class="oh-head"><h3>{title}</h3></div>'
        f'<p class="oh-origin">{escape(first)}</p>{svg(regions, lang=spoken)}{notes}</article>'
    )


def to_dict(regions: Regions) -> dict[str, Any]:
    """Plain data: the polygons with their maps, or the grid's labels."""
    return {
        "schema": "openheart.regions",
        "version": VERSION,
        "low": list(regions.low),
        "high": list(regions.high),
        "count": regions.count,
        "exact": regions.exact,
        "merged": regions.merged,
        "least": number(regions.least),
        "resolution": regions.resolution,
        "regions": [
            {"polygon": polygon.tolist(), "weight": weight.tolist(), "bias": bias.tolist()}
            for polygon, (weight, bias) in zip(regions.polygons, regions.maps, strict=True)
        ],
        "labels": None if regions.labels is None else regions.labels.tolist(),
    }
