"""The classic traps: what recorders get silently wrong, and errors planted in a recording that is right."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import openheart as oh
from openheart.check import check
from openheart.formula.expr import Leaf
from openheart.origins import law_at
from openheart.patients import patient, patients
from openheart.recording import Call, Element, Value

GOOD = ("exact", "within rounding")


# Values that are overwritten --------------------------------------------------------------------------------


def test_an_inplace_relu_does_not_change_what_the_linear_gave() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    x = torch.randn(4, 3)
    before = F.linear(x, net[0].weight, net[0].bias).detach()
    kept: list[Tensor] = []
    handle = net[0].register_forward_hook(lambda module, args, output: kept.append(output))
    rec = oh.record(net, x)
    handle.remove()
    assert (before < 0).any()
    assert (kept[0] >= 0).all(), "the trap is no trap: a plain hook kept the right numbers"
    assert rec.value("0.out").data.equal(before)
    assert rec.value("1.out").data.equal(before.clamp(min=0))
    at = "{}[{},{}]".format
    for i, j in (before < 0).nonzero().tolist():
        linear, relu = rec.explain(at("0.out", i, j)), rec.explain(at("1.out", i, j))
        assert (linear.operator, linear.value) == ("addmm", before[i, j].item())
        assert (relu.operator, relu.value) == ("relu_", 0.0)
        assert linear.verdict in GOOD
        assert relu.verdict == "exact"
    assert rec.verify().ok


def test_a_write_through_a_view_changes_later_values_only() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            doubled = x * 2
            total = doubled.sum()
            doubled[:, 0] = 0  # through a view, of which nobody speaks again
            return doubled + total

    x = torch.arange(6.0).reshape(2, 3)
    rec = oh.record(Writes(), x)
    assert rec.value("/mul.out").data.equal(x * 2)
    assert rec.explain("/mul.out[1,0]").value == 6.0
    assert rec.value("/sum.out").data.item() == 30.0
    added = rec.explain("output[1,0]")
    assert (added.value, added.verdict) == (30.0, "exact")
    assert rec.verify().ok


def test_parameters_are_kept_as_they_were_before_the_step() -> None:
    torch.manual_seed(0)
    net = nn.Linear(3, 1)
    start = net.weight.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    with oh.recording(net) as rec:
        net(torch.ones(2, 3)).sum().backward()
        optimizer.step()
    assert rec.value("weight").data.equal(start)
    assert rec.value("weight.after").data.equal(net.weight.detach())
    assert not net.weight.detach().equal(start)
    assert rec.explain("output[0,0]").verdict in GOOD


# Calls that no module makes ---------------------------------------------------------------------------------


class Between(nn.Module):
    """Half of its arithmetic is in no module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x))
        return torch.softmax(x + self.second(hidden), dim=-1)


def test_functional_calls_between_modules_are_seen() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), Between())
    x = torch.randn(2, 4)
    rec = oh.record(net, x)
    assert {"1/relu.out", "1/add.out"} <= {*rec.addresses()}
    hidden = torch.relu(net[1].first(net[0](x)))
    assert rec.value("1/relu.out").data.equal(hidden)
    assert rec.value("1/add.out").data.equal(net[0](x) + net[1].second(hidden))
    softmax = rec.value("1/softmax.out")
    assert softmax is rec.value("1.out")
    assert softmax is rec.value("output")
    assert {call.source.split(":")[0] for call in rec.calls if call.source} == {"test_traps.py"}
    for address in ("1/relu.out[0,1]", "1/add.out[1,2]", "1/softmax.out[1,0]"):
        explained = rec.explain(address)
        assert explained.scope == "1"
        assert explained.verdict in GOOD
    assert rec.verify().ok


# Modules and parameters that are used twice -----------------------------------------------------------------


def test_a_module_that_is_called_twice() -> None:
    class Twice(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            return self[0](torch.tanh(self[0](x)))

    torch.manual_seed(0)
    net = Twice(nn.Linear(3, 3))
    x = torch.randn(1, 3)
    rec = oh.record(net, x)
    first = net[0](x)
    assert rec.value("0.out").data.equal(first)
    assert rec.value("0:2.out").data.equal(net[0](torch.tanh(first)))
    again = rec.explain("0:2.out[0,1]")
    assert again.address == "0:2.out[0,1]"
    assert again.verdict in GOOD
    assert dict(again.arguments)["mat1"] == "tanh.out"


def test_tied_weights_are_one_value_with_two_names() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(5, 3)
            self.head = nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.embedding(tokens))

    torch.manual_seed(0)
    net = Tied()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with oh.recording(net) as rec:
        net(torch.tensor([1, 3])).square().sum().backward()
        optimizer.step()
    for name in ("weight", "weight.grad", "weight.after"):
        assert rec.value(f"head.{name}") is rec.value(f"embedding.{name}")
    gradient = rec.explain("head.weight.grad[1,2]")
    assert gradient.value == net.embedding.weight.grad[1, 2].item()
    assert gradient.operator == "add"  # what flows through both uses
    assert gradient.verdict in GOOD
    assert rec.verify().ok


