"""Reading by index: each element of the output says which element of the input it is.

Index tensors may count from the end (`x[-1]`); `mod n` brings those to their place and leaves the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openheart.formula.expr import Expr, Leaf, Number, Ref, count, define, index, smallest, total, where
from openheart.formula.functions import isnan, minimum
from openheart.rules.masks import broadcast_shape, earlier, flat, nth, places, row_major_place
from openheart.rules.registry import rule
from openheart.rules.strides import reshaped
from openheart.rules.views import dimension, replaced


@dataclass(frozen=True, slots=True)
class Places:
    """What `x[indices]` selects: for each dimension of x the place, or None where all of it is taken."""

    parts: tuple[Expr | None, ...]
    first: int
    """Which dimension of the result is the first that the index tensors made."""
    rank: int
    """How many dimensions the index tensors made."""

    def source(self, at: Sequence[Expr]) -> tuple[Expr, ...]:
        """The element of x that element `at` of the result is."""
        rest = iter((*at[: self.first], *at[self.first + self.rank :]))
        return tuple(next(rest) if part is None else part for part in self.parts)


def index_shape(indices: Sequence[Any], found: int | None) -> tuple[int, ...]:
    """The shape that index tensors broadcast to; `found` is how often a mask among them holds."""
    shapes = [(found or 0,) if is_mask(t) else t.shape for t in indices if t is not None]
    return broadcast_shape(*shapes) if shapes else ()


def first_dimension(indices: Sequence[Any]) -> int:
    """Where the index tensors' dimensions stand in the result: where they stood together, else first."""
    taken = [n for n, t in enumerate(spread(indices)) if t is not None]
    return taken[0] if taken and taken == list(range(taken[0], taken[-1] + 1)) else 0


def is_mask(tensor: Any) -> bool:
    return tensor is not None and (tensor.kind == "bool" or tensor.dtype == "uint8")


def spread(indices: Sequence[Any]) -> list[Any]:
    """The indices with a mask as often as it has dimensions."""
    return [t for t in indices for _ in range(t.ndim if is_mask(t) else 1)]


def chosen(self: Any, indices: Any, b: Sequence[Expr], found: int | None) -> tuple[Expr | None, ...]:
    """For each dimension of self: the place that the index tensors give at `b`, None where they give none."""
    parts: list[Expr | None] = []
    alone = sum(t is not None for t in indices) == 1
    for tensor in indices:
        if tensor is None:
            parts.append(None)
        elif not is_mask(tensor):
            parts.append(tensor.broadcast(b) % self.shape[len(parts)])
        else:
            p = index("p", math.prod(tensor.shape))
            n = b[-1] if alone else minimum(b[-1], count(p, where=flat(tensor, p) != 0) - 1)
            place = places(tensor, found or 0)[n]
            parts.extend(reshaped((place,), (math.prod(tensor.shape),), tensor.shape))
    return (*parts, *[None] * (self.ndim - len(parts)))


@rule("index.Tensor", "index.Tensor_out", "_unsafe_index.Tensor")
def index_tensor(self: Any, indices: Any, *, at: Any, result: Any) -> Expr:
    # out[…] = self[indices₀[…], indices₁[…], …]
    first = first_dimension(indices)
    whole = self.ndim - sum(t is not None for t in spread(indices))
    rank = result.ndim - whole
    b = at[first : first + rank]
    found = result.shape[first + rank - 1] if rank else None
    return Ref(self, Places(chosen(self, indices, b, found), first, rank).source(at))


@rule("gather", "gather.out")
def gather(self: Any, dim: int, index: Any, *, at: Any) -> Expr:
    # the index says which element along `dim`; the other indices stay
    if not self.ndim:
        return Ref(self, ())
    return Ref(self, replaced(at, dimension(dim, self.ndim), Ref(index, tuple(at))))


@rule("index_select", "index_select.out")
def index_select(self: Any, dim: int, index: Any, *, at: Any) -> Expr:
    # slice i is slice index[i] of self
    if not self.ndim:
        return Ref(self, ())
    d = dimension(dim, self.ndim)
    return Ref(self, replaced(at, d, index[at[d]] if index.ndim else index[()]))


@rule("take", "take.out")
def take(self: Any, index: Any, *, at: Any) -> Expr:
    # self as if it were flat
    return flat(self, Ref(index, tuple(at)) % math.prod(self.shape))


@rule("repeat_interleave.Tensor")
def repeat_interleave(repeats: Any, *, at: Any) -> Expr:
    # out[n] = how many of the running totals repeats₀ + … + repeatsₚ are ≤ n: each p comes repeatsₚ times
    (n,) = at
    p, q = index("p", repeats.shape[0]), index("q", repeats.shape[0])
    reached = define("reached", (p,), total(q, repeats[q], where=q <= p), kind="int")
    return count(p, where=reached[p] <= n)


@rule("tril_indices")
def tril_indices(row: int, col: int, offset: int, *, at: Any, result: Any) -> Expr:
    return _triangle(row, col, result.shape[1], at, lambda i, j: j - i <= offset)


@rule("triu_indices")
def triu_indices(row: int, col: int, offset: int, *, at: Any, result: Any) -> Expr:
    return _triangle(row, col, result.shape[1], at, lambda i, j: j - i >= offset)


