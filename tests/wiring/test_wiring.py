"""Every wire of a run leads where autograd's graph says; a planted one that does not is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recording.programs import PROGRAMS, Program
from torch import nn

import openheart as oh
from openheart.recording import Value
from openheart.wiring import check_wiring

# What a view of a tensor that was written to hands on, and a graph of a backward pass, autograd is not asked.
UNTOLD = {"mlp, gradient penalty", "rows written through views"}


def run(program: Program) -> oh.Recording:
    torch.manual_seed(3)
    model = program.build()
    data = program.data()
    with oh.recording(model) as recording:
        program.run(model, *data).backward()
    return recording


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_wire_is_checked(program: Program, tmp_path: Path) -> None:
    recording = run(program)
    found = check_wiring(recording)
    assert not found.disagreements
    assert found.edges > 50
    assert found.unknown == 0 or program.name in UNTOLD
    recording.save(tmp_path / "run.oh")
    assert check_wiring(oh.load(tmp_path / "run.oh")) == found


def mixed(a: torch.Tensor, b: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Operators that hand a gradient on as it is, each in a way of its own."""
    index = torch.tensor([0, 2, 0])
    out = torch.addcmul(a, b, w[:3]) + torch.addcdiv(b, a, w[1:].exp())
    out = out.index_add(0, index, a) + b.scatter_add(0, index[:, None].expand(3, 4), out)
    out = out.index_put((index,), b, accumulate=True) + torch.rsub(out, a)
    out = torch.addmm(out, a, w) + torch.addr(a, b[:, 0], w[0]) + torch.addbmm(b, a[None], w[None])
    out = out + torch._foreach_add([a, out], [out, b])[1]
    out = nn.functional.mish(nn.functional.hardtanh(out * 1, inplace=True), inplace=True)
    return out.mul_(w[:3]).add_(a).div_(2.0)


def test_what_operators_hand_on_is_what_autograd_says() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    w = torch.randn(4, 4, requires_grad=True)
    with oh.recording() as recording:
        mixed(a * 1, b * 2, w).sum().backward()
    found = check_wiring(recording)
    assert (found.disagree, found.unknown) == (0, 0)


def crossed(change: Callable[[oh.Recording], Any]) -> set[str]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    with oh.recording(net) as recording:
        given = torch.randn(3, 4)
        hidden = net(given)
        (hidden * 2 + hidden.exp()).sum().backward()
    assert check_wiring(recording).ok
    recording = recording.replay()
    change(recording)
    return {each.kind for each in check_wiring(recording).disagreements}


def put(recording: oh.Recording, call: str, place: int, value: Value) -> None:
    """Has the first backward call of this name read another value."""
    wrong = next(each for each in recording.calls if each.phase == "backward" and each.name == call)
    args = list(wrong.args)
    args[place] = value
    object.__setattr__(wrong, "args", tuple(args))
    wrong._cache.clear()


def test_a_wrong_gradient_is_found() -> None:
    def backwards(recording: oh.Recording) -> None:
        put(recording, "tanh_backward", 0, recording.value("2.out.grad"))

    def partial(recording: oh.Recording) -> None:
        shares = [call for call in recording.calls if call.phase == "backward" and call.name == "add"]
        for call in recording.calls:
            if call.phase == "backward" and shares[0].outputs[0] in call.args:
                args = [shares[0].args[0] if item is shares[0].outputs[0] else item for item in call.args]
                object.__setattr__(call, "args", tuple(args))

    assert crossed(backwards) == {"gradient"}
    assert crossed(partial) == {"gradient"}


def test_a_wrong_name_and_a_wrong_argument_are_found() -> None:
    def named(recording: oh.Recording) -> None:
        recording._named.values["0.out.grad"] = recording.value("1.out.grad")

    def early(recording: oh.Recording) -> None:
        put(recording, "tanh_backward", 1, recording.value("0.weight.grad"))

    def other(recording: oh.Recording) -> None:
        wrong = next(call for call in recording.calls if call.name == "exp")
        object.__setattr__(wrong, "args", (recording.value("0.out"),))

    assert crossed(named) == {"name"}
    assert crossed(early) == {"order"}
    assert "argument" in crossed(other)


def test_the_audit_tells_of_wires_and_of_a_wrong_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    with oh.recording(net) as recording:
        net(torch.randn(3, 4)).sum().backward()
    audit = recording.verify()
    assert audit.ok
    assert audit.wiring == check_wiring(recording)
    assert "wires lead where they should" in audit.text(lang="en")
    assert "conexiones llevan a donde deben" in audit.text(lang="es")
    recording = recording.replay()
    put(recording, "tanh_backward", 0, recording.value("2.out.grad"))
    audit = recording.verify()
    assert not audit.ok
    assert audit.wiring.disagree == 1
    assert "reads the gradient 2.out.grad" in " ".join(audit.text(lang="en").split())
    assert "lee el gradiente 2.out.grad" in " ".join(audit.text(lang="es").split())
    assert audit.to_dict()["wiring"]["disagreements"][0]["kind"] == "gradient"
