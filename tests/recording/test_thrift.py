"""What is made again instead of copied is, bit for bit, what was there."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.recording.programs import PROGRAMS, Program, Witness
from torch import nn

import openheart as oh
from openheart.recording import Recording, temporaries, thrift
from openheart.recording.keeping import Recipe
from openheart.recording.thrift import Again


def _made_again(rec: Recording) -> int:
    return sum(isinstance(undo.held, Again) for life in rec._lives.values() for undo in life.undos)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_version_is_what_was_there(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thrift, "LARGE", 0)
    torch.manual_seed(3)
    model = program.build()
    with oh.recording(model) as rec, Witness() as witness:
        program.train(model, program.optimizer(model.parameters()))
    witness.check(rec.calls)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=False),
    "AdamW, foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.1, weight_decay=0.1),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.01),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01, weight_decay=0.1, decoupled_weight_decay=True),
}


def _stepped(name: str, dtype: torch.dtype) -> Recording:
    torch.manual_seed(4)
    wild = torch.tensor([0.0, -0.0, 1e-41, -3e38, 3e38, float("inf"), float("nan"), 1e-3]).to(dtype)
    leaves = [nn.Parameter(torch.randn(3, 9).t().to(dtype)), nn.Parameter(wild)]
    optimizer = OPTIMIZERS[name](leaves)
    with oh.recording() as rec:
        for _ in range(3):
            for leaf in leaves:
                leaf.grad = torch.randn(leaf.shape, dtype=dtype)
            optimizer.step()
    return rec


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_with_numbers_of_every_kind(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thrift, "LARGE", 2**60)
    copied = _stepped(name, dtype)
    monkeypatch.setattr(thrift, "LARGE", 0)
    thrifty = _stepped(name, dtype)
    assert not _made_again(copied)
    assert len(copied.values) == len(thrifty.values)
    for value, other in zip(copied.values, thrifty.values, strict=True):
        maker = copied.maker(value)
        if value.kept and not (maker and maker[0].name.startswith("empty")):
            assert _bits(value.data).equal(_bits(other.data))
    if dtype is torch.bfloat16:
        assert not _made_again(thrifty)
    elif name.startswith("AdamW") and not dtype.is_complex:
        assert _made_again(thrifty) == 3 * 2 * 2  # of each parameter and of its second moment, in each step


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)


def test_what_is_made_again_is_verified_replayed_and_saved(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thrift, "LARGE", 0)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    with oh.recording(model) as rec:
        for _ in range(2):
            model(torch.randn(2, 3)).square().mean().backward()
            optimizer.step()
    assert _made_again(rec) == 2 * 4 * 2
    assert rec.verify().ok
    rec.replay()
    rec.save(tmp_path / "run.oh")
    loaded = oh.load(tmp_path / "run.oh")
    for value, other in zip(rec.values, loaded.values, strict=True):
        assert not value.kept or torch.equal(value.data, other.data)


def test_a_write_between_two_scalings_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thrift, "LARGE", 0)

    class Odd(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            (leaf,) = self.param_groups[0]["params"]
            leaf.mul_(0.5)
            leaf[1:].add_(1)
            leaf.mul_(3.0)
            leaf.data.mul_(2.0)
            leaf.mul_(7.0)
            leaf.add_(1)

    leaf = nn.Parameter(torch.arange(4.0))
    optimizer = Odd([leaf], lr=0.1)
    with oh.recording() as rec, Witness() as witness:
        optimizer.step()
    witness.check(rec.calls)
    assert _made_again(rec) >= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_a_step_lets_go_is_computed_again(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _stepped(name, dtype)
    monkeypatch.setattr(temporaries, "LARGE", 0)
    again = _stepped(name, dtype)
    for value, other in zip(held.values, again.values, strict=True):
        maker = held.maker(value)
        assert value.kept == other.kept
        if value.kept and not (maker and maker[0].name.startswith("empty")):
            assert _bits(value.data).equal(_bits(other.data))
    computed = sum(isinstance(value._life, Recipe) for value in again.values)
    if dtype is torch.bfloat16:
        assert computed == 0
    elif name == "AdamW" and not dtype.is_complex:
        assert computed == 3 * 2 * 3  # root, quotient and sum of two parameters in three steps


def test_memory_is_given_back_where_only_the_log_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporaries, "LARGE", 0)
    taken: dict[str, torch.Tensor] = {}
    followed: list[weakref.ref[torch.Tensor]] = []

    class Stashing(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            (leaf,) = self.param_groups[0]["params"]
            taken["root"] = leaf.sqrt()
            taken["row"] = leaf.mul(3.0)[1]
            taken["view"] = (leaf / 2.0).view(2, 2)
            taken["array"] = leaf.mul(5.0).numpy()
            followed.append(weakref.ref(leaf.mul(4.0)))
            taken["written"] = leaf.add(1.0).add_(2.0)
            odd = leaf.mul(7.0)
            odd.add_(1.0)
            odd.uniform_()
            leaf.addcdiv_(leaf.sqrt().add_(1e-8), leaf.mul(2.0), value=-1.0)

    leaf = nn.Parameter(torch.arange(4.0) + 1)
    optimizer = Stashing([leaf], lr=0.1)
    with oh.recording() as rec:
        optimizer.step()
        taken["written"].mul_(3.0)
    freed = [
        entry[0].name()
        for entry in rec._log.entries
        if len(entry) > 5 and isinstance(entry[3], torch.Tensor) and entry[3].untyped_storage().nbytes() == 0
    ]
    assert freed == ["aten::sqrt", "aten::add_.Tensor", "aten::mul.Tensor"]
    assert (tensor := followed[0]()) is not None
    assert tensor.tolist() == [4.0, 8.0, 12.0, 16.0]
    assert taken["root"].tolist() == (torch.arange(4.0) + 1).sqrt().tolist()
    assert taken["row"].item() == 6.0
    assert taken["view"].tolist() == [[0.5, 1.0], [1.5, 2.0]]
    assert taken["array"].tolist() == [5.0, 10.0, 15.0, 20.0]
    assert taken["written"].tolist() == [12.0, 15.0, 18.0, 21.0]
    start = torch.arange(4.0) + 1
    made = {call.id: call.outputs[0].data.tolist() for call in rec.calls if call.outputs}
    sums = [made[call.id] for call in rec.calls if call.name in ("add", "add_")]
    assert sums[:3] == [(start + 1).tolist(), (start + 3).tolist(), (start * 7 + 1).tolist()]
    roots = [made[call.id] for call in rec.calls if call.name == "sqrt"]
    assert roots == [start.sqrt().tolist()] * 2


def test_a_flight_recorder_and_a_subtree_with_what_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporaries, "LARGE", 0)

    def run(**how: Any) -> Recording:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = torch.optim.AdamW(model.parameters())
        with oh.recording(model, **how) as rec:
            for _ in range(4):
                model(torch.randn(2, 3)).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        return rec

    whole, last = run(), run(last=2)
    wanted = [value.data for call in whole.calls if call.step >= 2 for value in call.outputs if value.kept]
    found = [value.data for call in last.calls for value in call.outputs if value.kept]
    assert len(wanted) == len(found)
    assert all(_bits(one).equal(_bits(other)) for one, other in zip(wanted, found, strict=True))
    assert last.verify().ok
    for keep in ("0", "graph"):
        kept = run(keep=keep)
        for value, other in zip(whole.values, kept.values, strict=True):
            assert not other.kept or _bits(value.data).equal(_bits(other.data))
