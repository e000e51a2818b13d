"""Makes a recording of what came out of a run."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from openheart.recording import Call, OptimizerGroup, OptimizerStep, Origin, Value
from openheart.recording.build import Facts, Visit
from openheart.recording.graph import Edge, Graph, Node
from openheart.recording.graph import Run as NodeRun
from openheart.recording.log import is_plain
from openheart.recording.names import Names
from openheart.recording.notices import still_true
from openheart.recording.storages import Life, geometry_of
from openheart.surgery.plan import Added, Graft, Later, Spot
from openheart.surgery.running import Run

__all__ = ["assembled", "output_of"]


def assembled(run: Run) -> tuple[Facts, Names]:
    """The facts and names of what came out; values that did not change are the recording's own."""
    return _Assembly(run, run.recording._read()).build()


class _Assembly:
    """Puts the facts of a run together from the recorded ones and what the run changed."""

    def __init__(self, run: Run, old: Facts) -> None:
        self.run = run
        self.old = old
        self.facts = Facts()
        self.numbers: dict[int, int] = {}  # recorded call → its number here
        self.added_numbers: dict[int, int] = {}  # added call (by object) → its number here

    def build(self) -> tuple[Facts, Names]:
        self._place_added()
        self._values()
        plan = self.run.plan
        self._added(-1, True)
        for call in self.old.calls:
            self._added(call.id, False)
            if call.id not in plan.removed:
                self._call(call)
            self._added(call.id, True)
        self._visits()
        self.facts.graph = self._graph()
        self.facts.notices = still_true(self.old.notices, self.facts.calls)
        return self.facts, self._names()

    def _place_added(self) -> None:
        self.placed: dict[tuple[int, bool], list[Added]] = {}
        self.expanded: dict[int, list[Added]] = {}
        for place, items in self.run.added.items():
            for item in items:
                many = list(item.expand()) if isinstance(item, Later) else [item]
                self.expanded[id(item)] = many
                self.placed.setdefault(place, []).extend(many)

    def _values(self) -> None:
        run, values = self.run, self.facts.values
        for value in self.old.values:
            tensor = run.env.get(value.id)
            values.append(value if tensor is None else _other(value, tensor))
        for identity in range(len(values), run.plan.next_id):
            made, tensor = run.made.get(identity), run.env.get(identity)
            if made is not None:
                values.append(replace(made, id=identity, _cache={}))
            else:  # an id that was set aside and not used is an empty constant
                origin = run.origins.get(identity, "call")
                values.append(_made(identity, torch.empty(0) if tensor is None else tensor, origin))

    def _mapped(self, item: Any, moved: dict[int, int] | None = None) -> Any:
        if isinstance(item, (Value, Spot)):
            identity = item.id if moved is None else moved.get(item.id, item.id)
            return self.facts.values[identity]
        if isinstance(item, list):
            return [self._mapped(part, moved) for part in item]
        if isinstance(item, tuple):
            return tuple([self._mapped(part, moved) for part in item])
        if isinstance(item, dict):
            return {key: self._mapped(part, moved) for key, part in item.items()}
        return item

    def _call(self, call: Call) -> None:
        plan, env = self.run.plan, self.run.env
        line = self.run.program.lines[call.id]
        number = len(self.facts.calls)
        self.numbers[call.id] = number
        forward = None if call.forward_call is None else self.numbers.get(call.forward_call)
        moved = plan.moved.get(call.id)
        same = (
            number == call.id
            and forward == call.forward_call
            and moved is None
            and call.id not in plan.constants
            and line.reads.isdisjoint(env)
            and env.keys().isdisjoint(line.outputs)
            and plan.renamed.keys().isdisjoint(line.outputs)
        )
        if not same:
            args, kwargs = plan.constants.get(call.id, (call.args, call.kwargs))
            call = replace(
                call,
                id=number,
                args=tuple(self._mapped(item, moved) for item in args),
                kwargs={name: self._mapped(item, moved) for name, item in kwargs.items()},
                outputs=tuple(
                    [self.facts.values[plan.renamed.get(value.id, value.id)] for value in call.outputs]
                ),
                forward_call=forward,
                _cache={},
            )
        self._append(call)

    def _added(self, number: int, after: bool) -> None:
        for added in self.placed.get((number, after), ()):
            forward = added.forward
            if isinstance(forward, Added):
                forward = self.added_numbers.get(id(forward))
            elif forward is not None:
                forward = self.numbers.get(forward)
            identity = len(self.facts.calls)
            self.added_numbers[id(added)] = identity
            like = added.like
            self._append(
                Call(
                    id=identity,
                    op=added.op,
                    name=added.name,
                    args=self._mapped(added.args),
                    kwargs=self._mapped(added.kwargs),
                    outputs=tuple(self.facts.values[output] for output in added.outputs),
                    slots=added.slots,
                    phase=added.phase or like.phase,
                    scope=like.scope,
                    visit=like.visit,
                    source=None,
                    forward_call=forward,
                    step=like.step,
                    foreign=like.foreign,
                )
            )

    def _append(self, call: Call) -> None:
        self.facts.calls.append(call)
        for number, value in enumerate(call.outputs):
            self.facts.makers[value.id] = (call, number)

    def _visits(self) -> None:
        old, facts = self.old, self.facts
        for visit in old.visits:
            inputs = [(key, facts.values[value.id]) for key, value in visit.inputs]
            outputs = [(key, facts.values[value.id]) for key, value in visit.outputs]
            facts.visits.append(Visit(visit.path, visit.number, visit.step, inputs, outputs))
        for number, step in enumerate(old.optimizers):
            options = self.run.plan.options.get(number)
            groups = tuple(
                OptimizerGroup(
                    options=self._mapped(group.options) if options is None else options[place],
                    names=group.names,
                    parameters=self._mapped(group.parameters),
                    gradients=self._mapped(group.gradients),
                    states=self._mapped(group.states),
                )
                for place, group in enumerate(step.groups)
            )
            calls = [self.numbers[call] for call in step.calls if call in self.numbers]
            again = self.run.plan.again.get(number)
            if again is not None:
                calls += self._numbers([again])
            span = range(min(calls), max(calls) + 1) if calls else range(0)
            facts.optimizers.append(OptimizerStep(step.kind, step.step, span, groups))

    def _graph(self) -> Graph:
        """Autograd's graph as it would have been: each edit is a node of its own."""
        plan = self.run.plan
        numbers = dict(self.numbers)
        numbers |= {line: self.added_numbers[id(added)] for line, added in plan.instead.items()}
        old = self.old.graph.renumbered(numbers)
        nodes, slots = list(old.nodes), dict(old.slots)
        passes = [
            replace(
                each,
                runs=tuple([self._taking(run, was) for run, was in zip(each.runs, before.runs, strict=True)]),
            )
            for each, before in zip(old.passes, self.old.graph.passes, strict=True)
        ]
        put = {**old.put, **plan.put}
        for graft in plan.grafts:
            number = len(nodes)
            here = (number, 0)

            def there(edge: Edge | None, graft: Graft = graft, here: Edge = here) -> Edge | None:
                return here if edge == graft.edge else edge

            nodes = [replace(node, follows=tuple([there(edge) for edge in node.follows])) for node in nodes]
            nodes.append(Node("edit", tuple(graft.to), edit=True, inside=self._numbers(graft.forward)))
            for place, each in enumerate(passes):
                roots = tuple([(there(edge) or edge, value) for edge, value in each.roots])
                runs = each.runs
                if place in graft.turned:
                    taken, handed = graft.turned[place]
                    calls = self._numbers(graft.backward.get(place, []))
                    runs = (*runs, NodeRun(number, calls, (taken,), tuple(handed)))
                passes[place] = replace(each, roots=roots, runs=runs)
            slots |= dict.fromkeys(graft.before, graft.edge)
            if graft.value is not None:
                slots[graft.value] = here
        slots |= {new: slots[value] for new, value in plan.alike.items() if value in slots}
        return replace(old, nodes=tuple(nodes), passes=tuple(passes), slots=slots, put=put)

    def _taking(self, run: NodeRun, was: NodeRun) -> NodeRun:
        """The run of an earlier edit's node, which may take another gradient now."""
        if not was.received:
            return run
        moved: dict[int, int] = {}
        for call in was.calls:
            moved |= self.run.plan.moved.get(call, {})
        received = [None if value is None else moved.get(value, value) for value in was.received]
        return replace(run, received=tuple(received))

    def _numbers(self, items: list[Added | Later]) -> tuple[int, ...]:
        return tuple(
            [self.added_numbers[id(added)] for item in items for added in self.expanded.get(id(item), ())]
        )

    def _names(self) -> Names:
        old, values, plan = self.run.recording._named, self.facts.values, self.run.plan
        made = self.facts.makers
        gone = {  # what was made by a call that is no more, and by no other
            value.id
            for call in plan.removed
            for value in self.old.calls[call].outputs
            if value.id not in made
        }
        names = Names(
            {name: values[value.id] for name, value in old.values.items() if value.id not in gone},
            {identity: name for identity, name in old.canonical.items() if identity not in gone},
            set(old.nameless),
            first=old.first,
        )
        for name, identity in plan.names.items():
            names.values[name] = values[identity]
            names.canonical.setdefault(identity, name)
        lost = {identity for identity, name in names.canonical.items() if names.values[name].id != identity}
        for name, value in names.values.items():  # whose name another value bears now
            if value.id in lost:
                lost.discard(value.id)
                names.canonical[value.id] = name
        for identity in lost:
            del names.canonical[identity]
        for call in self.facts.calls:
            for position, value in enumerate(call.outputs):
                if value.id not in names.canonical:
                    stem = f"{call.scope}/{call.name}" if call.scope else call.name
                    given = f"{stem}_edit{call.id}.out" + (f"_{position}" if position else "")
                    names.give(0, given, value)
                    names.nameless.add(value.id)
        for value in values:
            new = value.id >= len(self.old.values)
            if value.id not in names.canonical and (new or value.id in lost):
                names.give(0, f"edit_{value.id}", value)
        return names


