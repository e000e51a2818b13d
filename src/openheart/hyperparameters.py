"""What an optimizer's numbers are: its own group's options, and the scalars that it makes of them.

A step in plain calls multiplies by 0.1, 0.0547 and −0.0037; these are 1 − β₁, √(1 − β₂ᵗ) and −η/(1 − β₁ᵗ).
A scalar is only said to be one of them when it is that number, bit for bit, as PyTorch's code computes it
(or rounded to float32, as a kernel takes it, and then only where no option is that number too).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from openheart.formula.expr import Apply, Expr, Number, apply
from openheart.formula.functions import sqrt
from openheart.formula.instance import Terms
from openheart.recording import Call, OptimizerGroup, OptimizerStep, Recording, Value, values_in

__all__ = ["Owner", "owner_of", "plain", "said"]

Owner = tuple[OptimizerStep, int, int]
"""An optimizer's step, the number of its group, and of the parameter in it."""


def owner_of(recording: Recording, call: Call, output: int) -> Owner | None:
    """Whose update a call belongs to: the first parameter, gradient or state found behind its output."""
    step = next((step for step in recording.optimizers if call.id in step.calls), None)
    if step is None:
        return None
    owners = {
        value.id: (step, number, k)
        for number, group in enumerate(step.groups)
        for k in range(len(group.parameters))
        for value in values_in([group.parameters[k], group.gradients[k], group.states[k]])
    }
    todo, seen = [(call, output)], set()
    while todo:
        here, at = todo.pop(0)
        for value in _read(here, at):
            if value.id in owners:
                return owners[value.id]
            made = recording.maker(value)
            if made is not None and made[0].id in step.calls and value.id not in seen:
                seen.add(value.id)
                todo.append(made)
    return None


def _read(call: Call, output: int) -> Iterator[Value]:
    """What made one output: of a list of tensors, the member at its place."""
    position = call.slots[output][1]
    for argument in call.arguments.values():
        alike = isinstance(argument, (list, tuple)) and position is not None and position < len(argument)
        yield from values_in(argument[position] if alike else argument)


def plain(option: Any) -> Any:
    """An option as a number, of a tensor the one that was recorded; None where there is none."""
    if isinstance(option, Value):
        return option.array.item() if option.kept and option.shape == () else None
    return option


def steps_taken(group: OptimizerGroup, k: int) -> int:
    """How many steps a parameter has taken with this one."""
    before = plain(group.states[k].get("step", 0)) if group.states[k] else 0
    return int(before or 0) + 1


AVERAGES = ("lerp", "addcmul")
"""The operators whose scalar is 1 − β in every optimizer that gives them one, and never an option itself."""


def said(node: Expr, owner: Owner, call: Call) -> Expr:
    """An instance whose scalar arguments say what they are made of: `(1 − 0.9)` for 0.1."""
    step, number, k = owner
    options = step.groups[number].options
    known = _scalars(options, steps_taken(step.groups[number], k))
    taken = {_single(abs(value)) for value in map(plain, options.values()) if isinstance(value, float)}
    sure = call.name.removeprefix("foreach_").rstrip("_") in AVERAGES
    narrow = {
        _single(value): made for value, made in known.items() if sure or _single(abs(value)) not in taken
    }
    found = {**narrow, **known}
    given = {value for argument in call.arguments.values() for value in _floats(argument)}
    given |= {_single(value) for value in given}
    return _said(node, {value: made for value, made in found.items() if value in given})


def _floats(argument: Any) -> Iterator[float]:
    if isinstance(argument, float):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for item in argument:
            yield from _floats(item)


def _single(value: float) -> float:
    """A number as kernels take it that compute in float32."""
    return float(np.float32(value))


def _said(node: Expr, known: Mapping[float, Expr]) -> Expr:
    if isinstance(node, Number) and isinstance(node.value, float):
        return known.get(node.value, node)
    if isinstance(node, Apply):
        return apply(node.function, *(_said(arg, known) for arg in node.args))
    if isinstance(node, Terms):
        return replace(node, items=tuple(_said(item, known) for item in node.items))
    return node


def _scalars(options: Mapping[str, Any], t: int) -> dict[float, Expr]:
    """The scalars that PyTorch's optimizers pass to their calls, by value, computed as they do it."""
    lr, decay = plain(options.get("lr")), plain(options.get("weight_decay"))
    found: dict[float, Expr] = {}

    def give(value: Any, made: Expr) -> None:
        if isinstance(value, float) and value not in (0.0, 1.0):
            found.setdefault(value, made)

    for name, less in (("alpha", "alpha"), ("dampening", "dampening"), ("rho", "rho")):
        value = plain(options.get(name))
        if isinstance(value, float):
            give(1 - value, 1 - Number(value, less))
    if isinstance(lr, float) and isinstance(decay, float) and decay:
        give(1 - lr * decay, 1 - Number(lr, "lr") * Number(decay, "weight_decay"))
    lr_decay = plain(options.get("lr_decay"))
    if isinstance(lr, float) and lr_decay:
        clr = lr / (1 + (t - 1) * lr_decay)
        rate = Number(lr, "lr") / (1 + Number(t - 1) * Number(lr_decay, "lr_decay"))
        give(clr, rate)
        give(-clr, -rate)
    betas = options.get("betas")
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        return found
    beta1, beta2 = map(plain, betas)
    if not isinstance(beta1, float) or not isinstance(beta2, float):
        return found
    first, second, count = Number(beta1, "beta1"), Number(beta2, "beta2"), Number(t)
    give(1 - beta1, 1 - first)
    give(1 - beta2, 1 - second)
    correction1, correction2 = 1 - beta1**t, 1 - beta2**t
    give(correction2**0.5, sqrt(1 - second**count))
    give(correction1, 1 - first**count)
    give(correction2, 1 - second**count)
    if isinstance(lr, float):
        give(lr / correction1, Number(lr, "lr") / (1 - first**count))
        give(-(lr / correction1), -(Number(lr, "lr") / (1 - first**count)))
    return found
