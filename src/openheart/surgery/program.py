"""A recording as a straight-line program: each call as a line that can be run again on other numbers.

Every output of a line is a value of its own (what a call writes in place, it writes to a copy), so a line can
be run whenever its inputs are there, and what it does not read cannot change it.
"""

# What a program needs, PyTorch offers only under underscored names.

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch

from openheart.errors import InterventionError
from openheart.recording import Call, Recording, Value
from openheart.recording.addresses import Part, find_part
from openheart.recording.lines import Line
from openheart.recording.seat import aside
from openheart.recording.storages import geometry_of

__all__ = ["Line", "Program", "below_autograd", "part_of", "program_of", "run_line", "same_bits"]

Tensors = Mapping[int, torch.Tensor]

# Draws that depend on numbers, not only on a shape: kept all the same, and said so.
_WEIGHTED = {
    "bernoulli",
    "multinomial",
    "poisson",
    "binomial",
    "normal",
    "standard_gamma",
    "sample_dirichlet",
}


class below_autograd:  # noqa: N801  (it reads as the context managers of PyTorch do)
    """Where a recorded call ran: below autograd, and seen by no mode; it can be entered again and again.

    Gradients count as enabled, which some kernels ask (oneDNN's LSTM keeps a workspace only then); nothing is
    tracked, since autograd itself is left out.
    """

    __slots__ = ("_below", "_modes", "_tracked")

    def __enter__(self) -> None:
        self._tracked = torch.is_grad_enabled()
        torch._C._set_grad_enabled(True)
        self._modes = aside()
        self._modes.__enter__()
        self._below = torch._C._AutoDispatchBelowAutograd()
        self._below.__enter__()

    def __exit__(self, *_error: object) -> None:
        self._below.__exit__(None, None, None)
        self._modes.__exit__(None, None, None)
        torch._C._set_grad_enabled(self._tracked)


def run_line(
    line: Line,
    env: Tensors,
    constants: tuple[list[Any], dict[str, Any]] | None = None,
    moved: Mapping[int, int] | None = None,
) -> list[torch.Tensor]:
    """What a line makes of the numbers in `env` (see `Line.run`), with the draws that were recorded.

    Raises:
        InterventionError: the operator refuses these numbers.
    """
    special = _SPECIAL.get(line.call.name)
    try:
        made = special(line, env, moved) if special is not None else None
        return line.run(env, constants, moved) if made is None else made
    except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError) as error:
        if isinstance(error, InterventionError):
            raise
        reason = str(error).strip().splitlines()[0]
        raise InterventionError("error.edit.call", call=where(line.call), reason=reason) from error


class Program:
    """The lines of a recording, in the order of the run; line n is call n.

    `parts` holds what addresses have meant so far, `sound` the names that were found fit to be edited.
    """

    def __init__(self, recording: Recording) -> None:
        self.lines = [Line(call) for call in recording.calls]
        self.values = recording.values
        self.parts: dict[str, Part] = {}
        self.sound: set[str] = set()
        self.made_at = {identity: line.call.id for line in self.lines for identity in line.outputs}
        self._first_use: dict[int, int] = {}
        for line in self.lines:
            for identity in line.reads:
                self._first_use.setdefault(identity, line.call.id)

    def first_use(self, identity: int) -> int:
        """The first line that reads a value; the number of lines where none does."""
        return self._first_use.get(identity, len(self.lines))


def part_of(recording: Recording, address: str) -> Part:
    """The numbers that an address means; looked up once."""
    parts = program_of(recording).parts
    part = parts.get(address)
    if part is None:
        part = parts[address] = find_part(recording._named, address)
    return part


_PROGRAMS: WeakKeyDictionary[Recording, Program] = WeakKeyDictionary()


def program_of(recording: Recording) -> Program:
    """The program of a recording, made once."""
    program = _PROGRAMS.get(recording)
    if program is None:
        program = _PROGRAMS[recording] = Program(recording)
    return program


