"""Whether what a file says can be a recording: a checksum tells that somebody wrote it, not that we did.

Every number, name and reference is looked at before anything is built of it, and every call is held against
the operator's own schema. What lies deeper (shapes that no such operator gives) shows when a law is asked or
a call is run: `sound` makes of whatever goes wrong then the one error that a false file has.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache, wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar, get_args

import torch

from openheart.errors import OpenheartError, RecordingFileError
from openheart.i18n import Message
from openheart.recording.encoding import Unknown
from openheart.recording.notices import DETAILS
from openheart.recording.values import Call, Origin, Phase, Value

__all__ = ["False_", "check_call", "check_run", "sound"]

ORIGINS, PHASES = frozenset(get_args(Origin)), frozenset(get_args(Phase))
P = ParamSpec("P")
R = TypeVar("R")

DTYPES = {name: kind for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}
DIMENSIONS = 64
WHOLE = 2**62
SMALL = 2**30
"""A file may describe tensors of this many bytes each, however small it is: to expand costs nothing."""
TIMES = 64
"""And tensors of this many times its own size."""


class False_(ValueError):  # noqa: N801  a file, not an error, is false
    """Something in a file that no recording has; `reason` says where and what."""

    def __init__(self, place: str, found: Any) -> None:
        text = repr(found)
        self.reason = Message(
            "error.file.false.place", {"place": place, "found": text if len(text) <= 80 else text[:79] + "…"}
        )
        super().__init__(place)


def check_run(run: Any, spans: Mapping[str, tuple[int, int]], size: int) -> None:
    """Looks at everything that a file of `size` bytes says, whose pieces of storage lie at `spans`.

    Raises:
        False_: this cannot be what a recording says.
    """
    _is(run, dict, "run")
    values, calls = _list(run, "values", "run"), _list(run, "calls", "run")
    count = len(values)
    room = max(SMALL, TIMES * size)
    total = 0
    for number, value in enumerate(values):
        total += _check_value(value, f"values[{number}]", spans, room)
    if total > 4 * room:
        raise False_("values", total)
    made: dict[int, int] = {}
    reads = [
        (number, value)
        for number, call in enumerate(calls)
        for value in _check_outline(call, f"calls[{number}]", count, len(calls), made, number)
    ]
    for number, value in reads:  # nobody reads what is only made later, so that no number explains itself
        if made.get(value, -1) >= number:
            raise False_(f"calls[{number}].args", value)
    for number, step in enumerate(run.get("optimizers", [])):
        _check_step(step, f"optimizers[{number}]", len(calls))
    _check_names(run, count)
    _is(run.get("keep"), str, "keep")
    if run.get("ran") is not None:
        _whole(run["ran"], "ran")
    _check_notices(run.get("notices", []), sum("own" in call for call in calls))


def _check_value(value: Any, place: str, spans: Mapping[str, tuple[int, int]], room: int) -> int:
    """How many bytes a value would take if it were written out."""
    if not isinstance(value, list) or len(value) != 4:
        raise False_(place, value)
    version, origin, geometry, stored = value
    _whole(version, f"{place}.version")
    if not isinstance(origin, str) or origin not in ORIGINS:
        raise False_(f"{place}.origin", origin)
    _check_geometry(geometry, f"{place}.geometry", None)
    if stored is None:
        return 0
    if not isinstance(stored, list) or len(stored) != 7 or stored[2:4] != geometry[:2]:
        raise False_(f"{place}.place", stored)
    piece, begin, *laid = stored
    _whole(begin, f"{place}.place.begin")
    if type(piece) is not int or str(piece) not in spans:
        raise False_(f"{place}.place.piece", piece)
    start, end = spans[str(piece)]
    return _check_geometry(laid, f"{place}.place", (begin, end - start, room))


def _check_geometry(geometry: Any, place: str, within: tuple[int, int, int] | None) -> int:
    if not isinstance(geometry, list) or len(geometry) != 5:
        raise False_(place, geometry)
    name, shape, stride, offset, bits = geometry
    dtype = DTYPES.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise False_(f"{place}.dtype", name)
    lists = isinstance(shape, list) and isinstance(stride, list)
    if not lists or len(shape) != len(stride) or len(shape) > DIMENSIONS:
        raise False_(f"{place}.shape", shape)
    for item in (*shape, *stride, offset):
        _whole(item, place)
    if bits not in range(4) or type(bits) is not int or (bits & 1 and not dtype.is_complex):
        raise False_(f"{place}.bits", bits)
    if within is None:
        return 0
    begin, length, room = within
    total = math.prod(shape) * dtype.itemsize
    if total > room:
        raise False_(f"{place}.shape", shape)
    if total:
        last = sum((extent - 1) * step for extent, step in zip(shape, stride, strict=True))
        low, high = offset * dtype.itemsize, (offset + last + 1) * dtype.itemsize
        if low < begin or high > begin + length or (low - begin) % dtype.itemsize:
            raise False_(place, geometry)
    return total


def _check_outline(
    call: Any, place: str, values: int, calls: int, made: dict[int, int], number: int
) -> list[int]:
    """The values that a call reads; those that it makes are added to `made`."""
    _is(call, dict, place)
    for key in ("op", "name", "phase", "scope"):
        _is(call.get(key), str, f"{place}.{key}")
    if call["phase"] not in PHASES:
        raise False_(f"{place}.phase", call["phase"])
    for key in ("visit", "step"):
        _whole(call.get(key), f"{place}.{key}", 2**31)
    if call.get("source") is not None:
        _is(call["source"], str, f"{place}.source")
    if call.get("own", True) is not True:
        raise False_(f"{place}.own", call["own"])
    forward = call.get("forward_call")
    if forward is not None and (type(forward) is not int or not 0 <= forward < calls):
        raise False_(f"{place}.forward_call", forward)
    outputs, slots = _list(call, "outputs", place), _list(call, "slots", place)
    if len(outputs) != len(slots):
        raise False_(f"{place}.slots", slots)
    for slot in slots:
        fits = isinstance(slot, list) and len(slot) == 2 and type(slot[0]) in (int, str)
        if not fits or not (slot[1] is None or (type(slot[1]) is int and 0 <= slot[1] < values)):
            raise False_(f"{place}.slots", slot)
    _is(call.get("kwargs"), dict, f"{place}.kwargs")
    reads = [
        value
        for argument in (*_list(call, "args", place), *call["kwargs"].values())
        for value in _named_in(argument, place)
    ]
    for value in reads:
        _index(value, values, f"{place}.args")
    for value in outputs:
        _index(value, values, f"{place}.outputs")
        if value in made:
            raise False_(f"{place}.outputs", value)
        made[value] = number
    return reads


def _named_in(argument: Any, place: str) -> list[Any]:
    """The numbers of the values in one argument, and whether it is written as arguments are."""
    found: list[Any] = []
    stack = [argument]
    while stack:
        here = stack.pop()
        if isinstance(here, list):
            stack.extend(here)
        elif isinstance(here, dict):
            if len(here) != 1:
                raise False_(f"{place}.args", here)
            ((kind, inside),) = here.items()
            if kind == "value":
                found.append(inside)
            elif kind in ("tuple", "complex", "dict"):
                _is(inside, list, f"{place}.args.{kind}")
                stack.extend(inside)
            else:
                _is(inside, str, f"{place}.args.{kind}")
    return found


def _check_step(step: Any, place: str, calls: int) -> None:
    _is(step, dict, place)
    _is(step.get("kind"), str, f"{place}.kind")
    _whole(step.get("step"), f"{place}.step", 2**31)
    made = _list(step, "calls", place)
    if len(made) != 2 or any(type(n) is not int for n in made) or not 0 <= made[0] <= made[1] <= calls:
        raise False_(f"{place}.calls", made)
    for group in _list(step, "groups", place):
        _is(group, dict, f"{place}.groups")
        _is(group.get("options"), dict, f"{place}.options")
        lists = [_list(group, key, place) for key in ("names", "parameters", "gradients", "states")]
        if len({len(each) for each in lists}) != 1:
            raise False_(f"{place}.groups", [len(each) for each in lists])
        names, parameters, gradients, states = lists
        for name in names:
            if name is not None:
                _is(name, str, f"{place}.names")
        for value, gradient, state in zip(parameters, gradients, states, strict=True):
            _is(state, dict, f"{place}.states")
            for item, may_lack in ((value, False), (gradient, True)):
                fits = isinstance(item, dict) and list(item) == ["value"]
                if not fits and not (may_lack and item is None):
                    raise False_(place, item)


def _check_names(run: dict[str, Any], count: int) -> None:
    named: dict[str, int] = {}
    for pair in _list(run, "names", "run"):
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)):
            raise False_("names", pair)
        _index(pair[1], count, "names")
        named[pair[0]] = pair[1]
    seen = set()
    for pair in _list(run, "canonical", "run"):
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], str)):
            raise False_("canonical", pair)
        _index(pair[0], count, "canonical")
        if named.get(pair[1]) != pair[0]:
            raise False_("canonical", pair)
        seen.add(pair[0])
    if len(seen) != count:
        raise False_("canonical", len(seen))
    for number in _list(run, "nameless", "run"):
        _index(number, count, "nameless")


def _check_notices(notices: Any, own: int) -> None:
    _is(notices, list, "notices")
    said = {}
    for pair in notices:
        if not (
            isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and pair[0] in DETAILS
        ):
            raise False_("notices", pair)
        key, details = pair
        _is(details, dict, "notices")
        if set(details) != set(DETAILS[key]) or key in said:
            raise False_("notices", pair)
        for number in details.values():
            _whole(number, "notices", 2**31)
        said[key] = details
    if said.get("recording.notice.copied", {"count": 0})["count"] != own:
        raise False_("notices", own)


def _is(item: Any, kind: type, place: str) -> None:
    if type(item) is not kind:
        raise False_(place, item)


def _list(holder: dict[str, Any], key: str, place: str) -> list[Any]:
    found = holder.get(key)
    if not isinstance(found, list):
        raise False_(f"{place}.{key}", found)
    return found


def _whole(item: Any, place: str, most: int = WHOLE) -> None:
    if type(item) is not int or not 0 <= item < most:
        raise False_(place, item)


def _index(item: Any, count: int, place: str) -> None:
    if type(item) is not int or not 0 <= item < count:
        raise False_(place, item)


# A call and its operator's schema --------------------------------------------------------------------------

_TAKES: dict[str, tuple[type, ...]] = {
    "TensorType": (Value, int, float, complex),  # a number stands where a tensor may
    "IntType": (int, torch.dtype, torch.layout, torch.memory_format),
    "SymIntType": (int,),
    "FloatType": (float, int),
    "SymFloatType": (float, int),
    "NumberType": (float, int, complex),
    "BoolType": (bool, int),
    "SymBoolType": (bool, int),
    "StringType": (str,),
    "DeviceObjType": (torch.device, str),
}
SIZES = ("size", "sizes", "shape", "repeats", "output_size", "input_size", "input_sizes", "self_sizes")
MANY = 2**28


class _Parameter(NamedTuple):
    name: str
    kinds: tuple[str, ...]  # from the outside in: an option of a list of tensors
    positional: bool
    optional: bool


class _Signature(NamedTuple):
    parameters: tuple[_Parameter, ...]
    lists: tuple[bool, ...]  # of what it returns, whether each is a list


@lru_cache(maxsize=4096)
def _signature(op: Any) -> _Signature:
    """An operator's schema, read once: to ask the dispatcher costs more than to hold a call against it."""
    parameters = [
        _Parameter(p.name, _kinds(p.type), not p.kwarg_only, p.has_default_value())
        for p in op._schema.arguments
    ]
    return _Signature(tuple(parameters), tuple(r.type.kind() == "ListType" for r in op._schema.returns))


