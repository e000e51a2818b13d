"""Where an element lies: a position in memory taken apart into a tensor's indices.

A position is a sum of index variables times strides. Taking it apart by another tensor's strides gives that
tensor's indices; dimensions that both share come out untouched, and only what is really merged or split is
written with // and mod.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from openheart.formula.expr import Expr, Number, Operand, both, is_number


class Region(Protocol):
    """Where a tensor's elements lie in their memory, in elements."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def stride(self) -> tuple[int, ...]: ...
    @property
    def offset(self) -> int: ...


class Layout(NamedTuple):
    """A region that a law describes itself."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Term:
    """`step · ((base // divisor) mod extent)`, where the mod is only written when it does something."""

    base: Expr
    size: int
    """The base runs over 0 … size − 1."""
    step: int
    divisor: int = 1
    modulus: int | None = None

    @property
    def extent(self) -> int:
        """How many values the digit takes."""
        whole = -(-self.size // self.divisor)
        return whole if self.modulus is None else min(whole, self.modulus)

    def digit(self) -> Expr:
        """The digit itself, without its step."""
        if self.extent == 1:
            return Number(0)
        quotient = self.base // self.divisor
        return quotient if -(-self.size // self.divisor) == self.extent else quotient % self.extent

    def splits(self, stride: int) -> bool:
        """Whether the digit reaches over the stride, and a quotient and a remainder of it say where."""
        whole = stride % self.step == 0 and self.step * self.extent > stride
        return whole and (self.modulus is None or self.modulus % (stride // self.step) == 0)

    def quotient(self, factor: int, step: int) -> Term:
        """The digit's own quotient by `factor`."""
        modulus = None if self.modulus is None else self.modulus // factor
        return Term(self.base, self.size, step, self.divisor * factor, modulus)

    def remainder(self, factor: int) -> Term:
        """The digit's own remainder by `factor`."""
        return Term(self.base, self.size, self.step, self.divisor, min(factor, self.modulus or factor))


@dataclass(frozen=True, slots=True)
class Position:
    """Σ terms + constant, in elements of a storage."""

    terms: tuple[Term, ...]
    constant: int = 0

    def expression(self) -> Expr:
        """The position as a formula."""
        total: Expr = Number(0)
        for term in self.terms:
            digit = term.digit()
            if not is_number(digit, 0):
                total = total + (digit if term.step == 1 else term.step * digit)
        return total + self.constant if self.constant else total

    def most(self) -> int:
        """The largest value that it takes."""
        return self.constant + sum(t.step * (t.extent - 1) for t in self.terms)


def position(at: Sequence[Expr], shape: Sequence[int], strides: Sequence[int], constant: int = 0) -> Position:
    """Where element `at` of a tensor with these strides lies; `constant` is the tensor's offset."""
    terms = tuple(
        Term(i, size, stride)
        for i, size, stride in zip(at, shape, strides, strict=True)
        if size > 1 and stride
    )
    return Position(terms, constant)


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a contiguous tensor."""
    return tuple(math.prod(shape[a + 1 :]) for a in range(len(shape)))


def nested(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether each stride steps over all that smaller strides reach, so that a position has one reading."""
    reach = 0
    for stride, size in sorted(
        (stride, size) for stride, size in zip(strides, shape, strict=True) if size > 1
    ):
        if 0 < stride <= reach:
            return False
        reach += stride * (size - 1)
    return True


def indices(
    place: Position, shape: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[Expr, ...], Position]:
    """The indices of the element at `place` in a tensor of nested `strides`, and what is left over.

    What is left over is 0 when the place belongs to the tensor; an index outside its dimension says that
    it does not.
    """
    found: list[Expr] = [Number(0)] * len(shape)
    order = sorted((a for a, size in enumerate(shape) if size > 1 and strides[a]), key=lambda a: -strides[a])
    for a in order:
        whole, place = _divide(place, strides[a])
        found[a] = whole.expression()
    return tuple(found), place


