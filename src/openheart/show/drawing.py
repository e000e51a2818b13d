"""A small network as a picture: a node for each number of the first sample, a line for each weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import torch

from openheart.i18n import decimal_mark
from openheart.printers.digits import shown
from openheart.recording import Recording, Value
from openheart.show.maps import link
from openheart.spelling import shown_whole

__all__ = ["drawing"]

TALLEST = 10
LONGEST = 8
COLUMN, NODE, ROW, HEIGHT, TOP = 172, 92, 46, 32, 46


@dataclass(frozen=True, slots=True)
class _Column:
    """One module's output: its name, the module's kind, its weight, and the first sample's (nodes,)."""

    name: str
    kind: str
    value: Value
    numbers: Any
    weight: Value | None = None


def drawing(rec: Recording, explained: Mapping[str, Any], digits: int) -> str:
    """The picture as inline SVG; empty when the network is not a chain of small layers."""
    columns = _chain(rec)
    if len(columns) < 2:
        return ""
    tall = max(len(c.numbers) for c in columns)
    width = COLUMN * (len(columns) - 1) + NODE + 24
    height = TOP + ROW * tall
    lines = "".join(
        line
        for n, column in enumerate(columns[1:], 1)
        for line in _lines(columns[n - 1], column, n, tall, digits)
    )
    nodes = "".join(node for n, c in enumerate(columns) for node in _nodes(c, n, tall, explained, digits))
    return (
        f'<div class="oh oh-flat"><div class="oh-scroll"><svg class="oh-net" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img">{lines}{nodes}</svg></div></div>'
    )


def _chain(rec: Recording) -> list[_Column]:
    """Input and module outputs, each fed by the one before; none if the network is not a small chain."""
    if rec.model is None:
        return []
    before = rec.get("input")
    if before is None:
        return []
    columns = [_column("input", "", before, None)]
    for path, module in rec.model.named_modules():
        if any(True for _ in module.children()) or (
            isinstance(module, torch.nn.Dropout) and not module.training
        ):
            continue
        into, out = rec.get(f"{path}.in"), rec.get(f"{path}.out")
        if into is not before or out is None:
            return []
        before = out
        weight = rec.get(f"{path}.weight") if isinstance(module, torch.nn.Linear) else None
        columns.append(_column(rec.name(before), shown_whole(type(module).__name__), before, weight))
    fits = len(columns) <= LONGEST and all(
        c.numbers is not None and len(c.numbers) <= TALLEST for c in columns
    )
    return columns if fits else []


def _column(name: str, kind: str, value: Value, weight: Value | None) -> _Column:
    array = value.array if value.kept and len(value.shape) in (1, 2) and 0 not in value.shape else None
    numbers = None if array is None else array[0] if array.ndim == 2 else array
    return _Column(name, kind, value, numbers, weight)


def _place(column: int, row: int, count: int, tall: int) -> tuple[float, float]:
    """The middle of a node."""
    return 12 + NODE / 2 + COLUMN * column, TOP + ROW * (tall - count) / 2 + ROW * row + ROW / 2


def _lines(left: _Column, right: _Column, n: int, tall: int, digits: int) -> Iterator[str]:
    rows, columns = len(right.numbers), len(left.numbers)
    if right.weight is not None:
        weight = right.weight.array
        with np.errstate(all="ignore"):
            parts = np.abs(weight * left.numbers)
        largest = float(np.nanmax(np.where(np.isfinite(parts), parts, 0))) or 1.0
    for i in range(rows):
        for j in range(columns):
            if right.weight is None and i != j and (rows == columns and right.kind != "Softmax"):
                continue
            x, y = _place(n - 1, j, columns, tall)
            u, v = _place(n, i, rows, tall)
            begin, end = x + NODE / 2, u - NODE / 2
            middle = (begin + end) / 2
            curve = f"M{begin:g} {y:g}C{middle:g} {y:g} {middle:g} {v:g} {end:g} {v:g}"
            if right.weight is None:
                yield f'<path class="oh-wire" d="{curve}"/>'
                continue
            size = min(1.0, float(parts[i, j]) / largest) if np.isfinite(parts[i, j]) else 1.0
            number = weight[i, j].item()
            sign = "p" if number * left.numbers[j].item() >= 0 else "n"
            address = right.name.removesuffix(".out") + f".weight[{i},{j}]"
            said = shown(number, digits).text(decimal_mark())
            yield (
                f'<path class="oh-wire {sign}" d="{curve}" style="stroke-width:{0.75 + 4.5 * size:.2f}">'
                f"<title>{escape(address)} = {escape(said)}</title></path>"
            )


def _nodes(column: _Column, n: int, tall: int, explained: Mapping[str, Any], digits: int) -> Iterator[str]:
    x, _ = _place(n, 0, 1, tall)
    yield f'<text class="oh-col" x="{x:g}" y="17">{escape(column.name)}</text>'
    yield f'<text class="oh-kind" x="{x:g}" y="33">{escape(column.kind)}</text>'
    for row, number in enumerate(column.numbers):
        x, y = _place(n, row, len(column.numbers), tall)
        index = (0, row) if len(column.value.shape) == 2 else (row,)
        address = f"{column.name}[{','.join(map(str, index))}]"
        said = escape(shown(number.item(), digits).text(decimal_mark()))
        shape = (
            f'<rect x="{x - NODE / 2:g}" y="{y - HEIGHT / 2:g}" width="{NODE}" height="{HEIGHT}" rx="9"/>'
            f'<text x="{x:g}" y="{y + 5:g}">{said}</text><title>{escape(address)}</title>'
        )
        if address in explained:
            yield f'<a class="oh-node" href="{link(address)}">{shape}</a>'
        else:
            yield f'<g class="oh-node">{shape}</g>'
