"""Interpolation: nearest, linear, bilinear, trilinear and bicubic, and their gradients.

Output place j looks at the source s = (j + ½)·H/P − ½, or j·(H − 1)/(P − 1) with aligned corners, where H
places become P (aten/src/ATen/native/UpSample.h). Which places surround the source is a matter of whole
numbers, ⌊(j·a)/b⌋; how near the source is to each is computed in floating point, like the kernel does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from openheart.formula.expr import Expr, Index, Leaf, Number, Tensor, expr, index, total, where
from openheart.formula.functions import computed_in, maximum, minimum
from openheart.formula.precision import FLOAT32, FLOAT64, Precision
from openheart.rules.convolution import is_half
from openheart.rules.registry import rule, value_of
from openheart.rules.windows import both, places

SCALES = {1: ("scales",), 2: ("scales_h", "scales_w"), 3: ("scales_d", "scales_h", "scales_w")}
CUBIC = -0.75
"""The slope at 1 of the kernel of cubic convolution (Keys, 1981), as PyTorch and OpenCV have it."""
Mode = Literal["nearest", "nearest_exact", "linear", "cubic"]


@dataclass(frozen=True, slots=True)
class Source:
    """Where an axis' output places look: H places become P, `step` source places for one output place."""

    size: int
    outputs: int
    step: Fraction
    corners: bool
    precision: Precision

    def numerator(self, j: Expr) -> tuple[Expr, int]:
        """The source as a fraction of whole numbers (without the clipping at the border)."""
        a, b = self.step.numerator, self.step.denominator
        return (j * a, b) if self.corners else ((j * 2 + 1) * a - b, 2 * b)

    def below(self, j: Expr) -> Expr:
        """⌊s⌋."""
        above, under = self.numerator(j)
        return above // under

    def source(self, j: Expr) -> Expr:
        """The source s, in floating point."""
        step = Number(float(self.step))
        return j * step if self.corners else (j + 0.5) * step - 0.5

    def floors(self) -> list[int]:
        """⌊s⌋ for every output place, in whole numbers."""
        a, b = self.step.numerator, self.step.denominator
        places = range(self.outputs)
        return [(j * a) // b if self.corners else ((2 * j + 1) * a - b) // (2 * b) for j in places]

    def table(self) -> Any:
        """The source of every output place, in the precision in which the kernel computes it."""
        kind: Any = np.float64 if self.precision is FLOAT64 else np.float32
        j = np.arange(self.outputs).astype(kind)
        step = kind(float(self.step))
        return j * step if self.corners else (j + kind(0.5)) * step - kind(0.5)


def source(size: int, outputs: int, scale: Any, corners: bool, precision: Precision) -> Source:
    """The source of an axis; a given scale counts instead of the ratio of the sizes."""
    given = value_of(scale)
    if corners:
        step = Fraction(size - 1, outputs - 1) if outputs > 1 else Fraction(0)
    elif given is not None and given > 0 and outputs != size:
        step = Fraction(1.0 / given).limit_denominator(1 << 16)
    else:
        step = Fraction(size, outputs)
    return Source(size, outputs, step, corners, precision)


def nearest_place(axis: Source, j: Expr, exact: bool) -> Expr | None:
    """⌊j·H/P⌋, or ⌊(j + ½)·H/P⌋; None where the kernel's own rounding gives another place."""
    a, b = axis.step.numerator, axis.step.denominator
    kind: Any = np.float64 if axis.precision is FLOAT64 else np.float32
    number = np.arange(axis.outputs)
    ahead = (2 * number + 1) * a // (2 * b) if exact else number * a // b
    recorded = np.floor((number.astype(kind) + kind(0.5 if exact else 0)) * kind(float(axis.step)))
    if np.any(np.minimum(ahead, axis.size - 1) != np.minimum(recorded, axis.size - 1)):
        return None
    place = (j * 2 + 1) * a // (2 * b) if exact else j * a // b
    return minimum(place, axis.size - 1) if len(ahead) and ahead[-1] >= axis.size else place


def taps(axis: Source, j: Expr, name: str, mode: Mode, stored: Precision) -> tuple[list[Index], Expr, Expr]:
    """The places around a source: an index over them, the place of each and its weight."""
    below, last = axis.below(j), axis.size - 1
    if mode == "cubic":
        a = index(name, 4)
        far = abs(axis.source(j) - below + 1 - a)
        near = ((CUBIC + 2) * far - (CUBIC + 3)) * far * far + 1
        away = ((CUBIC * far - 5 * CUBIC) * far + 8 * CUBIC) * far - 4 * CUBIC
        place = minimum(maximum(below + a - 1, 0), last)
        return [a], place, in_table(where((a == 1) | (a == 2), near, away), stored)
    clipped = axis.source(j) if axis.corners else maximum(axis.source(j), 0.0)
    first = below if axis.corners else maximum(below, 0)
    if [int(s) for s in np.maximum(axis.table(), 0)] == [max(n, 0) for n in axis.floors()]:
        a = index(name, 2)
        return [a], minimum(first + a, last), in_table(abs(1 - in_table(clipped - first, stored) - a), stored)
    # The kernel's rounding puts a whole source just below itself: three places may have a share.
    a = index(name, 3)
    place = minimum(maximum(first + a - 1, 0), last)
    return [a], place, in_table(maximum(1 - abs(in_table(clipped - first, stored) + 1 - a), 0.0), stored)


def in_table(weight: Expr, stored: Precision) -> Expr:
    """A weight, which half-precision kernels keep in the tensor's own dtype."""
    return computed_in(stored, computed_in(FLOAT32, weight)) if is_half(stored) else weight


def upsample(mode: Mode, x: Tensor, axes: Sequence[Source], at: Sequence[Index], stored: Precision) -> Expr:
    # out[j] = Σ over the places around the source of weight · x
    lead, j = at[: -len(axes)], at[-len(axes) :]
    if mode in ("nearest", "nearest_exact"):
        found = [nearest_place(axis, p, mode == "nearest_exact") for axis, p in zip(axes, j, strict=True)]
        known = [place for place in found if place is not None]
        return x[(*lead, *known)] if len(known) == len(found) else Leaf("external")
    over, at_place, weights = _all_taps(mode, axes, j, stored)
    return total(over, _times(weights) * x[(*lead, *at_place)])


def upsample_backward(
    mode: Mode, grad: Tensor, axes: Sequence[Source], at: Sequence[Index], stored: Precision
) -> Expr:
    # each output place gives its gradient back to the places that it looked at, by their weights
    lead, i = at[: -len(axes)], at[-len(axes) :]
    j = places([axis.outputs for axis in axes])
    if mode in ("nearest", "nearest_exact"):
        found = [nearest_place(axis, p, mode == "nearest_exact") for axis, p in zip(axes, j, strict=True)]
        if any(place is None for place in found):
            return Leaf("external")
        over: list[Index] = []
        at_place, share = [place for place in found if place is not None], expr(grad[(*lead, *j)])
    else:
        over, at_place, weights = _all_taps(mode, axes, j, stored)
        share = _times(weights) * grad[(*lead, *j)]
    condition = None
    for place, out in zip(at_place, i, strict=True):
        condition = both(condition, place == out)
    body = total((*j, *over), share, where=condition)
    return computed_in(stored, body) if is_half(stored) else body


def _all_taps(
    mode: Mode, axes: Sequence[Source], j: Sequence[Expr], stored: Precision
) -> tuple[list[Index], list[Expr], list[Expr]]:
    over: list[Index] = []
    at_place: list[Expr] = []
    weights: list[Expr] = []
    for axis, p, name in zip(axes, j, ("a", "b", "c"), strict=False):
        if axis.size == axis.outputs and mode != "cubic" and not axis.corners:
            at_place.append(p)
            continue
        indices, place, weight = taps(axis, p, name, mode, stored)
        over += indices
        at_place.append(place)
        weights.append(weight)
    return over, at_place, weights


def _times(weights: Sequence[Expr]) -> Expr:
    made: Expr = Number(1)
    for weight in weights:
        made = made * weight
    return made


def _asking(law: Callable[..., Expr], names: Sequence[str]) -> Callable[..., Expr]:
    """`law` as a rule that asks for the arguments of these names, which it receives in a dict."""

    def asked(**given: Any) -> Expr:
        return law(given)

    kind = inspect.Parameter.KEYWORD_ONLY
    asked.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])  # type: ignore[attr-defined]
    return asked


