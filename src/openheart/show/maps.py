"""A tensor on the page: its numbers in a table where they fit, else a heat map of them as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

import numpy as np

from openheart.i18n import decimal_mark, message
from openheart.printers.digits import shown
from openheart.recording import Value

__all__ = ["link", "tensor_html"]

WHOLE = 48
"""Up to this many numbers a tensor is written out."""
WIDEST = 9
"""Columns of a table of numbers that a page has room for."""
LEVELS = 8
"""Shades of a heat map on either side of zero."""


def link(address: str) -> str:
    """What to point at to open an address."""
    return "#" + quote(address, safe="[],.:@/")


def tensor_html(
    name: str, value: Value, explained: Mapping[str, Any], digits: int, cells: int, lang: str
) -> str:
    """The numbers of a tensor, those that are explained as links; `cells` is the largest map to draw."""
    if 0 in value.shape or not value.kept:
        return f'<p class="oh-more">{escape(message("show.not_kept", lang))}</p>'
    array = value.array
    size = math.prod(value.shape)
    if size <= WHOLE and (not value.shape or value.shape[-1] <= WIDEST or len(value.shape) == 1):
        return _table(name, array, explained, digits)
    return _picture(name, array, explained, digits, cells, lang)


def _table(name: str, array: Any, explained: Mapping[str, Any], digits: int) -> str:
    if array.ndim <= 1:
        flat = array.reshape(-1)
        rows = [[((n,) if array.ndim else (), flat[n]) for n in range(len(flat))]]
        if len(flat) > WIDEST:
            rows = [rows[0][n : n + WIDEST] for n in range(0, len(flat), WIDEST)]
    else:
        lines = array.reshape(-1, array.shape[-1])
        leads = list(np.ndindex(array.shape[:-1]))
        rows = [
            [((*lead, c), line[c]) for c in range(line.shape[0])]
            for lead, line in zip(leads, lines, strict=True)
        ]
    body = "".join(
        f"<tr>{''.join(_cell(name, index, v, explained, digits) for index, v in row)}</tr>" for row in rows
    )
    return f'<div class="oh-scroll"><table class="oh-tensor">{body}</table></div>'


def _cell(name: str, index: tuple[int, ...], number: Any, explained: Mapping[str, Any], digits: int) -> str:
    address = name + (f"[{','.join(map(str, index))}]" if index else "")
    said = escape(shown(number.item(), digits).text(decimal_mark()))
    title = escape(f"{address} = {number.item()!r}", quote=True)
    if address in explained:
        return f'<td><a class="oh-open" href="{link(address)}" title="{title}">{said}</a></td>'
    return f'<td title="{title}">{said}</td>'


def _picture(name: str, array: Any, explained: Mapping[str, Any], digits: int, cells: int, lang: str) -> str:
    tiles, cut = _tiles(array, cells)
    with np.errstate(all="ignore"):
        finite = np.where(np.isfinite(np.asarray(array, dtype=np.float64)), array, 0)
    largest = float(np.abs(finite).max()) or 1.0
    hits = _hits(name, explained)
    across = 340 if len(tiles) < 3 else 150
    drawn = "".join(_tile(name, lead, tile, largest, hits, across) for lead, tile in tiles)
    extremes = []
    for key, place in (("show.largest", int(np.argmax(finite))), ("show.smallest", int(np.argmin(finite)))):
        index = tuple(int(i) for i in np.unravel_index(place, array.shape))
        address = f"{name}[{','.join(map(str, index))}]"
        said = escape(shown(array[index].item(), digits).text(decimal_mark()))
        number = f'<a class="oh-open" href="{link(address)}">{said}</a>' if address in explained else said
        extremes.append(
            f'<span>{escape(message(key, lang))} {number} <span class="oh-at">{escape(address)}</span></span>'
        )
    if cut:
        extremes.append(f"<span>{escape(message('show.cut', lang, shown=cut, count=array.size))}</span>")
    return f'<div class="oh-maps">{drawn}</div><p class="oh-extremes">{"".join(extremes)}</p>'


def _tiles(array: Any, cells: int) -> tuple[list[tuple[tuple[int, ...], Any]], int]:
    """The two-dimensional slices that are drawn, and how many numbers they hold, if not all."""
    if array.ndim <= 1:
        flat = array.reshape(1, -1)[:, :cells]
        wide = min(64, flat.shape[1])
        rows = math.ceil(flat.shape[1] / wide)
        padded = np.full(rows * wide, np.nan)
        padded[: flat.shape[1]] = flat[0]
        return [((), padded.reshape(rows, wide))], 0 if flat.shape[1] == array.size else flat.shape[1]
    height, width = min(array.shape[-2], 64), min(array.shape[-1], 96)
    height = max(1, min(height, cells // width))
    room = max(1, cells // (height * width))
    together = array.shape[-3] if array.ndim > 2 else 1  # the channels of a sample, all or none of them
    room = max(room // together * together, min(room, together))
    tiles: list[tuple[tuple[int, ...], Any]] = []
    for lead in np.ndindex(array.shape[:-2]):
        if len(tiles) == room:
            break
        tiles.append((tuple(lead), np.asarray(array[lead][:height, :width], dtype=np.float64)))
    drawn = len(tiles) * height * width
    return tiles, 0 if drawn == array.size else drawn


def _hits(name: str, explained: Mapping[str, Any]) -> list[tuple[int, ...]]:
    begin = f"{name}["
    return [explained[a].element.index for a in explained if a.startswith(begin)]


def _tile(
    name: str, lead: tuple[int, ...], tile: Any, largest: float, hits: Iterable[tuple[int, ...]], across: int
) -> str:
    height, width = tile.shape
    paths: dict[str, list[str]] = {}
    for row in range(height):
        column = 0
        while column < width:
            shade = _shade(tile[row, column], largest)
            run = 1
            while column + run < width and _shade(tile[row, column + run], largest) == shade:
                run += 1
            if shade:
                paths.setdefault(shade, []).append(f"M{column} {row}h{run}v1h-{run}z")
            column += run
    drawn = "".join(f'<path class="{shade}" d="{"".join(parts)}"/>' for shade, parts in sorted(paths.items()))
    opened = ""
    for index in hits:
        flat = index if len(index) > 1 or lead else (index[0] // width, index[0] % width)
        if tuple(flat[:-2]) == lead and flat[-2] < height and flat[-1] < width:
            address = f"{name}[{','.join(map(str, index))}]"
            opened += (
                f'<a href="{link(address)}"><title>{escape(address)}</title>'
                f'<rect class="oh-hit" x="{flat[-1]}" y="{flat[-2]}" width="1" height="1"/></a>'
            )
    pixels = max(3, min(14, across // width))
    label = f"[{','.join(map(str, lead))}]" if lead else ""
    return (
        f'<figure><svg class="oh-map" viewBox="0 0 {width} {height}" width="{width * pixels}" '
        f'height="{height * pixels}" role="img" aria-label="{escape(name + label, quote=True)}" '
        f'shape-rendering="crispEdges">{drawn}{opened}</svg>'
        + (f"<figcaption>{label}</figcaption>" if label else "")
        + "</figure>"
    )


def _shade(number: float, largest: float) -> str:
    if math.isnan(number):
        return ""
    size = min(1.0, abs(number) / largest) if math.isfinite(number) else 1.0
    level = math.ceil(size * LEVELS)
    return "" if level == 0 else f"{'p' if number > 0 else 'n'}{level}"
