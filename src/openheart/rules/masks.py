"""Boolean masks: the n-th place where a mask holds, found by counting the places before it.

`before[p]` counts the places before p where the mask holds, so place p is the n-th one when it holds
there and before[p] = n. Masks are read flat, in row-major order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from openheart.formula.expr import Definition, Expr, Number, Operand, count, define, index, total, where
from openheart.rules.registry import rule
from openheart.rules.strides import reshaped

Condition = Callable[[Expr], Expr]


def flat(tensor: Any, p: Operand, shape: Sequence[int] | None = None) -> Expr:
    """Element p, in row-major order, of a tensor broadcast to `shape`."""
    wide = tuple(tensor.shape) if shape is None else tuple(shape)
    return tensor.broadcast(reshaped((p,), (math.prod(wide),), wide))  # type: ignore[arg-type]


def row_major_place(at: Sequence[Expr], shape: Sequence[int]) -> Expr:
    """Where element `at` stands in row-major order."""
    return reshaped(at, shape, (math.prod(shape),))[0]


def earlier(held: Condition, size: int) -> Definition:
    """before[p]: in how many of `size` places before p the condition holds."""
    p, q = index("p", size), index("q", size)
    return define("before", (p,), count(q, where=held(q) & (q < p)), kind="int")


def nth(held: Condition, size: int, found: int) -> Definition:
    """place[n]: where, among `size` places, the condition holds for the n-th time; it does `found` times."""
    n, p = index("n", found), index("p", size)
    place = total(p, p, where=held(p) & (earlier(held, size)[p] == n))
    return define("place", (n,), place, kind="int")


def before(mask: Any, shape: Sequence[int] | None = None) -> Definition:
    """before[p]: in how many places before p the mask, broadcast to `shape`, holds."""
    size = math.prod(mask.shape if shape is None else shape)
    return earlier(lambda p: flat(mask, p, shape) != 0, size)


def places(mask: Any, found: int, shape: Sequence[int] | None = None) -> Definition:
    """place[n]: where the mask holds for the n-th time, in row-major order; `found` is how often it does."""
    size = math.prod(mask.shape if shape is None else shape)
    return nth(lambda p: flat(mask, p, shape) != 0, size, found)


@rule("nonzero", "nonzero.out")
def nonzero(self: Any, *, at: Any, result: Any) -> Expr:
    # out[n, d] is coordinate d of the n-th element that is not zero
    n, d = at
    place = places(self, result.shape[0])[n]
    coordinates = reshaped((place,), (math.prod(self.shape),), self.shape)
    made: Expr = Number(0)
    for axis, coordinate in reversed(list(enumerate(coordinates))):
        made = coordinate if axis == self.ndim - 1 else where(d == axis, coordinate, made)
    return made


@rule("masked_select", "masked_select.out")
def masked_select(self: Any, mask: Any, *, at: Any, result: Any) -> Expr:
    # out[n] is the n-th element where the mask holds
    shape = broadcast_shape(self.shape, mask.shape)
    return flat(self, places(mask, result.shape[0], shape)[at[0]], shape)


@rule("masked_scatter", "masked_scatter_")
def masked_scatter(self: Any, mask: Any, source: Any, *, at: Any, result: Any) -> Expr:
    # where the mask holds for the n-th time: the n-th element of the source
    n = before(mask, result.shape)[row_major_place(at, result.shape)]
    return where(mask.broadcast(at), flat(source, n), self.broadcast(at))


@rule("masked_scatter_backward")
def masked_scatter_backward(grad_output: Any, mask: Any, sizes: Any, *, at: Any) -> Expr:
    # source's n-th element gets the gradient of the n-th place where the mask holds
    n = row_major_place(at, sizes)
    p = index("p", math.prod(grad_output.shape))
    held = (flat(mask, p, grad_output.shape) != 0) & (before(mask, grad_output.shape)[p] == n)
    return total(p, flat(grad_output, p), where=held)


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that shapes broadcast to."""
    rank = max(len(s) for s in shapes)
    wide = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    return tuple(next((n for n in sizes if n != 1), 1) for sizes in zip(*wide, strict=True))
