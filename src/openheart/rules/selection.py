"""Order statistics: sorted numbers, the largest k, the k-th, the median and the mode.

These laws are tests, not formulas: what was selected is an element of the input, and so many others are
smaller. A number that fails its test is shown as another number, which disagrees. NaN counts as larger than
every number, and equal to NaN, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from openheart.formula.expr import (
    Expr,
    Index,
    Number,
    Operand,
    Ref,
    Tensor,
    both,
    count,
    define,
    everywhere,
    exists,
    expr,
    index,
    total,
    where,
)
from openheart.formula.functions import isnan
from openheart.rules.reduction import across
from openheart.rules.registry import rule


def less(a: Expr, b: Expr, kind: str) -> Expr:
    """A < b, NaN being the largest."""
    return (a < b) | (isnan(b) & ~isnan(a)) if kind == "float" else a < b


def same(a: Expr, b: Expr, kind: str) -> Expr:
    """A = b, NaN being equal to itself."""
    return (a == b) | (isnan(a) & isnan(b)) if kind == "float" else a == b


def passed(test: Operand, value: Expr, kind: str) -> Expr:
    """The value if it passes its test, else another one."""
    wrong = where(isnan(value), 0.0, float("nan")) if kind == "float" else value + 1
    if kind == "bool":
        wrong = ~value
    return where(test, value, wrong)


def line(x: Tensor, dim: int, at: Sequence[Index]) -> tuple[int, Index, Callable[[Operand], Ref]]:
    """The dimension, an index k along it, and the element of `x` at a place of the line through `at`."""
    d = dim % x.ndim
    return d, index("k", x.shape[d]), lambda place: x[(*at[:d], place, *at[d + 1 :])]


def reduced_line(
    x: Tensor, dim: int, keepdim: bool, at: Sequence[Index]
) -> tuple[Index, Callable[[Operand], Ref]]:
    """The same for a dimension that the output has lost, or keeps with size 1."""
    d = dim % x.ndim
    after = at[d + 1 :] if keepdim else at[d:]
    return index("k", x.shape[d]), lambda place: x[(*at[:d], place, *after)]


# -- sorting -----------------------------------------------------------------------------------------


@rule("sort", "sort.stable", "sort.values", "sort.values_stable")
def sorted_values(self: Any, dim: Any, *, at: Any, out: Any) -> Expr:
    # the i-th is the element that stands at the i-th index
    if self.ndim == 0:
        return expr(self[()])
    _, _, element = line(self, dim, at)
    return element(out[1][at])


@rule("sort", "sort.values", output=1)
def sorted_indices(self: Any, dim: Any, descending: Any, *, at: Any, out: Any) -> Expr:
    return sorted_places(self, dim, descending, at, out, stable=False)


@rule("sort.stable", "sort.values_stable", output=1)
def stably_sorted_indices(self: Any, stable: Any, dim: Any, descending: Any, *, at: Any, out: Any) -> Expr:
    return sorted_places(self, dim, descending, at, out, stable=bool(stable))


def sorted_places(
    x: Tensor, dim: int, descending: bool, at: Sequence[Index], out: Sequence[Tensor], stable: bool
) -> Expr:
    # each place occurs once, and no number comes before a smaller one (stable: equal ones keep their order)
    if x.ndim == 0:
        return Number(0)
    d, k, element = line(x, dim, at)
    place, before = out[1][at], out[1][(*at[:d], at[d] - 1, *at[d + 1 :])]
    i = [index("n", size) for size in x.shape]
    held = out[1][(*i[:d], k, *i[d + 1 :])]
    occurs = define("occurs", i, total(k, Number(1), where=held == i[d]), kind="int")
    once = occurs[(*at[:d], place, *at[d + 1 :])] == 1
    here, last = element(place), element(before)
    ordered = ~(less(last, here, x.kind) if descending else less(here, last, x.kind))
    if stable:
        ordered = ordered & (~same(here, last, x.kind) | (before < place))
    return passed(both(once, (at[d] == 0) | ordered), place, "int")


# -- the largest k -----------------------------------------------------------------------------------


@rule("topk", "topk.values")
def top_values(self: Any, dim: Any, *, at: Any, out: Any) -> Expr:
    return expr(sorted_values(self, dim, at=at, out=out))


@rule("topk", "topk.values", output=1)
def top_indices(self: Any, k: Any, dim: Any, largest: Any, sorted: Any, *, at: Any, out: Any) -> Expr:
    # fewer than k numbers are larger (fewer than i + 1 when sorted), and no place is taken twice
    if self.ndim == 0:
        return Number(0)
    d, j, element = line(self, dim, at)
    place = out[1][at]
    here, other = element(place), element(j)
    beyond = count(j, less(here, other, self.kind) if largest else less(other, here, self.kind))
    m = index("m", k)
    taken = count(m, out[1][(*at[:d], m, *at[d + 1 :])] == place)
    return passed((beyond <= (at[d] if sorted else k - 1)) & (taken == 1), place, "int")


# -- the k-th, and the median ------------------------------------------------------------------------


def is_at_rank(v: Expr, rank: Operand, over: Sequence[Index], x: Expr, kind: str) -> Expr:
    """Whether, were the numbers sorted, v would stand at place `rank`."""
    below = count(over, less(x, v, kind))
    equal = count(over, same(x, v, kind))
    return (below <= rank) & (below + equal > rank)


@rule(
    "kthvalue", "kthvalue.values", "median.dim", "median.dim_values", "nanmedian.dim", "nanmedian.dim_values"
)
def selected_value(self: Any, dim: Any, keepdim: Any, *, at: Any, out: Any) -> Expr:
    # the element that stands at the index
    if self.ndim == 0:
        return expr(self[()])
    _, element = reduced_line(self, dim, keepdim, at)
    return element(out[1][at])


@rule("kthvalue", "kthvalue.values", output=1)
def kth_place(self: Any, k: Any, dim: Any, keepdim: Any, *, at: Any, out: Any) -> Expr:
    if self.ndim == 0:
        return Number(0)
    j, element = reduced_line(self, dim, keepdim, at)
    place = out[1][at]
    return passed(is_at_rank(element(place), k - 1, [j], element(j), self.kind), place, "int")


def is_median(v: Expr, over: Sequence[Index], x: Expr, kind: str, ignore_nan: bool) -> Expr:
    """Whether v is the lower median: NaN where there is one, unless those are left out."""
    n = 1
    for k in over:
        n *= k.extent
    if kind != "float":
        return is_at_rank(v, (n - 1) // 2, over, x, kind)
    if ignore_nan:
        numbers = count(over, ~isnan(x))
        return is_at_rank(v, where(numbers > 0, (numbers - 1) // 2, 0), over, x, kind)
    return where(exists(over, isnan(x)), isnan(v), is_at_rank(v, (n - 1) // 2, over, x, kind))


@rule("median.dim", "median.dim_values", output=1)
def median_place(self: Any, dim: Any, keepdim: Any, *, at: Any, out: Any) -> Expr:
    return place_of_median(self, dim, keepdim, at, out, ignore_nan=False)


@rule("nanmedian.dim", "nanmedian.dim_values", output=1)
def nanmedian_place(self: Any, dim: Any, keepdim: Any, *, at: Any, out: Any) -> Expr:
    return place_of_median(self, dim, keepdim, at, out, ignore_nan=True)


def place_of_median(
    x: Tensor, dim: int, keepdim: bool, at: Sequence[Index], out: Sequence[Tensor], ignore_nan: bool
) -> Expr:
    if x.ndim == 0:
        return Number(0)
    j, element = reduced_line(x, dim, keepdim, at)
    place = out[1][at]
    return passed(is_median(element(place), [j], element(j), x.kind, ignore_nan), place, "int")


@rule("median")
def median(self: Any, *, at: Any, result: Any) -> Expr:
    over, x = across(self, None, False, at)
    return median_of_all(self, over, x, result[()], ignore_nan=False)


@rule("nanmedian")
def nanmedian(self: Any, *, at: Any, result: Any) -> Expr:
    over, x = across(self, None, False, at)
    return median_of_all(self, over, x, result[()], ignore_nan=True)


def median_of_all(self: Tensor, over: Sequence[Index], x: Ref, v: Ref, ignore_nan: bool) -> Expr:
    # the median is an element of the input, and stands in the middle
    if not over:
        return x
    return passed(is_median(v, over, x, self.kind, ignore_nan), v, self.kind)


# -- the mode ----------------------------------------------------------------------------------------


@rule("mode", "mode.values")
def mode_value(self: Any, dim: Any, keepdim: Any, *, at: Any, out: Any) -> Expr:
    return expr(selected_value(self, dim, keepdim, at=at, out=out))


@rule("mode", "mode.values", output=1)
def mode_place(self: Any, dim: Any, keepdim: Any, *, at: Any, out: Any) -> Expr:
    # no number occurs more often, and none that occurs as often is smaller
    if self.ndim == 0:
        return Number(0)
    k, element = reduced_line(self, dim, keepdim, at)
    j = index("j", k.extent)
    place = out[1][at]
    v, other = element(place), element(k)
    often = count(j, element(j) == v)
    others = count(j, element(j) == other)
    right = everywhere(k, (others < often) | ((others == often) & (v <= other)))
    return passed(right, place, "int")
