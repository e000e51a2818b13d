"""Any edits of any patient: a replay is a fresh PyTorch run of the edited network.

Hypothesis draws the patient and up to three edits at once, and shows the smallest set that fails. The draws
are the same each time; `OPENHEART_RANDOM=1` draws others.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.surgery.bench import Case, Change, differing, hook, training_step

from openheart.patients import patient, patients

NAMES = [each.name for each in patients()]
NUMBERS = st.floats(-2, 2, width=32)


@cache
def case_of(name: str) -> Case:
    return training_step(name)


@cache
def outputs_of(name: str) -> dict[str, tuple[int, ...]]:
    """The modules that return one tensor of their own, and its shape; not what a loss wants in [0, 1]."""
    model, found = patient(name).build(), {}
    seen: set[int] = set()
    for path, module in model.named_modules():

        def note(_module: Any, _inputs: Any, output: Any, path: str = path) -> None:
            if isinstance(output, torch.Tensor) and path and id(output) not in seen:
                seen.add(id(output))
                found[path] = output

        module.register_forward_hook(note)
    with torch.no_grad():
        model(*patient(name).inputs())
    if name == "seed-sigmoid":
        del found["2"]
    return {path: tuple(output.shape) for path, output in found.items()}


def written(index: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, index))}]" if index else ""


@st.composite
def one_edit(draw: st.DrawFn, name: str) -> tuple[str, Any, Change]:
    """An address, an edit, and what PyTorch is told to do instead."""
    model = patient(name).build()
    kind = draw(st.sampled_from(["parameter", "input", "activation", "function", "gradient", "lr"]))
    number = draw(NUMBERS)
    if kind == "parameter":
        path, parameter = draw(st.sampled_from(list(model.named_parameters())))
        index = place(draw, parameter.shape)

        def change(net: Any, inputs: Any, optimizer: Any) -> None:
            with torch.no_grad():
                net.get_parameter(path)[index] = number

        return path + written(index), number, change
    if kind == "input":
        (taken,) = patient(name).inputs()
        index = place(draw, taken.shape)
        given = number if taken.dtype.is_floating_point else draw(st.integers(0, 5))

        def change_input(net: Any, inputs: list[torch.Tensor], optimizer: Any) -> None:
            inputs[0] = inputs[0].clone()
            inputs[0][index] = given

        return "input" + written(index), given, change_input
    if kind == "lr":
        rate = abs(number) + 0.001

        def change_rate(net: Any, inputs: Any, optimizer: Any) -> None:
            for group in optimizer.param_groups:
                group["lr"] = rate

        return "lr", rate, change_rate
    path = draw(st.sampled_from(sorted(outputs_of(name))))
    shape = outputs_of(name)[path]
    index = place(draw, shape)
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[index] = True
    if kind == "activation":
        return (
            f"{path}.out{written(index)}",
            number,
            hook(path, lambda out: torch.where(mask, torch.tensor(number), out)),
        )
    if kind == "function":
        return (
            f"{path}.out{written(index)}",
            lambda part: part * number + 0.5,
            hook(path, lambda out: torch.where(mask, out * number + 0.5, out)),
        )

    def with_gradient(out: torch.Tensor) -> torch.Tensor:
        if out.requires_grad:
            out.register_hook(lambda gradient: torch.where(mask, torch.tensor(number), gradient))
        return out

    return f"{path}.out.grad{written(index)}", number, hook(path, with_gradient)


def place(draw: st.DrawFn, shape: Any) -> tuple[int, ...]:
    return tuple(draw(st.integers(0, size - 1)) for size in shape)


@st.composite
def operations(draw: st.DrawFn) -> tuple[str, list[tuple[str, Any, Change]]]:
    """A patient, and edits at addresses that differ."""
    name = draw(st.sampled_from(NAMES))
    edits = draw(
        st.lists(
            one_edit(name),
            min_size=1,
            max_size=3,
            unique_by=lambda edit: edit[0].split("[")[0].removesuffix(".grad"),
        )
    )
    known = case_of(name).recording._named.values
    return name, [edit for edit in edits if edit[0].split("[")[0] in known or edit[0] == "lr"]


@settings(max_examples=60, deadline=None, derandomize="OPENHEART_RANDOM" not in os.environ)
@given(operations())
def test_a_replay_with_edits_is_a_fresh_run_of_the_edited_network(operation: Any) -> None:
    name, edits = operation
    if not edits:
        return
    case = case_of(name)
    edited = case.recording.intervene({address: edit for address, edit, _ in edits})

    def change(net: Any, inputs: Any, optimizer: Any) -> None:
        for _, _, each in edits:
            each(net, inputs, optimizer)

    fresh = case.fresh(change)
    # PyTorch's hook stands behind the gradient that the fresh recording knows by this name.
    known = case.recording._named.values
    hooked = [known[address.split("[")[0]] for address, _, _ in edits if ".grad" in address]
    found = [each for each in differing(fresh, edited, exact=False) if known.get(each) not in hooked]
    assert not found, [address for address, _, _ in edits]
    assert edited.verify().ok