def _kinds(kind: Any) -> tuple[str, ...]:
    found = [kind.kind()]
    while found[-1] in ("OptionalType", "ListType"):
        kind = kind.getElementType()
        found.append(kind.kind())
    return tuple(found)


def check_call(call: Call) -> None:
    """Holds a call against its operator's schema.

    Raises:
        False_: the operator takes no such arguments, gives no such outputs, or is asked for far more numbers
            than it was recorded to give.
    """
    if not hasattr(call.op, "_schema"):
        return
    signature = _signature(call.op)
    place = f"calls[{call.id}]"
    parameters = signature.parameters
    if len(call.args) > sum(p.positional for p in parameters):
        raise False_(f"{place}.args", call.args)
    given = {p.name: item for p, item in zip(parameters, call.args, strict=False)}
    known = {p.name for p in parameters}
    for name in call.kwargs:
        if name not in known or name in given:
            raise False_(f"{place}.kwargs", name)
    given |= call.kwargs
    for parameter in parameters:
        if parameter.name in given:
            if not _fits(given[parameter.name], parameter.kinds):
                raise False_(f"{place}.{parameter.name}", given[parameter.name])
        elif not parameter.optional:
            raise False_(f"{place}.{parameter.name}", None)
    _check_slots(call, place, signature.lists, known)
    _check_sizes(call, place, given, any(isinstance(item, (Value, list, tuple)) for item in given.values()))


