"""`x.grad` in a recording is what `x.grad` was in PyTorch, bit for bit, however the loop treats gradients."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import openheart as oh
from openheart.recording import Recording
from openheart.recording.addresses import split

Kept = dict[str, torch.Tensor | None]


class Net(nn.Module):
    """A trunk, a head that is tied to it, a branch that is not always used, a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(3, 3)
        self.head = nn.Linear(3, 3)
        self.branch = nn.Linear(3, 3)
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)
        self.head.weight = self.trunk.weight

    def forward(self, x: torch.Tensor, branch: bool) -> torch.Tensor:
        x = torch.tanh(self.frozen(self.trunk(x)))
        return self.head(self.branch(x) if branch else x)


def _gradients(model: nn.Module) -> Kept:
    with torch._C._DisableTorchDispatch():
        return {
            name: None if parameter.grad is None else parameter.grad.detach().clone()
            for name, parameter in model.named_parameters(remove_duplicate=False)
        }


def _same(rec: Recording, step: int, kept: Kept, said: str) -> None:
    for name, expected in kept.items():
        address = f"@{step} {name}.grad"
        if expected is None:
            assert split(address)[0] not in rec._named.values, (said, address)
        else:
            found = rec.value(address).data
            assert torch.equal(found, expected), (said, address, found, expected)


