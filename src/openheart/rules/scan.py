"""Running sums, products and extremes along a dimension: each takes in all that stands up to its place.

PyTorch's kernels carry float32 scans in double, half-precision ones in float32, and round each result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openheart.formula.expr import (
    Expr,
    Index,
    Number,
    Ref,
    Tensor,
    expr,
    index,
    largest,
    product,
    smallest,
    total,
    where,
)
from openheart.formula.functions import double, exp, isinf, isnan, log
from openheart.formula.precision import FLOAT32
from openheart.rules.reduction import element
from openheart.rules.registry import rule


def along(x: Tensor, dim: int, at: Sequence[Index]) -> tuple[Index, Index, Ref] | None:
    """An index k along `dim`, the place of `at` there, and the element of `x` at k; None for a scalar."""
    if x.ndim == 0:
        return None
    d = dim % x.ndim
    k = index("k", x.shape[d])
    return k, at[d], Ref(x, (*at[:d], k, *at[d + 1 :]))


def carried(x: Expr, stored: Any) -> Expr:
    """A scan's result, in the precision in which the kernel carries it."""
    return double(x) if stored is FLOAT32 else x


@rule("cumsum", "cumsum_", "cumsum.out")
def running_sum(self: Any, dim: Any, *, at: Any, result: Any, geometry: Any, stored: Any) -> Expr:
    # out[i] = Σ_{k ≤ i} x[k]
    found = along(self, dim, at)
    if found is None:
        return element(self[()], result, geometry, stored)
    k, i, x = found
    return carried(total(k, element(x, result, geometry, stored), where=k <= i), stored)


@rule("cumprod", "cumprod_", "cumprod.out")
def running_product(self: Any, dim: Any, *, at: Any, result: Any, geometry: Any, stored: Any) -> Expr:
    # out[i] = Π_{k ≤ i} x[k]
    found = along(self, dim, at)
    if found is None:
        return element(self[()], result, geometry, stored)
    k, i, x = found
    return carried(product(k, element(x, result, geometry, stored), where=k <= i), stored)


@rule("logcumsumexp", "_logcumsumexp")
def running_logsumexp(self: Any, dim: Any, *, at: Any, stored: Any) -> Expr:
    # out[i] = m + log Σ_{k ≤ i} exp(x[k] − m), m the largest x up to i
    found = along(self, dim, at)
    if found is None:
        return expr(self[()])
    k, i, x = found
    m = largest(k, x, where=k <= i)
    shift = where(isinf(m), 0.0, m)
    return carried(shift + log(total(k, exp(x - shift), where=k <= i)), stored)


@rule("cummax")
def running_largest(self: Any, dim: Any, *, at: Any) -> Expr:
    found = along(self, dim, at)
    if found is None:
        return expr(self[()])
    k, i, x = found
    return largest(k, x, where=k <= i)


@rule("cummin")
def running_smallest(self: Any, dim: Any, *, at: Any) -> Expr:
    found = along(self, dim, at)
    if found is None:
        return expr(self[()])
    k, i, x = found
    return smallest(k, x, where=k <= i)


@rule("cummax", "cummin", output=1)
def place_of_running_extreme(self: Any, dim: Any, *, at: Any, out: Any) -> Expr:
    # the last place up to i that holds the extreme, or NaN where the extreme is NaN
    found = along(self, dim, at)
    if found is None:
        return Number(0)
    k, i, x = found
    extreme = out[0][at]
    last = largest(k, k, where=(k <= i) & (x == extreme))
    if self.kind != "float":
        return last
    return where(isnan(extreme), largest(k, k, where=(k <= i) & isnan(x)), last)
