"""One edit of a value that a call made, as calls of its own, forward and backward."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from openheart.errors import InterventionError
from openheart.recording import Call, Recording, Value
from openheart.recording.addresses import Part
from openheart.surgery.edits import Edit
from openheart.surgery.fitting import fitting, numbers_of
from openheart.surgery.plan import Added, Spot
from openheart.surgery.running import Run
from openheart.surgery.tracing import Traced, applied

__all__ = ["Operation", "operation_of"]

aten = torch.ops.aten


@dataclass(slots=True, eq=False)
class Operation:
    """One edit of a value that a call made, as calls: forward, and what it does to the gradient.

    `forward(run, taken, output, like)` makes the value `output` of the value `taken`; `backward` likewise.
    """

    forward: Callable[[Run, int, int, Call], None]
    backward: Callable[[Run, int, int, Call], None]
    keeps_gradient: bool = False


def operation_of(recording: Recording, value: Value, edit: Edit, part: Part) -> Operation:
    """What an edit does to a value that a call made."""
    if edit.kind == "call":
        return _called(edit, part)
    mask = _mask(value, part.index)
    if edit.kind in ("scale", "add"):
        return _scaled(value, edit, part, mask)
    return _set(recording, value, edit, part, mask)


def _mask(value: Value, index: Any) -> torch.Tensor:
    """Where an edit applies: bools of the value's shape, laid out in memory as it is.

    What `where` makes has the layout of its mask, and views of it must be possible as they were.
    """
    mask = torch.zeros_like(value.data, dtype=torch.bool)
    mask[... if index is None else index] = True
    return mask


def _set(recording: Recording, value: Value, edit: Edit, part: Part, mask: torch.Tensor) -> Operation:
    averaged = edit.kind == "ablate" and edit.value == "mean" and bool(value.shape)
    number = None if averaged else numbers_of(recording, value, edit, part)
    made: list[Added] = []

    def forward(run: Run, taken: int, output: int, like: Call) -> None:
        if number is None:
            mean, _ = run.call(aten.mean.dim, (Spot(taken), [0], True), like)
            given = Spot(mean)
        else:
            given = run.constant(number, f"{part.name}.edit")
        made.append(
            run.call(
                aten.where.self,
                (run.constant(mask, f"{part.name}.edit.where"), given, Spot(taken)),
                like,
                output,
            )[1]
        )

    def backward(run: Run, taken: int, output: int, like: Call) -> None:
        run.call(
            aten.masked_fill.Scalar,
            (Spot(taken), run.constant(mask, f"{part.name}.edit.where"), 0),
            like,
            output,
            forward=made[-1],
        )

    return Operation(forward, backward)


def _scaled(value: Value, edit: Edit, part: Part, mask: torch.Tensor) -> Operation:
    whole = part.index is None
    op = aten.mul.Tensor if edit.kind == "scale" else aten.add.Tensor
    amount = edit.value
    if not isinstance(amount, (int, float, complex)) or isinstance(amount, bool):
        given = fitting(amount, part, value, edit)
        amount = torch.zeros(value.shape, dtype=value.dtype)
        amount[part.index if part.index is not None else ...] = given
    elif not value.dtype.is_floating_point and not value.dtype.is_complex and not isinstance(amount, int):
        raise InterventionError("error.edit.fractions", edit=edit, name=part.name, dtype=value.dtype)
    made: list[Added] = []

    def apply(run: Run, taken: int, output: int, like: Call, forward: Added | None) -> Added:
        operand = run.constant(amount, f"{part.name}.edit") if isinstance(amount, torch.Tensor) else amount
        changed, call = run.call(op, (Spot(taken), operand), like, output if whole else None, forward=forward)
        if whole:
            return call
        parts = (run.constant(mask, f"{part.name}.edit.where"), Spot(changed), Spot(taken))
        return run.call(aten.where.self, parts, like, output, forward=forward)[1]

    def forward(run: Run, taken: int, output: int, like: Call) -> None:
        made.append(apply(run, taken, output, like, None))

    def backward(run: Run, taken: int, output: int, like: Call) -> None:
        apply(run, taken, output, like, made[-1])

    return Operation(forward, backward, keeps_gradient=edit.kind == "add")


def _called(edit: Edit, part: Part) -> Operation:
    traced: list[Traced] = []

    def function(tensor: torch.Tensor) -> torch.Tensor:
        given = tensor if part.index is None else tensor[part.index]
        result = applied(edit, given)
        result = fitting(result, part, part.value, edit)
        if part.index is None:
            return result.to(tensor.dtype).expand(tensor.shape)
        changed = tensor.clone()
        changed[part.index] = result.to(tensor.dtype)
        return changed

    def forward(run: Run, taken: int, output: int, like: Call) -> None:
        traced.append(Traced(function, [taken], like, output))
        traced[-1].forward(run)

    def backward(run: Run, taken: int, output: int, _like: Call) -> None:
        traced[-1].backward(run, taken, [output])

    return Operation(forward, backward)