def _triangle(row: int, col: int, found: int, at: Sequence[Expr], held: Any) -> Expr:
    """Row (d = 0) and column (d = 1) of the n-th place of a row × col matrix where the condition holds."""
    d, n = at
    place = nth(lambda p: held(p // col, p % col), row * col, found)[n]
    return where(d == 0, place // col, place % col)


# -- searching ---------------------------------------------------------------------------------------


@rule("bucketize.Tensor", "bucketize.Scalar")
def bucketize(self: Any, boundaries: Any, right: bool, *, at: Any) -> Expr:
    # how many boundaries lie below self (or at it, with right=True); NaN sorts after all
    k = index("k", boundaries.shape[0])
    x = self if not at and not hasattr(self, "shape") else self[at]
    return count(k, where=_precedes(boundaries[k], x, right))


@rule("searchsorted.Tensor", "searchsorted.Scalar")
def searchsorted(
    sorted_sequence: Any, self: Any, right: bool, side: str | None, sorter: Any, *, at: Any
) -> Expr:
    # how many elements of the sorted row lie below self (or at it, on the right side)
    k = index("k", sorted_sequence.shape[-1])
    row = at[:-1] if sorted_sequence.ndim > 1 else ()
    place: Expr = k if sorter is None else sorter[(*row, k)]
    x = self[at] if hasattr(self, "shape") else self
    return count(k, where=_precedes(sorted_sequence[(*row, place)], x, right or side == "right"))


def _precedes(boundary: Expr, x: Expr, right: bool) -> Expr:
    return ~(boundary > x) if right else ~(boundary >= x)


@rule("isin.Tensor_Tensor")
def isin(elements: Any, test_elements: Any, invert: bool, *, at: Any) -> Expr:
    p = index("p", math.prod(test_elements.shape))
    found = count(p, where=flat(test_elements, p) == elements[at])
    return found == 0 if invert else found > 0


@rule("isin.Tensor_Scalar")
def isin_scalar(elements: Any, test_element: Any, invert: bool, *, at: Any) -> Expr:
    return elements[at] != test_element if invert else elements[at] == test_element


# -- counting ----------------------------------------------------------------------------------------


@rule("_unique2", "_unique")
def unique(self: Any, *, at: Any, out: Any) -> Expr:
    # the values in order, each once: the smallest of all, then the smallest above the one before; then the
    # NaNs, each of which is a value of its own
    (n,) = at
    p = index("p", math.prod(self.shape))
    x = flat(self, p)
    if self.kind != "float":
        return where(n == 0, smallest(p, x), smallest(p, x, where=x > out[0][n - 1]))
    above = where(n == 0, ~isnan(x), x > out[0][n - 1])
    return where(count(p, where=above) > 0, smallest(p, x, where=above), math.nan)


@rule("_unique2", "_unique", output=1)
def unique_inverse(self: Any, *, at: Any, out: Any) -> Expr:
    # which of the unique values this is: how many of them are smaller
    if len(at) != self.ndim:
        return Number(0)  # nobody asked: the output is empty
    n = index("n", out[0].shape[0])
    smaller = count(n, where=out[0][n] < self[at])
    if self.kind != "float":
        return smaller
    # of a NaN: how many values are none, and how many NaNs come before it
    numbers = count(n, where=~isnan(out[0][n]))
    nans = earlier(lambda p: isnan(flat(self, p)), math.prod(self.shape) + 1)
    return where(isnan(self[at]), numbers + nans[row_major_place(at, self.shape)], smaller)


@rule("_unique2", output=2)
def unique_counts(self: Any, *, at: Any, out: Any) -> Expr:
    p = index("p", math.prod(self.shape))
    times = count(p, where=flat(self, p) == out[0][at[0]])
    return times if self.kind != "float" else where(isnan(out[0][at[0]]), 1, times)


def _changes(self: Any, p: Expr) -> Expr:
    """Whether a new run of equal values begins at p."""
    return (p == 0) | (flat(self, p) != flat(self, p - 1))


@rule("unique_consecutive")
def unique_consecutive(self: Any, *, at: Any, result: Any, dim: int | None) -> Expr:
    # the first value of each run of equal values
    if dim is not None and self.ndim > 1:
        return Leaf("external")
    size = math.prod(self.shape)
    return flat(self, nth(lambda p: _changes(self, p), size, result.shape[0])[at[0]])


@rule("unique_consecutive", output=1)
def unique_consecutive_inverse(self: Any, *, at: Any, dim: int | None) -> Expr:
    if dim is not None and self.ndim > 1:
        return Leaf("external")
    if len(at) != self.ndim:
        return Number(0)
    return (
        earlier(lambda p: _changes(self, p), math.prod(self.shape) + 1)[row_major_place(at, self.shape) + 1]
        - 1
    )


@rule("unique_consecutive", output=2)
def unique_consecutive_counts(self: Any, *, at: Any, result: Any, dim: int | None) -> Expr:
    # from where one run begins to where the next one does
    if dim is not None and self.ndim > 1:
        return Leaf("external")
    size = math.prod(self.shape)
    begins = nth(lambda p: _changes(self, p), size, result.shape[0])
    n = at[0]
    return where(n == result.shape[0] - 1, size, begins[n + 1]) - begins[n]
