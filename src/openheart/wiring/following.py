"""Follows the gradients of a recording through autograd's own graph: who handed what to whom.

Of each node that ran it is known which calls it made; autograd, asked again (`asking`), tells what such a
node reads and hands on. So a gradient is followed twice: downwards, as the sum of what is handed to a node,
and upwards, from what the node's calls have read. Where both are known they must be one. What neither tells
is `UNKNOWN`, and nothing is guessed.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, ref

from openheart.recording import Call, Recording, Value
from openheart.recording.graph import Edge, Graph, Node, Pass, Run
from openheart.wiring.asking import Place, Routing, Source, ask, places_in

__all__ = ["UNKNOWN", "Flow", "Mismatch", "Share", "Sum", "Wiring", "wiring_of"]

UNKNOWN = -1
"""A gradient that the recording does not tell."""
Way = tuple[int, list[tuple[int, tuple[int, ...], tuple[int, ...]]]]
"""How gradients are summed up: the sum, and (call, shares on its left, on its right) for each addition."""
_SMALL = 6
"""Every order of no more than so many shares is tried, where the first does not lead to what is read."""


@dataclass(slots=True, eq=False)
class Share:
    """What one arrow of the graph has handed to where it leads; `giver` None: the backward pass began here.

    `joined` is the call that summed it up with others, and its place there.
    """

    giver: int | None
    arrow: int
    value: int | None
    joined: tuple[int, Place] | None = None
    checked: bool = False


@dataclass(slots=True, eq=False)
class Flow:
    """One run of a node, or what it did silently.

    Attributes:
        received, handed: ids of gradients; None: there is none, `UNKNOWN`: not told.
        routing: what autograd says such a node does; None: it could not be asked.
        own: the node's own calls, as in `routing.calls`.
        hooks: calls before them, of hooks that change the gradient.
        after: calls after them: the engine sums up.
    """

    node: int
    received: list[int | None]
    handed: list[int | None]
    routing: Routing | None = None
    own: tuple[int, ...] = ()
    hooks: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sum:
    """A call of the engine that sums up what several uses of one value hand back."""

    call: int
    backward: int
    edge: Edge
    givers: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A call reads another value than the graph says."""

    call: int
    read: int
    told: int


@dataclass(slots=True, eq=False)
class Wiring:
    """The gradients of a recording, as autograd's graph has them.

    Attributes:
        flows: (backward pass, node) → what it did.
        shares: (backward pass, edge) → what was handed there.
        sums: id of a call → what the engine summed up in it.
        mismatches: what the graph says and the calls do not do.
    """

    reference: ref[Recording]
    flows: dict[tuple[int, int], Flow] = field(default_factory=dict)
    shares: dict[tuple[int, Edge], list[Share]] = field(default_factory=dict)
    sums: dict[int, Sum] = field(default_factory=dict)
    owner: dict[int, tuple[int, int]] = field(default_factory=dict)  # call → the (pass, node) it ran in
    mismatches: list[Mismatch] = field(default_factory=list)
    leaves: dict[int, set[int]] = field(default_factory=dict)  # value → the nodes that gather its gradient

    @property
    def recording(self) -> Recording:
        recording = self.reference()
        assert recording is not None
        return recording

    @property
    def graph(self) -> Graph:
        return self.recording._read().graph

    def current(self, identity: int) -> int:
        """The id of what stands in a value's place once an edit has changed it."""
        put = self.graph.put
        while identity in put:
            identity = put[identity]
        return identity

    def is_own(self, call: int) -> bool:
        """Whether autograd says that a call is what its node does, no hook and no sum."""
        owner = self.owner.get(call)
        return owner is not None and call in self.flows[owner].own and self.flows[owner].routing is not None

    def made(self, call: int, output: int) -> int:
        """The id of what a call gave."""
        outputs = self.recording.calls[call].outputs
        return self.current(outputs[output].id) if output < len(outputs) else UNKNOWN


_KNOWN: WeakKeyDictionary[Recording, Wiring] = WeakKeyDictionary()


