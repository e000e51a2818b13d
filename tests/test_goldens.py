"""Every number of the tutorial, reproduced through openheart's own face and explained element by element."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import openheart as oh

GOLDENS = {
    row["id"]: row
    for row in json.loads((Path(__file__).parent / "goldens.json").read_text("utf-8"), parse_float=Decimal)
}
SIGNIFICANT = 5
"""What PyTorch's printer shows of a number in scientific notation: one digit, and four decimals."""

Shown = tuple[oh.Recording, str]
"""A recording, and the name in it of the tensor that the tutorial prints."""

SAMPLES = torch.tensor([[8, 5, 6, 2, 4, 5, 7], [1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3]]).float()


# The tutorial's networks ------------------------------------------------------------------------------------


@cache
def neuron(*weights: float) -> Shown:
    x, w, b = torch.tensor([[2.0, 3.0]]), torch.tensor([weights]), torch.tensor([0.0])
    with oh.recording() as rec:
        x @ w.T + b
    return rec, "/add.out"


class ByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.W1 = nn.Parameter(torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]]))
        self.W2 = nn.Parameter(torch.tensor([[2.0, -1.0, 1.0]]))
        self.b = nn.Parameter(torch.tensor([0.0]))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = x @ self.W1.T
        return {"hidden": hidden, "output": hidden @ self.W2.T + self.b}


@cache
def by_hand() -> oh.Recording:
    return oh.record(ByHand(), torch.tensor([[2.0, 3.0]]))


@cache
def linear() -> oh.Recording:
    torch.manual_seed(28)
    net = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 1)])
    with oh.recording(net) as rec:
        net[1](net[0](torch.tensor([[4.0, 5.0]])))
    return rec


@cache
def sequential() -> oh.Recording:
    torch.manual_seed(28)
    return oh.record(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), torch.tensor([[4.0, 5.0]]))


def sigmoid_layers() -> nn.Sequential:
    torch.manual_seed(28)
    return nn.Sequential(nn.Linear(7, 4), nn.Linear(4, 1), nn.Sigmoid())


@cache
def batch() -> oh.Recording:
    return oh.record(sigmoid_layers()[:2], SAMPLES)


@cache
def sigmoid_model() -> oh.Recording:
    return oh.record(sigmoid_layers(), SAMPLES)


@cache
def sigmoid_scalars() -> oh.Recording:
    return oh.record(nn.Sigmoid(), torch.tensor([-2.8107, -1.6803, -2.3069]))


@cache
def softmax_vector() -> oh.Recording:
    return oh.record(nn.Softmax(dim=-1), torch.tensor([[-3.7, -2.5, -0.2, 0.8, 1.8, 3.2]]))


def softmax_layers() -> nn.Sequential:
    sigmoid_layers()
    return nn.Sequential(nn.Linear(7, 3), nn.Softmax(dim=-1))


@cache
def softmax_model() -> oh.Recording:
    return oh.record(softmax_layers(), SAMPLES)


class Matrices(nn.Module):
    """The drawn matrices, in×out, in every product that the tutorial makes of them."""

    def __init__(self) -> None:
        super().__init__()
        softmax_layers()
        self.W1 = nn.Parameter(torch.randn(7, 3))
        self.W2 = nn.Parameter(torch.randn(3, 1))
        self.W3 = nn.Parameter(torch.randn(1, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        composed = self.W1 @ self.W2 @ self.W3
        return {
            "chain": x @ self.W1 @ self.W2 @ self.W3,
            "composed": composed,
            "equal": x @ composed,
            "relu_chain": torch.relu(torch.relu(x @ self.W1) @ self.W2) @ self.W3,
            "relu_composed": x @ (torch.relu(self.W1 @ self.W2) @ self.W3),
        }


@cache
def matrices() -> oh.Recording:
    return oh.record(Matrices(), SAMPLES)


class Curve(nn.Module):
    """f(x) = 2x⁴ + 3x³ − 5x², and where the descent stands on it."""

    def __init__(self, x: float) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(x, dtype=torch.float64))

    def forward(self) -> Tensor:
        return 2 * self.x**4 + 3 * self.x**3 - 5 * self.x**2


def descent(lr: float, momentum: float, steps: int) -> oh.Recording:
    curve = Curve(2.0)
    optimizer = torch.optim.SGD(curve.parameters(), lr=lr, momentum=momentum)
    with oh.recording(curve) as rec:
        for _ in range(steps):
            optimizer.zero_grad()
            curve().backward()
            optimizer.step()
    return rec


TENSORS: dict[str, Callable[[], Shown]] = {
    "hand-neuron-1": lambda: neuron(1.0, 1.0),
    "hand-neuron-2": lambda: neuron(-1.0, 1.0),
    "hand-neuron-3": lambda: neuron(1.0, -1.0),
    "hand-hidden": lambda: (by_hand(), "output.hidden"),
    "hand-output": lambda: (by_hand(), "output.output"),
    "linear-hidden": lambda: (linear(), "0.out"),
    "linear-output": lambda: (linear(), "1.out"),
    "linear-0.weight": lambda: (linear(), "0.weight"),
    "linear-0.bias": lambda: (linear(), "0.bias"),
    "linear-1.weight": lambda: (linear(), "1.weight"),
    "linear-1.bias": lambda: (linear(), "1.bias"),
    "sequential": lambda: (sequential(), "output"),
    "batch-hidden": lambda: (batch(), "0.out"),
    "batch-output": lambda: (batch(), "1.out"),
    "batch-0.weight": lambda: (batch(), "0.weight"),
    "batch-0.bias": lambda: (batch(), "0.bias"),
    "batch-1.weight": lambda: (batch(), "1.weight"),
    "batch-1.bias": lambda: (batch(), "1.bias"),
    "sigmoid-scalars": lambda: (sigmoid_scalars(), "output"),
    "sigmoid-model": lambda: (sigmoid_model(), "2.out"),
    "softmax-vector": lambda: (softmax_vector(), "output"),
    "softmax-model": lambda: (softmax_model(), "1.out"),
    "relu-W1": lambda: (matrices(), "W1"),
    "relu-W2": lambda: (matrices(), "W2"),
    "relu-W3": lambda: (matrices(), "W3"),
    "collapse-chain": lambda: (matrices(), "output.chain"),
    "collapse-composed": lambda: (matrices(), "output.composed"),
    "collapse-equal": lambda: (matrices(), "output.equal"),
    "relu-chain": lambda: (matrices(), "output.relu_chain"),
    "relu-composed": lambda: (matrices(), "output.relu_composed"),
}
DESCENTS = [name for name in GOLDENS if name.startswith("descent-lr")]


# Reproducing ------------------------------------------------------------------------------------------------


def numbers(expected: Any, place: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Decimal]]:
    """Every number of a golden entry, and its place."""
    if isinstance(expected, list):
        for n, inner in enumerate(expected):
            yield from numbers(inner, (*place, n))
    else:
        yield place, Decimal(expected)


