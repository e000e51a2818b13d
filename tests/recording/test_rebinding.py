"""Memory that changes hands without an operator: `.data`, swapped tensors, casts, memory given back."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import openheart as oh


def same_again(rec: oh.Recording) -> None:
    """The recording checks out, and running it again gives its own numbers."""
    audit = rec.verify()
    assert audit.disagree == 0
    again = rec.replay()
    for one, other in zip(rec.values, again.values, strict=True):
        if one.kept and other.kept and not rec.name(one).startswith("empty"):
            assert torch.equal(one.data, other.data), rec.name(one)


def test_an_activation_is_given_other_numbers() -> None:
    other = torch.tensor([5.0, 6.0])
    with oh.recording() as rec:
        y = torch.tensor([1.0, 2.0]) * 2
        first = y + 1
        y.data = other
        second = y + 1
    assert first.tolist() == [3, 5]
    assert rec.calls[-1].outputs[0].data.tolist() == second.tolist() == [6, 7]
    assert [call.outputs[0].data.tolist() for call in rec.calls if call.name == "add"] == [[3, 5], [6, 7]]
    same_again(rec)


def test_a_gradient_is_given_other_numbers() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.detach().clone()
    with oh.recording(model) as rec:
        model(torch.ones(1, 2)).sum().backward()
        assert model.weight.grad is not None
        model.weight.grad.data = torch.tensor([[3.0, 4.0]])
        optimizer.step()
    assert torch.equal(model.weight, before - torch.tensor([[3.0, 4.0]]))
    assert torch.equal(rec.value("weight.after").data, model.weight)
    same_again(rec)


class Cast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.layer(x)
        self.layer.to(torch.float64)
        return self.layer(x.double()) + first


class Assigned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.layer(x)
        self.layer.weight.data = self.layer.weight.data * 2
        return self.layer(x) - first


class Swapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            first = self.one(x)
            torch.utils.swap_tensors(self.one.weight, self.other.weight)
            return self.one(x) - first


@pytest.mark.parametrize("kind", [Cast, Assigned, Swapped])
def test_parameters_are_given_other_memory_inside_of_forward(kind: Any) -> None:
    x = torch.tensor([[1.0, 2.0]])
    torch.manual_seed(0)
    with torch.no_grad():
        expected = kind()(x)
    torch.manual_seed(0)
    with torch.no_grad():
        rec = oh.record(kind(), x)
    assert torch.equal(rec.output, expected)
    assert torch.equal(rec.value("output").data, expected)
    same_again(rec)


@pytest.mark.parametrize("later", [True, False])
def test_a_value_whose_memory_was_given_back_says_so(later: bool) -> None:
    x = torch.arange(6.0)
    with oh.recording() as rec:
        y = x * 2
        z = y + 1
        if not later:
            y.untyped_storage().resize_(0)
            y.untyped_storage().resize_(24)
            y.fill_(9)
            w = y + 1
    if later:
        y.untyped_storage().resize_(0)
    made = rec.calls[0].outputs[0]
    assert not made.kept
    with pytest.raises(oh.OpaqueError, match="given back"):
        _ = made.data
    assert torch.equal(rec.calls[1].outputs[0].data, z)
    if not later:
        assert torch.equal(rec.calls[-1].outputs[0].data, w)
        assert rec.calls[-1].args[0].data.tolist() == [9] * 6
    assert rec.verify().disagree == 0


def test_backward_in_another_thread_is_recorded() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    foreign = nn.Linear(3, 2)
    with oh.recording(model) as rec:
        loss = model(torch.ones(1, 3)).sum()
        done = threading.Event()

        def work() -> None:
            foreign(torch.ones(1, 3)).sum().backward()
            loss.backward()
            foreign(torch.ones(1, 3)).sum().backward()
            done.set()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert done.is_set()
    assert torch.equal(rec.value("weight.grad").data, model.weight.grad)
    with oh.recording(model) as alone:
        model.zero_grad()
        model(torch.ones(1, 3)).sum().backward()
    names = [call.name for call in alone.calls]
    assert [call.name for call in rec.calls] == names
    assert rec.verify().disagree == 0


def test_what_ran_another_way_is_said() -> None:
    model = nn.Linear(3, 2)
    compiled = torch.compile(model, backend="eager")
    with oh.recording(model) as rec:
        compiled(torch.ones(1, 3))
    assert [notice.key for notice in rec.notices] == ["recording.notice.compiled"]
    assert rec.notices[0].text("en") != rec.notices[0].text("es")
    assert oh.record(model, torch.ones(1, 3)).notices == ()


def from_numpy(array: Any) -> torch.Tensor:
    return torch.from_numpy(array)


def from_dlpack(array: Any) -> torch.Tensor:
    return torch.from_dlpack(array)


@pytest.mark.parametrize("share", [from_numpy, from_dlpack])
def test_numpy_writes_to_memory_that_is_an_input(share: Any) -> None:
    array = np.array([1.0, 2.0, 3.0])
    x = share(array)
    with oh.recording() as rec:
        first = x * 2
        part = x[1:]
        array[1] = 10
        second = part + x[:2]
        x.mul_(3)
        array[0] = 7
        third = x + 1
    array[:] = 0
    made = [call.outputs[0].data for call in rec.calls if call.name in ("mul", "add")]
    assert [item.tolist() for item in made] == [first.tolist(), second.tolist(), third.tolist()]
    assert first.tolist() == [2, 4, 6]
    assert second.tolist() == [11, 13]
    assert third.tolist() == [8, 31, 10]
    assert rec.value("constant_0").data.tolist() == [1, 2, 3] or rec.addresses()
    same_again(rec)


@pytest.mark.parametrize("give", [lambda y: y.numpy(), np.from_dlpack, np.asarray])
def test_numpy_writes_to_memory_that_the_run_made(give: Any) -> None:
    with oh.recording() as rec:
        y = torch.arange(3.0) * 2
        array = give(y)
        if array.flags.writeable:
            array[1] = 10
        else:
            y.data_ptr()
            return
        z = y + 1
    assert z.tolist() == [1, 11, 5]
    assert rec.calls[-1].outputs[0].data.tolist() == [1, 11, 5]
    assert rec.calls[1].outputs[0].data.tolist() == [0, 2, 4]
    same_again(rec)


def test_large_shared_memory_is_said() -> None:
    x = torch.from_numpy(np.zeros(2**18))
    with oh.recording() as rec:
        x.sum()
    assert [notice.key for notice in rec.notices] == ["recording.notice.shared"]


def test_gradients_that_are_copied_into_leaves_are_said() -> None:
    model = nn.Linear(3, 2)
    with oh.recording(model) as rec:
        model(torch.ones(1, 3)).sum().backward()
    copies = [call for call in rec.calls if call.name in ("new_empty_strided", "clone")]
    assert [notice.details for notice in rec.notices] == [{"count": len(copies)}]
    assert rec.notices[0].key == "recording.notice.copied"
    assert rec.notices[0].text("en") != rec.notices[0].text("es")
