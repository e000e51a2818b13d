"""An optimizer as a recorded step found it, to make its step once more."""

# The parts of a recording know each other's insides.

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

from openheart.errors import InterventionError
from openheart.recording import OptimizerStep, Value
from openheart.recording.build import Facts, build

__all__ = ["made_of", "prepared", "run_again"]

Members = list[list[torch.nn.Parameter]]


def prepared(
    step: OptimizerStep, options: list[dict[str, Any]], tensor: Callable[[Value], torch.Tensor]
) -> tuple[torch.optim.Optimizer, Members]:
    """The optimizer of a step with these options, and its parameters by group.

    `tensor` gives what a value holds; all that the optimizer writes to is a copy.

    Raises:
        InterventionError: there is no such optimizer here, or it does not take these options.
    """
    kind = _class_of(step.kind)

    def plain(item: Any) -> Any:
        if isinstance(item, Value):
            return tensor(item).detach().clone()
        if isinstance(item, (list, tuple)):
            return type(item)(plain(part) for part in item)
        return item

    members: Members = []
    groups: list[dict[str, Any]] = []
    for group, given in zip(step.groups, options, strict=True):
        parameters = []
        for value, gradient in zip(group.parameters, group.gradients, strict=True):
            floating = value.dtype.is_floating_point or value.dtype.is_complex
            parameter = torch.nn.Parameter(plain(value), requires_grad=floating)
            parameter.grad = None if gradient is None else plain(gradient)
            parameters.append(parameter)
        members.append(parameters)
        groups.append({name: plain(item) for name, item in given.items() if name != "initial_lr"})
    try:
        optimizer = kind([{"params": made} for made in members], **_needed(kind, groups[0]))
        for given, target in zip(groups, optimizer.param_groups, strict=True):
            target.update(given)
        for found, made in zip(step.groups, members, strict=True):
            for parameter, kept in zip(made, found.states, strict=True):
                if kept:
                    optimizer.state[parameter] = {name: plain(item) for name, item in kept.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise InterventionError("error.option.step", kind=step.kind, reason=error) from error
    return optimizer, members


def run_again(step: OptimizerStep, optimizer: torch.optim.Optimizer) -> Any:
    """Has the optimizer make its step; who has recorded it.

    Raises:
        InterventionError: the optimizer refuses.
    """
    from openheart.record import Recorder

    recorder = Recorder()
    try:
        with recorder:
            optimizer.step()
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise InterventionError("error.option.step", kind=step.kind, reason=error) from error
    return recorder


def made_of(recorder: Any) -> Facts:
    """What was recorded."""
    with torch.no_grad():
        return build(recorder.log)


def _needed(kind: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options that the class's constructor takes."""
    taken = inspect.signature(kind).parameters
    return {name: option for name, option in options.items() if name in taken and name != "params"}


def _class_of(kind: str) -> type[torch.optim.Optimizer]:
    """The optimizer's class, only if its module is loaded: a file does not get to say what is imported."""
    module, _, name = kind.rpartition(".")
    found = getattr(sys.modules.get(module), name, None)
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise InterventionError("error.option.not_here", kind=kind, module=module)
    return found