def _loop(seed: int) -> tuple[Recording, list[Kept], str]:
    """A training loop drawn at random; what `.grad` was after each of its steps; and what was drawn."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    model = Net()
    to_none = draw.random() < 0.6
    when = draw.choice(["before", "after", "never"])
    clip = draw.choice([None, "norm", "value", "hand", "assign", "foreach"])
    scaled = draw.random() < 0.4
    hook = draw.choice([None, "tensor", "post"])
    accumulate = draw.choice([1, 1, 2, 3])
    stale = draw.random() < 0.3
    kinds: list[Callable[[Any], torch.optim.Optimizer]] = [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=draw.choice([0.0, 0.9]), weight_decay=0.01),
        lambda p: torch.optim.Adam(p, lr=0.01, foreach=draw.choice([True, False])),
        lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
        lambda p: torch.optim.Adagrad(p, lr=0.01),
        lambda p: torch.optim.RMSprop(p, lr=0.01, maximize=True),
    ]
    make, other = draw.choice(kinds), draw.choice(kinds)
    two = draw.random() < 0.4
    parts = [list(model.trunk.parameters()), [model.head.bias, *model.branch.parameters()]]
    optimizers = [make(parts[0]), other(parts[1])] if two else [make([*parts[0], *parts[1]])]
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=scaled)
    said = f"{seed=} {to_none=} {when=} {clip=} {scaled=} {hook=} {accumulate=} {stale=} {two=}"
    if hook == "tensor":
        model.trunk.weight.register_hook(lambda gradient: gradient * 2)
    if hook == "post":
        model.branch.weight.register_post_accumulate_grad_hook(_halve)
    if stale:
        model(torch.randn(2, 3), branch=True).sum().backward()
    snapshots = []
    with oh.recording(model) as rec:
        for _ in range(3):
            if when == "before":
                model.zero_grad(set_to_none=to_none)
            for _ in range(accumulate):
                loss = (model(torch.randn(2, 3), branch=draw.random() < 0.6) ** 2).mean()
                scaler.scale(loss).backward(retain_graph=True)
                if draw.random() < 0.2:
                    scaler.scale(loss).backward()
            for optimizer in optimizers:
                scaler.unscale_(optimizer)
            _clip(model, clip)
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
            snapshots.append(_gradients(model))
            if when == "after":
                model.zero_grad(set_to_none=to_none)
    return rec, snapshots, said


def _halve(parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.norm()
    parameter.grad.mul_(0.5)


def _clip(model: nn.Module, how: str | None) -> None:
    known = [parameter for parameter in model.parameters() if parameter.grad is not None]
    if how == "norm":
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    elif how == "value":
        nn.utils.clip_grad_value_(model.parameters(), 0.01)
    elif how == "foreach":
        torch._foreach_add_([parameter.grad for parameter in known], 0.5)  # type: ignore[misc]
    for parameter in known:
        assert parameter.grad is not None
        if how == "hand":
            parameter.grad *= 0.25
            parameter.grad.data[0] = 1.0
        elif how == "assign":
            parameter.grad = parameter.grad.clamp(-0.01, 0.01) + 1


@pytest.mark.parametrize("seed", range(12))
def test_after_every_step_a_gradient_is_what_torch_had(seed: int) -> None:
    rec, snapshots, said = _loop(seed)
    assert max(call.step for call in rec.calls) == len(snapshots) - 1
    for step, kept in enumerate(snapshots):
        _same(rec, step, kept, said)
    for call in rec.calls:
        if call.name.startswith(("foreach_", "fused_", "amp_")):
            assert call.phase == "optimizer", (said, call)


def test_what_a_gradient_held_before_has_its_own_name() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    assert model.weight.grad is not None
    held = [model.weight.grad.clone()]
    with oh.recording(model) as rec:
        for factor in (2.0, 3.0):
            (factor * model(torch.ones(1, 2))).sum().backward()
            with torch._C._DisableTorchDispatch():
                held.append(model.weight.grad.clone())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch._C._DisableTorchDispatch():
            clipped = model.weight.grad.clone()
        optimizer.zero_grad(set_to_none=False)
    for number, expected in enumerate(held):
        assert torch.equal(rec.value(f"weight.grad:{number}").data, expected)
        assert rec.name(rec.value(f"weight.grad:{number}")) == f"weight.grad:{number}"
    assert torch.equal(rec.value("weight.grad").data, clipped)
    assert rec.name(rec.value("weight.grad")) == "weight.grad"
    assert torch.equal(rec.value("weight.grad.after").data, torch.zeros(1, 2))
    assert "weight.grad:3" not in rec.addresses()
    assert rec.explain("weight.grad[0,0]").verdict in ("exact", "within rounding")


def test_an_edit_of_a_gradient_is_of_what_the_step_reads() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    with oh.recording(model) as rec:
        (100 * model(torch.ones(1, 2))).sum().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    weight = rec.value("weight").data
    changed = rec.intervene({"weight.grad": 0.25})
    assert torch.equal(changed.value("weight.after").data, weight - 0.5 * 0.25)
    assert torch.equal(changed.value("bias.after").data, rec.value("bias.after").data)
    before = rec.intervene({"weight.grad:1": 0.0})  # and the norm that all are clipped by is another one
    assert torch.equal(before.value("weight.after").data, weight)
    assert before.value("bias.grad").data.item() == pytest.approx(1.0, abs=1e-6)


def test_a_closure_that_is_called_many_times() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    x, y = torch.randn(8, 3), torch.randn(8, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    snapshots = []
    with oh.recording(model) as rec:
        for _ in range(2):
            optimizer.step(closure)
            snapshots.append(_gradients(model))
    for step, kept in enumerate(snapshots):
        _same(rec, step, kept, "lbfgs")
    assert torch.equal(rec.value("weight.grad:1").data, _first_gradient(rec, x, y))


def _first_gradient(rec: Recording, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    weight = rec.value("weight").data.clone().requires_grad_()
    nn.functional.mse_loss(nn.functional.linear(x, weight, rec.value("bias").data), y).backward()
    assert weight.grad is not None
    return weight.grad


def test_an_optimizer_that_steps_while_gradients_arrive() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    expected: Kept = {}
    kept: list[Kept] = []
    for name, parameter in model.named_parameters():
        optimizer = torch.optim.SGD([parameter], lr=0.1)

        def step(parameter: torch.Tensor, name: str = name, optimizer: Any = optimizer) -> None:
            optimizer.step()
            with torch._C._DisableTorchDispatch():
                assert parameter.grad is not None
                expected[name] = parameter.grad.clone()
            optimizer.zero_grad()

        parameter.register_post_accumulate_grad_hook(step)
    with oh.recording(model) as rec:
        for _ in range(2):
            model(torch.randn(4, 2)).sum().backward()
            kept.append(dict(expected))
    for step in range(2):
        _same(rec, step, kept[step], "steps in the backward pass")
    assert {call.step for call in rec.calls} == {0, 1}
    assert any(call.phase == "optimizer" for call in rec.calls)


def test_calls_of_a_backward_pass_are_placed_where_it_was_called() -> None:
    model = nn.Linear(2, 1)
    with oh.recording(model) as rec:
        model(torch.ones(1, 2)).sum().backward()
        torch.autograd.grad(model(torch.ones(1, 2)).sum(), [model.weight])
    assert all(str(call.source).startswith("test_leaf_gradients.py:") for call in rec.calls)


def test_plain_tensors_that_are_trained_by_hand() -> None:
    weight, x = torch.ones(2, requires_grad=True), torch.tensor([1.0, 2.0])
    used = []
    with oh.recording() as rec:
        for _ in range(2):
            (weight * x).sum().backward()
            weight.grad = weight.grad.clamp(max=1.5)  # type: ignore[union-attr]
            with torch.no_grad():
                weight -= 0.5 * weight.grad
            used.append(weight.grad)
            weight.grad.zero_()
    assert used[0] is not None
    for step in range(2):
        at = f"@{step} " if step else ""
        assert rec.value(f"{at}parameter_0.grad").data.tolist() == [1.0, 1.5]
        assert rec.value(f"{at}constant_0.grad") is rec.value(f"{at}parameter_0.grad")
        assert rec.value(f"{at}parameter_0.grad:1").data.tolist() == [1.0, 2.0]
        assert rec.value(f"{at}parameter_0.grad.after").data.tolist() == [0.0, 0.0]
    assert rec.value("parameter_0").origin == "parameter"
    assert rec.name(rec.value("constant_0")) == "parameter_0"
    assert rec.name(rec.value("@1 constant_0.after")) == "@1 parameter_0.after"


def test_an_input_and_an_activation_that_retain_their_gradients() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    x = torch.randn(4, 2, requires_grad=True)
    earlier = torch.randn(4, 2, requires_grad=True) * 2
    earlier.retain_grad()
    with oh.recording(model) as rec:
        hidden = model[1](model[0](x))
        hidden.retain_grad()
        out = model[2](hidden).sum()
        out.backward(retain_graph=True)
        out.backward()
        model(earlier).sum().backward()
        for tensor in (x, hidden, earlier):
            assert tensor.grad is not None
            tensor.grad.mul_(3)
    assert x.grad is not None and hidden.grad is not None and earlier.grad is not None
    assert torch.equal(rec.value("0.in.grad").data, x.grad)
    assert torch.equal(rec.value("1.out.grad").data, hidden.grad)
    assert torch.equal(rec.value("input.grad").data, earlier.grad)


def test_a_gradient_from_before_is_called_after_its_leaf() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    model(torch.ones(1, 2)).sum().backward()
    old = _gradients(model)
    with oh.recording(model) as rec:
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        model[0](torch.ones(1, 2)).sum().backward()
    new = _gradients(model)
    for name in ("0.weight", "0.bias", "1.weight"):
        expected, now = old[name], new[name]
        assert expected is not None and now is not None
        assert torch.equal(rec.value(f"{name}.grad:0").data, expected)
        assert torch.equal(rec.value(f"{name}.grad").data, now)
    assert not any(address.startswith("constant") for address in rec.addresses())
    assert not any("grad" in address for address in oh.record(model, torch.ones(1, 2)).addresses())


def test_what_autograd_grad_returns_is_named_and_updates_made_of_it_are_updates() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    x = torch.randn(3, 2, requires_grad=True)
    with oh.recording(model) as rec:
        for _ in range(2):
            loss = model(x).square().mean()
            slopes = torch.autograd.grad(loss, [model.weight, model.bias, x])
            with torch.no_grad():
                for parameter, slope in zip(model.parameters(), slopes, strict=False):
                    parameter -= 0.1 * slope
    for name, slope in zip(("weight", "bias", "input"), slopes, strict=True):
        value = rec.value(f"@1 {name}.autograd_grad")
        assert torch.equal(value.data, slope)
        assert rec.name(value) == f"@1 {name}.autograd_grad"
        assert rec.has_own_name(rec.value(f"{name}.autograd_grad"))
        assert f"{name}.grad" not in rec._named.values
    made = [rec.maker(rec.value(f"{at}{name}.after")) for at in ("", "@1 ") for name in ("weight", "bias")]
    assert all(call is not None and call[0].phase == "optimizer" for call in made)
    scaled = [call for call in rec.calls if call.name == "mul" and call.phase != "backward"]
    assert [call.phase for call in scaled] == ["optimizer"] * 4
    assert rec.value("@1 weight") is rec.value("weight.after")
