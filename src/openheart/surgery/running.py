"""Runs a program again, only what follows from a plan, and makes a recording of what came out."""

# What a run needs, PyTorch offers only under underscored names.

from __future__ import annotations

import cmath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch

from openheart.errors import InterventionError, OpaqueError
from openheart.i18n import message
from openheart.recording import Call, OptimizerGroup, OptimizerStep, Origin, Recording, Value
from openheart.recording.build import Facts, Visit
from openheart.recording.log import is_plain
from openheart.recording.names import Names
from openheart.recording.storages import Life, geometry_of
from openheart.surgery.plan import Added, Plan, Spot
from openheart.surgery.program import (
    Line,
    Program,
    below_autograd,
    is_weighted,
    redraws,
    repeats,
    run_line,
    where,
)

__all__ = ["Note", "Run"]


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know about a counterfactual; `key` and `details` say it in every language."""

    key: str
    details: dict[str, Any]

    def text(self, lang: str | None = None) -> str:
        return message(self.key, lang=lang, **self.details)

    def __str__(self) -> str:
        return self.text()


class Run:
    """One run of a program under a plan.

    Attributes:
        env: id of a value → its tensor, for all that is not as it was recorded.
        made: values that the recording does not have, by id, where something is known of them already.
        origins: where values come from that no call makes, by id.
        added: (line, whether after it, what it is) for the calls that the edits put in.
    """

    def __init__(
        self, recording: Recording, program: Program, plan: Plan, whole: bool, fresh_random: bool
    ) -> None:
        self.recording = recording
        self.program = program
        self.plan = plan
        self.whole = whole
        self.fresh_random = fresh_random
        self.env: dict[int, torch.Tensor] = dict(plan.leaves)
        self.made: dict[int, Value] = {}
        self.origins: dict[int, Origin] = {}
        self.added: dict[tuple[int, bool], list[Added | _Later]] = {}
        self.notes: list[Note] = []
        self.place: tuple[int, bool] = (-1, True)
        self.below = below_autograd()

    # Running ------------------------------------------------------------------------------------------------

    def go(self) -> None:
        """Runs every line that follows from the plan."""
        with self.below:
            if self.plan.simple and not self.whole and not self.fresh_random:
                self._downstream()
            else:
                self._all()

    def _downstream(self) -> None:
        env, lines = self.env, self.program.lines
        start = min((self.program.first_use(identity) for identity in env), default=len(lines))
        dirty = set(env)
        for number in range(start, len(lines)):
            line = lines[number]
            if not line.reads.isdisjoint(dirty):
                self._again(line, None, None)
                dirty.update(line.outputs)

    def _all(self) -> None:
        plan, env = self.plan, self.env
        before, after, removed = plan.before, plan.after, plan.removed
        self._events(after, -1, True)
        lines = self.program.lines
        for number in range(self._start(), len(lines)):
            line = lines[number]
            if number in before:
                self._events(before, number, False)
            if number not in removed:
                moved = plan.moved.get(number)
                constants = plan.constants.get(number)
                reads = line.reads if moved is None else {moved.get(read, read) for read in line.reads}
                dirty = self.whole or constants is not None or not reads.isdisjoint(env)
                if dirty or (self.fresh_random and line.random):
                    self._again(line, constants, moved)
            if number in after:
                self._events(after, number, True)

    def _start(self) -> int:
        """The first line that may have something to do."""
        if self.whole or self.fresh_random:
            return 0
        plan = self.plan
        places = (
            number for places in (plan.before, plan.after, plan.moved, plan.constants) for number in places
        )
        reads = (self.program.first_use(identity) for identity in self.env)
        return min((number for number in (*places, *reads) if number >= 0), default=len(self.program.lines))

    def _events(self, events: dict[int, list[Any]], number: int, after: bool) -> None:
        for event in events.get(number, ()):
            self.place = (number, after)
            event(self)

    def _again(self, line: Line, constants: Any, moved: Any) -> None:
        call = line.call
        if line.random and not self.fresh_random and not redraws(line):
            if is_weighted(line) and not self.whole:
                self.notes.append(Note("surgery.note.draw_kept", {"call": where(call)}))
            return  # a draw is what it was
        if line.blank:
            return
        if line.fixed and not repeats(line):
            self._refuse_fixed(line)
            return
        if not line.outputs:
            self._scalar(line)
            return
        try:
            outputs = run_line(line, self.env, constants, moved)
        except OpaqueError:
            if self.whole:
                return  # its inputs were not kept, so nobody can run it; what it made stands
            raise
        except InterventionError:
            if self.whole and line.fixed:
                return  # it reads around its argument, where nothing was edited
            raise
        for value, tensor in zip(call.outputs, outputs, strict=True):
            if tuple(tensor.shape) != value.shape:
                raise InterventionError(
                    f"with this edit {where(call)} gives a result of shape {tuple(tensor.shape)}, and the "
                    f"recorded run went on from {value.shape}: record the edited network instead"
                )
            self.env[self.plan.renamed.get(value.id, value.id)] = tensor

    def _refuse_fixed(self, line: Line) -> None:
        if not self.whole:
            raise InterventionError(
                f"the edit reaches {where(line.call)}, which cannot be run again by itself: "
                "record the edited network instead"
            )

    def _scalar(self, line: Line) -> None:
        """A number that Python was told: where it decides something, the run would have gone elsewhere."""
        if self.whole or not line.call.args:
            return
        try:
            before, after = line.result({}), line.result(self.env)
        except (RuntimeError, OpaqueError, TypeError):
            return
        if not isinstance(before, (bool, int, float, complex)) or before == after:
            return
        if cmath.isnan(before) and cmath.isnan(after):
            return
        if isinstance(before, (bool, int)):
            raise InterventionError(
                f"with this edit {where(line.call)} tells Python {after} instead of {before}, so the network "
                "may take another path than the one that was recorded: record the edited network instead"
            )
        self.notes.append(
            Note(
                "surgery.note.read",
                {"call": where(line.call), "before": f"{before:.6g}", "after": f"{after:.6g}"},
            )
        )

    # What events use ----------------------------------------------------------------------------------------

    @contextmanager
    def above(self) -> Iterator[None]:
        """Where autograd and modes see what runs, as they do outside of a run."""
        self.below.__exit__()
        try:
            yield
        finally:
            self.below.__enter__()

    def tensor(self, identity: int) -> torch.Tensor:
        """A value's tensor as it is in this run."""
        found = self.env.get(identity)
        return self.program.values[identity].data if found is None else found

    def put(self, identity: int, tensor: torch.Tensor, origin: Origin = "call") -> None:
        """Gives a value its tensor."""
        self.env[identity] = tensor
        if origin != "call":
            self.origins[identity] = origin

    def constant(self, tensor: torch.Tensor, name: str) -> Spot:
        """A tensor that an added call reads and no call makes; the first of its name has the name alone."""
        identity = self.plan.fresh()
        names = self.plan.names
        number = 1
        while (given := name if number == 1 else f"{name}_{number}") in names:
            number += 1
        names[given] = identity
        self.put(identity, tensor, "constant")
        return Spot(identity)

    def add(self, call: Added | _Later) -> None:
        """Notes a call that was put in where the run stands."""
        self.added.setdefault(self.place, []).append(call)

    def call(
        self,
        op: Any,
        args: tuple[Any, ...],
        like: Call,
        output: int | None = None,
        phase: Any = None,
        forward: Added | int | None = None,
    ) -> tuple[int, Added]:
        """Runs an operator on values of this run, and notes the call; the id of its result."""
        result = op(*[self.tensor(item.id) if isinstance(item, Spot) else item for item in args])
        identity = self.plan.fresh() if output is None else output
        self.put(identity, result)
        name = op._schema.name.split("::")[-1].lstrip("_")
        added = Added(op, name, args, {}, (identity,), ((0, None),), like, phase, forward)
        self.add(added)
        return identity, added

    # The recording ------------------------------------------------------------------------------------------

    def recording_of(self) -> tuple[Facts, Names]:
        """The facts and names of what came out; values that did not change are the recording's own."""
        old = self.recording._read()
        return _Assembly(self, old).build()


class _Later:
    """Calls that are known once the whole run has been seen: `expand` gives them."""

    def expand(self) -> Iterator[Added]:
        raise NotImplementedError


Later = _Later


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
        return self.facts, self._names()

    def _place_added(self) -> None:
        self.placed: dict[tuple[int, bool], list[Added]] = {}
        for place, items in self.run.added.items():
            for item in items:
                many = item.expand() if isinstance(item, _Later) else (item,)
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
            span = range(min(calls), max(calls) + 1) if calls else range(0)
            facts.optimizers.append(OptimizerStep(step.kind, step.step, span, groups))

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
