"""Counting: how often each value comes, and how many numbers fall into each bin."""

from __future__ import annotations

import math
from typing import Any

from openheart.formula.expr import Expr, Number, both, count, index, largest, named, smallest, total, where
from openheart.formula.functions import computed_in, to_int, trunc
from openheart.formula.precision import FLOAT32, Precision
from openheart.rules.masks import flat
from openheart.rules.registry import rule, value_of
from openheart.rules.rows import held


@rule("bincount")
def bincount(self: Any, weights: Any, *, at: Any) -> Expr:
    # how often the value i comes, or the sum of its weights
    p = index("p", self.shape[0])
    if weights is None:
        return count(p, where=self[p] == at[0])
    return total(p, weights[p], where=self[p] == at[0])


@rule("histc", "histc.out")
def histc(self: Any, bins: int, min: Any, max: Any, *, at: Any, stored: Precision) -> Expr:
    # How many numbers x fall into bin i of n between a and b: ⌊(x − a)·n / (b − a)⌋ = i, and the last bin
    # holds b as well. Numbers outside, and NaN, are in none. Each step is rounded in the tensor's own format,
    # and so is the count (aten/src/ATen/native/cpu/HistogramKernel.cpp).
    p = index("p", math.prod(self.shape))
    if not p.extent:
        return Number(0)
    x = flat(self, p)
    first, last = _range(self, value_of(min), value_of(max))
    place = where(x == last, bins - 1, to_int(trunc((x - first) * bins / (last - first))))
    inside = both(both(x >= first, x <= last), named("bin", computed_in(stored, place)) == at[0])
    if stored.unit > FLOAT32.unit:
        return computed_in(stored, total(p, 1.0, where=inside))
    return count(p, where=inside)


def _range(self: Any, low: float, high: float) -> tuple[Expr, Expr]:
    """The outermost edges: as given, or where these are one, the numbers' own; else one apart."""
    first, last = (Number(held(float(edge), self.dtype)) for edge in (low, high))
    if low != high:
        return first, last
    p, q = index("p′", math.prod(self.shape)), index("p″", math.prod(self.shape))
    least, most = named("min", smallest(p, flat(self, p))), named("max", largest(q, flat(self, q)))
    return where(least == most, least - 1, least), where(least == most, most + 1, most)
