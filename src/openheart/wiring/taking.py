"""Whose gradient is whose, and which calls take it: what an edit of a value has to turn."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from dataclasses import dataclass, field

from openheart.recording import Value
from openheart.recording.graph import Edge
from openheart.wiring.asking import Place, places_in
from openheart.wiring.following import UNKNOWN, Flow, Wiring

__all__ = ["Arrival", "Untold", "arrivals", "shares_of", "slot_of"]


class Untold(Exception):
    """The recording does not tell where a gradient goes."""


@dataclass(slots=True, eq=False)
class Arrival:
    """A gradient that arrives at a value in one backward pass.

    Attributes:
        gradient: its id.
        readers: the calls that take it to go on with it, and where in their arguments it stands.
        edges: where the very same gradient arrives, handed on by nodes that do nothing to it.
    """

    backward: int
    gradient: int
    readers: list[tuple[int, Place]] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)


def slot_of(wiring: Wiring, value: Value) -> Edge | None:
    """Where in autograd's graph the gradient of a value arrives; None: it has none.

    Raises:
        Untold: it may have one, and the recording does not tell.
    """
    graph = wiring.graph
    known = graph.slots.get(value.id)
    if known is not None or not graph.passes:
        return known
    if not (value.dtype.is_floating_point or value.dtype.is_complex):
        return None
    made = wiring.recording.maker(value)
    if made is None:
        return None
    if any(made[0].id in node.inside for node in graph.nodes):
        raise Untold
    found = {
        edge
        for flow in wiring.flows.values()
        if flow.routing is not None and (call := graph.nodes[flow.node].call) is not None
        for edge in _slots_read(wiring, flow, call, value)
    }
    if len(found) == 1:
        return found.pop()
    if found:
        raise Untold
    asked = {graph.nodes[flow.node].call: flow.routing for flow in wiring.flows.values()}
    if made[0].id in asked and not any(output.id in graph.slots for output in made[0].outputs):
        raise Untold
    if made[0].name == "reread" and any(
        asked.get(user.id, False) is None for user in wiring.recording.users(value)
    ):
        raise Untold
    return None


def _slots_read(wiring: Wiring, flow: Flow, call: int, value: Value) -> list[Edge]:
    assert flow.routing is not None
    made = wiring.recording.calls[call]
    read = {place for place, item in places_in((made.args, made.kwargs)) if item is value}
    if not read:
        return []
    follows = wiring.graph.nodes[flow.node].follows
    return [
        edge
        for edge, place in zip(follows, flow.routing.arguments, strict=True)
        if place in read and edge is not None
    ]


def arrivals(wiring: Wiring, value: Value, edge: Edge | None = None) -> list[Arrival]:
    """Every gradient that arrives at a value, or else at an edge, in each backward pass one.

    Raises:
        Untold: the recording does not tell which, or who takes it.
    """
    edge = edge or slot_of(wiring, value)
    if edge is None:
        return []
    found = []
    for number in range(len(wiring.graph.passes)):
        flow = wiring.flows.get((number, edge[0]))
        gradient = flow.received[edge[1]] if flow is not None and edge[1] < len(flow.received) else None
        if gradient == UNKNOWN:
            raise Untold
        if gradient is not None:
            arrival = Arrival(number, gradient)
            _take(wiring, arrival, edge)
            found.append(arrival)
    followed = {
        node.call
        for (_, number), flow in wiring.flows.items()
        if (node := wiring.graph.nodes[number]).call is not None and any(flow.received)
    }
    if any(call in followed for arrival in found for call, _ in arrival.readers):
        raise Untold  # the backward pass was itself differentiated
    return found


def _take(wiring: Wiring, arrival: Arrival, edge: Edge) -> None:
    """Finds who takes the gradient at an edge, and where it is handed on as it is."""
    if edge in arrival.edges:
        return
    arrival.edges.append(edge)
    number, slot = edge
    flow = wiring.flows[(arrival.backward, number)]
    node = wiring.graph.nodes[number]
    if flow.hooks:
        raise Untold
    if node.leaf or node.edit:
        arrival.readers += _reads(wiring, flow.own, arrival.gradient)
        if flow.own and not arrival.readers:
            raise Untold
    elif flow.routing is not None:
        for call, (_, reads) in zip(flow.own, flow.routing.calls, strict=True):
            arrival.readers += [(call, place) for place, source in reads if source == ("received", slot, 0)]
    else:
        if UNKNOWN in flow.handed:
            raise Untold
        joined = [
            share.joined
            for shares in wiring.shares.values()
            for share in shares
            if share.joined is not None and share.giver != number and share.value == arrival.gradient
        ]
        arrival.readers += [
            read for read in _reads(wiring, flow.after, arrival.gradient) if read not in joined
        ]
    for arrow, following in enumerate(node.follows):
        if following is None or not _hands_on(flow, arrow, slot, arrival.gradient):
            continue
        shares = wiring.shares[(arrival.backward, following)]
        share = next(item for item in shares if item.giver == number and item.arrow == arrow)
        if len(shares) == 1:
            _take(wiring, arrival, following)
        elif share.joined is not None:
            arrival.readers.append(share.joined)
        else:
            raise Untold
    taken = wiring.graph.passes[arrival.backward].taken
    if any(where == edge for where, _ in taken):
        outside = [call.id for call in wiring.recording.calls if call.id not in wiring.owner]
        arrival.readers += _reads(wiring, outside, arrival.gradient)
        if any(value == arrival.gradient and where not in arrival.edges for where, value in taken):
            raise Untold


def _hands_on(flow: Flow, arrow: int, slot: int, gradient: int) -> bool:
    if flow.routing is not None:
        return flow.routing.handed[arrow] == ("received", slot, 0)
    return arrow < len(flow.handed) and flow.handed[arrow] == gradient


def _reads(wiring: Wiring, calls: object, value: int) -> list[tuple[int, Place]]:
    found = []
    for call in calls:  # type: ignore[attr-defined]
        made = wiring.recording.calls[call]
        found += [(call, place) for place, item in places_in((made.args, made.kwargs)) if item.id == value]
    return found


def shares_of(wiring: Wiring, calls: set[int], value: Value) -> list[tuple[int, Edge, int]]:
    """(backward pass, where, id of what these forward calls hand back to a value, in their sum).

    Raises:
        Untold: what they hand back is not told, or is summed up with other shares before it is whole.
    """
    edge = slot_of(wiring, value)
    if edge is None:
        leaf = wiring.leaves.get(value.id, set())
        edges = [(number, 0) for number in leaf]
    else:
        edges = [edge]
    found = []
    for number in range(len(wiring.graph.passes)):
        for where in edges:
            given = _sum_of(wiring, calls, number, where)
            if given is not None:
                found.append((number, where, given))
    return found


def _sum_of(wiring: Wiring, calls: set[int], number: int, edge: Edge) -> int | None:
    nodes = wiring.graph.nodes
    shares = wiring.shares.get((number, edge), [])
    mine = [share for share in shares if share.giver is not None and nodes[share.giver].call in calls]
    if not mine:
        return None
    if any(share.value in (None, UNKNOWN) for share in mine):
        raise Untold
    if len(mine) == len(shares):
        received = wiring.flows[(number, edge[0])].received[edge[1]]
        if received in (None, UNKNOWN):
            raise Untold
        return received
    if len(mine) == 1:
        return mine[0].value
    raise Untold
