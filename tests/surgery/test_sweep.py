"""Sweeps, held against one intervention for each value."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import pytest
import torch

import openheart as oh
from openheart.errors import AddressError, InterventionError
from openheart.patients import patient, patients
from openheart.surgery import batching
from openheart.surgery.program import same_bits
from openheart.surgery.sweep import Sweep

NAMES = [each.name for each in patients()]
WATCH = ["loss", "output"]


@cache
def run(name: str) -> Any:
    """A recorded training step of a patient."""
    subject = patient(name)
    model = subject.build()
    optimizer, criterion = subject.optimizer(model.parameters()), subject.loss()
    torch.manual_seed(5)
    with oh.recording(model) as recording:
        optimizer.zero_grad()
        criterion(model(*subject.inputs()), subject.target()).backward()
        optimizer.step()
    assert recording.calls  # read at once
    return recording


def parameters(recording: Any) -> list[str]:
    return [n for n, v in recording._named.values.items() if v.origin == "parameter" and "@" not in n]


def near(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Equal up to what rounding in a few dozen float32 calls may do (NaN is NaN)."""
    return torch.allclose(found, wanted, rtol=2e-3, atol=2e-5, equal_nan=True)


def holds(found: Sweep, bitwise: bool = False) -> None:
    """Every curve is what the interventions give, one by one."""
    for place in range(len(found.values)):
        after = found.at(place)
        for name, numbers in found.curves.items():
            wanted = after.value(name).data if "[" not in name else torch.tensor(one(after, name))
            if bitwise:
                assert same_bits(numbers[place], wanted.to(numbers.dtype)), (name, place)
            else:
                alike = numbers[place].double(), wanted.double()
                if name.endswith(".after"):
                    alike = steady(after, name, *alike)
                assert near(*alike), (name, place)


def steady(after: Any, name: str, found: torch.Tensor, wanted: torch.Tensor) -> Any:
    """The updates without those of a gradient that is all rounding: Adam divides it by its own size."""
    gradient = after.value(name.replace(".after", ".grad")).data
    rate = after.optimizers[0].groups[0].options["lr"]
    assert ((found - wanted).abs() <= 2.1 * rate + 1e-6).all() or not math.isfinite(float(found.sum()))
    kept = gradient.abs() > 1e-5
    return found[kept], wanted[kept]


