"""The hyperparameters of an optimizer's step: `lr`, `@2 optimizer.weight_decay`, `group_1.betas[0]`.

PyTorch's optimizers compute with them in Python, so what the recorded calls hold is what came of them: Adam's
step size, its bias corrections. To change one, the very optimizer is run again, once with the options that
were recorded, which must give the recorded calls, and once with the others: it says what the calls hold then.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import torch

from openheart.errors import AddressError, InterventionError
from openheart.recording import Call, OptimizerStep, Recording, Value
from openheart.surgery.edits import Edit
from openheart.surgery.optimizing import rerun
from openheart.surgery.plan import Plan
from openheart.surgery.stepping import made_of, prepared, run_again
from openheart.surgery.tracing import applied

__all__ = ["Option", "edit_option", "option_of"]

_USUAL = {"lr", "momentum", "dampening", "nesterov", "betas", "eps", "weight_decay", "alpha", "rho"}
_ADDRESS = re.compile(
    r"^(?:@(?P<step>\d+)\s+)?(?:optimizer\.)?(?:group_(?P<group>\d+)\.)?(?P<name>[A-Za-z]\w*)(?:\[(?P<place>\d+)\])?$"
)


@dataclass(frozen=True, slots=True)
class Option:
    """A hyperparameter of some steps: of all, or of one; of all groups, or of one."""

    name: str
    place: int | None
    group: int | None
    steps: tuple[int, ...]


def option_of(recording: Recording, address: str) -> Option | None:
    """The hyperparameter that an address means; None if it means something else."""
    match = _ADDRESS.match(address.strip())
    if match is None or address.strip() in recording._named.values:
        return None
    name = match["name"]
    if not recording.optimizers:
        if name in _USUAL:
            raise AddressError("error.option.no_step", address=address)
        return None
    if not any(name in group.options for step in recording.optimizers for group in step.groups):
        return None
    wanted = None if match["step"] is None else int(match["step"])
    steps = tuple(
        number for number, step in enumerate(recording.optimizers) if wanted is None or step.step == wanted
    )
    if not steps:
        last = recording.optimizers[-1].step
        raise InterventionError("error.option.last_step", address=address, last=last)
    group = None if match["group"] is None else int(match["group"])
    if group is not None and group >= len(recording.optimizers[steps[0]].groups):
        groups = len(recording.optimizers[steps[0]].groups)
        raise InterventionError("error.option.groups", address=address, count=groups)
    return Option(name, None if match["place"] is None else int(match["place"]), group, steps)


def edit_option(recording: Recording, plan: Plan, edit: Edit, option: Option) -> None:
    """Changes a hyperparameter: its steps' calls then hold what the optimizer would give them."""
    for number in option.steps:
        step = recording.optimizers[number]
        old = plan.options.get(number) or [dict(group.options) for group in step.groups]
        new = [dict(options) for options in old]
        for place, options in enumerate(new):
            if option.group in (None, place):
                if option.name not in options:
                    raise InterventionError(
                        "error.option.none", kind=step.kind, name=option.name, group=place
                    )
                _change(plan, options, edit, option)
        plan.options[number] = new
        if new != old:
            _constants(recording, plan, number, new)


def _change(plan: Plan, options: dict[str, Any], edit: Edit, option: Option) -> None:
    old = options[option.name]
    if isinstance(old, Value):  # an lr that is a tensor is read by the calls like any other leaf
        plan.leaves[old.id] = torch.full_like(old.data, _changed(float(old.data), edit))
        return
    if option.place is not None:
        if not isinstance(old, (tuple, list)) or option.place >= len(old):
            raise InterventionError("error.option.parts", address=edit.address, name=option.name, old=old)
        parts = list(old)
        parts[option.place] = _changed(parts[option.place], edit)
        options[option.name] = type(old)(parts)
    else:
        options[option.name] = _changed(old, edit)


def _changed(old: Any, edit: Edit) -> Any:
    if edit.kind in ("scale", "add") and not (
        isinstance(old, (int, float)) and isinstance(edit.value, (int, float))
    ):
        raise InterventionError("error.option.number", address=edit.address, old=old, edit=edit)
    if edit.kind == "set":
        new = edit.value
    elif edit.kind == "scale":
        new = old * edit.value
    elif edit.kind == "add":
        new = old + edit.value
    elif edit.kind == "call":
        new = applied(edit, old)
    elif edit.kind == "ablate" and edit.value == "zero":
        new = 0.0
    else:
        raise InterventionError("error.option.kind", edit=edit)
    if isinstance(new, torch.Tensor) and new.numel() == 1:
        new = new.item()
    if isinstance(old, bool) != isinstance(new, bool) or (
        isinstance(old, (int, float)) and not isinstance(new, (int, float))
    ):
        raise InterventionError("error.option.become", address=edit.address, old=old, new=new)
    if isinstance(new, float) and not math.isfinite(new):
        raise InterventionError("error.option.become", address=edit.address, old=old, new=new)
    return new


def _constants(recording: Recording, plan: Plan, number: int, options: list[dict[str, Any]]) -> None:
    step = recording.optimizers[number]
    if any(earlier < number for earlier in plan.again):  # it goes on from a state that was not recorded
        rerun(recording, plan, number)
        return
    recorded = [recording.calls[number] for number in step.calls if recording.calls[number].name != "reread"]
    before = _calls_of(step, [dict(group.options) for group in step.groups])
    if [call.op for call in before] != [call.op for call in recorded] or any(
        not _same(one, other) for one, other in zip(before, recorded, strict=True)
    ):
        raise InterventionError("error.option.repeat", kind=step.kind)
    after = _calls_of(step, options)
    if [call.op for call in after] != [call.op for call in recorded]:
        rerun(recording, plan, number)
        return
    for call, other in zip(recorded, after, strict=True):
        args = [_merged(one, two) for one, two in zip(call.args, other.args, strict=True)]
        kwargs = {name: _merged(item, other.kwargs[name]) for name, item in call.kwargs.items()}
        plan.constants[call.id] = (args, kwargs)


def _calls_of(step: OptimizerStep, options: list[dict[str, Any]]) -> list[Call]:
    """The calls that the optimizer makes with these options, from what the step found."""
    optimizer, _ = prepared(step, options, lambda value: value.data)
    return [call for call in made_of(run_again(step, optimizer)).calls if call.name != "reread"]


def _same(one: Call, other: Call) -> bool:
    return _constant_parts((one.args, one.kwargs)) == _constant_parts((other.args, other.kwargs))


def _constant_parts(item: Any) -> Any:
    if isinstance(item, Value):
        return None
    if isinstance(item, (list, tuple)):
        return [_constant_parts(part) for part in item]
    if isinstance(item, dict):
        return {key: _constant_parts(part) for key, part in item.items()}
    return item


def _merged(recorded: Any, other: Any) -> Any:
    """A recorded argument with the other's numbers: tensors stay the recorded ones."""
    if isinstance(recorded, Value):
        return recorded
    if isinstance(recorded, (list, tuple)):
        return type(recorded)(_merged(one, two) for one, two in zip(recorded, other, strict=True))
    return other
