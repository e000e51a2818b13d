"""Sliding windows, as convolution and pooling share them.

At output place p a window sees the input places p·s + k·d − padding, one for each offset k of the kernel:
along every spatial axis with its stride s, dilation d and padding. Looked at from the input, place i is
seen by the output places (i + padding − k·d) / s, where that is whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from openheart.formula.expr import Expr, Index, index

OFFSETS = {1: ("u",), 2: ("u", "v"), 3: ("t", "u", "v")}
PLACES = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}


@dataclass(frozen=True, slots=True)
class Axis:
    """One spatial axis of a window: how many places on both sides, and how the window moves."""

    size: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    def seen(self, place: Expr, offset: Expr) -> Expr:
        """The input place that the window at output `place` sees at `offset`."""
        return place * self.stride + offset * self.dilation - self.padding

    def inside(self, seen: Expr) -> Expr | None:
        """Whether a seen place is in the input; None where it always is."""
        low = seen >= 0 if self.padding > 0 else None
        last = (self.outputs - 1) * self.stride + (self.kernel - 1) * self.dilation - self.padding
        return both(low, seen < self.size if last >= self.size else None)

    def seer(self, place: Expr, offset: Expr) -> tuple[Expr, Expr | None]:
        """The output place that sees input `place` at `offset`, and where there is one."""
        ahead = place + self.padding - offset * self.dilation
        seer = ahead // self.stride
        low = ahead >= 0 if (self.kernel - 1) * self.dilation > self.padding else None
        high = seer < self.outputs if self.size - 1 + self.padding >= self.outputs * self.stride else None
        return seer, both(both(low, high), ahead % self.stride == 0 if self.stride > 1 else None)


def both(a: Expr | None, b: Expr | None) -> Expr | None:
    """Two conditions joined, where None always holds."""
    if a is None or b is None:
        return b if a is None else a
    return a & b


def every(conditions: Sequence[Expr | None]) -> Expr | None:
    """All conditions joined; None when none is needed."""
    return reduce(both, conditions, None)


def axes(
    sizes: Sequence[int],
    outputs: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[Axis]:
    """The axes of a window; a list of one number stands for that number along every axis."""
    rank = len(sizes)

    def wide(numbers: Sequence[int]) -> list[int]:
        return [numbers[0]] * rank if len(numbers) == 1 else list(numbers)

    columns = zip(sizes, outputs, wide(kernel), wide(stride), wide(padding), wide(dilation), strict=True)
    return [Axis(*column) for column in columns]


def offsets(window: Sequence[Axis]) -> list[Index]:
    """Index variables over a kernel's offsets."""
    return [index(name, axis.kernel) for name, axis in zip(OFFSETS[len(window)], window, strict=True)]


def places(shape: Sequence[int]) -> list[Index]:
    """Index variables over spatial places."""
    return [index(name, size) for name, size in zip(PLACES[len(shape)], shape, strict=True)]


def seen_at(
    window: Sequence[Axis], at: Sequence[Expr], offset: Sequence[Expr]
) -> tuple[list[Expr], Expr | None]:
    """The input places seen from output places `at`, and where they lie inside the input."""
    seen = [axis.seen(p, k) for axis, p, k in zip(window, at, offset, strict=True)]
    return seen, every([axis.inside(place) for axis, place in zip(window, seen, strict=True)])


def seers_of(
    window: Sequence[Axis], at: Sequence[Expr], offset: Sequence[Expr]
) -> tuple[list[Expr], Expr | None]:
    """The output places that see the input places `at`, and where they exist."""
    pairs = [axis.seer(p, k) for axis, p, k in zip(window, at, offset, strict=True)]
    return [place for place, _ in pairs], every([condition for _, condition in pairs])
