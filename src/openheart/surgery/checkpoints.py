"""What a backward pass computes a second time, as checkpoints do, which keep no activations."""

from __future__ import annotations

from typing import Any

from openheart.errors import InterventionError
from openheart.recording import Call, Recording, Value, values_in
from openheart.surgery.program import where
from openheart.wiring import wiring_of

__all__ = ["Twins", "twins_of"]

# They give their argument's numbers, or some of them: that one is made twice says nothing.
_VIEWS = {"detach", "alias", "t", "transpose", "permute", "view", "reshape", "expand", "unsqueeze", "squeeze"}


class Twins:
    """The forward calls that the backward pass makes again, on the same values.

    Attributes:
        values: id of a value that was made again, in the backward pass → id of the value in the forward pass.
        calls: ids of the calls that make them again.
        originals: ids of the forward calls that are made again.
    """

    def __init__(self) -> None:
        self.values: dict[int, int] = {}
        self.calls: set[int] = set()
        self.originals: set[int] = set()

    def refuse(self, name: str, call: Call) -> None:
        """Refuses an edit of what a call makes, where the call is made twice.

        Raises:
            InterventionError: it is.
        """
        if call.id in self.calls or call.id in self.originals:
            raise InterventionError("error.edit.twice", name=name, call=where(call))


def twins_of(recording: Recording) -> Twins:
    """Finds what a backward pass computes a second time."""
    twins = Twins()
    wiring = wiring_of(recording)
    told = {  # what autograd says that a node computes, it does not compute a second time
        call for flow in wiring.flows.values() if flow.routing is not None for call in flow.own
    }
    first: dict[Any, Call] = {}
    forward: set[int] = {value.id for value in recording.values if value.origin != "call"}
    for call in recording.calls:
        if call.phase in ("forward", "loss"):
            first.setdefault(_key(call, {}), call)
            forward.update(value.id for value in call.outputs)
        elif call.phase == "backward":
            original = first.get(_key(call, twins.values))
            if original is not None and len(original.outputs) == len(call.outputs) and call.id not in told:
                for one, other in zip(original.outputs, call.outputs, strict=True):
                    twins.values[other.id] = one.id
                if call.name not in _VIEWS:
                    twins.originals.add(original.id)
                    twins.calls.add(call.id)
            elif call.name == "detach":  # as a saved tensor is unpacked, or a checkpoint's argument taken
                source = twins.values.get(call.args[0].id, call.args[0].id)
                if source in forward:
                    twins.values[call.outputs[0].id] = source
    if not twins.originals:
        twins.values.clear()
    return twins


def _key(call: Call, same: dict[int, int]) -> Any:
    """The operator, its constants, and the values that it reads: `same` ones count as one."""
    read = tuple(same.get(value.id, value.id) for value in values_in((call.args, call.kwargs)))
    return call.op, _constants((call.args, call.kwargs)), read


def _constants(item: Any) -> Any:
    if isinstance(item, Value):
        return None
    if isinstance(item, (list, tuple)):
        return tuple(_constants(part) for part in item)
    if isinstance(item, dict):
        return tuple((key, _constants(part)) for key, part in item.items())
    return repr(item)
