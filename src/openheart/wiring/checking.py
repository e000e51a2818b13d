"""Checks the wiring of a run: that what a call read is what another made, and that gradients add up."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from dataclasses import dataclass

from openheart.errors import OpaqueError
from openheart.recording import Recording, Value
from openheart.recording.graph import Edge
from openheart.wiring.asking import places_in
from openheart.wiring.following import UNKNOWN, wiring_of

__all__ = ["Crossed", "WiringCheck", "check_wiring"]

LISTED = 50
"""So many disagreements are kept one by one; all are counted."""


@dataclass(frozen=True, slots=True)
class Crossed:
    """A wire that does not lead where it should.

    Attributes:
        kind: `"gradient"`: a backward call reads another gradient than the graph hands it; `"argument"`: a
            call reads another value than the one whose gradient it gives; `"order"`: a call reads what no
            call has made before it; `"name"`: what is called a value's gradient is another one.
        call: the operator that reads, and where.
        read, told: the addresses of what is read, and of what should be.
    """

    kind: str
    call: str
    read: str
    told: str


@dataclass(frozen=True, slots=True)
class WiringCheck:
    """How a run hangs together.

    Attributes:
        edges: how many wires were checked: what calls read, and what a gradient's uses hand back.
        unknown: wires of the backward pass that the run does not tell enough of to be checked.
        disagree: how many lead elsewhere; `disagreements` are the first of them.
    """

    edges: int = 0
    unknown: int = 0
    disagree: int = 0
    disagreements: tuple[Crossed, ...] = ()

    @property
    def ok(self) -> bool:
        return self.disagree == 0


def check_wiring(recording: Recording) -> WiringCheck:
    """Checks every wire of a run.

    A forward value's gradient must be the sum of what its uses hand back, as autograd's own graph has it, and
    every call must read what another has made, or what was there when the run began.
    """
    check = _Check(recording)
    check.reads()
    check.gradients()
    check.arguments()
    check.names()
    return WiringCheck(check.edges, check.unknown, len(check.found), tuple(check.found[:LISTED]))


class _Check:
    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.wiring = wiring_of(recording)
        self.edges = 0
        self.unknown = 0
        self.found: list[Crossed] = []

    def reads(self) -> None:
        """Each call reads what was made before it, or what no call of the run has made."""
        for call in self.recording.calls:
            for _, value in places_in((call.args, call.kwargs)):
                made = self.recording.maker(value)
                self.edges += 1
                late = made is not None and made[0].id >= call.id
                if late or (made is None and value.origin == "call"):
                    self.cross("order", call.id, value.id, value.id)

    def gradients(self) -> None:
        """Each gradient that a node reads is the sum of what was handed to it."""
        for wrong in self.wiring.mismatches:
            if not self.comparable(wrong.read, wrong.told):
                self.unknown += 1
            elif not self.same(wrong.read, wrong.told):
                self.cross("gradient", wrong.call, wrong.read, wrong.told)
        for shares in self.wiring.shares.values():
            known = sum(share.checked or self.silent(share.value) for share in shares)
            self.edges += known
            self.unknown += len(shares) - known
        for number, each in enumerate(self.wiring.graph.passes):
            for edge, value in each.taken:
                flow = self.wiring.flows.get((number, edge[0]))
                received = flow.received[edge[1]] if flow and edge[1] < len(flow.received) else None
                if received is None or not self.comparable(received, value):
                    self.unknown += 1
                elif self.same(received, value):
                    self.edges += 1
                else:
                    made = self.recording.maker(self.recording.values[value])
                    self.cross("gradient", made[0].id if made else None, value, received)

    @staticmethod
    def silent(value: int | None) -> bool:
        """Whether it is known what was handed on, though no call reads it as such."""
        return value is not None and value != UNKNOWN

    def arguments(self) -> None:
        """The value that a call reads is the one whose gradient its node hands on."""
        slots = self.wiring.graph.slots
        for (_, number), flow in self.wiring.flows.items():
            node = self.wiring.graph.nodes[number]
            if flow.routing is None or node.call is None:
                continue
            call = self.recording.calls[node.call]
            arguments = dict(places_in((call.args, call.kwargs)))
            for edge, place in zip(node.follows, flow.routing.arguments, strict=True):
                value = None if place is None or edge is None else arguments.get(place)
                slot = None if value is None else slots.get(value.id)
                if edge is None or value is None or slot is None:
                    continue
                if slot == edge or value.id in self.wiring.graph.nodes[edge[0]].leaf:
                    self.edges += 1
                else:
                    there = next((other for other, known in slots.items() if known == edge), value.id)
                    self.cross("argument", call.id, value.id, there)

    def names(self) -> None:
        """What is called the gradient of a value is what arrives there."""
        names = self.recording._named.values
        for name, gradient in names.items():
            owner = names.get(name.removesuffix(".grad")) if name.endswith(".grad") else None
            edge = None if owner is None else self.wiring.graph.slots.get(owner.id)
            if owner is None or edge is None:
                continue
            told = self.arrived(edge)
            if not told or UNKNOWN in told:
                continue
            if any(self.same(gradient.id, value) for value in told):
                self.edges += 1
            elif all(self.comparable(gradient.id, value) for value in told):
                self.cross("name", None, gradient.id, told[0])

    def arrived(self, edge: Edge) -> list[int]:
        """The gradients that arrived at an edge, also as an edit of the gradient itself has left them."""
        node = self.wiring.graph.nodes[edge[0]]
        found: list[int] = []
        for number in range(len(self.wiring.graph.passes)):
            flow = self.wiring.flows.get((number, edge[0]))
            if flow is not None:
                found += [value for value in flow.received[edge[1] : edge[1] + 1] if value is not None]
        if node.edit and not node.inside and node.follows[0] is not None:
            found += self.arrived(node.follows[0])
        return found

    def cross(self, kind: str, call: int | None, read: int, told: int) -> None:
        made = None if call is None else self.recording.calls[call]
        where = "" if made is None else f"{made.scope}/{made.name}" if made.scope else made.name
        self.found.append(Crossed(kind, where, self.name(read), self.name(told)))

    def name(self, value: int) -> str:
        return self.recording._named.canonical.get(value, str(value))

    def same(self, one: int, other: int) -> bool:
        """Whether two values are the same numbers: then it does not matter which of them is read."""
        if one == other:
            return True
        if other == UNKNOWN or one == UNKNOWN:
            return False
        values = self.recording.values
        return _same(values[one], values[other])

    def comparable(self, *values: int) -> bool:
        """Whether there are numbers to compare: what was not kept, or cannot be read, accuses nobody."""
        return all(value != UNKNOWN and self.recording.values[value].kept for value in values)


def _same(one: Value, other: Value) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    try:
        return bool(((one.data == other.data) | (one.data.isnan() & other.data.isnan())).all())
    except (OpaqueError, RuntimeError, NotImplementedError):
        return False
