"""Sliding blocks taken apart into columns and put together again; pooled numbers put back in place."""

from __future__ import annotations

import math
from typing import Any

from openheart.formula.expr import Expr, Number, total, where
from openheart.formula.functions import maximum
from openheart.rules.pooling import flat, gathered, matches, split
from openheart.rules.registry import rule
from openheart.rules.windows import axes, offsets, places, seen_at, seers_of


@rule("im2col")
def im2col(self: Any, kernel_size: Any, dilation: Any, padding: Any, stride: Any, *, at: Any) -> Expr:
    # column l of channel c at offset u is x[c, p·s + u·d − padding], where l counts the windows p
    lead, sizes = self.shape[:-3], self.shape[-2:]
    counts = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(sizes, kernel_size, dilation, padding, stride, strict=True)
    ]
    window = axes(sizes, counts, kernel_size, stride, padding, dilation)
    *batch, row, column = at
    area = math.prod(kernel_size)
    u = (row // kernel_size[1] % kernel_size[0], row % kernel_size[1])
    p = (column // counts[1], column % counts[1])
    seen, inside = seen_at(window, p, u)
    x = self[(*batch[: len(lead)], row // area, *seen)]
    return x if inside is None else where(inside, x, 0.0)


@rule("col2im")
def col2im(
    self: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any,
    padding: Any,
    stride: Any,
    *,
    at: Any,
    stored: Any,
) -> Expr:
    # out[c, i] = Σ over the windows that see i of what their columns hold for it
    counts = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, d, p, s in zip(output_size, kernel_size, dilation, padding, stride, strict=True)
    ]
    window = axes(output_size, counts, kernel_size, stride, padding, dilation)
    *batch, channel, y, x = at
    u = offsets(window)
    seers, exists = seers_of(window, (y, x), u)
    row = (channel * kernel_size[0] + u[0]) * kernel_size[1] + u[1]
    return gathered(total(u, self[(*batch, row, flat(seers, counts))], where=exists), stored)


@rule("max_unpool2d")
def max_unpool2d(self: Any, indices: Any, *, at: Any) -> Expr:
    return put_back(self, indices, 2, at)


@rule("max_unpool3d")
def max_unpool3d(self: Any, indices: Any, *, at: Any) -> Expr:
    return put_back(self, indices, 3, at)


def put_back(x: Any, indices: Any, rank: int, at: Any) -> Expr:
    # each number goes back to the place that its index names; where several name one place they are equal,
    # as the maxima of overlapping windows are, and their average is any of them
    lead, place = split(at, rank)
    p = places(x.shape[-rank:])
    here = matches(indices[(*lead, *p)], place)
    found = total(p, Number(1), where=here)
    return total(p, x[(*lead, *p)], where=here) / maximum(found, 1)
