"""What is not kept is gone; what can be computed again comes out the same."""

from __future__ import annotations

import pytest
import torch
from tests.recording.programs import PROGRAMS, Program, Witness
from torch import nn

import openheart as oh
from openheart.recording import Recording, afterwards, keeping


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_graph_computes_its_values_again(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "ROOM", 2000)
    torch.manual_seed(3)
    model = program.build()
    with oh.recording(model, keep="graph") as rec, Witness() as witness:
        for _ in range(2):
            program.run(model, *program.data()).backward()
        program.optimizer(model.parameters()).step()
    witness.check(rec.calls)
    held = [value for value in rec.values if not isinstance(value._life, keeping.Recipe)]
    assert len(held) < 0.7 * len(rec.values)


def _kept(program: Program, keep: str) -> Recording:
    torch.manual_seed(3)
    model = program.build()
    with oh.recording(model, keep=keep) as rec:
        program.train(model, program.optimizer(model.parameters()))
    return rec


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_what_keeps_less_never_takes_more(program: Program) -> None:
    whole = _kept(program, "all").nbytes
    for keep in ("graph", ""):
        rec = _kept(program, keep)
        assert 0 < rec.nbytes <= whole
        assert {id(life) for life in rec._lives.values()} <= {id(value._life) for value in rec.values}


def test_what_the_graph_keeps_stays_when_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(afterwards, "SMALL", 0)
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weights = []
    with oh.recording(model, keep="graph") as rec:
        for _ in range(2):
            weights.append(model.weight.detach().clone())
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    weights.append(model.weight.detach().clone())
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert torch.equal(rec.value("weight").data, weights[0])
    assert torch.equal(rec.value("@1 weight").data, weights[1])
    assert torch.equal(rec.value("@1 weight.after").data, weights[2])


def test_a_subtree_keeps_what_its_calls_read_and_made() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), nn.Linear(4, 1))
    with oh.recording(model, keep="1") as rec:
        model(torch.randn(2, 3)).sum().backward()
    full = ["1.in", "1.out", "1.0.out", "1.1.weight", "1.1.weight.grad", "1.0.out.grad", "0.out"]
    assert all(rec.value(name).kept for name in full)
    assert not any(rec.value(name).kept for name in ("input", "2.out", "0.weight", "2.weight.grad"))
    assert len(rec.calls) > 20
    with pytest.raises(oh.OpaqueError, match="told not to keep"):
        _ = rec.value("2.out").data


def test_a_wrong_keep_says_what_is_near() -> None:
    model = nn.Sequential(nn.Linear(3, 1))
    with pytest.raises(oh.InputError, match="did you mean 'graph'"):
        oh.record(model, torch.ones(1, 3), keep="grph")
