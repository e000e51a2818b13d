"""What an edit in the forward pass does to the backward one.

If a number is set by hand, what made it has no influence on the loss any more: its gradient is cut off there,
as PyTorch's autograd would cut it off. In the recorded program that means: the calls that take the gradient
of a value, to go on with it, read another. Which these are autograd's own graph tells.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, ref

from openheart.errors import InterventionError
from openheart.recording import Call, Recording, Value
from openheart.surgery.checkpoints import Twins, twins_of
from openheart.surgery.program import where
from openheart.wiring import Arrival, Edge, Untold, Wiring, arrivals, shares_of, slot_of, wiring_of

__all__ = ["Backward", "backward_of"]


@dataclass(slots=True, eq=False)
class Backward:
    """The backward pass of a recording, by what it belongs to.

    Attributes:
        reference: the recording, held weakly: this is kept as long as it lives.
        tied: id of a forward call → its backward calls.
        twins: what the backward pass computes a second time; it is no gradient, whatever it is called.
    """

    reference: ref[Recording]
    tied: dict[int, list[Call]] = field(default_factory=dict)
    twins: Twins = field(default_factory=Twins)

    @property
    def recording(self) -> Recording:
        recording = self.reference()
        assert recording is not None
        return recording

    @property
    def wiring(self) -> Wiring:
        return wiring_of(self.recording)

    def slot(self, value: Value) -> Edge | None:
        """Where the gradient of a value arrives; None: it has none."""
        try:
            return slot_of(self.wiring, value)
        except Untold:
            raise self._unclear(value) from None

    def behind_edits(self, edge: Edge) -> Edge:
        """Where a gradient arrives once the edits of this gradient itself are done with it."""
        nodes = self.wiring.graph.nodes
        while nodes[edge[0]].edit and not nodes[edge[0]].inside and (after := nodes[edge[0]].follows[0]):
            edge = after
        return edge

    def arrivals(self, value: Value, edge: Edge | None = None) -> list[Arrival]:
        """The gradients that arrive at a value, or at an edge, with the calls that take them.

        Raises:
            InterventionError: some do, and the recording does not tell which, or who takes them.
        """
        try:
            return arrivals(self.wiring, value, edge)
        except Untold:
            raise self._unclear(value) from None

    def handed(self, calls: set[int], value: Value) -> list[tuple[int, Edge, int]]:
        """(backward pass, where, gradient) for what these forward calls hand back to a value that they read.

        Raises:
            InterventionError: the recording does not tell it.
        """
        try:
            return shares_of(self.wiring, calls, value)
        except Untold:
            raise self._unclear(value) from None

    def _unclear(self, value: Value) -> InterventionError:
        name, made = self.recording.name(value), self.recording.maker(value)
        if made is None:
            return InterventionError("error.edit.gradient", name=name)
        return InterventionError("error.edit.gradient.made", name=name, call=where(made[0]))

    def owners(self, edges: list[Edge]) -> set[int]:
        """The values whose gradient arrives at these places."""
        return {value for value, edge in self.wiring.graph.slots.items() if edge in edges}

    def saved(self, value: Value) -> list[Call]:
        """The calls that read a value as what its maker saved of its own result, for its backward."""
        made = self.recording.maker(value)
        if made is None:
            return []
        mine = {call.id for call in self.tied.get(made[0].id, ())}
        found = []
        for call in self.recording.users(value):
            if call.id in mine:
                found.append(call)
            elif call.name == "detach" and call.id == made[0].id + 1:
                users = {user.id for output in call.outputs for user in self.recording.users(output)}
                if users <= mine:
                    found.append(call)
        return found


_KNOWN: WeakKeyDictionary[Recording, Backward] = WeakKeyDictionary()


def backward_of(recording: Recording) -> Backward:
    """The backward pass of a recording, by what it belongs to; found once."""
    known = _KNOWN.get(recording)
    if known is None:
        known = _KNOWN[recording] = Backward(ref(recording), twins=twins_of(recording))
        for call in recording.calls:
            tied = call.phase == "backward" and call.forward_call is not None
            if tied and call.id not in known.twins.calls:
                known.tied.setdefault(call.forward_call or 0, []).append(call)
    return known
