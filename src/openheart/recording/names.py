"""What each value is called.

Many names lead to a value (`0.weight`, a tied `head.weight`, `@1 0.weight`), and one of them is its canonical
name: the first that is given here, in this order: leaves, the loss, what modules return, updates of
parameters, functional calls, gradients. Each name of a value whose gradient is known has its `.grad` twin:
what `.grad` is in PyTorch, see `leaves`; and `0.weight.autograd_grad` is what `torch.autograd.grad` returned.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from openheart.recording.build import Facts
from openheart.recording.results import result_names
from openheart.recording.targets import targets
from openheart.recording.values import Call, Phase, Value

__all__ = ["Names", "name_values"]

# They are numbered among the constants too.
_WEIGHT = re.compile(r"(loss_weight|pos_weight|variance)(_\d+)?$")


@dataclass(slots=True, eq=False)
class Names:
    """Every name, and the canonical one of each value (by its id).

    Names of step k begin with `@k`; those of the first step that is held need not. `nameless` are the values
    that have no name of their own: they are called after the call that made them.
    """

    values: dict[str, Value] = field(default_factory=dict)
    canonical: dict[int, str] = field(default_factory=dict)
    nameless: set[int] = field(default_factory=set)
    facts: Facts | None = None  # what they name, to tell why nothing has a name
    first: int = 0  # the first step that is held

    def give(self, step: int, name: str, value: Value, *, alias: bool = False) -> None:
        """Names a value; a name that is taken stays with its first owner."""
        if step:
            bare, name = name, f"@{step} {name}"
            if step == self.first:
                self.values.setdefault(bare, value)
        if self.values.setdefault(name, value) is value and not alias:
            self.canonical.setdefault(value.id, name)


def name_values(facts: Facts) -> Names:
    """Names every value of a run."""
    names = Names(first=facts.calls[0].step if facts.calls else 0)
    for step, name, value in facts.parameters:
        names.give(step, name, value, alias=step > names.first and value.id in facts.makers)
    _inputs(facts, names)
    _losses(facts, names)
    _module_outputs(facts, names)
    _updates(facts, names)
    _targets(facts, names)
    _leaves(facts, names)
    _leaf_updates(facts, names)
    functional = _functional(facts)
    _give_functional(names, functional, ("forward", "loss"))
    _gradients(facts, names)
    _give_functional(names, functional, ("backward", "optimizer"))
    for value in facts.values:  # every name it could have is taken: by a module called `0/relu`, say
        if value.id not in names.canonical:
            names.give(0, f"value_{value.id}", value)
            names.canonical.setdefault(value.id, f"value_{value.id}")
            names.nameless.add(value.id)
    return names


def _leaf_updates(facts: Facts, names: Names) -> None:
    called = _called(names)
    for step, leaf, after in facts.leaves_after:
        for name in called.get(leaf.id, ()):
            names.give(
                step, f"{_without_step(name)}.after", after, alias=names.canonical.get(leaf.id) != name
            )


def _gradients(facts: Facts, names: Names) -> None:
    called = _called(names)
    parameters = {name for _, name, _ in facts.parameters}
    for held in sorted(facts.gradients, key=lambda held: held.label != ""):  # the plain names first
        owner = held.owner or names.canonical.get(held.leaf.id)
        if owner is None:
            continue  # it is a leaf of a checkpoint's second run, inside the backward pass
        end = f".grad{held.label}"
        names.give(held.step, f"{_without_step(owner)}{end}", held.value)
        for bare in _names_at(held.step, held.leaf, called, parameters, names):
            names.give(held.step, f"{bare}{end}", held.value, alias=True)
    _activations(facts, names, called)
    counts: dict[tuple[int, int], int] = {}
    for step, value, gradient in facts.asked:
        number = counts.get((step, value.id), 0)
        counts[step, value.id] = number + 1
        end = f".autograd_grad_{number}" if number else ".autograd_grad"
        for bare in _names_at(step, value, called, parameters, names):
            names.give(step, f"{bare}{end}", gradient)


def _activations(facts: Facts, names: Names, called: dict[int, list[str]]) -> None:
    """The gradients of what calls made: what `.grad` is where it was retained, else what would have been."""
    arrived: dict[int, list[Value]] = {}
    seeds = [(loss, seed) for _, loss, seed in facts.seeds]
    for value, gradient in (*seeds, *facts.activation_grads):
        known = arrived.setdefault(value.id, [])
        if gradient not in known:
            known.append(gradient)
    kept = {value.id: gradient for value, gradient in facts.retained}
    for identity in {**arrived, **kept}:
        gradients, final = arrived.get(identity, []), kept.get(identity)
        labelled = [("", gradient) for gradient in gradients]
        if final is not None and not (gradients and _copies(facts, final, gradients)):
            labelled = [("", final), *((f":{n}", gradient) for n, gradient in enumerate(gradients, 1))]
        for name in called.get(identity, ()):
            canonical = names.canonical.get(identity) == name
            for label, gradient in labelled:
                names.give(0, f"{name}.grad{label}", gradient, alias=not canonical)
                if canonical and identity in names.nameless:
                    names.nameless.add(gradient.id)


def _copies(facts: Facts, final: Value, gradients: list[Value]) -> bool:
    """Whether what was retained is the one gradient that arrived, or a plain copy of it."""
    made = facts.makers.get(final.id)
    copied = made is not None and made[0].name == "clone" and made[0].args[0] is gradients[0]
    return len(gradients) == 1 and (final is gradients[0] or copied)


def _called(names: Names) -> dict[int, list[str]]:
    called: dict[int, list[str]] = {}
    for name, value in names.values.items():
        called.setdefault(value.id, []).append(name)
    return called


def _names_at(
    step: int, value: Value, called: dict[int, list[str]], parameters: set[str], names: Names
) -> Iterator[str]:
    """What a value is called in a step, without the step; the canonical name first."""
    canonical = names.canonical.get(value.id)
    for name in sorted(called.get(value.id, ()), key=lambda name: name != canonical):
        bare = _without_step(name)
        here = f"@{step} {bare}" if step else bare
        if bare in parameters or (not bare.endswith(".after") and names.values.get(here, value) is value):
            yield bare


def _without_step(name: str) -> str:
    return name.split(" ", 1)[1] if name.startswith("@") else name


def _module(path: str, number: int) -> str:
    return f"{path}:{number + 1}" if number else path


def _inputs(facts: Facts, names: Names) -> None:
    for visit in facts.visits:
        if visit.path == "" and visit.number == 0:
            for key, value in visit.inputs:
                name = key if isinstance(key, str) else f"input_{key}" if key else "input"
                names.give(visit.step, name, value)
                if key == 0:
                    continue
                names.give(visit.step, f"input.{key}", value, alias=True)


def _losses(facts: Facts, names: Names) -> None:
    given: dict[int, int] = {}
    for step, loss, seed in facts.seeds:
        number = given.get(step, 0)
        given[step] = number + 1
        name = f"loss_{number}" if number else "loss"
        names.give(step, name, loss)
        names.give(step, f"{name}.grad", seed)
    last: dict[int, Value] = {}
    for call in facts.calls:
        if call.phase == "loss" and call.outputs:
            value = call.outputs[0]  # cross entropy gives the weights' total as well
            if value.shape == () and value.dtype.is_floating_point:
                last[call.step] = value
    for step, value in last.items():
        if step not in given:  # no backward pass: the loss is the last number that was made from the output
            names.give(step, "loss", value)


def _module_outputs(facts: Facts, names: Names) -> None:
    for visit in facts.visits:
        where = _module(visit.path, visit.number)
        for side, pairs in (("out", visit.outputs), ("in", visit.inputs)):
            for position, (key, value) in enumerate(pairs):
                alias = side == "in" or value.origin != "call"
                names.give(
                    visit.step,
                    f"{where}.{side}_{position}" if position else f"{where}.{side}",
                    value,
                    alias=alias,
                )
                if isinstance(key, str):
                    names.give(visit.step, f"{where}.{side}.{key}", value, alias=True)
    for visit in reversed(facts.visits):  # the last call of the model in each step owns the short name
        if visit.path == "":
            for position, (key, value) in enumerate(visit.outputs):
                names.give(visit.step, f"output_{position}" if position else "output", value, alias=True)
                if isinstance(key, str):
                    names.give(visit.step, f"output.{key}", value, alias=True)


def _updates(facts: Facts, names: Names) -> None:
    for step, name, value in facts.parameters_after:
        names.give(step, f"{name}.after", value)
    seen: set[str] = set()
    for (step, name, value), (_, _, after) in zip(facts.states, facts.states_after, strict=True):
        # What a step finds is what the one before it left, if that is held.
        names.give(step, name, value, alias=name in seen and value.id in facts.makers)
        names.give(step, f"{name}.after", after)
        seen.add(name)


def _targets(facts: Facts, names: Names) -> None:
    """What a loss compares with, and what it weighs with."""
    given: dict[tuple[int, str], list[Value]] = {}
    for step, kind, value in targets(facts):
        known = names.canonical.get(value.id)
        if known is None or _without_step(known).startswith(kind):
            here = given.setdefault((step, kind), [])
            if value not in here:
                here.append(value)
                names.give(step, f"{kind}_{len(here) - 1}" if len(here) > 1 else kind, value)


def _leaves(facts: Facts, names: Names) -> None:
    """What nothing else names: leaves that are trained, leaves that are given gradients, constants.

    A gradient from before the recording is named after its leaf, later on.
    """
    gradients = {held.value.id for held in facts.gradients}
    given: dict[str, int] = {}
    number = 0
    for value in facts.values:
        known = _without_step(names.canonical.get(value.id, ""))
        if (not known or _WEIGHT.match(known)) and value.id not in facts.makers:
            kind = facts.leaves.get(value.id)
            if kind is not None:
                place = given.get(kind, 0)
                given[kind] = place + 1
                names.give(0, f"{kind}_{place}", value)
            names.give(0, f"constant_{number}", value, alias=bool(known) or value.id in gradients)
            number += 1


def _functional(facts: Facts) -> list[tuple[Call, str, Value]]:
    """(call, name without step, value) for each output of each call: `scope/softmax_1.out`."""
    given: dict[tuple[int, str, str], int] = {}
    named = []
    for call in facts.calls:
        where = _where(call)
        key = (call.step, where, call.name)
        number = given.get(key, 0)
        given[key] = number + 1
        stem = f"{where}/{call.name}_{number}" if number else f"{where}/{call.name}"
        said = result_names(call.op)
        for position, value in enumerate(call.outputs):
            slot, place = call.slots[position]
            told = said[slot] if place is None and isinstance(slot, int) and slot < len(said) else None
            numbered = f"{stem}.out_{position}" if position else f"{stem}.out"
            if told and position:
                named.append((call, f"{stem}.{told}", value))
            named.append((call, numbered, value))
    return named


def _where(call: Call) -> str:
    if call.phase == "loss" or call.phase == "optimizer":
        return call.phase
    scope = _module(call.scope, call.visit)
    if call.phase == "backward":
        return f"{scope}/backward" if scope else "backward"
    return scope


def _give_functional(names: Names, named: list[tuple[Call, str, Value]], phases: tuple[Phase, ...]) -> None:
    for call, name, value in named:
        if call.phase in phases:
            fresh = value.id not in names.canonical
            if name.startswith("/"):  # in no module: `/relu.out` only where a module is called `relu`
                names.give(call.step, name[1:], value)
            names.give(call.step, name, value)
            if fresh and value.id in names.canonical:
                names.nameless.add(value.id)
