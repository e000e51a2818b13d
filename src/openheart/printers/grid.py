"""A patch grid as text, as a heat map with its numbers in it, and as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from openheart.i18n import decimal_mark, language, message
from openheart.printers.css import style_tag
from openheart.printers.digits import MINUS, shown
from openheart.printers.sweep import finite
from openheart.printers.sweep_chart import palette

if TYPE_CHECKING:
    from openheart.surgery.grid import PatchGrid

__all__ = ["grid_dict", "grid_html", "grid_svg", "grid_text"]

CELL, ROW, HEAD = 46, 34, 30
STRONGEST = 0.62
"""How opaque the strongest colour is: a number is legible on it in light and in dark."""
COLUMNS = 16
"""Text is broken into tables of this many positions."""


def grid_text(grid: PatchGrid, digits: int = 2, lang: str | None = None) -> str:
    """A row a layer, a column a position; what there is to know under it."""
    spoken = language(lang)
    said = [message("grid.head", spoken, metric=grid.metric), ""]
    for start in range(0, grid.positions, COLUMNS):
        places = range(start, min(start + COLUMNS, grid.positions))
        table = [["", *(_label(grid, place) for place in places)]]
        for row, layer in enumerate(grid.layers):
            cells = [_cell(grid.values[row, place].item(), digits) for place in places]
            if any(cells):
                table.append([_short(layer), *cells])
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        said += [
            "  ".join(
                cell.ljust(width) if not column else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        said.append("")
    return "\n".join([*said, *_notes(grid, spoken)])


def _cell(number: float, digits: int) -> str:
    """A recovery with a fixed number of decimals; nothing where there is no such position."""
    if math.isnan(number):
        return ""
    if math.isinf(number):
        return ("" if number > 0 else MINUS) + "∞"
    if number == 0:
        return "0"
    if abs(number) >= 1e4:
        return shown(number, digits).text(decimal_mark())
    written = f"{abs(number):.{digits}f}"
    sign = MINUS if number < 0 else ""
    return (sign + written).replace(".", decimal_mark())


def _short(layer: str) -> str:
    return layer.removesuffix(".out")


def _label(grid: PatchGrid, place: int) -> str:
    label = grid.labels[place]
    return {" ": "␣", "\n": "⏎", "\t": "⇥"}.get(label, label) or "∅"


def _notes(grid: PatchGrid, lang: str) -> Iterator[str]:
    mark = decimal_mark()
    yield message(
        "grid.scale",
        lang,
        metric=grid.metric,
        baseline=shown(grid.baseline).text(mark),
        target=shown(grid.target).text(mark),
    )
    best = grid.values.nan_to_num(nan=-math.inf)
    place = int(best.argmax())
    row, column = divmod(place, grid.positions)
    yield message(
        "grid.best",
        lang,
        address=grid.address(row, column),
        value=shown(grid.values[row, column].item()).text(mark),
        label=_label(grid, column),
    )
    runs = [work for work in grid.works if work.batched]
    if runs:
        yield message("grid.batched", lang, count=len(runs), calls=sum(work.calls for work in runs))
        if any(work.unequal for work in runs):
            difference = shown(max(work.difference for work in runs), 1).text(mark)
            worst = shown(round(max(work.worst for work in runs), 2), 2).text(mark)
            yield message("grid.held", lang, difference=difference, worst=worst)
        else:
            yield message("grid.same", lang)
    else:
        yield message("grid.exact", lang)


def grid_svg(grid: PatchGrid, digits: int = 2, lang: str | None = None) -> str:
    """The heat map: blue towards what the other run gives, magenta away from it, symmetric about 0."""
    spoken = language(lang)
    names = [_short(layer) for layer in grid.layers]
    left = 18 + max(len(name) for name in names) * 7.9
    labels = [_label(grid, place) for place in range(grid.positions)]
    longest = max(map(len, labels))
    turned = longest > 5
    head = HEAD if not turned else 14 + 7.6 * longest
    width, height = left + CELL * grid.positions + 8, head + ROW * len(names) + 44
    sizes = grid.values[grid.values.isfinite()].abs()
    most = max(1.0, float(sizes.max()) if sizes.numel() else 1.0)
    drawn = []
    for column, label in enumerate(labels):
        x = left + CELL * (column + 0.5)
        turn = f' transform="rotate(-90 {x:.1f} {head - 8:.1f})"' if turned else ""
        side = "start" if turned else "middle"
        drawn.append(
            f'<text class="name" style="text-anchor:{side}" x="{x:.1f}" y="{head - 9:.1f}"{turn}>'
            f"{escape(label)}</text>"
        )
    for row, name in enumerate(names):
        y = head + ROW * row
        drawn.append(
            f'<text class="name" style="text-anchor:end" x="{left - 10:.1f}" y="{y + ROW / 2 + 4.5:.1f}">'
            f"{escape(name)}</text>"
        )
        for column in range(grid.positions):
            number = grid.values[row, column].item()
            if math.isnan(number):
                continue
            drawn.append(_square(grid, row, column, number, most, left + CELL * column, y, digits))
    drawn.append(_scale(most, left, head + ROW * len(names) + 14, min(220, width - left - 60), digits))
    about = escape(message("grid.head", spoken, metric=grid.metric), quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="oh-grid" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{about}" lang="{spoken}">'
        f"<style>{palette('.oh-grid')}{_STYLE}</style>"
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}"/>{"".join(drawn)}</svg>'
    )


def _square(
    grid: PatchGrid, row: int, column: int, number: float, most: float, x: float, y: float, digits: int
) -> str:
    mark = decimal_mark()
    strength = STRONGEST * min(1.0, abs(number) / most) if math.isfinite(number) else STRONGEST
    raw = shown(grid.raw[row, column].item()).text(mark)
    title = f"{grid.address(row, column)}: {shown(number).text(mark)} ({grid.metric} = {raw})"
    shade = "minus" if number < 0 else "plus"
    zero = " zero" if number == 0 else ""
    return (
        f'<g><rect class="cell {shade}" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{CELL - 2}" '
        f'height="{ROW - 2}" rx="4" style="fill-opacity:{strength:.3f}"/>'
        f'<text class="number{zero}" x="{x + CELL / 2:.1f}" y="{y + ROW / 2 + 4.5:.1f}">'
        f"{escape(_cell(number, digits))}</text><title>{escape(title)}</title></g>"
    )


def _scale(most: float, x: float, y: float, length: float, digits: int) -> str:
    """The colours from −most to most, with their numbers."""
    steps = 21
    size = length / steps
    bars = "".join(
        f'<rect class="{"minus" if k < steps // 2 else "plus"}" x="{x + size * k:.2f}" y="{y}" '
        f'width="{size + 0.3:.2f}" height="8" '
        f'style="fill-opacity:{STRONGEST * abs(2 * k / (steps - 1) - 1):.3f}"/>'
        for k in range(steps)
    )
    ends = ((0.0, -most), (0.5, 0.0), (1.0, most))
    words = "".join(
        f'<text class="scale" x="{x + size / 2 + (length - size) * part:.1f}" y="{y + 23}">'
        f"{_cell(number, digits)}</text>"
        for part, number in ends
    )
    return bars + words


def grid_html(grid: PatchGrid, digits: int = 2, lang: str | None = None, *, styled: bool = True) -> str:
    """The fragment: the heat map, which scrolls sideways where it is wide, and the sentences under it."""
    spoken = language(lang)
    said = "".join(f"<p>{escape(note)}</p>" for note in _notes(grid, spoken))
    head = escape(message("grid.head", spoken, metric=grid.metric))
    sheets = style_tag("fragment", "sweep") if styled else ""
    return (
        f'{sheets}<article class="oh oh-sweep" lang="{spoken}"><p class="oh-origin">{head}</p>'
        f'<div class="oh-scroll">{grid_svg(grid, digits, spoken)}</div>'
        f'<div class="oh-said">{said}</div></article>'
    )


def grid_dict(grid: PatchGrid) -> dict[str, Any]:
    """Plain data: the layers, the positions, the recoveries, the metric as it was."""

    def rows(numbers: Any) -> list[list[Any]]:
        sizes = [grid.recording.value(layer).shape[grid.dimension] for layer in grid.layers]
        return [
            [finite(number) if place < size else None for place, number in enumerate(row)]
            for row, size in zip(numbers.tolist(), sizes, strict=True)
        ]

    return {
        "openheart": "patch_grid",
        "version": 1,
        "metric": grid.metric,
        "layers": list(grid.layers),
        "positions": grid.positions,
        "dimension": grid.dimension,
        "labels": list(grid.labels),
        "values": rows(grid.values),
        "raw": rows(grid.raw),
        "baseline": finite(grid.baseline),
        "target": finite(grid.target),
        "batched": grid.batched,
    }


_MONO = 'ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace'
_STYLE = (
    ".oh-grid{display:block;"
    'font:13px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;'
    "font-variant-numeric:tabular-nums}"
    ".oh-grid .paper{fill:var(--oh-paper)}.oh-grid text{fill:var(--oh-ink)}"
    f".oh-grid .name{{font-family:{_MONO}}}"
    ".oh-grid .number,.oh-grid .scale{text-anchor:middle}.oh-grid .zero,.oh-grid .scale{fill:var(--oh-faint)}"
    ".oh-grid .cell{stroke:var(--oh-line);stroke-width:1}"
    ".oh-grid .plus{fill:var(--oh-positive)}.oh-grid .minus{fill:var(--oh-negative)}"
)
