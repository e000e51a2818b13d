"""Sums, means, products and extremes over some of a tensor's dimensions.

Half-precision sums are added in float32 along the innermost run of summed numbers and put into an output of
half precision after each run, so what several runs add up to is rounded run by run
(aten/src/ATen/native/cpu/SumKernel.cpp).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from openheart.formula.expr import (
    Expr,
    Index,
    Number,
    Ref,
    Tensor,
    argmax,
    argmin,
    count,
    everywhere,
    exists,
    expr,
    index,
    largest,
    mean,
    product,
    smallest,
    total,
    where,
)
from openheart.formula.functions import computed_in, isnan
from openheart.formula.precision import FLOAT32, Precision
from openheart.rules.convolution import is_half
from openheart.rules.registry import cast, format_of, rule

PARALLEL = 1 << 15
"""From this many numbers on (at::internal::GRAIN_SIZE), threads add up parts of a sum on their own."""


def dimensions(dim: Any, ndim: int) -> list[int]:
    """The dimensions that an operator reduces, in order: all of them when none is given."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(ndim))
    listed = dim if isinstance(dim, (list, tuple)) else [dim]
    return sorted({d % max(ndim, 1) for d in listed}) if ndim else []


def across(x: Tensor, dim: Any, keepdim: bool, at: Sequence[Index]) -> tuple[list[Index], Ref]:
    """Index variables over the reduced dimensions, and the element of `x` that they and `at` meet."""
    dims = dimensions(dim, x.ndim)
    over = [index("k" + "′" * n, x.shape[d]) for n, d in enumerate(dims)]
    reduced, kept = iter(over), iter(at)
    place: list[Index] = []
    for d in range(x.ndim):
        if d in dims:
            place.append(next(reduced))
            if keepdim:
                next(kept)
        else:
            place.append(next(kept))
    return over, Ref(x, tuple(place))


def element(x: Ref, result: Tensor, geometry: Any, stored: Precision | None) -> Expr:
    """An element as the sum sees it: converted to the output's dtype first."""
    assert isinstance(x.tensor, Tensor)
    source = format_of(geometry["self"].dtype)
    if source is not None and stored is not None and source.unit < stored.unit:
        return computed_in(stored, computed_in(source, x))
    return cast(x, result.kind, x.tensor.kind)


def summed(over: Sequence[Index], body: Expr, x: Ref, geometry: Any, stored: Precision | None) -> Expr:
    """Σ body, as a sum over `x` is added up in the output's precision."""
    if stored is None or not is_half(stored):
        return total(over, body)
    runs = _runs(over, x, geometry)
    if math.prod(k.extent for k in over) >= PARALLEL and not x.free - set(over):
        return total(over, computed_in(stored, computed_in(FLOAT32, body)))
    if len(runs) < 2:
        return total(over, body)
    outer = [k for run in runs[1:] for k in run]
    return computed_in(stored, total(outer, computed_in(FLOAT32, total(runs[0], body))))


def _runs(over: Sequence[Index], x: Ref, geometry: Any) -> list[list[Index]]:
    """The summed dimensions, from the innermost of memory outwards, those that lie side by side together."""
    strides = dict(zip(x.index, geometry["self"].stride, strict=True))
    runs: list[list[Index]] = []
    reach = 0
    for k in sorted((k for k in over if k.extent > 1), key=lambda k: strides[k]):
        if runs and strides[k] == reach:
            runs[-1].append(k)
        else:
            runs.append([k])
        reach = strides[k] * k.extent
    return runs


@rule("sum.dim_IntList", "sum.IntList_out")
def sum_over(self: Any, dim: Any, keepdim: Any, *, at: Any, result: Any, geometry: Any, stored: Any) -> Expr:
    # out = Σ x
    over, x = across(self, dim, keepdim, at)
    return summed(over, element(x, result, geometry, stored), x, geometry, stored)


@rule("sum", "sum.out")
def sum_all(self: Any, *, at: Any, result: Any, geometry: Any, stored: Any) -> Expr:
    return expr(sum_over(self, None, False, at=at, result=result, geometry=geometry, stored=stored))


@rule("nansum", "nansum.out")
def sum_of_numbers(
    self: Any, dim: Any, keepdim: Any, *, at: Any, result: Any, geometry: Any, stored: Any
) -> Expr:
    # out = Σ x over the x that are numbers
    over, x = across(self, dim, keepdim, at)
    body = element(x, result, geometry, stored)
    present = where(isnan(x), 0.0, body) if self.kind == "float" else body
    return summed(over, present, x, geometry, stored)


@rule("mean.dim", "mean.out")
def mean_over(self: Any, dim: Any, keepdim: Any, *, at: Any, result: Any, geometry: Any, stored: Any) -> Expr:
    # out = (1/n) Σ x; the sum is kept in the output before it is divided
    over, x = across(self, dim, keepdim, at)
    body = element(x, result, geometry, stored)
    if not over:
        return body
    if stored is None or not is_half(stored):
        return mean(over, body)
    held = computed_in(FLOAT32, summed(over, body, x, geometry, stored))
    return computed_in(stored, held / math.prod(k.extent for k in over))


