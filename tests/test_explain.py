"""Explanations: the value, the law, the contributions, where each number comes from, the verdict."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import openheart as oh
from openheart.patients import patient


@cache
def step(name: str) -> Any:
    """One recorded training step of a patient."""
    who = patient(name)
    torch.manual_seed(0)
    net = who.build()
    optimizer, inputs, target, loss = who.optimizer(net.parameters()), who.inputs(), who.target(), who.loss()
    with oh.recording(net) as rec:
        loss(net(*inputs), target).backward()
        optimizer.step()
    return rec


def test_a_neuron_by_hand() -> None:
    e = step("hand").explain("1.out[0,0]")
    assert (e.value, e.computed, e.verdict, e.operator, e.phase) == (8.0, 8.0, "exact", "addmm", "forward")
    found = {frozenset(f for f in t.factors): t.value for t in e.terms}
    assert found[frozenset({("0.out[0,0]", 5.0), ("1.weight[0,0]", 2.0)})] == 10.0
    assert sum(t.value for t in e.terms) == 8.0
    assert [abs(t.value) for t in e.terms] == sorted((abs(t.value) for t in e.terms), reverse=True)
    assert math.isclose(sum(t.share for t in e.terms), 1.0)


def test_a_weight_gradient_names_the_chain_rule() -> None:
    e = step("seed-batch").explain("0.weight.grad[2,1]")
    assert e.phase == "backward"
    assert dict(e.arguments)["mat2"] == "input"
    assert len(e.terms) == 3, "one contribution a sample"
    for n, term in enumerate(sorted(e.terms, key=lambda t: t.factors[0][0] or "")):
        assert [address for address, _ in term.factors] == [f"0.out.grad[{n},2]", f"input[{n},1]"]
    (note,) = [m for m in e.notes if m.key == "note.chain_rule"]
    assert note.params["forward"] == "addmm"
    assert note.params["where"] == "0.out"


def test_every_address_of_an_explanation_can_be_walked_on() -> None:
    rec = step("iris")
    todo, seen = ["0.weight.after[1,2]", "loss"], set()
    while todo and len(seen) < 150:
        address = todo.pop()
        if address in seen:
            continue
        seen.add(address)
        e = rec.explain(address)
        assert e.verdict in ("exact", "within rounding"), address
        for term in e.terms[:3]:
            for source, value in term.factors:
                if source is not None:
                    again = rec.explain(source).value
                    assert again == value or math.isnan(value)
                    todo.append(source)
    assert len(seen) > 60


def test_depth_unfolds_the_inputs() -> None:
    e = step("seed").explain("1.out[0,0]", depth=2)
    assert [i.address for i in e.inputs] == ["0.out[0,0]", "0.out[0,1]", "0.out[0,2]"]
    assert all(not i.inputs for i in e.inputs)
    assert not step("seed").explain("1.out[0,0]").inputs


def test_an_optimizer_step_is_one_rule_in_its_own_calls() -> None:
    e = step("iris").explain("0.weight.after[2,1]")
    assert e.phase == "optimizer"
    names = [s.address for s in e.steps]
    assert "0.weight.exp_avg.after[2,1]" in names
    assert "0.weight.exp_avg_sq.after[2,1]" in names
    order = [s.call.id for s in e.steps if s.call is not None]
    assert order == sorted(order)
    assert all(s.verdict in ("exact", "within rounding") for s in e.steps)
    assert not e.inputs
    deeper = step("iris").explain("0.weight.after[2,1]", depth=2)
    assert "0.weight.grad[2,1]" in [i.address for i in deeper.inputs]
    assert "√" in e.text()
    quotient = e.terms[1]
    assert len(quotient.factors) == 2
    assert not quotient.product, "m̂/√v̂ is no product"


@pytest.mark.parametrize(
    ("address", "kind"),
    [("0.weight[0,1]", "parameter"), ("input[0,0]", "input"), ("loss.grad", "computed")],
)
def test_numbers_that_were_given(address: str, kind: str) -> None:
    e = step("seed").explain(address)
    assert e.kind == kind
    if kind != "computed":
        assert (e.law, e.verdict, e.computed, e.bound) == (None, "exact", e.value, 0.0)


def test_a_random_draw_says_so() -> None:
    rec = step("digits-cnn")
    drawn = next(c for c in rec.calls if c.name == "bernoulli_")
    e = rec.explain(rec.name(drawn.outputs[0]) + "[0,0]")
    assert e.kind == "random"
    assert "note.random" in [m.key for m in e.notes]


def test_a_number_that_was_only_moved_keeps_its_name_and_shows_its_maker() -> None:
    rec = step("digits-cnn")
    e = rec.explain("flatten.out[0,5]")
    (term,) = e.terms
    assert term.factors[0][0] == "pool2.out[0,1,0,1]"
    gradient = rec.explain("linear.weight.grad[3,4]")
    assert gradient.operator == "mm"


def test_an_opaque_call_is_unfolded_by_pytorchs_own_recipe() -> None:
    image, grid = torch.randn(1, 1, 4, 4), torch.rand(1, 2, 2, 2)
    with oh.recording() as rec:
        made = torch.ops.aten.grid_sampler_2d(image, grid, 0, 0, False)
    call = rec.calls[-1]
    e = rec.explain(rec.name(call.outputs[0]) + "[0,0,1,1]")
    assert (e.verdict, e.computed, e.bound, e.kind) == ("opaque", None, None, "opaque")
    assert e.value == made[0, 0, 1, 1].item()
    assert e.unfolding is not None
    (note,) = [m for m in e.notes if m.key == "note.unfolded"]
    assert math.isclose(note.params["value"], e.value, rel_tol=1e-5)
    assert rec.verify().opaque == 4


def test_a_wrong_kernel_disagrees_and_is_not_hidden() -> None:
    rec = step("seed")
    value = rec.value("1.out")
    before = value.data.clone()
    verdict = rec.explain("1.out[0,0]").verdict  # exact or within rounding, as this machine's kernel adds up
    try:
        value.data.add_(1e-3)
        e = rec.explain("1.out[0,0]")
        assert e.verdict == "disagrees"
        assert e.error is not None and e.bound is not None
        assert e.error > e.bound
        assert "disagrees" in e.text(lang="en")
        assert "discrepa" in e.text(lang="es")
    finally:
        value.data.copy_(before)
    assert rec.explain("1.out[0,0]").verdict == verdict != "disagrees"


def test_faces() -> None:
    e = step("seed").explain("1.out[0,0]")
    assert "0.8347" in e.text()
    assert "\\sum" in e.latex()
    assert e.mathml().startswith("<math")
    assert e.to_dict()["check"]["verdict"] == e.verdict
    bundle = e._repr_mimebundle_()
    assert set(bundle) >= {"text/plain", "text/html", "text/latex"}
    assert "<math" in e._repr_html_()


def test_unknown_addresses_name_the_nearest() -> None:
    rec = step("seed")
    with pytest.raises(oh.AddressError, match=r"0\.out\[0,2\]") as caught:
        rec.explain("0.out[0,7]")
    assert "(1, 3)" in str(caught.value)
    with pytest.raises(oh.AddressError):
        rec.explain("9.out[0,0]")


def test_half_precision_is_held_to_its_own_rounding() -> None:
    torch.manual_seed(0)
    net = nn.Linear(64, 4).to(torch.bfloat16)
    rec = oh.record(net, torch.randn(3, 64, dtype=torch.bfloat16))
    e = rec.explain("output[1,2]")
    assert e.verdict in ("exact", "within rounding")
    assert 2**-9 * abs(e.value) < e.bound < 2**-6 * sum(abs(t.value) for t in e.terms)
    assert rec.verify().ok


def test_the_tensors_of_a_list_are_told_apart() -> None:
    given = torch.eye(3)
    with oh.recording() as rec:
        given[torch.tensor([0, 1]), torch.tensor([1, 1])]
        torch.cat([torch.ones(2), torch.zeros(3)])
    assert {name for name, _ in rec.explain("index.out[1]").arguments} == {"self", "indices0", "indices1"}
    assert {name for name, _ in rec.explain("cat.out[3]").arguments} == {"tensors0", "tensors1"}


def test_an_update_names_the_hyperparameters_of_its_step() -> None:
    net = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1, betas=(0.9, 0.99))
    with oh.recording(net) as recording:
        net(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    explanation = recording.explain("weight.after[0,0]")
    told = " ".join(explanation.text(lang="en").split())
    assert "Adam with lr = 0.1, betas = (0.9, 0.99), eps = 1e-08" in told
    assert "hiperparámetros" in explanation.text(lang="es")


def test_a_gradient_of_several_uses_is_their_sum_and_each_is_named() -> None:
    net = torch.nn.Linear(3, 3)
    with oh.recording(net) as rec:
        h = net(torch.randn(2, 3))
        (h * 2 + torch.tanh(h) * h).sum().backward()
    shares = [call for call in rec.calls if call.phase == "backward" and call.name == "add"]
    notes = [rec.explain(f"{rec.name(call.outputs[0])}[0,0]").notes for call in shares]
    keys = [[note.key for note in each if note.key.startswith(("note.grad", "note.chain"))] for each in notes]
    assert keys == [["note.gradient.part"], ["note.gradient.sum"]]
    told = notes[-1][0].params
    assert (told["count"], told["uses"].count("("), "tanh" in told["uses"]) == (3, 3, True)
    text = rec.explain(f"{rec.name(shares[-1].outputs[0])}[0,0]").text(lang="es")
    assert "se usa 3 veces" in " ".join(text.split())
    (own,) = [call for call in rec.calls if call.name == "tanh_backward"]
    (note,) = [m for m in rec.explain(f"{rec.name(own.outputs[0])}[0,0]").notes if m.key.startswith("note.c")]
    assert note.params["forward"] == "tanh"
