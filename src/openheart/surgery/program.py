"""A recording as a straight-line program: each call as a line that can be run again on other numbers.

Every output of a line is a value of its own (what a call writes in place, it writes to a copy), so a line can
be run whenever its inputs are there, and what it does not read cannot change it.
"""

# What a program needs, PyTorch offers only under underscored names.

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch

from openheart.errors import InterventionError
from openheart.recording import Call, Recording, Value, values_in
from openheart.recording.addresses import Part, find_part
from openheart.recording.plans import plan_of
from openheart.recording.storages import geometry_of

__all__ = ["Line", "Program", "below_autograd", "part_of", "program_of", "same_bits"]

Tensors = Mapping[int, torch.Tensor]

# Their result is whatever memory holds: around their argument, or before anybody wrote there.
_BY_MEMORY = {"as_strided_", "set_", "resize_", "resize_as_", "as_strided_scatter"}
_BLANK = ("empty", "new_empty")
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


@contextmanager
def below_autograd() -> Iterator[None]:
    """Where a recorded call ran: below autograd, and seen by no mode.

    Gradients count as enabled, which some kernels ask (oneDNN's LSTM keeps a workspace only then); nothing is
    tracked, since autograd itself is left out.
    """
    with torch.enable_grad(), torch._C._DisableTorchDispatch(), torch._C._AutoDispatchBelowAutograd():
        yield


