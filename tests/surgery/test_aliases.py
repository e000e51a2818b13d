"""A value with several names is edited under one of them: what it was called before keeps its numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import openheart as oh
from openheart.wiring import check_wiring


class Block(nn.Module):
    """A block that is called three times, and returns what a module inside of it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.blk = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = self.blk(x)
        return x


class Dropped(nn.Module):
    """Dropout that drops nothing hands its argument on as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.dropout, self.last = nn.Linear(4, 4), nn.Dropout(0.0), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(self.dropout(self.first(x)))
        return out


class Normalized(nn.Module):
    """Its backward pass makes a call that the forward pass has made, and is no checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.last(nn.functional.normalize(self.first(x), dim=-1))
        return out


def train(net: nn.Module, steps: int = 1) -> oh.Recording:
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    given = torch.randn(3, 4)
    with oh.recording(net) as recording:
        for _ in range(steps):
            optimizer.zero_grad()
            net(given).square().mean().backward()
            optimizer.step()
    return recording


@pytest.mark.parametrize(
    ("net", "steps", "address", "moved", "still"),
    [
        (Block, 1, "blk:3.out", ("blk:3.out", "output"), ("blk.1:3.out", "blk:2.out", "blk.1:2.out")),
        (Block, 1, "blk.1:3.out", ("blk.1:3.out", "blk:3.out"), ("blk.1:2.out", "blk.0:3.out")),
        (Block, 1, "blk.out", ("blk.out", "blk.0:2.in"), ("blk.1.out",)),
        (Dropped, 1, "dropout.out", ("dropout.out", "last.in"), ("first.out", "dropout.in")),
        (Dropped, 1, "first.out", ("first.out", "dropout.in", "dropout.out"), ("first.in",)),
        (Dropped, 2, "@1 first.weight", ("@1 first.weight",), ("first.weight", "first.weight.after")),
        (Dropped, 2, "@1 dropout.out", ("@1 dropout.out",), ("@1 first.out", "dropout.out", "first.out")),
    ],
)
def test_an_edit_moves_what_comes_after_it(
    net: type[nn.Module], steps: int, address: str, moved: tuple[str, ...], still: tuple[str, ...]
) -> None:
    recording = train(net(), steps)
    edited = recording.intervene({address: oh.scale(2.0)})
    for name in moved:
        assert not torch.equal(edited.value(name).data, recording.value(name).data), name
    for name in still:
        assert torch.equal(edited.value(name).data, recording.value(name).data), name
    assert edited.verify().ok


def test_what_a_backward_pass_makes_of_what_is_there_is_no_checkpoint() -> None:
    edited = train(Normalized()).intervene({"div.out[:,0]": 0.5})
    assert edited.verify().ok
    assert check_wiring(edited).unknown == 0


def test_a_module_is_swapped_in_every_step() -> None:
    def build() -> nn.Sequential:
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    swapped = build()
    swapped[1] = nn.Tanh()
    fresh, edited = train(swapped, 3), train(build(), 3).intervene(oh.swap("1", "tanh"))
    for name in ("loss", "@2 loss", "@2 0.weight.grad", "@2 0.weight.after", "@1 2.bias.grad"):
        assert torch.equal(edited.value(name).data, fresh.value(name).data), name
    assert edited.verify().ok


def test_a_residual_branch_is_swapped() -> None:
    class Residual(nn.Module):
        def __init__(self, act: nn.Module) -> None:
            super().__init__()
            self.first, self.act, self.last = nn.Linear(4, 4), act, nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            out: torch.Tensor = self.last(h + self.act(h)) + h * h
            return out

    def build(act: nn.Module) -> nn.Module:
        torch.manual_seed(3)
        return Residual(act)

    fresh = train(build(nn.Tanh()))
    edited = train(build(nn.ReLU())).intervene(oh.swap("act", "tanh"))
    for name in ("loss", "first.weight.grad", "first.weight.after", "last.bias.grad"):
        assert torch.equal(edited.value(name).data, fresh.value(name).data), name
    assert edited.verify().ok
