"""A gradient that is not there: the error says why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import openheart as oh
from openheart.recording import Recording


class Net(nn.Module):
    """Two branches; what becomes of the second one is up to `joins`."""

    def __init__(self, joins: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        self.c.requires_grad_(False)
        self.joins = joins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.joins(self.a(x), self.c(self.b(x)))


def _detached(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return one + other.relu().detach()  # here: detached


def _untracked(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        other = other * 2  # here: untracked
    return one + other


def _stepped(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return one * (other > 0)  # here: steps


def _apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    other.relu().sum()
    return one


def _line(word: str) -> str:
    with open(__file__, encoding="utf-8") as file:
        number = next(number for number, line in enumerate(file, 1) if line.endswith(f"# here: {word}\n"))
    return f"test_absence.py:{number}"


def _run(joins: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], backward: bool = True) -> Recording:
    torch.manual_seed(0)
    model = Net(joins)
    x = torch.randn(3, 2)
    with oh.recording(model) as rec:
        loss = model(x).square().mean()
        if backward:
            loss.backward()
    return rec


def _why(rec: Recording, address: str) -> oh.AddressError:
    with pytest.raises(oh.AddressError) as caught:
        rec.value(address)
    with pytest.raises(oh.AddressError, match="there is no"):
        rec.explain(f"{address}[0,0]")
    return caught.value


@pytest.mark.parametrize(
    ("joins", "address", "key", "says"),
    [
        (_detached, "b.weight.grad", "error.grad.cut.detached", _line("detached")),
        (_detached, "b.out.grad", "error.grad.cut.detached", _line("detached")),
        (_untracked, "b.weight.grad", "error.grad.cut.untracked", _line("untracked")),
        (_stepped, "b.bias.grad", "error.grad.cut.steps", _line("steps")),
        (_apart, "b.weight.grad", "error.grad.apart", "leads to the loss"),
        (_detached, "c.weight.grad", "error.grad.frozen", "requires_grad is False"),
        (_detached, "input.grad", "error.grad.frozen", "requires_grad is False"),
    ],
    ids=lambda item: item if isinstance(item, str) else None,
)
def test_the_call_where_the_way_to_the_loss_breaks(
    joins: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], address: str, key: str, says: str
) -> None:
    error = _why(_run(joins), address)
    assert error.key == key and says in str(error)
    assert "did you mean" not in str(error)


def test_no_backward_pass_and_a_value_that_nobody_uses() -> None:
    assert _why(_run(_detached, backward=False), "a.weight.grad").key == "error.grad.none"
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1), nn.Embedding(2, 2))
    tokens = torch.tensor([0, 1])
    with oh.recording(model) as rec:
        model[1](model[0](model[2](tokens))).sum().backward()
        model[2](tokens)
    assert rec.value("0.weight.grad") is not None
    with oh.recording(model) as rec:
        model[1](model[2](tokens)).sum().backward()
    assert _why(rec, "0.weight.grad").key == "error.grad.unused"
    assert _why(rec, "2.in.grad").key == "error.grad.dtype"


def test_a_gradient_that_was_only_asked_for() -> None:
    model = nn.Linear(2, 1)
    with oh.recording(model) as rec:
        torch.autograd.grad(model(torch.ones(1, 2)).sum(), [model.weight])
    error = _why(rec, "weight.grad")
    assert error.key == "error.grad.asked" and error.suggestion == "weight.autograd_grad"
    assert rec.value(str(error.suggestion)).shape == (1, 2)


def test_what_is_no_gradient_still_gets_a_suggestion() -> None:
    with pytest.raises(oh.AddressError, match="did you mean"):
        _run(_detached).value("a.weigth.grad")
    with pytest.raises(oh.AddressError, match="did you mean"):
        _run(_detached).value("@4 a.weight.grad")


def test_a_recording_from_a_file_says_what_it_knows(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for backward, key in ((False, "error.grad.none"), (True, "error.grad.unknown")):
        _run(_detached, backward).save(tmp_path / "run.oh")
        assert _why(oh.load(tmp_path / "run.oh"), "b.weight.grad").key == key
