"""Names that mean less than their value: a module's way in, and its way out where that is its way in."""

# The parts of a recording know each other's insides.

from __future__ import annotations

import re

from openheart.errors import InterventionError
from openheart.recording import Recording, Value, values_in
from openheart.recording.addresses import Part

__all__ = ["earlier_names", "refuse_partial", "step_of"]

_SIDE = re.compile(
    r"^(?:@(?P<step>\d+) )?(?P<path>.*?)(?::(?P<visit>\d+))?\.(?P<side>in|out)(?:_\d+|\.\w+)?$"
)


def refuse_partial(recording: Recording, part: Part) -> None:
    """Refuses a name that a hook would give another meaning than the value has.

    A hook on a module's way in changes what the module reads, and a hook on a module that returns its
    argument what is read of it afterwards; the recording does not tell who read the value by which way.

    Raises:
        InterventionError: the value is read elsewhere as well; the message has a name for all of it.
    """
    value = part.value
    if not _partial(recording, part.name, value):
        return
    names = (name for name, item in recording._named.values.items() if item is value)
    whole = next((name for name in names if not _partial(recording, name, value)), recording.name(value))
    raise InterventionError("error.edit.alias", name=part.name, whole=whole)


def earlier_names(recording: Recording, name: str, value: Value) -> list[str]:
    """What a value is called before it is called `name`.

    A module returns what a module inside of it returned, or what it was given itself; a step finds what the
    step before it left. A hook on the later one leaves what the earlier one says as it is.
    """
    names = [other for other, item in recording._named.values.items() if item is value and other != name]
    match = _SIDE.match(name)
    if match is None or match["side"] == "in":
        step = step_of(name)
        bare = name.rpartition(" ")[2]
        return [
            other for other in names if other.rpartition(" ")[2] == f"{bare}.after" and step_of(other) < step
        ]
    visits = [(visit.path, visit.number, visit.step) for visit in recording._read().visits]
    mine = _visit_of(match)
    place = visits.index(mine) if mine in visits else -1
    found = []
    for other in names:
        side = _SIDE.match(other)
        if side is None or place < 0 or _visit_of(side) not in visits:
            continue
        visit = _visit_of(side)
        around = mine[0].startswith(f"{visit[0]}.") or not visit[0]
        if visits.index(visit) < place or (side["side"] == "in" and (visit == mine or around)):
            found.append(other)
    return found


def step_of(name: str) -> int:
    """The step that a name speaks of."""
    return int(name[1:].partition(" ")[0]) if name.startswith("@") and " " in name else 0


def _visit_of(match: re.Match[str]) -> tuple[str, int, int]:
    return match["path"], int(match["visit"] or 1) - 1, int(match["step"] or 0)


def _partial(recording: Recording, name: str, value: Value) -> bool:
    match = _SIDE.match(name)
    if match is None:
        return False
    path = match["path"]
    readers = [
        call for call in recording.users(value) if call.phase in ("forward", "loss") and call.name != "detach"
    ]
    if match["side"] == "in":
        return any(path and call.scope != path and not call.scope.startswith(f"{path}.") for call in readers)
    key = (path, int(match["visit"] or 1) - 1, int(match["step"] or 0))
    through = any(
        (visit.path, visit.number, visit.step) == key and any(value is item for _, item in visit.inputs)
        for visit in recording._read().visits
    )
    read = [item for call in readers for item in values_in((call.args, call.kwargs)) if item is value]
    return through and len(read) > 1
