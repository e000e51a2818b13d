"""Three training steps with each optimizer, one parameter at a time, in lists, and fused: every number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.rules.harness import audit
from torch import optim

from openheart.check import check
from openheart.record import recording

SKIPPED = ["empty.memory_format", "uniform_", "empty_like", "new_empty_strided"]
MODES: dict[str, dict[str, bool]] = {
    "one by one": {"foreach": False},
    "lists": {"foreach": True},
    "fused": {"fused": True},
}


def train(kind: Any, dtype: torch.dtype, **options: Any) -> Any:
    """A small network with a tail behind its vectors, and three steps of an optimizer."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(9, 13), torch.nn.Tanh(), torch.nn.Linear(13, 3)).to(dtype)
    optimizer = kind(model.parameters(), **options)
    x, y = torch.randn(6, 9).to(dtype), torch.randn(6, 3).to(dtype)

    def steps() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()

    return steps


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.1},
        {"maximize": True},
        {"amsgrad": True, "weight_decay": 0.01},
        {"betas": (0.5, 0.7), "eps": 1e-3},
    ],
    ids=str,
)
def test_adam(kind: Any, options: dict[str, Any], mode: str) -> None:
    for dtype in (torch.float32, torch.float64):
        audit(train(kind, dtype, **options, **MODES[mode]), covers=(), skips=SKIPPED, singles=1)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"weight_decay": 0.1, "maximize": True},
    ],
    ids=str,
)
def test_sgd(options: dict[str, Any], mode: str) -> None:
    for dtype in (torch.float32, torch.float64):
        audit(train(optim.SGD, dtype, lr=0.1, **options, **MODES[mode]), covers=(), skips=SKIPPED, singles=1)


@pytest.mark.parametrize("options", [{}, {"lr_decay": 0.1, "weight_decay": 0.1}, {"maximize": True}], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_adagrad(options: dict[str, Any], mode: str) -> None:
    audit(train(optim.Adagrad, torch.float32, **options, **MODES[mode]), covers=(), skips=SKIPPED, singles=1)


@pytest.mark.parametrize("mode", ["one by one", "lists"])
@pytest.mark.parametrize(
    "kind", [optim.RMSprop, optim.Adadelta, optim.Adamax, optim.NAdam, optim.RAdam, optim.ASGD, optim.Rprop]
)
def test_others_are_made_of_known_operators(kind: Any, mode: str) -> None:
    options = {"centered": True, "momentum": 0.9, "weight_decay": 0.1} if kind is optim.RMSprop else {}
    audit(train(kind, torch.float32, **options, **MODES[mode]), covers=(), skips=SKIPPED, singles=1)


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.SGD])
def test_a_learning_rate_may_be_a_tensor(kind: Any) -> None:
    seen = audit(
        train(kind, torch.float32, lr=torch.tensor(0.003), fused=True), covers=(), skips=SKIPPED, singles=1
    )
    assert any(name.endswith("tensor_lr") for name in seen.operators)


def state() -> list[torch.Tensor]:
    return [torch.rand(70), torch.rand(3)]


@pytest.mark.parametrize("found", [0.0, 1.0])
def test_mixed_precision_scales_the_gradient_or_calls_the_step_off(found: float) -> None:
    mixed = {"grad_scale": torch.tensor(4.0), "found_inf": torch.tensor(found)}
    adam = {
        "lr": 0.1,
        "beta1": 0.9,
        "beta2": 0.99,
        "weight_decay": 0.1,
        "eps": 1e-8,
        "maximize": False,
        **mixed,
    }
    steps = [torch.tensor(3.0), torch.tensor(5.0)]
    audit(
        lambda: torch._fused_adam_(state(), state(), state(), state(), state(), steps, amsgrad=True, **adam),
        skips=["rand"],
    )
    audit(
        lambda: torch._fused_adamw_(state(), state(), state(), state(), [], steps, amsgrad=False, **adam),
        skips=["rand"],
    )
    sgd = {
        "weight_decay": 0.1,
        "momentum": 0.9,
        "lr": 0.1,
        "dampening": 0.1,
        "nesterov": False,
        "maximize": False,
    }
    audit(
        lambda: torch._fused_sgd_(state(), state(), state(), is_first_step=False, **sgd, **mixed),
        skips=["rand"],
    )
    adagrad = {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1, "eps": 1e-8, "maximize": False}
    audit(lambda: torch._fused_adagrad_(state(), state(), state(), steps, **adagrad, **mixed), skips=["rand"])


def test_gradient_clipping() -> None:
    parameters = [torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(5))]

    def clip() -> None:
        for p in parameters:
            p.grad = torch.ones_like(p) * 0.7
        for order in (2.0, 1.0, float("inf")):
            torch.nn.utils.clip_grad_norm_(parameters, 0.5, norm_type=order, foreach=True)
        torch.nn.utils.clip_grad_value_(parameters, 0.01)

    audit(clip, covers=["_foreach_norm.Scalar", "_foreach_mul_.Tensor"])


def test_a_kernel_that_does_not_step_is_caught() -> None:
    """The CPU kernel of fused SGD does not store bfloat16 parameters in its vector loop (seen in 2.13)."""
    theta, g = torch.ones(117, dtype=torch.bfloat16), torch.ones(117, dtype=torch.bfloat16)
    options = {"weight_decay": 0.0, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False}
    with recording() as run:
        torch._fused_sgd_([theta], [g], [], lr=0.25, is_first_step=False, **options)
    (call,) = run.calls
    held = check(call, [name for name, _ in call.slots].index("self"))
    assert held is not None
    assert (held.computed == 0.75).all()
    stepped = theta == 0.75
    assert held.agrees.tolist() == stepped.tolist()
    assert held.verdict() == ("exact" if stepped.all() else "disagrees")