def where(call: Call) -> str:
    """A call as a person finds it: `addmm in 0 (train.py:12)`."""
    scope = f" in {call.scope}" if call.scope else ""
    source = f" ({call.source})" if call.source else ""
    return f"{call.name}{scope}{source}"


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors hold the same numbers, bit for bit (NaN is NaN, 0 is not −0)."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.is_complex:
        return same_bits(torch.view_as_real(one.resolve_conj()), torch.view_as_real(other.resolve_conj()))
    if not one.dtype.is_floating_point:
        return torch.equal(one, other)
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[one.dtype.itemsize]
    return torch.equal(one.resolve_neg().view(whole), other.resolve_neg().view(whole))


# What is not run as it was ----------------------------------------------------------------------------------


def _dropout(line: Line, env: Tensors, moved: Any) -> list[torch.Tensor] | None:
    """The same mask on other numbers; as PyTorch's kernel does it, `input · mask · 1/(1 − p)`."""
    call = line.call
    if len(call.outputs) < 2 or not call.outputs[1].kept:
        return None
    arguments = call.arguments
    if arguments.get("train") is False:
        return None
    mask = call.outputs[1].data
    keep = 1.0 - float(arguments["p"])
    taken = line.read(arguments["input"], env, moved)
    return [taken.mul(mask).mul_(1.0 / keep if keep else 0.0), mask]


def _as_strided(line: Line, env: Tensors, moved: Any) -> list[torch.Tensor]:
    """The same places of other numbers, where all of them lie inside of the argument."""
    arguments = line.call.arguments
    value: Value = arguments["self"]
    tensor = line.read(value, env, moved)
    offset = arguments["storage_offset"]
    offset = value.offset if offset is None else offset
    size, stride = arguments["size"], arguments["stride"]
    place = value.geometry
    reach = offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True))
    low, high = (edge // value.dtype.itemsize for edge in place.span())
    dense = math.prod(value.shape) == high - low
    if 0 not in size and not (dense and low <= offset and reach < high):
        raise InterventionError("error.edit.around", call=where(line.call))
    if geometry_of(tensor) == place:
        return [tensor.as_strided(size, stride, offset)]
    memory = tensor.new_empty(high - low)
    memory.as_strided(place.shape, place.stride, place.offset - low).copy_(tensor)
    return [memory.as_strided(size, stride, offset - low)]


def _rrelu(line: Line, env: Tensors, moved: Any) -> list[torch.Tensor] | None:
    """RReLU draws a slope for each negative number: one that becomes negative has none."""
    arguments = line.call.arguments
    if not arguments.get("training"):
        return None
    old: Value = arguments["self"]
    tensor = line.read(old, env, moved)
    if not torch.equal(tensor <= 0, old.data <= 0):
        raise InterventionError("error.edit.slope", call=where(line.call))
    noise = next(
        value.data
        for value, slot in zip(line.call.outputs, line.call.slots, strict=True)
        if slot in (("noise", None), (1, None))
    )
    made = torch.where(tensor <= 0, tensor * noise, tensor)
    return [noise if slot in (("noise", None), (1, None)) else made for slot in line.call.slots]


_SPECIAL: dict[str, Callable[[Line, Tensors, Any], list[torch.Tensor] | None]] = {
    "native_dropout": _dropout,
    "as_strided": _as_strided,
    "as_strided_": _as_strided,
    "rrelu_with_noise": _rrelu,
    "rrelu_with_noise_": _rrelu,
}


def repeats(line: Line) -> bool:
    """Whether a line that cannot be run as it was has a way of its own to be run on other numbers."""
    return line.call.name in _SPECIAL


def redraws(line: Line) -> bool:
    """Whether a random line can be run on other numbers with the draw that it made."""
    return line.call.name in _SPECIAL


def is_weighted(line: Line) -> bool:
    """Whether what a random line draws depends on the numbers that it reads."""
    return line.call.name.rstrip("_") in _WEIGHTED and bool(line.reads)