def _made(identity: int, tensor: torch.Tensor, origin: Origin) -> Value:
    geometry = geometry_of(tensor)
    return Value(identity, tuple(tensor.shape), tensor.dtype, 0, origin, geometry, Life(), _kept(tensor))


def _other(value: Value, tensor: torch.Tensor) -> Value:
    """The same value with other numbers."""
    return Value(
        value.id,
        value.shape,
        value.dtype,
        value.version,
        value.origin,
        value.geometry,
        Life(),
        _kept(tensor),
    )


def _kept(tensor: torch.Tensor) -> torch.Tensor | None:
    """A tensor as a recording keeps it: none of a kind that cannot be read (sparse, nested)."""
    return tensor if is_plain(tensor) else None


def output_of(run: Run) -> Any:
    """What the model would have returned: the recorded structure with the tensors of this run in it."""
    recording = run.recording
    facts = recording._read()
    pairs: list[Value] = []
    for visit in reversed(facts.visits):
        if visit.path == "":
            pairs = [value for _, value in visit.outputs]
            break
    else:
        value = recording._named.values.get("output")
        pairs = [value] if value is not None else []
    if not any(value.id in run.env for value in pairs):
        return recording.output
    if isinstance(recording.output, torch.Tensor) or recording.output is None:
        return run.tensor(pairs[0].id)
    remaining = iter(pairs)
    return _rebuilt(recording.output, lambda tensor: _next(remaining, tensor, run))


def _next(remaining: Iterator[Value], tensor: torch.Tensor, run: Run) -> torch.Tensor:
    value = next(remaining, None)
    return tensor if value is None or value.id not in run.env else run.env[value.id]


def _rebuilt(item: Any, change: Any) -> Any:
    """A structure with each tensor changed, in the order in which the recorder met them."""
    if isinstance(item, torch.Tensor):
        return change(item)
    if isinstance(item, dict):
        return (
            type(item)(**{key: _rebuilt(part, change) for key, part in item.items()})
            if is_dataclass(item)
            else {key: _rebuilt(part, change) for key, part in item.items()}
        )
    if isinstance(item, (tuple, list)):
        parts = [_rebuilt(part, change) for part in item]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
    if is_dataclass(item) and not isinstance(item, type):
        return replace(item, **{f.name: _rebuilt(getattr(item, f.name), change) for f in fields(item)})
    return item
