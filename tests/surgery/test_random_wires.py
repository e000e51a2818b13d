"""Networks drawn at random from many operators, edited at random: as a forward hook does, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import openheart as oh
from openheart.wiring import check_wiring

Many = Callable[..., torch.Tensor]
INDEX = torch.tensor([0, 2, 2, 1])
WIDE = INDEX[:, None].expand(4, 6)
OPERATORS: dict[str, Many] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "alpha": lambda a, b: torch.add(a, b, alpha=2),
    "rsub": lambda a, b: torch.rsub(a, b),
    "mul": lambda a, b: a * b,
    "tanh": lambda a, b: torch.tanh(a),
    "addcmul": lambda a, b: torch.addcmul(a, b, a, value=0.5),
    "addcdiv": lambda a, b: torch.addcdiv(a, b, a.exp()),
    "lerp": lambda a, b: torch.lerp(a, b, 0.25),
    "addr": lambda a, b: torch.addr(a, b[:, 0], a[0]),
    "index_add": lambda a, b: a.index_add(0, INDEX, b),
    "index_add_": lambda a, b: (a * 1).index_add_(0, INDEX, b),
    "index_copy": lambda a, b: a.index_copy(0, INDEX[:2], b[:2]),
    "scatter_add": lambda a, b: a.scatter_add(0, WIDE, b),
    "gather": lambda a, b: a.gather(0, WIDE) + b,
    "index_put": lambda a, b: a.index_put((INDEX,), b, accumulate=True),
    "index_put_": lambda a, b: (a * 1).index_put_((INDEX,), b, accumulate=True),
    "foreach": lambda a, b: torch._foreach_add([a, b], [b, a])[1],
    "where": lambda a, b: torch.where(a > 0, a, b),
    "masked_fill": lambda a, b: a.masked_fill(b > 0, 0.5),
    "masked_scatter": lambda a, b: a.masked_scatter(b > 0, b),
    "maximum": lambda a, b: torch.maximum(a, b),
    "cat": lambda a, b: torch.cat([a[:2], b[2:]]),
    "stack": lambda a, b: torch.stack([a, b]).sum(0),
    "unbind": lambda a, b: torch.stack(a.unbind(0)[::-1]) + b,
    "chunk": lambda a, b: torch.cat([part * 2 for part in a.chunk(2, 1)], 1) - b,
    "transpose": lambda a, b: a.t().reshape(4, 6) + b,
    "broadcast": lambda a, b: a.sum(0) + b,
    "expand": lambda a, b: a[:1].expand(4, 6) * b,
    "layer_norm": lambda a, b: F.layer_norm(a, (6,)) + b,
    "softmax": lambda a, b: a.softmax(-1) * b,
    "relu6": lambda a, b: F.relu6(a * 3, inplace=True) + b,
    "silu": lambda a, b: F.silu(a * 1, inplace=True),
    "mish": lambda a, b: F.mish(a + b, inplace=True),
    "hardswish": lambda a, b: F.hardswish(a + b, inplace=True),
    "add_": lambda a, b: (a * 1).add_(b),
    "mul_": lambda a, b: (a * 1).mul_(b),
    "twice": lambda a, b: (a * 1).mul_(b).add_(b).sub_(a),
    "slice_": lambda a, b: _written(a, b),
    "cumsum": lambda a, b: a.cumsum(0) - b,
    "detach": lambda a, b: a.detach() + b,
    "rotate": lambda a, b: torch.cat([-a[:, 3:], a[:, :3]], 1) * 0.5 + b,
    "roll": lambda a, b: a.roll(1, 0) + a,
    "norm": lambda a, b: F.normalize(a, dim=-1) + b,
}


def _written(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    out = a * 1
    out[:, 0] = b[:, 1]
    out[1].mul_(2)
    return out


class Operator(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return OPERATORS[self.name](a, b)


class Drawn(nn.Module):
    """Operators in a row, each of two values that were there before."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        draw = random.Random(seed)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight
        names = draw.choices(list(OPERATORS), k=8)
        self.operators = nn.ModuleList([Operator(name) for name in names])
        self.pairs = [(draw.randrange(n + 2), draw.randrange(n + 2)) for n in range(len(names))]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        values = [self.first(x), self.second(x)]
        for operator, (one, other) in zip(self.operators, self.pairs, strict=True):
            values.append(torch.tanh(operator(values[one], values[other])))
        return torch.stack(values[-4:]).sum(0) + values[0]


def train(seed: int, change: Callable[[nn.Module], Any] = lambda net: None) -> oh.Recording:
    torch.manual_seed(seed)
    net = Drawn(seed)
    change(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    given = torch.randn(4, 6)
    with oh.recording(net) as recording:
        net(given).square().mean().backward()
        optimizer.step()
    return recording


def masked(out: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros_like(out, dtype=torch.bool)
    mask[:, 1] = True
    return mask


FUNCTIONS: list[tuple[Any, Callable[[torch.Tensor], torch.Tensor]]] = [
    (0.5, lambda out: torch.where(masked(out), torch.tensor(0.5), out)),
    (oh.scale(-2.0), lambda out: torch.where(masked(out), out * -2.0, out)),
]
SEEDS = [*range(5), *[pytest.param(seed, marks=pytest.mark.slow) for seed in range(5, 200)]]


@pytest.mark.parametrize("seed", SEEDS)
def test_an_edit_of_a_drawn_network_is_what_a_forward_hook_does(seed: int) -> None:
    recording = train(seed)
    found = check_wiring(recording)
    assert not found.disagreements
    draw = random.Random(seed)
    paths = ["first", "second", *[f"operators.{n}" for n in range(8)]]
    for path in draw.sample(paths, 3):
        edit, function = draw.choice(FUNCTIONS)
        try:
            edited = recording.intervene({f"{path}.out[:,1]": edit})
        except oh.InterventionError:
            continue  # what is not told is refused, not guessed

        def change(net: nn.Module, path: str = path, function: Any = function) -> None:
            net.get_submodule(path).register_forward_hook(lambda _m, _i, out: function(out))

        fresh = train(seed, change)
        for name in (
            "loss",
            "first.weight.grad",
            "first.bias.grad",
            "first.weight.after",
            "second.bias.grad",
        ):
            assert (name in fresh._named.values) == (name in edited._named.values), (path, name)
            if name in fresh._named.values:
                assert torch.equal(fresh.value(name).data, edited.value(name).data), (path, name)
        assert not check_wiring(edited).disagreements
