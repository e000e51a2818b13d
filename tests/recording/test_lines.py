"""A call as a line of a program: what an operator returns as a tuple is taken apart as it was recorded."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import openheart as oh

_library = torch.library.Library("openheart_lines", "DEF")
_library.define("parted(Tensor x) -> (Tensor, Tensor?, Tensor)")
_library.define("first(Tensor x) -> (Tensor, Tensor?)")
_library.impl("parted", lambda x: (x * 2, None, x + 1), "CompositeExplicitAutograd")
_library.impl("first", lambda x: (x * 3, None), "CompositeExplicitAutograd")


class Parted(nn.Module):
    """Two operators without a law, which give None among their results."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, _, other = torch.ops.openheart_lines.parted(x)
        first, _ = torch.ops.openheart_lines.first(other)
        return one + other + first


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.attention(x, x, x, need_weights=False)[0]
        return out


def fine_tuned() -> nn.Module:
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3))
    net[2].requires_grad_(requires_grad=False)
    return net


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "layer norm": (lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4, elementwise_affine=False)), (3, 4)),
    "batch norm": (lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False)), (3, 4)),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 1), nn.GroupNorm(2, 4, affine=False)),
        (3, 2, 4, 4),
    ),
    "a frozen convolution": (fine_tuned, (2, 2, 8, 8)),
    "attention's fast path": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    "attention alone": (Attending, (2, 5, 8)),
    "None among the results": (Parted, (3, 4)),
}


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_an_operator_that_returns_few_tensors_runs_again(name: str, trained: bool) -> None:
    build, shape = NETS[name]

    def run(scale: float) -> oh.Recording:
        torch.manual_seed(0)
        net = build().train(trained)
        given = torch.randn(shape) * scale
        for module in net.modules():  # what is drawn at random is not what this is about
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        with oh.recording(net) as recording, torch.set_grad_enabled(trained):
            out = net(given)
            if trained and out.requires_grad:
                out.square().mean().backward()
        return recording

    recording, doubled = run(1.0), run(2.0)
    again, edited = recording.replay(), recording.intervene({"input": oh.scale(2.0)})
    for name_, value in recording._named.values.items():
        if value.kept and not name_.startswith("constant"):
            assert torch.equal(again.value(name_).data, value.data), name_
            assert torch.equal(edited.value(name_).data, doubled.value(name_).data), name_
    place = ",".join("0" * len(shape))
    swept = recording.sweep(f"input[{place}]", [0.5, -1.0], watch=("output",))
    assert len(swept.values) == 2
