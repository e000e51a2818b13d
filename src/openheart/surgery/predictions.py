"""The classes that an output speaks for, before and after: who changed its mind, and how narrowly."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from openheart.errors import OpaqueError
from openheart.surgery.classes import class_dimension

if TYPE_CHECKING:
    from openheart.recording import Recording, Value

__all__ = ["Prediction", "Predictions", "predictions"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One sample's class in both runs.

    Attributes:
        sample: its index in the output, without the classes' dimension; `()` for an output of one sample.
        before, after: the class with the largest number, the first of several; None if one is NaN.
        margin_before, margin_after: how far the largest lies above the next; NaN with a NaN among them.
        moved: the largest |after − before| among its numbers, NaN with a NaN among them.
    """

    sample: tuple[int, ...]
    before: int | None
    after: int | None
    margin_before: float
    margin_after: float
    moved: float

    @property
    def changed(self) -> bool:
        return self.before != self.after


@dataclass(frozen=True)
class Predictions:
    """The class of every sample: where the output is largest along the classes' dimension.

    Attributes:
        address: the output's name, `output`, or `@2 output` after three training steps.
        classes: how many there are.
        samples: every sample, in the output's order.
    """

    address: str
    classes: int
    samples: tuple[Prediction, ...]

    @cached_property
    def changed(self) -> tuple[Prediction, ...]:
        """The samples whose class changed."""
        return tuple(each for each in self.samples if each.changed)

    @cached_property
    def closest(self) -> Prediction | None:
        """The sample that the second run decides most narrowly; None without samples."""
        known = [each for each in self.samples if each.after is not None]
        return min(known, key=lambda each: each.margin_after, default=None)


def predictions(before: Recording, after: Recording) -> Predictions | None:
    """The classes of the last output that both runs have.

    None where neither run shows that there are classes (see `class_dimension`), where the output is not
    floating point, has fewer than two of them or not the same shape in both, or was not kept.
    """
    found = _outputs(before, after)
    if found is None:
        return None
    address, one, other = found
    if one.shape != other.shape or not one.shape or 0 in one.shape:
        return None
    if not (one.dtype.is_floating_point and other.dtype.is_floating_point):
        return None
    along = class_dimension(before, one)
    if along is None:
        along = class_dimension(after, other)
    if along is None or one.shape[along] < 2:
        return None
    try:
        first, second = (value.data.cpu().movedim(along, -1) for value in (one, other))
    except OpaqueError:
        return None
    classes = first.shape[-1]
    was, margin_before = _decided(first)
    now, margin_after = _decided(second)
    moved = torch.zeros_like(margin_before)
    if one is not other:
        apart = (second.double() - first.double()).abs()
        apart[(first == second)] = 0.0  # an infinity that stays has not moved
        moved = apart.reshape(-1, classes).amax(-1)
    shape = tuple(first.shape[:-1])
    rows = zip(
        was.tolist(), now.tolist(), margin_before.tolist(), margin_after.tolist(), moved.tolist(), strict=True
    )
    samples = tuple(
        Prediction(_index(n, shape), _class(a), _class(b), c, d, e) for n, (a, b, c, d, e) in enumerate(rows)
    )
    return Predictions(address, classes, samples)


def _outputs(before: Recording, after: Recording) -> tuple[str, Value, Value] | None:
    steps = {call.step for call in before.calls}
    for step in sorted(steps, reverse=True):
        address = f"@{step} output" if step else "output"
        one, other = before.get(address), after.get(address)
        if one is not None and other is not None:
            return address, one, other
    return None


def _decided(output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The class of each sample (−1 with a NaN) and by how much it leads, in float64."""
    rows = output.reshape(-1, output.shape[-1])
    lost = rows.isnan().any(-1)
    top = rows.double().topk(2, dim=-1).values
    margin = torch.where(top[:, 0] == top[:, 1], 0.0, top[:, 0] - top[:, 1])
    return rows.argmax(-1).masked_fill(lost, -1), margin.masked_fill(lost, float("nan"))


def _class(number: int) -> int | None:
    return None if number < 0 else number


def _index(number: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index: list[int] = []
    for size in reversed(shape):
        number, at = divmod(number, size)
        index.append(at)
    return tuple(reversed(index))