def _fits(item: Any, kinds: tuple[str, ...]) -> bool:
    kind, *inner = kinds
    if isinstance(item, Unknown):
        return True
    if kind == "OptionalType":
        return item is None or _fits(item, tuple(inner))
    if kind == "ListType":
        parts = item if isinstance(item, (list, tuple)) else [item]
        return all(_fits(part, tuple(inner)) for part in parts)
    takes = _TAKES.get(kind)
    return takes is None or isinstance(item, takes)


def _check_slots(call: Call, place: str, lists: tuple[bool, ...], names: set[str]) -> None:
    for slot, position in call.slots:
        if isinstance(slot, str):
            fits = slot in names
        else:
            fits = 0 <= slot < len(lists) and (position is not None) == lists[slot]
        if not fits:
            raise False_(f"{place}.slots", [slot, position])


def _check_sizes(call: Call, place: str, given: dict[str, Any], takes_tensors: bool) -> None:
    for name, item in given.items():
        asked = 1
        if isinstance(item, (list, tuple)) and name in SIZES:
            asked = math.prod(abs(part) for part in item if type(part) is int)
        elif type(item) is int and not takes_tensors and abs(item) < WHOLE:
            asked = abs(item)
        if asked > MANY:
            here = (each for each in (*call.outputs, *given.values()) if isinstance(each, Value))
            if asked > 16 * max((math.prod(value.shape) for value in here), default=0):
                raise False_(f"{place}.{name}", item)


# What shows later ------------------------------------------------------------------------------------------


def sound(work: Callable[P, R]) -> Callable[P, R]:
    """What is done with a recording; one from a file that it cannot be done with is a false file."""

    @wraps(work)
    def done(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return work(*args, **kwargs)
        except OpenheartError:
            raise
        except Exception as error:
            given = (*args, *kwargs.values())
            about = (getattr(item, "recording", item) for item in given)  # an explanation knows its recording
            files = (getattr(item, "_file", None) for item in about)
            file = next((file for file in files if file is not None), None)
            if file is None:
                raise
            raise RecordingFileError("error.file.unsound", file=file, reason=repr(error)[:200]) from error

    return done
