"""Views: the same numbers under other indices. The body of each law is one reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from openheart.formula.expr import Expr, Leaf, Number, Ref
from openheart.rules.registry import rule
from openheart.rules.strides import Position, Region, Term, indices, nested, position, reshaped


def dimension(dim: int, rank: int) -> int:
    """A dimension counted from the left, also when it was given from the right."""
    return dim % rank if rank else 0


def replaced(at: Sequence[Expr], dim: int, place: Expr) -> tuple[Expr, ...]:
    """The indices `at`, with another one at `dim`."""
    return (*at[:dim], place, *at[dim + 1 :])


def bounds(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    """Where a slice starts and ends, as Python clamps it."""
    first, last, _ = slice(start, end).indices(size)
    return first, max(first, last)


@rule("detach", "detach_", "alias", "clone", "contiguous", "lift", "detach_copy", "alias_copy")
@rule("resolve_conj", "resolve_neg")
def same(self: Any, *, at: Any) -> Expr:
    # the same element
    return Ref(self, tuple(at))


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy", "_reshape_copy")
def view(self: Any, *, at: Any, result: Any) -> Expr:
    # the same place in row-major order: out[i, j] = self[(i·J + j) // K, (i·J + j) mod K]
    return Ref(self, reshaped(at, result.shape, self.shape))


@rule("permute", "permute_copy")
def permute(self: Any, dims: Any, *, at: Any) -> Expr:
    places: list[Expr] = [Number(0)] * self.ndim
    for i, dim in zip(at, dims, strict=True):
        places[dimension(dim, self.ndim)] = i
    return Ref(self, tuple(places))


@rule("transpose.int", "transpose_", "transpose_copy.int", "swapaxes")
def transpose(self: Any, dim0: int, dim1: int, *, at: Any) -> Expr:
    # two indices change places
    places = list(at)
    if places:
        a, b = dimension(dim0, self.ndim), dimension(dim1, self.ndim)
        places[a], places[b] = places[b], places[a]
    return Ref(self, tuple(places))


@rule("t", "t_", "t_copy", "numpy_T")
def t(self: Any, *, at: Any) -> Expr:
    # the transpose of self
    return Ref(self, tuple(reversed(at)))


@rule("expand", "expand_copy")
def expand(self: Any, *, at: Any) -> Expr:
    # a dimension of size 1 is read again and again
    return self.broadcast(at)


@rule("slice.Tensor", "slice_copy.Tensor")
def slice_(self: Any, dim: int, start: int | None, end: int | None, step: int, *, at: Any) -> Expr:
    # element i of the slice is element start + step·i
    d = dimension(dim, self.ndim)
    first, _ = bounds(start, end, self.shape[d])
    return Ref(self, replaced(at, d, first + step * at[d]))


@rule("narrow")
def narrow(self: Any, dim: int, start: int, *, at: Any) -> Expr:
    d = dimension(dim, self.ndim)
    return Ref(self, replaced(at, d, start % max(self.shape[d], 1) + at[d]))


@rule("select.int", "select_copy.int")
def select(self: Any, dim: int, index: int, *, at: Any) -> Expr:
    d = dimension(dim, self.ndim)
    return Ref(self, (*at[:d], Number(index % self.shape[d]), *at[d:]))


@rule("unsqueeze", "unsqueeze_", "unsqueeze_copy")
def unsqueeze(self: Any, dim: int, *, at: Any) -> Expr:
    # a new dimension of size 1
    d = dimension(dim, self.ndim + 1)
    return Ref(self, (*at[:d], *at[d + 1 :]))


@rule("squeeze", "squeeze_", "squeeze_copy")
def squeeze(self: Any, *, at: Any) -> Expr:
    return _squeezed(self, at, range(self.ndim))


@rule("squeeze.dim", "squeeze.dims", "squeeze_.dim", "squeeze_.dims")
@rule("squeeze_copy.dim", "squeeze_copy.dims")
def squeeze_dims(self: Any, dim: Any, *, at: Any) -> Expr:
    return _squeezed(self, at, [dim] if isinstance(dim, int) else dim)


def _squeezed(self: Any, at: Sequence[Expr], dims: Sequence[int]) -> Expr:
    """Dimensions of size 1 among `dims` are gone from `at`."""
    gone = {dimension(d, self.ndim) for d in dims if self.ndim and self.shape[d] == 1}
    left = iter(at)
    return Ref(self, tuple(Number(0) if d in gone else next(left) for d in range(self.ndim)))


@rule("split.Tensor", "unsafe_split.Tensor", "split_copy.Tensor")
def split(self: Any, split_size: int, dim: int, *, at: Any, position: int) -> Expr:
    # part p starts at p·split_size
    d = dimension(dim, self.ndim)
    return Ref(self, replaced(at, d, position * split_size + at[d]))


@rule("split.sizes", "split_with_sizes", "unsafe_split_with_sizes", "split_with_sizes_copy")
def split_with_sizes(self: Any, split_sizes: Any, dim: int, *, at: Any, position: int) -> Expr:
    d = dimension(dim, self.ndim)
    return Ref(self, replaced(at, d, sum(split_sizes[:position]) + at[d]))


@rule("chunk", "unsafe_chunk")
def chunk(self: Any, chunks: int, dim: int, *, at: Any, position: int) -> Expr:
    d = dimension(dim, self.ndim)
    return Ref(self, replaced(at, d, position * -(-self.shape[d] // chunks) + at[d]))


@rule("unbind.int", "unbind_copy.int")
def unbind(self: Any, dim: int, *, at: Any, position: int) -> Expr:
    d = dimension(dim, self.ndim)
    return Ref(self, (*at[:d], Number(position), *at[d:]))


@rule("diagonal", "diagonal_copy")
def diagonal(self: Any, offset: int, dim1: int, dim2: int, *, at: Any) -> Expr:
    # out[…, i] = self[…, i, i + offset]
    a, b = dimension(dim1, self.ndim), dimension(dim2, self.ndim)
    return Ref(self, on_diagonal(at, self.ndim, offset, a, b))


def on_diagonal(at: Sequence[Expr], rank: int, offset: int, a: int, b: int) -> tuple[Expr, ...]:
    """The indices of a diagonal's element: `at` without its last index runs over the other dimensions."""
    others = iter(at[:-1])
    i = at[-1]
    places = {a: i + max(-offset, 0), b: i + max(offset, 0)}
    return tuple(places[d] if d in places else next(others) for d in range(rank))