def _divide(place: Position, stride: int) -> tuple[Position, Position]:
    """Quotient and remainder of a position by a stride."""
    whole: list[Term] = []
    rest: list[Term] = []
    for term in place.terms:
        if term.step % stride == 0:
            whole.append(Term(term.base, term.size, term.step // stride, term.divisor, term.modulus))
        elif term.splits(stride):
            factor = stride // term.step
            whole.append(term.quotient(factor, 1))
            rest.append(term.remainder(factor))
        else:
            rest.append(term)
    remainder = Position(tuple(rest), place.constant % stride)
    if remainder.most() < stride:
        return Position(tuple(whole), place.constant // stride), remainder
    flat = place.expression()
    size = place.most() + 1
    return Position((Term(flat, size, 1, stride),)), Position((Term(flat, size, 1, 1, stride),))


def reshaped(at: Sequence[Expr], shape: Sequence[int], to: Sequence[int]) -> tuple[Expr, ...]:
    """The indices into a tensor of shape `to` of element `at` of `shape`, both read in row-major order."""
    found, _ = indices(position(at, shape, row_major(shape)), to, row_major(to))
    return found


def inside(at: Sequence[Expr], held: Region, part: Region) -> tuple[tuple[Expr, ...], Operand] | None:
    """Where element `at` of the tensor `held` lies in `part`, a tensor in the same memory.

    Returns its indices in `part` and the condition that it is there at all; None when the strides of `part`
    overlap or interleave, so that a position has no single reading.
    """
    if 0 in part.shape:
        return tuple(Number(0) for _ in part.shape), False
    boxed = _as_box(at, held, part)
    if boxed is not None:
        return boxed
    if not nested(part.shape, part.stride):
        return None
    place = position(at, held.shape, held.stride, held.offset - part.offset)
    found: list[Expr] = [Number(0)] * len(part.shape)
    # Quotients and remainders read as indices only from where `part` begins.
    condition: Operand = place.expression() >= 0 if place.constant < 0 else True
    order = sorted((a for a, size in enumerate(part.shape) if size > 1), key=lambda a: -part.stride[a])
    for a in order:
        whole, place = _divide(place, part.stride[a])
        found[a] = whole.expression()
        if whole.most() >= part.shape[a]:
            condition = both(condition, found[a] < part.shape[a])
    if place.terms or place.constant:
        condition = both(condition, place.expression() == 0)
    return tuple(found), condition


def _as_box(at: Sequence[Expr], held: Region, part: Region) -> tuple[tuple[Expr, ...], Operand] | None:
    """`inside` for a part that is a box of `held`, some of its dimensions fixed, some stepped through."""
    if not nested(held.shape, held.stride):
        return None
    start = part.offset - held.offset
    dims = sorted(
        (a for a, size in enumerate(held.shape) if size > 1 and held.stride[a]), key=lambda a: -held.stride[a]
    )
    first: dict[int, int] = {}
    for a in dims:
        first[a], start = divmod(start, held.stride[a])
        if not 0 <= first[a] < held.shape[a]:
            return None
    if start:
        return None
    found: list[Expr] = [Number(0)] * len(part.shape)
    condition: Operand = True
    for b, (size, stride) in enumerate(zip(part.shape, part.stride, strict=True)):
        if size == 1:
            continue
        along = next((a for a in dims if a in first and stride % held.stride[a] == 0), None)
        if along is None or not stride:
            return None
        step = stride // held.stride[along]
        low, i = first.pop(along), at[along]
        if low + step * (size - 1) >= held.shape[along]:
            return None
        found[b] = (i - low) // step
        if low:
            condition = both(condition, i >= low)
        if low + step * size < held.shape[along]:
            condition = both(condition, i < low + step * size)
        if step > 1:
            condition = both(condition, (i - low) % step == 0)
    for a, low in first.items():
        condition = both(condition, at[a] == low)
    return tuple(found), condition
