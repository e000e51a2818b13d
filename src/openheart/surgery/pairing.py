"""Which value of one run is which of another: by its name, or by how it came about.

A module's output, a parameter, the loss are paired by name. `/tanh_1.out` is only the second tanh that ran,
and in a run that calls them in another order it is another value; so what is merely numbered is paired by the
operator that made it and what that read, back to what has a name. Where nothing of the other run came about
in that way, constants may differ, then what else the call read, and last the number alone says.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any

from openheart.errors import OpaqueError
from openheart.recording.values import Value

if TYPE_CHECKING:
    from openheart.recording import Call, Recording

__all__ = ["Twins", "paired"]

Twins = dict[str, tuple[Value, Value]]
Color = Callable[[Value], Hashable]

_NUMBERED = re.compile(r"^(@\d+ )?(constant|leaf|parameter|target|value)_\d+(\.|$)")
_COMMUTES = {"add", "mul", "maximum", "minimum", "eq", "ne", "logical_and", "logical_or", "logaddexp"}
_DIGESTED = 1 << 16
"""Constants of no more numbers are told apart by these."""
_ROUNDS = 8


def paired(before: Recording, after: Recording) -> tuple[Twins, list[str], list[str]]:
    """The pairs by the first run's canonical name, in its order; and the names without a twin."""
    called, others = _called(before), after._named.values
    twins: dict[int, Value] = {}
    related = _related(before, after)
    for name, value in called.items():
        if (related or not _numbered(before, name, value)) and (other := others.get(name)) is not None:
            twins[value.id] = other
    if not related:
        _pair_numbered(before, after, called, twins)
    met = {id(other) for other in twins.values()}
    return (
        {name: (value, twins[value.id]) for name, value in called.items() if value.id in twins},
        [name for name, value in called.items() if value.id not in twins],
        [name for name, value in _called(after).items() if id(value) not in met],
    )


def _called(recording: Recording) -> dict[str, Value]:
    canonical = recording._named.canonical
    return {canonical[value.id]: value for value in recording.values if value.id in canonical}


def _related(one: Recording, other: Recording) -> bool:
    """Whether one run is the other with something changed: then each number means the same call."""

    def first(recording: Recording) -> Recording:
        while recording.before is not None:
            recording = recording.before
        return recording

    return first(one) is first(other)


def _numbered(recording: Recording, name: str, value: Value) -> bool:
    return _NUMBERED.match(name) is not None or not recording.has_own_name(value)


def _pair_numbered(
    before: Recording, after: Recording, called: dict[str, Value], twins: dict[int, Value]
) -> None:
    names = {other.id: name for name, value in called.items() if (other := twins.get(value.id)) is not None}
    taken = {other.id for other in twins.values()}
    left = [value for value in called.values() if value.id not in twins]
    right = [value for value in after.values if value.id not in taken]

    def match(mine: Color, theirs: Color, alone: bool) -> bool:
        """Pairs what has one color, in the order of the runs; only where it is the only one, if `alone`."""
        nonlocal left, right
        ours, yours = _grouped(left, mine), _grouped(right, theirs)
        found: dict[int, Value] = {}
        for color, group in ours.items():
            known = yours.get(color, [])
            if known and not (alone and (len(group) > 1 or len(known) > 1)):
                found.update((value.id, other) for value, other in zip(group, known, strict=False))
        twins.update(found)
        gone = {other.id for other in found.values()}
        left = [value for value in left if value.id not in found]
        right = [value for value in right if value.id not in gone]
        return bool(found)

    mine, theirs = _named_colors(before, {}), _named_colors(after, names)
    for exact in (True, False):
        match(_colors(before, mine, exact), _colors(after, theirs, exact), alone=False)
    for _ in range(_ROUNDS):
        if not left or not right:
            return
        ids = {other.id: identity for identity, other in twins.items()}
        ours = {identity: identity for identity in twins}
        if not any(
            match(_shallow(before, ours, exact), _shallow(after, ids, exact), alone=True)
            for exact in (True, False)
        ):
            break
    match(before.name, after.name, alone=True)


def _grouped(values: Iterable[Value], color: Color) -> dict[Hashable, list[Value]]:
    groups: dict[Hashable, list[Value]] = {}
    for value in values:
        groups.setdefault(color(value), []).append(value)
    return groups


def _named_colors(recording: Recording, others: dict[int, str]) -> dict[int, str]:
    """What values with a name of their own are called, by id; `others`: by the other run's name."""
    canonical = recording._named.canonical
    found = {
        value.id: canonical[value.id]
        for value in recording.values
        if value.id in canonical and not _numbered(recording, canonical[value.id], value)
    }
    return found | others


def _colors(recording: Recording, named: dict[int, str], exact: bool) -> Color:
    """How each value came about, back to what is named; numbers and constants count if `exact`."""
    colors: dict[int, int] = {}
    for value in recording.values:  # a call that no value tells of makes none
        if value.id in named:
            colors[value.id] = hash(named[value.id])
        elif recording.maker(value) is None:
            colors[value.id] = hash(_leaf(recording, value, exact))
    for call in recording.calls:
        made = hash(_way(call, lambda value: colors.get(value.id), exact))
        for number, value in enumerate(call.outputs):
            colors.setdefault(value.id, hash((made, number)))
    return lambda value: colors.get(value.id)


def _shallow(recording: Recording, pairs: dict[int, int], exact: bool) -> Color:
    """What made each value, of which values that have a twin already."""

    def color(value: Value) -> Hashable:
        made = recording.maker(value)
        if made is None:
            return _leaf(recording, value, exact=False)
        return _way(made[0], lambda read: pairs.get(read.id), exact), made[1]

    return color


def _way(call: Call, color: Color, exact: bool) -> Hashable:
    """A call by its operator and what it reads, where and when."""
    args = [_seen(item, color, exact) for item in call.args]
    if call.name.rstrip("_") in _COMMUTES and len(args) == 2 and not call.kwargs:
        args.sort(key=hash)
    named = tuple((name, _seen(item, color, exact)) for name, item in sorted(call.kwargs.items()))
    return str(call.op), call.phase, call.step, call.scope, call.visit, tuple(args), named


def _seen(item: Any, color: Color, exact: bool) -> Hashable:
    if isinstance(item, Value):
        return color(item)
    if isinstance(item, (list, tuple)):
        return tuple(_seen(part, color, exact) for part in item)
    return repr(item) if exact or isinstance(item, str) else None


def _leaf(recording: Recording, value: Value, exact: bool) -> Hashable:
    """Something that no call made: what it is, the numbers if `exact`, and what first reads it."""
    if exact and value.kept and value.shape.count(0) == 0:
        try:
            array = value.array
            if array.size <= _DIGESTED:
                return "leaf", value.shape, value.dtype, array.tobytes()
        except OpaqueError:
            pass
    user = next(iter(recording.users(value)), None)
    return "leaf", value.shape, value.dtype, user.name if user is not None else None