def _register(operator: str, rank: int, mode: Mode) -> None:
    corners = ["align_corners"] if mode in ("linear", "cubic") else []

    def sources(
        given: dict[str, Any], sizes: Sequence[int], outputs: Sequence[int], precision: Precision
    ) -> list[Source]:
        aligned = bool(given.get("align_corners"))
        scales = [given[name] for name in SCALES[rank]]
        rows = zip(sizes, outputs, scales, strict=True)
        return [source(size, count, scale, aligned, precision) for size, count, scale in rows]

    def forward(given: dict[str, Any]) -> Expr:
        x, at = given["self"], given["at"]
        shape = given["result"].shape
        return upsample(
            mode, x, sources(given, x.shape[2:], shape[2:], _opmath(given["stored"])), at, given["stored"]
        )

    def backward(given: dict[str, Any]) -> Expr:
        grad, at, stored = given["grad_output"], given["at"], given["stored"]
        shape = given["result"].shape
        return upsample_backward(
            mode, grad, sources(given, shape[2:], grad.shape[2:], _opmath(stored)), at, stored
        )

    names = (*corners, *SCALES[rank], "at", "result", "stored")
    rule(operator)(_asking(forward, ("self", *names)))
    rule(f"{operator}_backward", f"{operator}_backward.grad_input")(
        _asking(backward, ("grad_output", *names))
    )


def _opmath(stored: Precision) -> Precision:
    return FLOAT64 if stored is FLOAT64 else FLOAT32


for _rank in SCALES:
    _register(f"upsample_nearest{_rank}d", _rank, "nearest")
    _register(f"_upsample_nearest_exact{_rank}d", _rank, "nearest_exact")
    _register(f"upsample_{('linear', 'bilinear', 'trilinear')[_rank - 1]}{_rank}d", _rank, "linear")
_register("upsample_bicubic2d", 2, "cubic")
