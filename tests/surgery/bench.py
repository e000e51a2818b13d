"""Helpers of the surgery tests: a patient's training step, recorded, and that of an edited network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

import openheart as oh
from openheart.patients import patient
from openheart.surgery.program import same_bits

Change = Callable[[torch.nn.Module, list[torch.Tensor], Any], None]
"""What PyTorch itself is told to do: to the network, its inputs, its optimizer."""


@dataclass
class Case:
    """A patient's training step, and how to run it again from the same beginning."""

    name: str
    recording: oh.Recording
    fresh: Callable[[Change], oh.Recording]


def training_step(name: str, optimizer: Callable[[Any], Any] | None = None, steps: int = 1) -> Case:
    known = patient(name)

    def run(change: Change) -> oh.Recording:
        model = known.build()
        inputs = list(known.inputs())
        made = (optimizer or known.optimizer)(model.parameters())
        criterion = known.loss()
        target = known.target()
        change(model, inputs, made)
        torch.manual_seed(0)
        with oh.recording(model) as recording:
            for _ in range(steps):
                made.zero_grad()
                criterion(model(*inputs), target).backward()
                made.step()
        return recording

    return Case(name, run(lambda *_: None), run)


def forward(name: str, change: Change = lambda *_: None, training: bool = False) -> oh.Recording:
    known = patient(name)
    model = known.build(training)
    inputs = list(known.inputs())
    change(model, inputs, None)
    torch.manual_seed(0)
    return oh.record(model, *inputs)


def differing(one: oh.Recording, other: oh.Recording, exact: bool = True) -> list[str]:
    """The names of module outputs, gradients, parameters … that are not the same numbers in both.

    Not exact: zeros of either sign are one number. Names of single calls are left out: an edit puts calls in.
    """
    compared, found = 0, []
    for name, value in one._named.values.items():
        twin = other._named.values.get(name)
        if "/" in name or name.startswith("constant") or twin is None or not (value.kept and twin.kept):
            continue
        compared += 1
        same = same_bits(value.data, twin.data) if exact else torch.equal(value.data, twin.data)
        if not same and not (bool(value.data.isnan().any()) and value.data.isnan().equal(twin.data.isnan())):
            found.append(name)
    assert compared > 5
    return found


def hook(path: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """What PyTorch users do: change a module's output in a forward hook."""

    def change(model: torch.nn.Module, inputs: Any, optimizer: Any) -> None:
        model.get_submodule(path).register_forward_hook(lambda _module, _inputs, output: function(output))

    return change


def put(index: Any, number: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Sets some numbers of a tensor, so that autograd sees it."""

    def function(tensor: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(tensor.shape, dtype=torch.bool)
        mask[index] = True
        return torch.where(mask, torch.as_tensor(number, dtype=tensor.dtype), tensor)

    return function


def weight(name: str, index: Any, number: float) -> Change:
    """Sets some numbers of a parameter before the run."""

    def change(model: torch.nn.Module, inputs: Any, optimizer: Any) -> None:
        with torch.no_grad():
            model.get_parameter(name)[index] = number

    return change


def swapped(path: str, module: torch.nn.Module) -> Change:
    """Puts another module in the place of one."""

    def change(model: torch.nn.Module, inputs: Any, optimizer: Any) -> None:
        parent, _, leaf = path.rpartition(".")
        setattr(model.get_submodule(parent), leaf, copy.deepcopy(module))

    return change