# Planted errors ---------------------------------------------------------------------------------------------


@cache
def training_step(name: str) -> oh.Recording:
    """A whole training step of a patient."""
    subject = patient(name)
    model = subject.build()
    optimizer = subject.optimizer(model.parameters())
    torch.manual_seed(1)
    with oh.recording(model) as rec:
        loss = subject.loss()(model(*subject.inputs()), subject.target())
        loss.backward()
        optimizer.step()
    return rec


Site = tuple[Call, int, tuple[int, ...]]


def sites(rec: oh.Recording) -> dict[str, list[tuple[Call, int]]]:
    """Every checked output of every call, by operator and output."""
    found: dict[str, list[tuple[Call, int]]] = {}
    for call in rec.calls:
        for output, value in enumerate(call.outputs):
            law = law_at(rec, call, output) if math.prod(value.shape) else None
            if law is not None and not isinstance(law.expr, Leaf):
                found.setdefault(f"{call.op} {call.slots[output][0]}", []).append((call, output))
    return found


def plans(per_operator: int = 3) -> list[tuple[str, str, int]]:
    """(patient, operator, number): each operator in the smallest patients that use it."""
    chosen: dict[str, list[str]] = {}
    for name in sorted((p.name for p in patients()), key=lambda name: len(training_step(name).values)):
        for operator in sites(training_step(name)):
            chosen.setdefault(operator, []).append(name)
    return [
        (names[min(n, len(names) - 1)], operator, n)
        for operator, names in sorted(chosen.items())
        for n in range(per_operator)
    ]


def draw(rec: oh.Recording, operator: str, generator: np.random.Generator) -> tuple[Site, Any] | None:
    """A random finite scalar that a call of this operator made, and its check."""
    places = sites(rec)[operator]
    for _ in range(20):
        call, output = places[generator.integers(len(places))]
        value = call.outputs[output]
        at = tuple(int(generator.integers(size)) for size in value.shape)
        held = check(call, output, at)
        if (
            held is not None
            and np.isfinite(held.computed)
            and np.isfinite(held.recorded)
            and np.isfinite(held.bound)
        ):
            return (call, output, at), held
    return None


def moved(value: Value, number: Any, held: Any) -> Any:
    """The scalar moved by ten times its bound; to the next number of its dtype where the bound is zero."""
    kind = value.array.dtype
    if kind.kind == "b":
        return not number
    if kind.kind in "iu":
        return number + math.ceil(10 * float(held.bound)) + 1
    far = kind.type(float(held.computed) + 10 * float(held.bound))
    if held.bound == 0 or far == number:
        return np.nextafter(number, kind.type(math.inf))
    return far


@contextmanager
def planted(call: Call, output: int, at: tuple[int, ...], wrong: Any) -> Iterator[None]:
    """One recorded scalar changed in memory; a view's, which shares its memory, in a copy of its own."""
    value = call.outputs[output]
    array = value.array
    cache: dict[str, Any] = value._cache
    shares = any(np.shares_memory(array, read.array) for read in reads(call) if read.kept)
    if shares or not array.flags.writeable:
        cache["array"] = array.copy()
    before = cache["array"][at].copy()
    cache["array"][at] = wrong
    try:
        yield
    finally:
        cache["array"][at] = before
        cache["array"] = array


def reads(call: Call) -> Iterator[Value]:
    for argument in call.arguments.values():
        for item in argument if isinstance(argument, (list, tuple)) else (argument,):
            if isinstance(item, Value):
                yield item


def pointer(element: Element) -> int:
    """Where a scalar lies in memory: aliases of one number share it."""
    array = element.value.array
    start: int = array.__array_interface__["data"][0]
    return start + sum(i * step for i, step in zip(element.index, array.strides, strict=True))


@pytest.mark.parametrize("name", [p.name for p in patients()])
def test_nothing_is_found_where_nothing_is_planted(name: str) -> None:
    audit = training_step(name).verify()
    assert audit.disagree == 0, audit.disagreements[:5]
    assert audit.opaque == 0, audit.opaque_operators


@pytest.mark.slow
def test_every_planted_error_is_found_and_named() -> None:
    generator = np.random.default_rng(28)
    done = 0
    for name, operator, _ in plans():
        rec = training_step(name)
        site = draw(rec, operator, generator)
        if site is None:
            continue  # every number of it is infinite: a mask of −∞
        (call, output, at), held = site
        element = Element(call.outputs[output], at)
        wrong = moved(element.value, element.value.array[at], held)
        with planted(call, output, at, wrong):
            audit = rec.verify()
            named = [rec.element(d.address) for d in audit.disagreements]
            assert any(
                (found.value is element.value and found.index == at) or pointer(found) == pointer(element)
                for found in named
            ), f"{name}: {operator}: {rec.address(element)} = {wrong!r} went unnoticed; bound {held.bound}"
        done += 1
    assert done >= 60
    for name in {name for name, _, _ in plans()}:
        assert training_step(name).verify().disagree == 0, "an error was not taken back"
