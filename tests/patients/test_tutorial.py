"""The tutorial's numbers, by plain PyTorch, from the patients that carry its networks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from openheart.patients import patient
from openheart.patients.tutorial import drawn_matrices

GOLDENS = {
    each["id"]: each for each in json.loads((Path(__file__).parents[1] / "goldens.json").read_text("utf-8"))
}


def run(name: str) -> Tensor:
    who = patient(name)
    return who.build()(*who.inputs())


def layer(name: str, number: int, kind: str) -> Tensor:
    return getattr(patient(name).build()[number], kind)


def hidden(name: str) -> Tensor:
    who = patient(name)
    return who.build()[0](*who.inputs())


def relu_weights() -> list[Tensor]:
    """W1, W2 and W3, in×out as the tutorial has them."""
    return [patient("seed-chain").build()[number].weight.T for number in range(3)]


def batch() -> Tensor:
    return patient("seed-relu").inputs()[0]


def descent(lr: float, momentum: float) -> list[float]:
    """Ten steps of torch's own SGD down the tutorial's curve, in float64."""
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([x], lr=lr, momentum=momentum)
    path = [x.item()]
    for _ in range(10):
        optimizer.zero_grad()
        (2 * x**4 + 3 * x**3 - 5 * x**2).backward()
        optimizer.step()
        path.append(x.item())
    return path


def minima() -> dict[str, list[float]]:
    """Newton's method on f' from either side of zero."""

    def f(x: float) -> float:
        return 2 * x**4 + 3 * x**3 - 5 * x**2

    def settle(x: float) -> list[float]:
        for _ in range(50):
            x -= (8 * x**3 + 9 * x**2 - 10 * x) / (24 * x**2 + 18 * x - 10)
        return [x, f(x)]

    return {"local": settle(1.0), "global": settle(-2.0)}


NUMBERS: dict[str, Any] = {
    "hand-neuron-1": lambda: hidden("hand")[0, 0],
    "hand-neuron-2": lambda: hidden("hand")[0, 1],
    "hand-neuron-3": lambda: hidden("hand")[0, 2],
    "hand-hidden": lambda: hidden("hand"),
    "hand-output": lambda: run("hand"),
    "linear-hidden": lambda: hidden("seed"),
    "linear-output": lambda: run("seed"),
    "sequential": lambda: run("seed"),
    "batch-hidden": lambda: hidden("seed-batch"),
    "batch-output": lambda: run("seed-batch"),
    "sigmoid-scalars": lambda: torch.tensor([-2.8107, -1.6803, -2.3069]).sigmoid(),
    "sigmoid-model": lambda: run("seed-sigmoid"),
    "softmax-vector": lambda: torch.tensor([[-3.7, -2.5, -0.2, 0.8, 1.8, 3.2]]).softmax(dim=-1),
    "softmax-model": lambda: run("seed-softmax"),
    "collapse-chain": lambda: run("seed-chain"),
    "collapse-composed": lambda: torch.linalg.multi_dot(relu_weights()),
    "collapse-equal": lambda: batch() @ torch.linalg.multi_dot(relu_weights()),
    "relu-chain": lambda: run("seed-relu"),
    "relu-composed": lambda: batch() @ ((relu_weights()[0] @ relu_weights()[1]).relu() @ relu_weights()[2]),
    "descent-minima": minima,
    **{f"{net}-{number}.{kind}": (lambda net=patient_name, number=number, kind=kind: layer(net, number, kind))
       for net, patient_name in (("linear", "seed"), ("batch", "seed-batch"))
       for number in (0, 1) for kind in ("weight", "bias")},
    **{f"relu-W{number + 1}": (lambda number=number: relu_weights()[number]) for number in range(3)},
}  # fmt: skip


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str) -> None:
    expected = GOLDENS[name]["expect"]
    if name.startswith("descent-lr"):
        lr, momentum = name.removeprefix("descent-lr").split("-mu")
        assert descent(float(lr), float(momentum)) == pytest.approx(expected, abs=6e-7)
        return
    number = NUMBERS[name]()
    if isinstance(number, dict):
        for which, pair in expected.items():
            assert number[which] == pytest.approx(pair, abs=6e-7)
        return
    expected_tensor = torch.as_tensor(expected, dtype=torch.float32)
    # The tutorial prints four decimals, and five digits where it prints powers of ten.
    tolerance = {"rtol": 1e-4, "atol": 0} if name == "softmax-model" else {"rtol": 0, "atol": 5.1e-5}
    torch.testing.assert_close(number.detach(), expected_tensor, **tolerance)


def test_every_golden_has_a_number() -> None:
    assert set(NUMBERS) == {name for name in GOLDENS if not name.startswith("descent-lr")}


def test_the_layers_are_the_drawn_matrices() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(28)
        for drawn, used in zip(drawn_matrices(), relu_weights(), strict=True):
            assert torch.equal(drawn, used)


def test_the_dead_network_learns_nothing() -> None:
    who = patient("seed-relu")
    model = who.build()
    who.loss()(model(*who.inputs()), who.target()).backward()
    assert not any(parameter.grad.any() for parameter in model.parameters())


def test_by_hand_all_gradients_are_integers() -> None:
    who = patient("hand")
    model = who.build()
    error = who.loss()(model(*who.inputs()), who.target())
    error.backward()
    assert error.item() == 1
    assert model[1].weight.grad.tolist() == [[10, 2, -2]]
    assert model[1].bias.grad.tolist() == [2]
    assert model[0].weight.grad.tolist() == [[8, 12], [-4, -6], [4, 6]]
    assert model[0].bias.grad.tolist() == [4, -2, 2]