class Line:
    """One call, ready to be run again.

    Attributes:
        call: the recorded call.
        reads: the ids of the values that it reads.
        outputs: the ids of the values that it makes.
        random: it draws at random.
        blank: it gives memory that nobody has written yet: what was recorded stands.
        fixed: it cannot be run on other numbers: it looks at memory beyond its arguments, or is no operator.
    """

    __slots__ = (
        "_args", "_kwargs", "_lists", "_overwrites", "_single", "_tensors", "_written",
        "blank", "call", "fixed", "outputs", "random", "reads",
    )  # fmt: skip

    def __init__(self, call: Call) -> None:
        self.call = call
        self.reads = frozenset(value.id for value in values_in((call.args, call.kwargs)))
        self.outputs = tuple(value.id for value in call.outputs)
        schema = getattr(call.op, "_schema", None)
        tags = getattr(call.op, "tags", ())
        self.random = torch.Tag.nondeterministic_seeded in tags and not _draws_nothing(call)
        self.fixed = schema is None or call.name in _BY_MEMORY
        self.blank = call.name.startswith(_BLANK)
        plan = plan_of(call.op) if schema is not None else None
        written = {name for _, name in plan.writes} if plan is not None else set()
        reshaped = plan is not None and plan.reshapes
        self._overwrites = plan is not None and plan.overwrites
        names = [argument.name for argument in schema.arguments] if schema is not None else []
        self._args = list(call.args)
        self._kwargs = dict(call.kwargs)
        self._tensors: list[tuple[int | str, Value, bool]] = []
        self._lists: list[tuple[int | str, Any, bool]] = []
        self._written: dict[str, int | str] = {}
        places: list[tuple[int | str, Any]] = [*enumerate(call.args), *call.kwargs.items()]
        for place, argument in places:
            name = place if isinstance(place, str) else names[place] if place < len(names) else ""
            copied = name in written or (reshaped and place == 0)
            if copied:
                self._written[name] = place
            if isinstance(argument, Value):
                self._tensors.append((place, argument, copied))
            elif isinstance(argument, (list, tuple)) and next(values_in(argument), None) is not None:
                self._lists.append((place, argument, copied))
        self._single = not self._lists and call.slots == ((0, None),)

    def run(
        self,
        env: Tensors,
        constants: tuple[list[Any], dict[str, Any]] | None = None,
        moved: Mapping[int, int] | None = None,
    ) -> list[torch.Tensor]:
        """The outputs, from the numbers in `env`, or else from the recorded ones.

        Args:
            env: id of a value → its tensor, where it is not what was recorded.
            constants: other arguments in the place of the call's own, with the recorded `Value`s in them.
            moved: id of a value that it reads → id of the value to read instead.

        Raises:
            InterventionError: the operator refuses these numbers.
        """
        try:
            return self._run(env, constants, moved)
        except (RuntimeError, IndexError, ValueError, TypeError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InterventionError(
                f"the edit leads to a call that cannot be: {where(self.call)} says: {reason}"
            ) from error

    def result(self, env: Tensors) -> Any:
        """What the operator returns, tensors or not."""
        args, kwargs = self._arguments(env, None, None)
        return self.call.op(*args, **kwargs)

    def _run(self, env: Tensors, constants: Any, moved: Any) -> list[torch.Tensor]:
        special = _SPECIAL.get(self.call.name)
        if special is not None:
            made = special(self, env, moved)
            if made is not None:
                return made
        args, kwargs = self._arguments(env, constants, moved)
        result = self.call.op(*args, **kwargs)
        if self._single:
            return [result]
        outputs = []
        for slot, place in self.call.slots:
            if isinstance(slot, int):
                item = result[slot] if isinstance(result, tuple) else result
            else:
                at = self._written[slot]
                item = args[at] if isinstance(at, int) else kwargs[at]
            outputs.append(item if place is None else item[place])
        return outputs

    def read(self, value: Value, env: Tensors, moved: Mapping[int, int] | None) -> torch.Tensor:
        """One of the values that it reads."""
        identity = value.id if moved is None else moved.get(value.id, value.id)
        tensor = env.get(identity)
        return value.data if tensor is None else tensor

    def _copy(self, value: Value, env: Tensors, moved: Mapping[int, int] | None) -> torch.Tensor:
        """A copy of one of the values that it reads, to be written to."""
        if self._overwrites and value.id not in env and not value.kept:
            return torch.empty_strided(value.shape, value.stride, dtype=value.dtype)
        return self.read(value, env, moved).clone()

    def _arguments(self, env: Tensors, constants: Any, moved: Any) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = (self._args, self._kwargs) if constants is None else constants
        args = args.copy()
        if kwargs:
            kwargs = dict(kwargs)
        for place, value, copied in self._tensors:
            target: Any = args if isinstance(place, int) else kwargs
            target[place] = self._copy(value, env, moved) if copied else self.read(value, env, moved)
        for place, items, copied in self._lists:
            target = args if isinstance(place, int) else kwargs
            target[place] = self._list(items, env, moved, copied)
        return args, kwargs

    def _list(self, items: Any, env: Tensors, moved: Any, copied: bool) -> list[Any]:
        found: list[Any] = []
        for item in items:
            if isinstance(item, Value):
                found.append(self._copy(item, env, moved) if copied else self.read(item, env, moved))
            elif isinstance(item, (list, tuple)):
                found.append(self._list(item, env, moved, copied))
            else:
                found.append(item)
        return found


class Program:
    """The lines of a recording, in the order of the run; line n is call n.

    `parts` holds what addresses have meant so far.
    """

    def __init__(self, recording: Recording) -> None:
        self.lines = [Line(call) for call in recording.calls]
        self.values = recording.values
        self.parts: dict[str, Part] = {}
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
        raise InterventionError(
            f"the edit reaches {where(line.call)}, which reads memory around its argument: what would lie "
            "there cannot be told"
        )
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
        raise InterventionError(
            f"the edit changes a sign at {where(line.call)}, and the run drew no slope for that number; "
            "give fresh_random=True to draw anew"
        )
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
    "rrelu_with_noise": _rrelu,
    "rrelu_with_noise_": _rrelu,
}


def _draws_nothing(call: Call) -> bool:
    """Whether an operator that may draw at random was called so that it does not."""
    arguments = call.arguments
    return (
        arguments.get("dropout_p") == 0
        or arguments.get("dropout") == 0
        or arguments.get("train") is False
        or arguments.get("training") is False
    )


def redraws(line: Line) -> bool:
    """Whether a random line can be run on other numbers with the draw that it made."""
    return line.call.name in _SPECIAL


def is_weighted(line: Line) -> bool:
    """Whether what a random line draws depends on the numbers that it reads."""
    return line.call.name.rstrip("_") in _WEIGHTED and bool(line.reads)
