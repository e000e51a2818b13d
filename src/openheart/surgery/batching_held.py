"""Holds stacked numbers to account: a call as if it had been recorded with them, and its law."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from openheart.check import check
from openheart.errors import OpenheartError
from openheart.recording import Call, Value, values_in
from openheart.recording.storages import Life
from openheart.surgery.program import Line, Tensors

__all__ = ["as_call", "difference", "error_of", "read_by"]


def read_by(line: Line) -> Iterator[Value]:
    """The recorded values that a line reads."""
    return values_in((line.call.args, line.call.kwargs))


def as_call(line: Line, env: Tensors, moved: Any, outputs: list[torch.Tensor], held: int) -> Call:
    """The call as if it had been recorded with one variant's stacked numbers."""
    numbers = {
        value.id: _with(value, env[identity][held])
        for value in read_by(line)
        if (identity := value.id if moved is None else moved.get(value.id, value.id)) in env
    }
    return replace(
        line.call,
        args=_exchanged(line.call.args, numbers),
        kwargs=_exchanged(line.call.kwargs, numbers),
        outputs=tuple(_with(v, t[held]) for v, t in zip(line.call.outputs, outputs, strict=True)),
        _cache={},
    )


def error_of(call: Call, position: int, mine: torch.Tensor, exact: torch.Tensor) -> float | None:
    """Error ÷ bound of the number that differs most; None if its law refuses it, or there is none."""
    wide = torch.complex128 if mine.dtype.is_complex else torch.float64
    apart = (mine.to(wide) - exact.to(wide)).abs()
    apart = torch.where(mine == exact, 0.0, apart).nan_to_num(nan=float("inf"))
    at = tuple(int(i) for i in torch.unravel_index(apart.argmax(), apart.shape)) if apart.dim() else ()
    try:
        done = check(call, position, at)
    except (OpenheartError, ValueError, TypeError, IndexError):
        return None
    if done is None or done.verdict() == "disagrees":
        return None
    bound = float(done.bound)
    return float(abs(done.recorded - done.computed)) / bound if bound > 0 else 0.0


def _with(value: Value, tensor: torch.Tensor) -> Value:
    return replace(value, _life=Life(), _tensor=tensor, _cache={})


def _exchanged(item: Any, numbers: dict[int, Value]) -> Any:
    if isinstance(item, Value):
        return numbers.get(item.id, item)
    if isinstance(item, (list, tuple)):
        return type(item)(_exchanged(part, numbers) for part in item)
    if isinstance(item, dict):
        return {key: _exchanged(part, numbers) for key, part in item.items()}
    return item


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest |one − other|; where both are NaN or the same infinity they do not differ."""
    wide = torch.complex128 if one.dtype.is_complex else torch.float64
    both = (one.to(wide) - other.to(wide)).abs()
    alike = (one == other) | (torch.isnan(one) & torch.isnan(other))
    return float(both.masked_fill(alike, 0).max()) if both.numel() else 0.0