def wiring_of(recording: Recording) -> Wiring:
    """The gradients of a recording, followed once."""
    known = _KNOWN.get(recording)
    if known is None:
        known = _KNOWN[recording] = Wiring(ref(recording))
        for number, node in enumerate(known.graph.nodes):
            for value in node.leaf:
                known.leaves.setdefault(value, set()).add(number)
        for number, each in enumerate(known.graph.passes):
            _Follower(known, number, each).run()
    return known


class _Follower:
    """Goes through one backward pass, each node once all that leads to it has been gone through."""

    def __init__(self, wiring: Wiring, number: int, each: Pass) -> None:
        self.wiring = wiring
        self.number = number
        self.each = each
        self.nodes = wiring.graph.nodes
        self.recording = wiring.recording
        self.runs = {run.node: run for run in each.runs}

    def run(self) -> None:
        waiting: dict[int, int] = {}
        stack = [edge[0] for edge, _ in self.each.roots]
        reached: set[int] = set()
        while stack:
            node = stack.pop()
            if node in reached:
                continue
            reached.add(node)
            for edge in self.nodes[node].follows:
                if edge is not None:
                    waiting[edge[0]] = waiting.get(edge[0], 0) + 1
                    stack.append(edge[0])
        for edge, value in self.each.roots:
            self.give(edge, Share(None, 0, self.wiring.current(value)))
        ready = [node for node in reached if not waiting.get(node)]
        while ready:
            node = ready.pop()
            flow = self.flow(node)
            for arrow, edge in enumerate(self.nodes[node].follows):
                if edge is None:
                    continue
                handed = flow.handed[arrow] if arrow < len(flow.handed) else UNKNOWN
                if handed is not None:
                    self.give(edge, Share(node, arrow, handed))
                waiting[edge[0]] -= 1
                if not waiting[edge[0]]:
                    ready.append(edge[0])

    def give(self, edge: Edge, share: Share) -> None:
        self.wiring.shares.setdefault((self.number, edge), []).append(share)

    # One node -----------------------------------------------------------------------------------------------

    def flow(self, number: int) -> Flow:
        node = self.nodes[number]
        run = self.runs.get(number)
        calls = run.calls if run is not None else ()
        for call in calls:
            self.wiring.owner[call] = (self.number, number)
        count = max((slot + 1 for at, slot in self.slots(number)), default=0)
        received = [self.summed((number, slot), None) for slot in range(count)]
        flow = Flow(number, received, [UNKNOWN] * len(node.follows), own=calls)
        self.wiring.flows[(self.number, number)] = flow
        if node.edit and run is not None:
            self.edited(flow, run)
        elif node.leaf:
            self.gathered(flow)
        elif all(item is None for item in received):
            flow.handed = [None] * len(node.follows)
        else:
            self.routed(flow, node, calls)
        return flow

    def slots(self, number: int) -> list[Edge]:
        keys = []
        slot = 0
        while slot < 64:
            if (self.number, (number, slot)) in self.wiring.shares:
                keys.append((number, slot))
            slot += 1
        return keys

    def edited(self, flow: Flow, run: Run) -> None:
        """An edit says itself what it takes and gives."""
        for slot, value in enumerate(run.received):
            if value is not None and slot < len(flow.received):
                self.told((flow.node, slot), flow, slot, value, run.calls[0] if run.calls else None)
        flow.handed = [None if value is None else self.wiring.current(value) for value in run.handed]

    def gathered(self, flow: Flow) -> None:
        """A leaf's gradient is gathered: what is taken must be what was handed there."""
        if not flow.own or not flow.received:
            return
        read = [(call, value) for call in flow.own for value in self.strangers(call, flow.own)]
        told = flow.received[0]
        if told == UNKNOWN and len({value for _, value in read}) == 1:
            self.told((flow.node, 0), flow, 0, read[0][1], read[0][0])
        elif any(value == told for _, value in read):
            self.checked((flow.node, 0))
        elif read and told is not None and told != UNKNOWN:
            self.told((flow.node, 0), flow, 0, read[0][1], read[0][0])

    def strangers(self, call: int, own: Sequence[int]) -> Iterator[int]:
        """What a call reads that other nodes made, but no gradient that was gathered before."""
        for _, value in places_in(_arguments(self.recording.calls[call])):
            made = self.recording.maker(value)
            if made is None or made[0].id in own or made[0].phase != "backward":
                continue
            ran = self.wiring.owner.get(made[0].id)
            if ran is None or not self.nodes[ran[1]].leaf:
                yield value.id

    def routed(self, flow: Flow, node: Node, calls: tuple[int, ...]) -> None:
        routing = self.asked(flow, node)
        start = _start(routing, [self.recording.calls[call] for call in calls]) if routing else None
        if routing is None or start is None:
            flow.after = calls
            if routing is not None and not calls and not self.each.whole:
                flow.handed = [None] * len(node.follows)  # nobody wanted what it would have given
            return
        if not routing.calls:  # what is called before the engine sums up, a hook calls
            while start < len(calls) and not self.sums_up(calls[start]):
                start += 1
        end = start + len(routing.calls)
        flow.routing = routing
        flow.hooks, flow.own, flow.after = calls[:start], calls[start:end], calls[end:]
        for number, (call, (_, reads)) in enumerate(zip(flow.own, routing.calls, strict=True)):
            arguments = dict(places_in(_arguments(self.recording.calls[call])))
            for place, source in reads:
                value = arguments.get(place)
                if value is None:
                    continue
                kind, at, output = source
                if kind == "received":
                    self.told((flow.node, at), flow, at, value.id, call)
                elif kind == "made" and at < number:
                    told = self.wiring.made(flow.own[at], output)
                    if told not in (value.id, UNKNOWN):
                        self.mismatch(call, value.id, told)
        flow.handed = [
            None if edge is None else self.source(flow, source)
            for edge, source in zip(node.follows, routing.handed, strict=True)
        ]
        if flow.hooks and not routing.calls:
            flow.handed = [None if handed is None else UNKNOWN for handed in flow.handed]

    def source(self, flow: Flow, source: Source | None) -> int | None:
        if source is None:
            return None
        kind, at, output = source
        if kind == "received":
            return flow.received[at]
        return self.wiring.made(flow.own[at], output) if kind == "made" else UNKNOWN

    def asked(self, flow: Flow, node: Node) -> Routing | None:
        """What autograd says of a node, asked with the arguments that need a gradient."""
        if node.call is None:
            return None
        call = self.recording.calls[node.call]
        slots = self.wiring.graph.slots
        output = next(
            (at for at, value in enumerate(call.outputs) if slots.get(value.id, (-1,))[0] == flow.node), None
        )
        if output is None:
            return None
        received: list[Value | None] = []
        for slot, value in enumerate(flow.received):
            if value == UNKNOWN:
                value = self.likely(flow, call, slot)
                if value is None:
                    return None
            received.append(None if value is None else self.recording.values[value])
        pattern = [edge is not None for edge in node.follows]
        for needed in self.needs(node, call):
            found = ask(call, output, node.name, needed, received)
            if found is not None and [place is not None for place in found.arguments] == pattern:
                return found
        return None

    def likely(self, flow: Flow, call: Call, slot: int) -> int | None:
        """The one gradient of the right shape that a node's calls read, where the graph does not tell it."""
        slots = self.wiring.graph.slots
        shapes = {value.shape for value in call.outputs if slots.get(value.id) == (flow.node, slot)}
        read = {
            value
            for made in flow.own
            for value in self.strangers(made, flow.own)
            if self.recording.values[value].shape in shapes
        }
        return read.pop() if len(read) == 1 else None

    def needs(self, node: Node, call: Call) -> Iterator[frozenset[Place]]:
        """Which arguments may need a gradient: those that the graph leads to, then others as well."""
        targets = {edge for edge in node.follows if edge is not None}
        gathered = {number for number, _ in targets}
        hits, others, rest = set(), set(), set()
        for place, value in places_in(_arguments(call)):
            if not (value.dtype.is_floating_point or value.dtype.is_complex):
                continue
            slot = self.wiring.graph.slots.get(value.id)
            if slot in targets or not gathered.isdisjoint(self.wiring.leaves.get(value.id, ())):
                hits.add(place)
            elif slot is None and value.origin == "call":
                others.add(place)
            else:
                rest.add(place)
        if hits:
            yield frozenset(hits)
        if others:
            yield frozenset(hits | others)
            for place in sorted(others, key=repr)[:4]:
                yield frozenset(hits | {place})
        if rest:
            yield frozenset(hits | others | rest)

    # What is told -------------------------------------------------------------------------------------------

    def told(self, edge: Edge, flow: Flow, slot: int, read: int, call: int | None) -> None:
        """A node's call reads `read` as the gradient that arrives at `edge`."""
        known = flow.received[slot]
        if known == read:
            self.checked(edge)
            return
        shares = self.wiring.shares.get((self.number, edge), [])
        if known == UNKNOWN:
            flow.received[slot] = read
            self.settle(edge, shares, read)
            return
        if flow.hooks:  # a hook has changed it, and its calls are checked as any others
            flow.received[slot] = read
            self.checked(edge)
            return
        if self.hooked(shares):
            flow.received[slot] = read
            return
        again = self.summed(edge, read)
        if again == read:
            flow.received[slot] = read
            self.checked(edge)
        elif known is not None and call is not None:
            self.mismatch(call, read, known)

    def hooked(self, shares: list[Share]) -> bool:
        """Whether a hook may have changed what a node has handed on."""
        flows = [self.wiring.flows[(self.number, share.giver)] for share in shares if share.giver is not None]
        return any(not self.sums_up(call) for flow in flows if flow.routing for call in flow.after)

    def checked(self, edge: Edge) -> None:
        for share in self.wiring.shares.get((self.number, edge), ()):
            share.checked = share.value not in (None, UNKNOWN)

    def mismatch(self, call: int, read: int, told: int) -> None:
        found = Mismatch(call, read, told)
        if found not in self.wiring.mismatches:
            self.wiring.mismatches.append(found)

    def settle(self, edge: Edge, shares: list[Share], read: int) -> None:
        """What one unknown share must have been, where the others are known."""
        unknown = [share for share in shares if share.value == UNKNOWN]
        parts = self.parts(edge, read)
        for share in shares:
            if share.value != UNKNOWN and share.value in parts:
                parts.remove(share.value)
        if len(unknown) == 1 and len(parts) == 1:
            (share,) = unknown
            share.value = parts[0]
            if share.giver is not None:
                self.wiring.flows[(self.number, share.giver)].handed[share.arrow] = parts[0]
            self.summed(edge, read)

    def parts(self, edge: Edge, value: int) -> list[int]:
        """What was summed up to a value by the nodes that lead to an edge."""
        calls = dict.fromkeys(self.additions(edge))
        made = self.recording.maker(self.recording.values[value])
        if made is None or made[0].id not in calls:
            return [value]
        found: list[int] = []
        for _, part in list(places_in(_arguments(made[0])))[:2]:
            found += self.parts(edge, part.id)
        return found

    # Sums ---------------------------------------------------------------------------------------------------

    def additions(self, edge: Edge) -> list[int]:
        """The calls in which the engine may have summed up what was handed to an edge, in their order."""
        givers = {share.giver for share in self.wiring.shares.get((self.number, edge), ())}
        found = []
        for giver in givers:
            if giver is not None:
                flow = self.wiring.flows[(self.number, giver)]
                found += [call for call in flow.after if self.sums_up(call)]
        return sorted(found)

    def sums_up(self, call: int) -> bool:
        """Whether a call may be the engine's: it does no more than add one tensor to another."""
        made = self.recording.calls[call]
        return made.name in ("add", "add_") and len(list(places_in(_arguments(made)))) == 2

    def summed(self, edge: Edge, hint: int | None) -> int | None:
        """The sum of what was handed to an edge; of several that may be it, `hint`."""
        shares = self.wiring.shares.get((self.number, edge), [])
        if not shares:
            return None
        if any(share.value == UNKNOWN for share in shares):
            return UNKNOWN
        if len(shares) == 1:
            return shares[0].value
        additions = [
            call
            for call in self.additions(edge)
            if call not in self.wiring.sums or self.wiring.sums[call].edge == edge
        ]
        found = self.greedy(shares, additions)
        if hint is not None and len(shares) <= _SMALL and (found is None or found[0] != hint):
            pool: list[tuple[int | None, tuple[int, ...]]] = [
                (share.value, (number,)) for number, share in enumerate(shares)
            ]
            others = (way for way in self.collapsed(pool, additions, shares) if way[0] == hint)
            found = next(others, found)
        if found is None:
            return UNKNOWN
        for call in [call for call, known in self.wiring.sums.items() if known.edge == edge]:
            if self.wiring.sums[call].backward == self.number:
                del self.wiring.sums[call]
        for call, left, right in found[1]:
            whose = tuple([shares[number].giver for number in (*left, *right)])
            self.wiring.sums[call] = Sum(call, self.number, edge, whose)
            for place, side in ((0, left), (1, right)):
                if len(side) == 1:
                    shares[side[0]].joined = (call, (place,))
        return found[0]

    def greedy(self, shares: list[Share], additions: list[int]) -> Way | None:
        """The sums in their order, each of the first two that it can be of."""
        pool: dict[int | None, list[tuple[int, ...]]] = {}
        for number, share in enumerate(shares):
            pool.setdefault(share.value, []).append((number,))
        steps = []
        last: int | None = None
        for call in additions:
            one, other = [value.id for _, value in places_in(_arguments(self.recording.calls[call]))]
            if not pool.get(one) or not pool.get(other) or (one == other and len(pool[one]) < 2):
                continue
            giver = self.wiring.owner[call][1]
            sides = [pool[one][0], pool[other][1 if one == other else 0]]
            if giver not in {shares[number].giver for side in sides for number in side}:
                continue
            left, right = pool[one].pop(0), pool[other].pop(0)
            last = self.wiring.made(call, 0)
            pool.setdefault(last, []).append((*left, *right))
            steps.append((call, left, right))
        if last is None or len(steps) != len(shares) - 1:
            return None
        return last, steps

    def collapsed(
        self, pool: list[tuple[int | None, tuple[int, ...]]], additions: list[int], shares: list[Share]
    ) -> Iterator[Way]:
        """Every way in which the calls sum the pool up to one value."""
        if len(pool) == 1:
            assert pool[0][0] is not None
            yield pool[0][0], []
            return
        for at, call in enumerate(additions):
            read = [value.id for _, value in places_in(_arguments(self.recording.calls[call]))]
            giver = self.wiring.owner[call][1]
            seen = set()
            for left, (one, mine) in enumerate(pool):
                for right, (other, theirs) in enumerate(pool):
                    if left == right or [one, other] != read:
                        continue
                    if giver not in {shares[number].giver for number in (*mine, *theirs)}:
                        continue
                    key = (frozenset(mine), frozenset(theirs))
                    if key in seen:
                        continue
                    seen.add(key)
                    rest = [item for place, item in enumerate(pool) if place not in (left, right)]
                    joined = (self.wiring.made(call, 0), (*mine, *theirs))
                    for result, steps in self.collapsed([*rest, joined], additions[at + 1 :], shares):
                        yield result, [(call, mine, theirs), *steps]


def _start(routing: Routing, calls: list[Call]) -> int | None:
    """Where in a node's calls those stand that autograd says it makes."""
    wanted = [op for op, _ in routing.calls]
    ran = [call.op for call in calls]
    for start in range(len(ran) - len(wanted) + 1):
        if ran[start : start + len(wanted)] == wanted:
            return start
    return None


def _arguments(call: Call) -> tuple[tuple[object, ...], dict[str, object]]:
    return call.args, call.kwargs
