"""Names that mean less than their value: a module's way in, and its way out where that is its way in."""

# The parts of a recording know each other's insides.

from __future__ import annotations

import re

from openheart.errors import InterventionError
from openheart.recording import Recording, Value, values_in
from openheart.recording.addresses import Part

__all__ = ["refuse_partial"]

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
