"""The numbers that an edit puts in: of the value's dtype, of the part's shape."""

# The parts of a recording know each other's insides.

from __future__ import annotations

import math
from typing import Any

import torch

from openheart.errors import InterventionError, OpaqueError
from openheart.recording import Recording, Value
from openheart.recording.addresses import Part, find_part
from openheart.surgery.edits import Edit
from openheart.surgery.tracing import applied

__all__ = ["change_tensor", "fitting", "like_recorded", "numbers_of"]


def change_tensor(recording: Recording, tensor: torch.Tensor, edit: Edit, part: Part) -> None:
    """Changes a leaf's numbers, in place."""
    at: Any = ... if part.index is None else part.index
    now = tensor[at]
    if edit.kind == "call":
        tensor[at] = fitting(applied(edit, now.clone()), part, part.value, edit)
    elif edit.kind in ("scale", "add"):
        amount = edit.value
        if not isinstance(amount, (int, float, complex)):
            amount = fitting(amount, part, part.value, edit)
        tensor[at] = _kept(now * amount if edit.kind == "scale" else now + amount, tensor, edit, part)
    elif edit.kind == "ablate" and edit.value == "mean" and tensor.dim():
        tensor[at] = tensor.mean(0, keepdim=True).expand_as(tensor)[at]
    else:
        numbers = numbers_of(recording, part.value, edit, part)
        tensor[at] = numbers[at] if numbers.dim() else numbers


def _kept(result: torch.Tensor, tensor: torch.Tensor, edit: Edit, part: Part) -> torch.Tensor:
    if result.dtype != tensor.dtype and not tensor.dtype.is_floating_point:
        raise InterventionError("error.edit.result", edit=edit, name=part.name, dtype=tensor.dtype)
    return result


def numbers_of(recording: Recording, value: Value, edit: Edit, part: Part) -> torch.Tensor:
    """What is put into a value, as a tensor of its shape (what lies outside of the part does not matter)."""
    if edit.kind == "ablate":
        return torch.zeros(value.shape, dtype=value.dtype)
    if edit.kind == "freeze":
        first = recording._named.values.get(part.name)
        if first is not None and first.origin == "parameter":
            return first.data
        return value.data
    if edit.kind == "patch":
        return _transplant(value, edit, part)
    given = fitting(edit.value, part, value, edit)
    if given.dim() == 0:
        return given
    numbers = torch.zeros(value.shape, dtype=value.dtype)
    numbers[... if part.index is None else part.index] = given
    return numbers


def _transplant(value: Value, edit: Edit, part: Part) -> torch.Tensor:
    other = edit.other
    if isinstance(other, str):
        from openheart.recording.saving import load

        other = load(other)
    if not isinstance(other, Recording):
        raise InterventionError("error.edit.patch.source", given=other)
    source = find_part(other._named, edit.value if edit.value is not None else edit.address or "")
    if edit.value is None:
        numbers = source.value.data
        if tuple(numbers.shape) != value.shape or numbers.dtype != value.dtype:
            raise InterventionError(
                "error.edit.patch.shape",
                name=part.name,
                here=value.shape,
                dtype=value.dtype,
                there=tuple(numbers.shape),
                kind=numbers.dtype,
            )
        return numbers
    taken = source.value.data[... if source.index is None else source.index]
    numbers = torch.zeros(value.shape, dtype=value.dtype)
    numbers[... if part.index is None else part.index] = fitting(taken, part, value, edit)
    return numbers


def fitting(given: Any, part: Part, value: Value, edit: Edit) -> torch.Tensor:
    """A number or tensor of the value's dtype that fits the part.

    Raises:
        InterventionError: its shape or its dtype does not fit.
    """
    if (
        type(given) is float
        and value.dtype == torch.float32
        and (abs(given) < 1e38 or not math.isfinite(given))
    ):
        return torch.tensor(given)
    try:
        tensor = given if isinstance(given, torch.Tensor) else torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InterventionError("error.edit.numbers", name=part.name, given=given) from error
    if not isinstance(given, torch.Tensor) and tensor.dtype.is_floating_point:
        tensor = torch.as_tensor(given, dtype=torch.float64)
    shape = tuple(tensor.shape)
    if not _broadcasts(shape, part.shape):
        raise InterventionError("error.edit.shape", given=shape, address=edit.address, shape=part.shape)
    kinds = (_rank(tensor.dtype), _rank(value.dtype))
    if kinds[0] > kinds[1]:
        whole = tensor.dtype.is_floating_point and kinds[1] == 1 and bool((tensor == tensor.trunc()).all())
        if not whole:
            raise InterventionError(
                "error.edit.hold", name=part.name, dtype=value.dtype, given=given, kind=tensor.dtype
            )
    fitted = tensor.to(value.dtype)
    if value.dtype.is_floating_point and bool((torch.isinf(fitted) & ~torch.isinf(tensor)).any()):
        raise InterventionError("error.edit.large", name=part.name, dtype=value.dtype, given=given)
    return fitted


def _rank(dtype: torch.dtype) -> int:
    if dtype == torch.bool:
        return 0
    return 3 if dtype.is_complex else 2 if dtype.is_floating_point else 1


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    if math.prod(shape) == 1 and len(shape) <= len(target):
        return True
    if len(shape) > len(target):
        return False
    return all(size in (1, wide) for size, wide in zip(reversed(shape), reversed(target), strict=False))


def like_recorded(value: Value) -> torch.Tensor:
    """A copy of a value's numbers, laid out in memory as they were."""
    try:
        data = value.data
    except OpaqueError as error:
        raise InterventionError("error.edit.not_kept", reason=error) from error
    return data.detach().clone()
