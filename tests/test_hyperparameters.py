"""The scalars of an optimizer's calls, said as what they are; contributions by name; moves without depth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import optim

import openheart as oh

FORMS: dict[str, dict[str, bool]] = {"one by one": {"foreach": False}, "lists": {"foreach": True}}


def trained(kind: Any, groups: bool = False, **options: Any) -> oh.Recording:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    given: Any = model.parameters()
    if groups:
        given = [{"params": [model.weight], "lr": 0.25}, {"params": [model.bias], "lr": 0.5}]
    optimizer = kind(given, **options)
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    with oh.recording(model) as recording:
        for _ in range(3):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    return recording


def told(recording: oh.Recording, address: str = "@2 weight.after[0,0]") -> str:
    return recording.explain(address).text(width=240)


@pytest.mark.parametrize("form", FORMS)
def test_adam_says_its_corrections(form: str) -> None:
    text = told(trained(optim.Adam, **FORMS[form]))
    for said in ("(1 − 0.9)·", "(1 − 0.999)·", "/√(1 − 0.999³)", "0.001/(1 − 0.9³)"):
        assert said in text, said
    for bare in ("+ 0.1·", "+ 0.001·", "/0.0547", "(−0.0037)·"):
        assert bare not in text, bare


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        (optim.AdamW, {"weight_decay": 0.1}, "·(1 − 0.001·0.1)"),
        (optim.Adam, {"amsgrad": True, "maximize": True}, "/√(1 − 0.999³)"),
        (optim.RMSprop, {}, "(1 − 0.99)·"),
        (optim.Adamax, {"lr": 0.002}, "0.002/(1 − 0.9³)"),
        (optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}, "(1 − 0.3)·"),
        (optim.Adagrad, {"lr": 0.1, "lr_decay": 0.2}, "0.1/(1 + 2·0.2)"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_others_say_theirs(kind: Any, options: dict[str, Any], said: str, form: str) -> None:
    assert said in told(trained(kind, **options, **FORMS[form]))


RULES: list[tuple[Any, dict[str, Any], set[str]]] = [
    (optim.Adam, {}, {"g", "m", "v", "t", "m̂", "√v̂"}),
    (optim.Adam, {"amsgrad": True, "weight_decay": 0.1}, {"g", "m", "v", "t", "m̂", "√v̂"}),
    (optim.AdamW, {"maximize": True}, {"g", "m", "v", "t", "m̂", "√v̂"}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"g", "b"}),
    (optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}, {"g", "b"}),
    (optim.RMSprop, {"momentum": 0.9}, {"g", "v", "b"}),
    (optim.Adagrad, {"lr": 0.1, "lr_decay": 0.2}, {"g", "s", "t"}),
    (optim.Adamax, {"lr": 0.1}, {"g", "m", "u", "t", "m̂"}),
]


@pytest.mark.parametrize(
    ("kind", "options", "parts"), RULES, ids=lambda part: getattr(part, "__name__", None)
)
def test_one_rule_for_every_form(kind: Any, options: dict[str, Any], parts: set[str]) -> None:
    for form in FORMS.values():
        recording = trained(kind, **options, **form)
        for address in ("weight.after[0,0]", "@2 bias.after[1]"):
            explained = recording.explain(address)
            update = explained.update
            assert update is not None, (form, address)
            assert {line.name for line in update.lines[:-1]} == parts
            assert update.lines[-1].result == explained.value
            assert "optimizer/" not in " ".join(name for _, name in update.arguments)
    assert told(recording).count("rule  ") == 1


def test_an_option_is_not_taken_for_what_equals_it() -> None:
    """Weight decay 0.1 is 1 − β₁ in float32, and is still weight decay."""
    text = told(trained(optim.Adam, weight_decay=0.1, foreach=False))
    assert "+ 0.1·" in text


def test_of_several_groups_only_the_parameters_own() -> None:
    recording = trained(optim.SGD, groups=True, lr=1.0, foreach=False)
    for address, own, other in (("@1 weight.after[0,0]", "0.25", "0.5"), ("@1 bias.after[0]", "0.5", "0.25")):
        notes = [n for n in recording.explain(address).notes if n.key == "note.hyperparameters"]
        assert [note.params["options"]["lr"] for note in notes] == [float(own)], (address, other)


def test_contributions_have_names() -> None:
    explained = trained(optim.Adam, fused=True).explain("@2 weight.after[0,0]")
    assert {name for term in explained.terms for name in term.names if name} == {"m̂", "√v̂"}
    assert "m̂, √v̂" in explained.text(width=200)
    assert "m̂, √v̂" in explained.html()


def test_moves_cost_no_depth() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with oh.recording() as recording:
        squares = x * x
        both = torch.stack([torch.cat([squares, squares]).view(2, 2)[0], squares])
        both.sum()
    explained = recording.explain("sum.out", depth=2)
    assert {child.operator for child in explained.inputs} == {"stack"}
    assert {inner.operator for child in explained.inputs for inner in child.inputs} >= {"mul"}