@rule("mean", "mean.dtype_out")
def mean_all(self: Any, *, at: Any, result: Any, geometry: Any, stored: Any) -> Expr:
    return expr(mean_over(self, None, False, at=at, result=result, geometry=geometry, stored=stored))


@rule("prod.dim_int", "prod.int_out")
def product_over(
    self: Any, dim: Any, keepdim: Any, *, at: Any, result: Any, geometry: Any, stored: Any
) -> Expr:
    # out = Π x
    over, x = across(self, dim, keepdim, at)
    made = product(over, element(x, result, geometry, stored))
    return computed_in(stored, made) if stored is not None and is_half(stored) else made


@rule("prod", "prod.out")
def product_all(self: Any, *, at: Any, result: Any, geometry: Any, stored: Any) -> Expr:
    return expr(product_over(self, None, False, at=at, result=result, geometry=geometry, stored=stored))


@rule("trace")
def trace(self: Any) -> Expr:
    # out = Σ x[k, k]
    k = index("k", min(self.shape))
    return total(k, self[k, k])


@rule("amax", "amax.out")
def largest_over(self: Any, dim: Any, keepdim: Any, *, at: Any) -> Expr:
    return largest(*across(self, dim, keepdim, at))


@rule("amin", "amin.out")
def smallest_over(self: Any, dim: Any, keepdim: Any, *, at: Any) -> Expr:
    return smallest(*across(self, dim, keepdim, at))


rule("max.dim", "max.dim_max")(largest_over)
rule("min.dim", "min.dim_min")(smallest_over)
rule("aminmax", output=0)(smallest_over)
rule("aminmax", output=1)(largest_over)


@rule("max", "max.unary_out")
def largest_of_all(self: Any, *, at: Any) -> Expr:
    return largest(*across(self, None, False, at))


@rule("min", "min.unary_out")
def smallest_of_all(self: Any, *, at: Any) -> Expr:
    return smallest(*across(self, None, False, at))


@rule("max.dim", "max.dim_max", "min.dim", "min.dim_min", output=1)
def place_of_extreme(self: Any, dim: Any, keepdim: Any, *, at: Any, out: Any) -> Expr:
    # the first place that holds the extreme, or the first NaN where the extreme is NaN
    over, x = across(self, dim, keepdim, at)
    if not over:
        return Number(0)
    (k,) = over
    first = smallest(k, k, where=x == out[0][at])
    if self.kind != "float":
        return first
    return where(isnan(out[0][at]), smallest(k, k, where=isnan(x)), first)


@rule("argmax", "argmax.out")
def place_of_largest(self: Any, dim: Any, keepdim: Any, *, at: Any) -> Expr:
    over, x = across(self, dim, keepdim, at)
    return argmax(over, x) if over else Number(0)


@rule("argmin", "argmin.out")
def place_of_smallest(self: Any, dim: Any, keepdim: Any, *, at: Any) -> Expr:
    over, x = across(self, dim, keepdim, at)
    return argmin(over, x) if over else Number(0)


def holds(x: Ref) -> Expr:
    """Whether an element counts as true."""
    assert isinstance(x.tensor, Tensor)
    return x if x.tensor.kind == "bool" else x != 0


@rule("any.dim", "any.dims", "any.out", "any.dims_out")
def any_over(self: Any, dim: Any, keepdim: Any, *, at: Any, result: Any) -> Expr:
    over, x = across(self, dim, keepdim, at)
    return cast(exists(over, holds(x)), result.kind, "bool")


@rule("all.dim", "all.dims", "all.out", "all.dims_out")
def all_over(self: Any, dim: Any, keepdim: Any, *, at: Any, result: Any) -> Expr:
    over, x = across(self, dim, keepdim, at)
    return cast(everywhere(over, holds(x)), result.kind, "bool")


@rule("any", "any.all_out", "_is_any_true")
def any_of_all(self: Any, *, at: Any, result: Any) -> Expr:
    return expr(any_over(self, None, False, at=at, result=result))


@rule("all", "all.all_out", "_is_all_true")
def all_of_all(self: Any, *, at: Any, result: Any) -> Expr:
    return expr(all_over(self, None, False, at=at, result=result))


@rule("count_nonzero.dim_IntList")
def count_over(self: Any, dim: Any, *, at: Any) -> Expr:
    over, x = across(self, dim, False, at)
    return count(over, holds(x)) if over else cast(holds(x), "int", "bool")


@rule("count_nonzero")
def count_all(self: Any, dim: Any, *, at: Any) -> Expr:
    return expr(count_over(self, dim, at=at))
