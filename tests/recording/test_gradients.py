"""Backward calls know their forward call; a gradient that is named is the one that PyTorch would keep."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.recording.programs import PROGRAMS, Program
from torch.utils._python_dispatch import TorchDispatchMode

import openheart as oh

# Programs whose loss is one backward pass; a second pass over one graph leaves no single gradient to name.
UNCERTAIN = {"mlp, gradient penalty", "lstm", "checkpoint, reentrant", "complex"}
ONCE = [program for program in PROGRAMS if "accumulated" not in program.name]


class Retain(TorchDispatchMode):
    """Keeps every result object, to ask it for its gradient afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.results: list[torch.Tensor] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if torch._C._current_autograd_node() is None:
            self.results += [
                item for item in (result if isinstance(result, tuple) else (result,)) if _differs(item)
            ]
        return result


def _differs(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and (item.is_floating_point() or item.is_complex())


@pytest.mark.parametrize("program", ONCE, ids=lambda program: program.name)
def test_named_gradients_are_those_of_retain_grad(program: Program) -> None:
    torch.manual_seed(3)
    model = program.build()
    data = program.data()
    kept: dict[Any, torch.Tensor | None] = {}  # where the numbers lie → their gradient
    with oh.recording(model) as rec:
        with Retain() as retain:
            loss = program.run(model, *data)
        geometry = {}
        for tensor in retain.results:
            try:
                if tensor.requires_grad and tensor.grad_fn is not None:
                    tensor.retain_grad()
                    geometry[id(tensor)] = tensor
            except RuntimeError:
                continue
        loss.backward()
    checked: set[Any] = set()
    for tensor in geometry.values():
        if tensor._version:
            continue  # it was overwritten: its gradient is another value's
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.is_conj())
        kept[key] = None if key in kept else tensor.grad  # twins on one storage cannot be told apart here
    for name, gradient in rec._named.values.items():
        if not name.endswith(".grad"):
            continue
        value = rec.value(name.removesuffix(".grad"))
        parameter = dict(model.named_parameters()).get(name.removesuffix(".grad"))
        if parameter is not None:
            assert torch.equal(gradient.data, parameter.grad), name
            continue
        assert gradient.shape == value.shape
        if value.version or value._life.undos or not value.kept:
            continue
        key = (value.data.data_ptr(), value.shape, value.stride, value.data.is_conj())
        expected = kept.get(key)  # type: ignore[call-overload]
        if expected is not None:
            assert torch.equal(gradient.data, expected), name
            checked.add(key)
    names = rec._named.values
    for name, parameter in model.named_parameters():
        assert f"{name}.grad" in names
        assert torch.equal(rec.value(f"{name}.grad").data, parameter.grad)
    known = {key for key, gradient in kept.items() if gradient is not None}
    # Where a node has several outputs, or runs twice, it cannot be told which gradient is whose.
    certain = 0.5 if program.name in UNCERTAIN else 1.0
    assert len(checked & known) >= certain * len(known)
    assert "loss" in names
    assert rec.value("loss").data.equal(loss.detach())
