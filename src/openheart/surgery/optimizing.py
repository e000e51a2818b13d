"""An optimizer's step run again as a whole, where its recorded calls cannot be run with other numbers.

An optimizer decides in Python: without momentum it keeps no buffer, with weight decay it makes one call more,
and Adam's bias corrections follow from a number of steps that it is told. Then the very optimizer makes its
step once more, from what it finds in this run, and its calls take the place of the recorded ones.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from openheart.errors import InterventionError
from openheart.recording import Call, OptimizerStep, Recording, Value
from openheart.recording.build import build
from openheart.surgery.plan import Added, Later, Plan
from openheart.surgery.running import Run
from openheart.surgery.stepping import made_of, prepared, run_again
from openheart.surgery.tracing import renumbered

__all__ = ["rerun", "rerun_from_state"]

Carried = dict[tuple[int, int], dict[str, Any]]
"""What the optimizer keeps of each parameter that the recorded run does not have."""


def rerun_from_state(recording: Recording, plan: Plan, edited: set[int]) -> None:
    """Runs the steps again that ask Python for a state which is edited, and those after them."""
    for number, step in enumerate(recording.optimizers):
        asked = {
            kept["step"].id
            for group in step.groups
            for kept in group.states
            if isinstance(kept.get("step"), Value)
        }
        if asked.isdisjoint(edited):
            continue
        for later in range(number, len(recording.optimizers)):
            if _same_owner(step, recording.optimizers[later]):
                rerun(recording, plan, later)


def _same_owner(one: OptimizerStep, other: OptimizerStep) -> bool:
    return one.kind == other.kind and [g.names for g in one.groups] == [g.names for g in other.groups]


def rerun(recording: Recording, plan: Plan, number: int) -> None:
    """Has the optimizer make a step once more, in the place of its recorded calls.

    Raises:
        InterventionError: it does not repeat what was recorded of it.
    """
    if number in plan.again:
        return
    step = recording.optimizers[number]
    calls = [recording.calls[call] for call in step.calls if recording.calls[call].name != "reread"]
    left = _left(step, calls)
    plan.removed.update(call.id for call in calls)
    carried: Carried = plan.carried.setdefault((step.kind, tuple([group.names for group in step.groups])), {})

    def event(run: Run) -> None:
        options = plan.options.get(number) or [dict(group.options) for group in step.groups]
        with run.above():
            optimizer, members = prepared(step, options, lambda value: run.tensor(value.id))
            for (g, p), kept in carried.items():
                state = optimizer.state[members[g][p]]
                state.update({name: item for name, item in kept.items() if name not in state})
            taken = _known(step, optimizer, members)
            versions = {id(tensor): tensor._version for tensor, _ in taken}
            recorder = run_again(step, optimizer)
            known = [(tensor, value.id, True) for tensor, value in taken]
            for (g, p, name), identity in left.items():
                parameter = members[g][p]
                tensor = parameter if name is None else optimizer.state[parameter].get(name)
                before = _found(step, g, p, name)
                written = isinstance(tensor, torch.Tensor) and tensor._version != versions.get(id(tensor))
                if written:
                    run.put(identity, tensor.detach().clone())
                    known.append((tensor, identity, False))
                elif before is not None:  # it stays what the step found
                    run.put(before, run.tensor(before))
                    _stays(recording, plan, identity, before)
            for g, group in enumerate(members):
                for p, parameter in enumerate(group):
                    carried[(g, p)] = {
                        name: item.clone() if isinstance(item, torch.Tensor) else item
                        for name, item in optimizer.state[parameter].items()
                        if (g, p, name) not in left
                    }
        made = plan.again[number] = _Again(recorder.log, known, run, calls[0])
        run.add(made)

    plan.again[number] = None
    plan.before.setdefault(calls[0].id, []).append(event)


def _found(step: OptimizerStep, g: int, p: int, name: str | None) -> int | None:
    """The id of a parameter, or of what the optimizer keeps of it, as the step finds it."""
    group = step.groups[g]
    found = group.parameters[p] if name is None else group.states[p].get(name)
    return found.id if isinstance(found, Value) else None


def _stays(recording: Recording, plan: Plan, after: int, before: int) -> None:
    """Has whoever reads what a step has left read what it found."""
    value = recording.values[after]
    for user in recording.users(value):
        plan.move(user.id, after, before)
    for name, item in recording._named.values.items():
        if item is value:
            plan.names[name] = before


def _known(step: OptimizerStep, optimizer: Any, members: Any) -> list[tuple[torch.Tensor, Value]]:
    """What the optimizer finds, each with the value that it is."""
    found: list[tuple[torch.Tensor, Value]] = []
    for group, parameters in zip(step.groups, members, strict=True):
        for place, parameter in enumerate(parameters):
            found.append((parameter, group.parameters[place]))
            gradient = group.gradients[place]
            if gradient is not None:
                found.append((parameter.grad, gradient))
            for name, value in group.states[place].items():
                item = optimizer.state[parameter].get(name)
                if isinstance(value, Value) and isinstance(item, torch.Tensor):
                    found.append((item, value))
    return found


def _left(step: OptimizerStep, calls: list[Call]) -> dict[tuple[int, int, str | None], int]:
    """The values that the recorded step leaves: (group, parameter, name of a state or None) → id.

    Raises:
        InterventionError: the optimizer does not repeat the calls that were recorded of it.
    """
    options = [dict(group.options) for group in step.groups]
    optimizer, members = prepared(step, options, lambda value: value.data)
    recorder = run_again(step, optimizer)
    facts = made_of(recorder)
    again = [call for call in facts.calls if call.name != "reread"]
    if not calls or [call.op for call in again] != [call.op for call in calls]:
        raise InterventionError("error.option.repeat", kind=step.kind)
    twins = {
        one.id: other.id
        for call, recorded in zip(again, calls, strict=True)
        for one, other in zip(call.outputs, recorded.outputs, strict=True)
    }
    found: dict[tuple[int, int, str | None], int] = {}
    for g, group in enumerate(members):
        for p, parameter in enumerate(group):
            items = {None: parameter, **optimizer.state[parameter]}
            for name, tensor in items.items():
                if isinstance(tensor, torch.Tensor):
                    last = next(
                        (v for v in reversed(facts.values) if _lies(v, tensor) and v.id in twins), None
                    )
                    if last is not None:
                        found[(g, p, name)] = twins[last.id]
    return found


def _lies(value: Value, tensor: torch.Tensor) -> bool:
    held = value._tensor
    return held is not None and held.data_ptr() == tensor.data_ptr() and held.shape == tensor.shape


class _Again(Later):
    def __init__(self, log: Any, known: list[tuple[torch.Tensor, int, bool]], run: Run, like: Call) -> None:
        self.log, self.known, self.run, self.like = log, known, run, like

    def expand(self) -> Iterator[Added]:
        with torch.no_grad():
            facts = build(self.log)
        for _, added in renumbered(facts, self.known, self.run, self.like):
            yield added