def one(recording: Any, address: str) -> float:
    element = recording.element(address)
    return float(element.value.data[element.index])


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_a_bias_and_a_slice_are_what_interventions_give(name: str) -> None:
    recording = run(name)
    names = parameters(recording)
    weight = names[0]
    scalar = f"{weight}[{','.join('0' * len(recording.value(weight).shape))}]"
    row = f"{weight}[0]"
    for address in (scalar, row, names[-1], names[len(names) // 2]):
        found = recording.sweep(address, [-0.5, 0.1, 0.4, 0.9], watch=[*WATCH, f"{weight}.after"])
        assert found.batched
        assert found.work.worst <= 1.0
        holds(found)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_activations(name: str) -> None:
    recording = run(name)
    model = recording.model
    leaves = [path for path, module in model.named_modules() if path and not list(module.children())]
    addresses = [f"{leaves[0]}.out", f"{leaves[-1]}.out[:,0]"]
    if recording.value("input").dtype.is_floating_point:
        addresses.append("input")
    for address in addresses:
        found = recording.sweep(address, [0.2, 0.3, 0.6], watch=WATCH)
        assert found.batched
        holds(found)


@pytest.mark.parametrize("name", ["seed-batch", "iris", "digits-cnn", "tiny-gpt"])
def test_one_by_one_is_bit_for_bit_what_intervene_gives(name: str) -> None:
    recording = run(name)
    weight = parameters(recording)[0]
    found = recording.sweep(f"{weight}[0]", [-1, 0, 2], watch=[*WATCH, f"{weight}.after"], batched=False)
    assert not found.batched
    holds(found, bitwise=True)


@pytest.mark.parametrize("name", NAMES)
def test_lr_moves_the_update_and_nothing_else(name: str) -> None:
    recording = run(name)
    weight = parameters(recording)[0]
    rates = [0.0, float(recording.optimizers[0].groups[0].options["lr"]), 0.05, 0.5]
    found = recording.sweep("lr", rates, watch=["loss", f"{weight}.after"])
    assert found.constant == ("loss",)
    assert (found.curves["loss"] == found.recorded["loss"]).all()
    assert same_bits(found.curves[f"{weight}.after"][1], recording.value(f"{weight}.after").data)
    assert float(found.recorded["lr"]) == found.origin == rates[1]
    holds(found)


def test_a_gradient_that_is_set_moves_the_update() -> None:
    recording = run("iris")
    found = recording.sweep("0.weight.grad[1,0]", [-1, 0, 1], watch=["0.weight.after[1,0]", "loss"])
    assert found.constant == ("loss",)
    holds(found)


@pytest.mark.parametrize("edit", [oh.scale, oh.add])
def test_values_are_applied_as_the_edit_says(edit: Any) -> None:
    recording = run("iris")
    for address in ("0.weight[1]", "0.out[:,2]", "1.out"):
        found = recording.sweep(address, [-1, 0, 0.5, 1], edit=edit, watch=["loss", "0.weight.after"])
        assert found.kind == edit(1).kind
        assert found.origin == (1 if edit is oh.scale else 0)
        holds(found)


def test_a_function_is_run_by_itself() -> None:
    found = run("iris").sweep("0.out", [1, 2, 3], edit=lambda power: lambda out: out * power, watch="loss")
    assert not found.batched
    holds(found, bitwise=True)


def test_each_downstream_call_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    before = batching.run_line

    def counted(line: Any, *given: Any) -> Any:
        ran.append(line.call.name)
        return before(line, *given)

    monkeypatch.setattr(batching, "run_line", counted)
    recording = run("iris")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        found = recording.sweep("0.weight[1,0]", torch.linspace(-1, 1, 64), watch="output")
    # t, addmm, relu, t, addmm; the second t reads no swept number, and the step is not downstream.
    assert ran == ["t", "addmm", "relu", "addmm"]
    assert (found.work.calls, found.work.runs) == (4, 4)
    clamps = sum(event.count for event in seen.key_averages() if event.key == "aten::relu")
    assert clamps == 2  # on all 64 values, and on the one that is run by itself


def test_chunks_stay_below_the_memory_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recording, values = run("digits-mlp"), torch.linspace(-1, 1, 13)
    whole = recording.sweep("0.weight", values, watch=["loss", "3.weight.after"])
    monkeypatch.setattr(batching, "MEMORY", 200_000)
    cut = recording.sweep("0.weight", values, watch=["loss", "3.weight.after"])
    assert cut.work.chunks > 1 == whole.work.chunks
    for name in whole.curves:
        assert near(cut.curves[name], whole.curves[name])
    monkeypatch.setattr(batching, "MEMORY", 1)
    assert not recording.sweep("0.weight", values, watch="loss").batched


def test_a_wrong_batch_is_found_and_run_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    before = batching._Stacks._stacked

    def wrong(self: Any, line: Any, moved: Any) -> Any:
        outputs = before(self, line, moved)
        return [o + 1e-3 for o in outputs] if line.call.name == "relu" and outputs else outputs

    monkeypatch.setattr(batching._Stacks, "_stacked", wrong)
    found = run("iris").sweep("0.weight[1,0]", [-1, 0, 1, 2], watch="output")
    assert found.work.one_by_one == {"relu": 1}
    holds(found)


def test_what_is_watched_by_default() -> None:
    assert list(run("iris").sweep("0.bias[0]", [0, 1]).curves) == ["loss"]
    iris, gpt = patient("iris"), patient("tiny-gpt")
    few = oh.record(iris.build(), iris.inputs()[0][:2]).sweep("0.bias[0]", [0, 1, 2])
    assert list(few.curves) == [f"output[{i},{j}]" for i in range(2) for j in range(3)]
    many = oh.record(gpt.build(), *gpt.inputs()).sweep("head.weight[0,0]", [0, 1, 2])
    assert list(many.curves) == ["output[0,-1,:]"]
    assert next(iter(many.curves.values())).shape[0] == 3


def test_the_recorded_point_lies_on_the_curve() -> None:
    recording = run("iris")
    was = one(recording, "0.weight[1,0]")
    found = recording.sweep("0.weight[1,0]", [was - 1, was, was + 1], batched=False)
    assert found.origin == was
    assert float(found.curves["loss"][1]) == float(found.recorded["loss"]) == one(recording, "loss")


def test_what_cannot_be_swept_is_refused_with_the_reason() -> None:
    recording = run("iris")
    for values in ([], [[1.0]], [math.nan], [1, math.inf], "abc", None, 3.0, ["x"]):
        with pytest.raises(InterventionError, match="sweep takes"):
            recording.sweep("0.weight[1,0]", values)
    with pytest.raises(AddressError):
        recording.sweep("0.wight[1,0]", [1])
    with pytest.raises(AddressError):
        recording.sweep("0.weight[1,0]", [1], watch="los")
    with pytest.raises(InterventionError, match="watched"):
        recording.sweep("0.weight[1,0]", [1], watch=[7])
    with pytest.raises(InterventionError, match="nothing is watched"):
        recording.sweep("0.weight[1,0]", [1], watch=[])
    with pytest.raises(InterventionError, match="address"):
        recording.sweep(3, [1])


@pytest.mark.parametrize("lang", ["es", "en"])
def test_it_prints_itself(lang: str) -> None:
    found = run("iris").sweep("0.weight[1,0]", torch.linspace(-3, 3, 21), watch=["loss", "output[0,2]"])
    text = found.text(lang=lang)
    assert "0.5986" in text and "output[0,2]" in text
    for html in (found.to_html(lang=lang), found.to_svg(lang=lang), found._repr_html_()):
        assert "http" not in html.replace("http://www.w3.org/2000/svg", "") and "<script" not in html
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["curves"]["loss"] == found.curves["loss"].tolist()
    assert plain["batched"] is True


def test_a_curve_that_is_not_finite_is_broken_and_said() -> None:
    found = run("seed-softmax").sweep("1.out[0,0]", [-0.5, -0.2, 0.2, 0.5, 0.9])
    assert found.curves["loss"].isnan().sum() == 2
    assert "2 values" in found.text(lang="en")
    assert "nan" not in found.to_svg().lower().replace("sans", "")
    assert found.to_dict()["curves"]["loss"][0] == "nan"
