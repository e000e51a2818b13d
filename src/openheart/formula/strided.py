"""Affine index expressions as strided views: a window costs no gather.

`x[n, c, y*2 + p - 1, q]` reads memory in even steps along each index variable. The tensor is padded with
zeros where the expression leaves it (a law allows that only under a `where` that excludes it), and the
elements are one view.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openheart.formula.expr import Apply, Expr, Index, Named, Number

PADDING = 2.0
"""A tensor is not padded to more than this many times its size."""


@dataclass(slots=True)
class Affine:
    """`offset + Σ step·index`."""

    offset: int = 0
    steps: dict[Index, int] = field(default_factory=dict)


def affine(node: Expr) -> Affine | None:
    """The node as an affine form of index variables; None when it is none."""
    if isinstance(node, Number):
        return Affine(node.value) if type(node.value) is int else None
    if isinstance(node, Index):
        return Affine(0, {node: 1})
    if isinstance(node, Named):
        return affine(node.body)
    if not isinstance(node, Apply) or node.function not in ("add", "sub", "mul", "neg"):
        return None
    parts = [affine(arg) for arg in node.args]
    if any(p is None for p in parts):
        return None
    a, *others = (p for p in parts if p is not None)
    if node.function == "neg":
        return _scaled(a, -1)
    (b,) = others
    if node.function == "mul":
        return _scaled(a, b.offset) if not b.steps else _scaled(b, a.offset) if not a.steps else None
    b = _scaled(b, -1) if node.function == "sub" else b
    steps = dict(a.steps)
    for i, step in b.steps.items():
        steps[i] = steps.get(i, 0) + step
    return Affine(a.offset + b.offset, steps)


def _scaled(a: Affine, factor: int) -> Affine:
    return Affine(a.offset * factor, {i: step * factor for i, step in a.steps.items()})


def strided(
    data: Any,
    index: Sequence[Expr],
    axes: dict[Index, int],
    span_of: Callable[[Index], range | int],
) -> Any | None:
    """The elements of `data` at affine places, as a view laid over `axes`; None when gathering is better.

    `span_of` gives an index variable's range, or the integer to which it is bound.
    """
    if data.size == 0:
        return None
    moves, extents = [0] * len(axes), [1] * len(axes)
    starts: list[int] = []
    steps: list[list[tuple[Index, int]]] = []
    padding: list[tuple[int, int]] = []
    for size, part in zip(data.shape, index, strict=True):
        form = affine(part)
        if form is None:
            return None
        start = low = high = form.offset
        unbound = []
        for i, step in form.steps.items():
            span = span_of(i)
            if isinstance(span, int):
                start, low, high = start + step * span, low + step * span, high + step * span
                continue
            if not len(span):
                return None
            first, last = step * span.start, step * span[-1]
            start, low, high = start + first, low + min(first, last), high + max(first, last)
            unbound.append((i, step * span.step))
            extents[axes[i]] = len(span)
        starts.append(start + max(0, -low))
        steps.append(unbound)
        padding.append((max(0, -low), max(0, high - size + 1)))
    if any(before or after for before, after in padding):
        grown = math.prod((n + b + a) / n for n, (b, a) in zip(data.shape, padding, strict=True))
        if grown > PADDING:
            return None
        data = np.pad(data, padding)
    for stride, unbound in zip(data.strides, steps, strict=True):
        for i, step in unbound:
            moves[axes[i]] += step * stride
    first_element = data[tuple(slice(start, start + 1) for start in starts)]
    return np.lib.stride_tricks.as_strided(first_element, extents, moves, writeable=False)
