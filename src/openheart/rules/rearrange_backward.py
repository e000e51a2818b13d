"""Gradients of views and rearrangements: each gradient goes back to where its number came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openheart.formula.expr import Expr, Index, Leaf, Operand, Ref, both, index, total, where
from openheart.formula.functions import computed_in
from openheart.formula.precision import FLOAT32, Precision
from openheart.rules.rearrange import Place, clamped, mirrored, padded_dimensions
from openheart.rules.registry import rule
from openheart.rules.strides import Layout, inside
from openheart.rules.views import bounds, dimension, replaced


def stepwise(stored: Precision | None, x: Expr) -> Expr:
    """x, where a kernel adds up in the tensor's own format, so that bfloat16 rounds at every step."""
    return x if stored is None or stored.unit <= FLOAT32.unit else computed_in(stored, x)


def _in_slice(i: Expr, first: int, last: int, step: int, size: int) -> tuple[Expr, Operand]:
    """Which element of a slice i is, and whether it is one."""
    held: Operand = True
    if first > 0:
        held = both(held, i >= first)
    if last < size:
        held = both(held, i < last)
    if step > 1:
        held = both(held, (i - first) % step == 0)
    return (i - first) // step, held


@rule("slice_backward")
def slice_backward(
    grad_output: Any, input_sizes: Any, dim: int, start: int, end: int, step: int, *, at: Any
) -> Expr:
    # the slice's places get its gradient, all others 0
    d = dimension(dim, len(input_sizes))
    first, last = bounds(start, end, input_sizes[d])
    place, held = _in_slice(at[d], first, last, step, input_sizes[d])
    return where(held, Ref(grad_output, replaced(at, d, place)), 0)


@rule("slice_scatter")
def slice_scatter(
    self: Any, src: Any, dim: int, start: int | None, end: int | None, step: int, *, at: Any
) -> Expr:
    d = dimension(dim, self.ndim)
    first, last = bounds(start, end, self.shape[d])
    place, held = _in_slice(at[d], first, last, step, self.shape[d])
    return where(held, Ref(src, replaced(at, d, place)), self[at])


@rule("select_backward")
def select_backward(grad_output: Any, input_sizes: Any, dim: int, index: int, *, at: Any) -> Expr:
    d = dimension(dim, len(input_sizes))
    return where(at[d] == index % input_sizes[d], Ref(grad_output, (*at[:d], *at[d + 1 :])), 0)


@rule("select_scatter")
def select_scatter(self: Any, src: Any, dim: int, index: int, *, at: Any) -> Expr:
    d = dimension(dim, self.ndim)
    return where(at[d] == index % self.shape[d], Ref(src, (*at[:d], *at[d + 1 :])), self[at])


def _diagonal(at: Sequence[Expr], offset: int, dim1: int, dim2: int) -> tuple[tuple[Expr, ...], Operand]:
    """Which element of the diagonal `at` is, and whether it is one."""
    a, b = dimension(dim1, len(at)), dimension(dim2, len(at))
    rest = tuple(i for d, i in enumerate(at) if d not in (a, b))
    return (*rest, at[a] if offset >= 0 else at[b]), at[b] - at[a] == offset


@rule("diagonal_backward")
def diagonal_backward(grad_output: Any, offset: int, dim1: int, dim2: int, *, at: Any) -> Expr:
    place, held = _diagonal(at, offset, dim1, dim2)
    return where(held, Ref(grad_output, place), 0)


@rule("diagonal_scatter")
def diagonal_scatter(self: Any, src: Any, offset: int, dim1: int, dim2: int, *, at: Any) -> Expr:
    place, held = _diagonal(at, offset, dim1, dim2)
    return where(held, Ref(src, place), self[at])


@rule("diag_embed")
def diag_embed(self: Any, offset: int, dim1: int, dim2: int, *, at: Any) -> Expr:
    place, held = _diagonal(at, offset, dim1, dim2)
    return where(held, Ref(self, place), 0)


@rule("unfold_backward")
def unfold_backward(
    grad_in: Any, input_sizes: Any, dim: int, size: int, step: int, *, at: Any, stored: Any
) -> Expr:
    # every window that shows i gives its gradient: Σ over windows w and places k with step·w + k = i
    if not at:  # the one window of a single number shows it once, or not at all
        k = index("k", grad_in.shape[0])
        return total(k, grad_in[k])
    d = dimension(dim, len(input_sizes))
    w, k = index("w", grad_in.shape[d]), index("k", size)
    return stepwise(
        stored, total((w, k), Ref(grad_in, (*replaced(at, d, w), k)), where=step * w + k == at[d])
    )


@rule("as_strided_scatter")
def as_strided_scatter(
    self: Any, src: Any, size: Any, stride: Any, storage_offset: int | None, *, at: Any, geometry: Any
) -> Expr:
    # src where the element's place in memory is one of the view's, else self
    held = geometry["self"]
    offset = held.offset if storage_offset is None else storage_offset
    found = inside(at, held, Layout(tuple(size), tuple(stride), offset))
    return Leaf("external") if found is None else where(found[1], Ref(src, found[0]), self[at])


def _pad_backward(
    grad_output: Any, self: Any, padding: Sequence[int], at: Sequence[Expr], place: Place, stored: Any
) -> Expr:
    # Σ of the gradients of all places that showed this one
    places = list(at)
    over: list[Index] = []
    shown: Operand = True
    for d, before, after in padded_dimensions(padding, self.ndim):
        o = index(f"o{len(over) or ''}", grad_output.shape[d])
        over.append(o)
        places[d] = o
        shown = both(shown, place(o, before, self.shape[d], after) == at[d])
    return stepwise(stored, total(over, Ref(grad_output, tuple(places)), where=shown))


@rule("reflection_pad1d_backward", "reflection_pad2d_backward", "reflection_pad3d_backward")
def reflection_pad_backward(grad_output: Any, self: Any, padding: Any, *, at: Any, stored: Any) -> Expr:
    return _pad_backward(grad_output, self, padding, at, mirrored, stored)


@rule("replication_pad1d_backward", "replication_pad2d_backward", "replication_pad3d_backward")
def replication_pad_backward(grad_output: Any, self: Any, padding: Any, *, at: Any, stored: Any) -> Expr:
    return _pad_backward(grad_output, self, padding, at, clamped, stored)
