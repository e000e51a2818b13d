"""An optimizer with other options, or another state: what it would have done, its steps made once more."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import openheart as oh


def train(
    kind: type[torch.optim.Optimizer], options: dict[str, Any], steps: dict[int, float] | None = None
) -> oh.Recording:
    """Three steps; `steps`: what the state `step` of the weight is set to before a step."""
    torch.manual_seed(0)
    net, given = nn.Linear(4, 4), torch.randn(3, 4)
    optimizer = kind(net.parameters(), **{"lr": 0.1, **options})
    with oh.recording(net) as recording:
        for number in range(3):
            optimizer.zero_grad()
            net(given).square().mean().backward()
            if steps and number in steps:
                optimizer.state[net.weight]["step"].fill_(steps[number])
            optimizer.step()
    return recording


NAMES = ("weight.after", "@1 weight.after", "@2 bias.after", "@2 weight.after", "@2 loss")


def agree(edited: oh.Recording, fresh: oh.Recording, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        assert torch.equal(edited.value(name).data, fresh.value(name).data), name
    audit = edited.verify()
    assert audit.ok, audit


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"momentum": 0.9}),
        ({}, {"weight_decay": 0.1}),
        ({"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.0}),
        ({"momentum": 0.9, "weight_decay": 0.1}, {"weight_decay": 0.0}),
        ({"momentum": 0.9}, {"nesterov": True}),
        ({"momentum": 0.9, "weight_decay": 0.1}, {"momentum": 0.5, "weight_decay": 0.3}),
    ],
)
def test_options_of_zero_are_edited_both_ways(before: dict[str, Any], after: dict[str, Any]) -> None:
    edited = train(torch.optim.SGD, before).intervene(after)
    agree(edited, train(torch.optim.SGD, before | after))


def test_an_option_of_one_step_is_edited_alone() -> None:
    edited = train(torch.optim.SGD, {"momentum": 0.9}).intervene({"@1 momentum": 0.0, "@1 weight_decay": 0.1})
    torch.manual_seed(0)
    net, given = nn.Linear(4, 4), torch.randn(3, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for number in range(3):
        optimizer.param_groups[0].update(
            {"momentum": 0.0, "weight_decay": 0.1} if number == 1 else {"momentum": 0.9, "weight_decay": 0}
        )
        optimizer.zero_grad()
        net(given).square().mean().backward()
        optimizer.step()
    assert torch.equal(edited.value("@2 weight.after").data, net.weight.detach())
    assert edited.verify().ok


def test_an_option_that_wants_another_state_is_edited() -> None:
    edited = train(torch.optim.Adam, {}).intervene({"amsgrad": True, "weight_decay": 0.5})
    agree(edited, train(torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.5}))


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam])
@pytest.mark.parametrize("foreach", [False, True])
def test_the_state_step_is_edited_with_all_that_follows_from_it(kind: Any, foreach: bool) -> None:
    recording = train(kind, {"foreach": foreach})
    edited = recording.intervene({"@1 weight.step": 10.0})
    agree(edited, train(kind, {"foreach": foreach}, {1: 10.0}))
    assert torch.equal(edited.value("weight.step.after").data, recording.value("weight.step.after").data)


def test_a_state_in_the_midst_of_a_step_is_refused() -> None:
    with pytest.raises(oh.InterventionError, match="in the midst of its step"):
        train(torch.optim.Adam, {"foreach": False}).intervene({"weight.step": 10.0})