def as_printed(value: float, expected: Decimal, decimals: int | None, bound: float = 0.0) -> bool:
    """Whether `value`, or one as near to it as `bound`, is printed as `expected`.

    That is: rounded at its decimals, or at its significant digits.
    """
    if expected == expected.to_integral_value() and not decimals:
        return value == expected
    last = expected.adjusted() - SIGNIFICANT + 1 if decimals is None else -decimals
    return abs(Decimal(value) - expected) <= Decimal(1).scaleb(last) / 2 + Decimal(bound)


def printed_decimals(expected: list[Decimal]) -> int | None:
    """How many decimals an entry was printed with; None for scientific notation. Last zeros are lost."""
    if any(x and x.adjusted() < -4 for x in expected):
        return None
    return max(max(0, -int(x.as_tuple().exponent)) for x in expected)


def reproduce(rec: oh.Recording, address: str, expected: Decimal, decimals: int | None) -> oh.Explanation:
    """The number at `address` is the tutorial's: as recorded, as its law computes it, with a good verdict."""
    explained = rec.explain(address)
    element = rec.element(address)
    assert explained.value == element.value.array[element.index], address
    # Another machine's kernels may round otherwise, each within the law's bound of what float64 gives.
    assert explained.bound is not None
    assert as_printed(explained.value, expected, decimals, explained.bound), (address, explained.value)
    assert explained.verdict in ("exact", "within rounding"), (address, explained.verdict)
    assert as_printed(explained.computed, expected, decimals), (address, explained.computed, expected)
    return explained


def test_every_golden_has_its_test() -> None:
    assert {*TENSORS, *DESCENTS, "descent-minima"} == set(GOLDENS)


@pytest.mark.parametrize("name", list(TENSORS))
def test_tensor(name: str) -> None:
    rec, tensor = TENSORS[name]()
    expect = GOLDENS[name]["expect"]
    expected = list(numbers(expect if isinstance(expect, list) else [[expect]]))
    decimals = printed_decimals([x for _, x in expected])
    shape = rec.value(tensor).shape
    assert len(expected) == math.prod(shape)
    for place, x in expected:
        assert len(place) == len(shape)
        reproduce(rec, f"{tensor}[{','.join(map(str, place))}]", x, decimals)


@pytest.mark.parametrize("name", DESCENTS)
def test_descent(name: str) -> None:
    lr, momentum = (float(part.lstrip("lrmu")) for part in name.removeprefix("descent-").split("-"))
    expected = [x for _, x in numbers(GOLDENS[name]["expect"])]
    rec = descent(lr, momentum, steps=len(expected) - 1)
    assert reproduce(rec, "x", expected[0], 6).kind == "parameter"
    for step, x in enumerate(expected[1:]):
        at = f"@{step} " if step else ""
        explained = reproduce(rec, f"{at}x.after", x, 6)
        assert (explained.phase, explained.step) == ("optimizer", step)
        assert (
            rec.explain(f"@{step + 1} x" if step + 2 < len(expected) else f"{at}x.after").value
            == explained.value
        )
        # The gradient is f′ where the step stood: 8x³ + 9x² − 10x.
        here = rec.explain(f"{at}x").value
        gradient = rec.explain(f"{at}x.grad")
        assert gradient.verdict in ("exact", "within rounding")
        assert gradient.value == pytest.approx(8 * here**3 + 9 * here**2 - 10 * here, rel=1e-13)


@pytest.mark.parametrize("which", ["local", "global"])
def test_minima(which: str) -> None:
    x, height = GOLDENS["descent-minima"]["expect"][which]
    root = (-9 + math.copysign(math.sqrt(81 + 320), x)) / 16  # 8x² + 9x − 10 = 0
    curve = Curve(root)
    with oh.recording(curve) as rec:
        curve().backward()
    reproduce(rec, "x", x, 6)
    reproduce(rec, "loss", height, 6)
    gradient = rec.explain("x.grad")
    assert gradient.verdict in ("exact", "within rounding")
    assert abs(gradient.value) < 1e-13
    assert abs(gradient.computed) < 1e-13


def test_every_number_of_these_runs_is_checked() -> None:
    runs = [
        by_hand(),
        linear(),
        sequential(),
        sigmoid_model(),
        softmax_model(),
        matrices(),
        descent(0.01, 0.9, 10),
    ]
    for audit in (rec.verify() for rec in runs):
        assert audit.disagree == 0, audit.disagreements
        assert audit.opaque == 0, audit.opaque_operators