@rule("unfold", "unfold_copy")
def unfold(self: Any, dimension: int, step: int, *, at: Any) -> Expr:
    # window i starts at step·i, and its elements are the last dimension
    if self.ndim == 0:
        return Ref(self, ())
    d = dimension % self.ndim
    return Ref(self, replaced(at[:-1], d, step * at[d] + at[-1]))


@rule("movedim.int", "movedim.intlist")
def movedim(self: Any, source: Any, destination: Any, *, at: Any) -> Expr:
    rank = self.ndim
    pairs = (
        [(source, destination)] if isinstance(source, int) else list(zip(source, destination, strict=True))
    )
    moved = {dimension(s, rank): dimension(d, rank) for s, d in pairs}
    free = iter(d for d in range(rank) if d not in moved.values())
    return Ref(self, tuple(at[moved[d] if d in moved else next(free)] for d in range(rank)))


@rule("as_strided", "as_strided_", "as_strided_copy")
def as_strided(
    self: Any, size: Any, stride: Any, storage_offset: int | None, *, at: Any, geometry: Any
) -> Expr:
    # The place in memory, offset + Σ stride·index, taken apart by self's own strides. A place in memory that
    # self does not show is not an element of it, and no recorded number says what it holds.
    held = geometry["self"]
    offset = held.offset if storage_offset is None else storage_offset
    place = position(at, size, stride, offset - held.offset)
    if 0 in size or (nested(held.shape, held.stride) and not held.bits and _shown(place, held)):
        return Ref(self, indices(place, held.shape, held.stride)[0])
    return Leaf("external")


def _shown(place: Position, held: Region) -> bool:
    """Whether every place that a view reaches is an element of the tensor that it views."""
    if place.constant < 0:
        return False
    own = Position(tuple(Term(Number(0), n, s) for n, s in zip(held.shape, held.stride, strict=True)))
    if own.most() + 1 == math.prod(held.shape):
        return place.most() <= own.most()
    shown = np.zeros(max(own.most(), place.most()) + 1, dtype=bool)
    shown[_places(own)] = True
    return bool(np.all(shown[_places(place)]))


def _places(place: Position) -> Any:
    """All the values of a position."""
    reached = np.asarray([place.constant])
    for term in place.terms:
        reached = np.add.outer(reached, term.step * np.arange(term.extent)).reshape(-1)
    return reached
