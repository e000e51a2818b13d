"""Where a run shows that an output speaks for classes: something chooses among its numbers, or shares out.

A row of numbers is a row of classes only if the run treats it so: a softmax, an argmax, a maximum or a
log-sum-exp along it, or a loss whose targets are classes. An encoder's features have a largest one too, and
it means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from openheart.recording.values import Value

if TYPE_CHECKING:
    from openheart.recording import Call, Recording

__all__ = ["class_dimension"]

Axes = tuple["int | None", ...]
"""For each dimension of a value, the whole dimension of the output that it is; None where it is none."""

_ALONG = {"softmax", "log_softmax", "safe_softmax", "argmax", "max", "topk", "logsumexp"}
_LOSSES = {"nll_loss", "nll_loss_forward", "nll_loss2d", "nll_loss2d_forward", "nll_loss_nd",
           "cross_entropy_loss", "multi_margin_loss"}  # fmt: skip
_SAME = {"clone", "to_copy", "alias", "detach", "contiguous", "lift_fresh", "div", "mul", "add", "sub"}


def class_dimension(recording: Recording, output: Value) -> int | None:
    """The dimension of an output that its classes lie along; None where the run shows no classes."""
    made = recording.maker(output)
    while made is not None and made[0].name in ("clone", "to_copy", "alias"):
        source = made[0].args[0]
        made = recording.maker(source) if isinstance(source, Value) else None
    if made is not None and made[0].name in ("softmax", "log_softmax", "safe_softmax"):
        return int(made[0].arguments["dim"]) % max(1, len(output.shape))
    stack: list[tuple[Value, Axes]] = [(output, tuple(range(len(output.shape))))]
    met: set[int] = set()
    while stack:
        value, axes = stack.pop()
        if value.id in met:
            continue
        met.add(value.id)
        for call in recording.users(value):
            if call.phase == "backward":
                continue
            place = _along(call, value)
            if place is not None and axes[place] is not None:
                return axes[place]
            stack += _onward(call, value, axes)
    return None


def _along(call: Call, value: Value) -> int | None:
    """The dimension of what a call reads that it treats as classes."""
    if call.name in _LOSSES and call.args[0] is value and value.shape:
        return min(1, len(value.shape) - 1)
    if call.name not in _ALONG or call.args[0] is not value:
        return None
    dim: Any = call.arguments.get("dim")
    if isinstance(dim, (list, tuple)):
        dim = dim[0] if len(dim) == 1 else None
    if not isinstance(dim, int) or not value.shape:
        return 0 if call.name == "argmax" and len(value.shape) == 1 else None
    return dim % len(value.shape)


def _onward(call: Call, value: Value, axes: Axes) -> Iterator[tuple[Value, Axes]]:
    """What a call makes that still is the output, and where each dimension of it went."""
    if len(call.outputs) != 1 or not call.args or call.args[0] is not value:
        return
    made, name, given = call.outputs[0], call.name, call.arguments
    rank = max(1, len(value.shape))
    found: list[int | None] | None = None
    if name in _SAME and made.shape == value.shape:
        other = given.get("other")
        if not isinstance(other, Value) or other.shape == ():  # a temperature
            found = list(axes)
    elif name in ("view", "unsafe_view", "reshape", "flatten", "reshape_copy"):
        found = [None if at is None else axes[at] for at in _reshaped(value.shape, made.shape)]
    elif name in ("t", "numpy_T"):
        found = list(axes[::-1])
    elif name in ("transpose", "transpose_"):
        found = list(axes)
        one, other = given["dim0"] % rank, given["dim1"] % rank
        found[one], found[other] = found[other], found[one]
    elif name == "permute":
        found = [axes[at % rank] for at in given["dims"]]
    elif name == "slice":
        found = list(axes)
        if made.shape != value.shape:
            found[given["dim"] % rank] = None
    elif name == "select":
        found = list(axes)
        del found[given["dim"] % rank]
    elif name == "unsqueeze":
        found = list(axes)
        found.insert(given["dim"] % (rank + 1), None)
    elif name == "squeeze":
        found = [axes[at] for at, size in enumerate(value.shape) if size != 1]
    elif name == "index":
        chosen = given["indices"]
        if None not in chosen:  # along the first dimensions
            rest = value.shape[len(chosen) :]
            found = [*([None] * (len(made.shape) - len(rest))), *axes[len(chosen) :]]
    if found is not None and len(found) == len(made.shape):
        yield made, tuple(found)


def _reshaped(old: tuple[int, ...], new: tuple[int, ...]) -> list[int | None]:
    """For each dimension after a reshape, the dimension before that it is, whole and alone."""
    found: list[int | None] = []
    for place, size in enumerate(new):
        before = math.prod(new[:place])
        match = [
            at
            for at, extent in enumerate(old)
            if extent == size and math.prod(old[:at]) == before and size > 1
        ]
        found.append(match[0] if match else None)
    return found
