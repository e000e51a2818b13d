"""Comparisons of two runs, held against naive ones that look at every number."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import openheart as oh
from openheart.errors import AddressError, InputError, OpaqueError
from openheart.patients import patient
from openheart.surgery.compare import compare
from openheart.surgery.comparison import Comparison
from openheart.surgery.differences import difference, identical, largest

Change = Callable[[torch.nn.Module], None] | None


def run(name: str, change: Change = None, steps: int = 1) -> Any:
    """A recorded training run of a patient, its model changed beforehand."""
    subject = patient(name)
    model = subject.build()
    inputs, target = subject.inputs(), subject.target()
    if change is not None:
        with torch.no_grad():
            change(model)
    optimizer = subject.optimizer(model.parameters())
    criterion = subject.loss()
    torch.manual_seed(5)
    with oh.recording(model) as recording:
        for _ in range(steps):
            optimizer.zero_grad()
            criterion(model(*inputs), target).backward()
            optimizer.step()
    assert recording.calls  # read at once
    return recording


def one_weight(model: torch.nn.Module) -> None:
    next(model.parameters())[1, 0] = 2.0


def linear(values: list[list[float]], x: torch.Tensor, dtype: torch.dtype = torch.float32) -> Any:
    model = torch.nn.Linear(len(values[0]), len(values), bias=False).to(dtype)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(values))
    return oh.record(model, x)


def naive(before: Any, after: Any) -> dict[str, tuple[int, float, float]]:
    """How many numbers moved, ‖after − before‖ and the effect, of every value with both."""
    found = {}
    for name in before.addresses():
        one, other = before.value(name), after._named.values.get(name)
        if other is None or not (one.kept and other.kept) or "empty" in name:
            continue
        a, b = (np.asarray(v.array, dtype=np.float64) for v in (one, other))
        moved = sum(x.tobytes() != y.tobytes() for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True))
        if moved:
            norm = math.sqrt(sum((y - x) ** 2 for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True)))
            scale = math.sqrt(sum(x**2 for x in a.reshape(-1)))
            found[name] = moved, norm, norm / scale if scale else math.inf
    return found


@pytest.mark.parametrize("name", ["hand", "seed", "seed-batch", "seed-softmax", "seed-relu", "xor", "iris"])
def test_one_weight_changed_is_what_a_naive_comparison_finds(name: str) -> None:
    before, after = run(name), run(name, one_weight)
    found, wanted = compare(before, after), naive(before, after)
    assert {change.name for change in found.changed} == set(wanted)
    assert not set(found.unchanged) & set(wanted)
    for change in found.changed:
        moved, norm, relative = wanted[change.name]
        value = before.value(change.name)
        assert (change.moved, change.moved + change.unmoved) == (moved, math.prod(value.shape))
        assert change.norm == pytest.approx(norm, rel=1e-12)
        assert change.relative == pytest.approx(relative, rel=1e-12)
        assert change.shape == value.shape
        a = value.array.astype(np.float64)
        b = after.value(change.name).array.astype(np.float64)
        assert change.largest is not None and change.difference is not None
        place = before.element(change.largest).index
        assert (change.before, change.after) == (a[place], b[place])
        assert abs(change.difference) == np.abs(b - a).max()
    effects = [change.relative for change in found.changed]
    assert effects == sorted(effects, reverse=True)
    assert not found.same


def test_every_number_of_a_value_stands_in_its_elements() -> None:
    before, after = run("seed-batch"), run("seed-batch", one_weight)
    a, b = before.value("0.weight.grad").array, after.value("0.weight.grad").array
    rows = compare(before, after).elements("0.weight.grad", top=None)
    assert {row.address for row in rows} == {
        f"0.weight.grad[{i},{j}]" for i, j in np.argwhere(a != b).tolist()
    }
    sizes = [abs(row.difference) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    for row in rows:
        index = before.element(row.address).index
        assert (row.before, row.after) == (a[index].item(), b[index].item())
        assert row.difference == row.after - row.before
    assert compare(before, after).elements("0.weight.grad", top=2) == rows[:2]


@pytest.mark.parametrize("name", ["hand", "iris", "digits-cnn", "lstm"])
def test_identical_runs_are_the_same(name: str) -> None:
    found = compare(run(name), run(name))
    assert found.same and not found.changed and found.unchanged


def test_a_run_and_its_file_are_the_same(tmp_path: Path) -> None:
    recording = run("iris")
    recording.save(tmp_path / "run.oh")
    loaded = oh.load(tmp_path / "run.oh")
    assert compare(recording, loaded).same
    changed = run("iris", one_weight)
    direct, by_file = compare(recording, changed), compare(loaded, changed)
    assert direct.changed == by_file.changed
    assert direct.predictions == by_file.predictions
    names = [change.name for change in direct.changed[:30]]
    assert [direct.within_rounding(n) for n in names] == [by_file.within_rounding(n) for n in names]


def test_a_recording_is_itself_without_a_look_at_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = run("iris")

    def never(*_: Any) -> bool:
        raise AssertionError("a shared value was read")

    monkeypatch.setattr(sys.modules["openheart.surgery.compare"], "identical", never)
    assert compare(recording, recording).same


def test_kinds_and_phases() -> None:
    found = {c.name: c for c in compare(run("iris", steps=2), run("iris", one_weight, 2)).changed}
    wanted = {
        "0.weight": ("parameter", "forward", 0),
        "0.out": ("activation", "forward", 0),
        "2.out": ("output", "forward", 0),
        "loss": ("loss", "loss", 0),
        "2.out.grad": ("gradient", "backward", 0),
        "0.weight.grad": ("gradient", "backward", 0),
        "0.weight.after": ("update", "optimizer", 0),
        "0.weight.exp_avg.after": ("state", "optimizer", 0),
        "@1 2.out": ("output", "forward", 1),
        "@1 loss": ("loss", "loss", 1),
        "@1 0.weight.grad": ("gradient", "backward", 1),
        "@1 0.bias.exp_avg_sq.after": ("state", "optimizer", 1),
    }
    assert {name: (found[name].kind, found[name].phase, found[name].step) for name in wanted} == wanted


def test_inputs_and_buffers_have_kinds_of_their_own() -> None:
    model = torch.nn.BatchNorm1d(2)
    model.register_buffer("unused", torch.ones(1))

    def once(x: torch.Tensor) -> Any:
        model.reset_running_stats()
        return oh.record(model, x)

    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    kinds = {c.name: c.kind for c in compare(once(x), once(2 * x)).changed}
    assert kinds["input"] == "input"
    assert kinds["running_mean.after"] == kinds["running_var.after"] == "state"


def test_the_loss_of_every_step() -> None:
    before, after = run("seed", steps=3), run("seed", one_weight, 3)
    found = compare(before, after)
    assert [loss.address for loss in found.losses] == ["loss", "@1 loss", "@2 loss"]
    assert found.loss == found.losses[-1]
    for loss in found.losses:
        assert loss.before == before.value(loss.address).data.item()
        assert loss.difference == loss.after - loss.before != 0


def test_predictions_say_who_changed_class_and_how_narrowly() -> None:
    def upset(model: torch.nn.Module) -> None:
        next(model.parameters())[1, 0] += 4.0

    before, after = run("iris"), run("iris", upset)
    found = compare(before, after).predictions
    assert found is not None and found.classes == 3 and found.address == "output"
    a, b = before.value("output").array.astype(float), after.value("output").array.astype(float)
    assert [each.before for each in found.samples] == a.argmax(1).tolist()
    assert [each.after for each in found.samples] == b.argmax(1).tolist()
    assert [each.sample[0] for each in found.changed] == np.nonzero(a.argmax(1) != b.argmax(1))[0].tolist()
    assert len(found.changed) == 1
    for each, row in zip(found.samples, b, strict=True):
        top = np.sort(row)[-2:]
        assert each.margin_after == top[1] - top[0]
    assert [each.moved for each in found.samples] == np.abs(b - a).max(1).tolist()
    assert found.closest is not None
    assert found.closest.margin_after == min(each.margin_after for each in found.samples)


def test_outputs_without_classes_have_no_predictions() -> None:
    assert compare(run("seed"), run("seed")).predictions is None  # one number a sample

    class Flat(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.sum(-1)

    assert compare(*(oh.record(Flat(), torch.ones(3, 2)) for _ in "ab")).predictions is None
    features = torch.nn.Linear(2, 3)  # nobody chooses among them
    assert compare(*(oh.record(features, torch.ones(4, 2)) for _ in "ab")).predictions is None
    regression = torch.nn.functional.mse_loss
    assert _after(features, torch.ones(4, 2), lambda out: regression(out, torch.zeros(4, 3))) is None
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    assert _after(features, torch.ones(4, 2), lambda out: binary(out, torch.zeros(4, 3))) is None
    similar = lambda out: torch.softmax(out @ out.T, dim=-1)  # noqa: E731  (among samples, not features)
    assert _after(features, torch.ones(4, 2), similar) is None


def _after(model: torch.nn.Module, x: torch.Tensor, then: Callable[[torch.Tensor], Any]) -> Any:
    """The predictions where `then` is what becomes of the output."""
    runs = []
    for _ in range(2):
        with oh.recording(model) as rec:
            then(model(x))
        runs.append(rec)
    return compare(*runs).predictions


@pytest.mark.parametrize(
    ("then", "samples"),
    [
        (lambda out: out.softmax(-1), (4, 5)),
        (lambda out: out.argmax(2), (4, 5)),
        (lambda out: out.max(dim=-1), (4, 5)),
        (lambda out: (out.float() / 2.0).log_softmax(2), (4, 5)),
        (lambda out: torch.nn.functional.cross_entropy(out.view(20, 3), torch.zeros(20).long()), (4, 5)),
        (
            lambda out: torch.nn.functional.cross_entropy(out[:, 1:].flatten(0, 1), torch.ones(16, 3) / 3),
            (4, 5),
        ),
        (
            lambda out: torch.nn.functional.cross_entropy(out.transpose(1, 2), torch.zeros(4, 5).long()),
            (4, 5),
        ),
        (lambda out: torch.nn.functional.cross_entropy(out, torch.zeros(4, 3).long()), (4, 3)),
        (lambda out: torch.nn.functional.multi_margin_loss(out[:, 0], torch.zeros(4).long()), (4, 5)),
    ],
    ids=[str(n) for n in range(9)],
)
def test_classes_are_where_the_run_shows_them(
    then: Callable[[torch.Tensor], Any], samples: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    found = _after(torch.nn.Linear(2, 3), torch.randn(4, 5, 2), then)
    assert found is not None
    assert found.samples[-1].sample == tuple(size - 1 for size in samples)
    assert found.classes == 60 // math.prod(samples)


def test_an_output_that_is_a_softmax_speaks_for_classes() -> None:
    one = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Softmax(0))
    found = compare(*(oh.record(one, torch.ones(2)) for _ in "ab")).predictions
    assert found is not None and [each.sample for each in found.samples] == [()]


def test_a_number_that_became_nan_is_the_largest_effect() -> None:
    def spoil(model: torch.nn.Module) -> None:
        list(model.parameters())[-1][0] = math.nan

    found = compare(run("iris"), run("iris", spoil))
    assert found.changed[0].name == "2.bias"  # where it began
    assert found.changed[0].nan and found.changed[0].became_nan == 1 and found.changed[0].were_nan == 0
    assert found.changed[0].largest == "2.bias[0]" and math.isnan(found.changed[0].relative)
    assert found.changed[0].moved == 1
    kinds = [change.nan for change in found.changed]
    assert kinds == sorted(kinds, reverse=True)
    assert found.predictions is not None
    assert {each.after for each in found.predictions.samples} == {None}
    assert found.loss is not None and math.isnan(found.loss.difference)
    assert compare(run("iris", spoil), run("iris", spoil)).same  # NaN is NaN


def test_infinite_numbers_that_stay_do_not_hide_what_moves() -> None:
    a = torch.tensor([-math.inf, 3.0, 4.0, math.nan])
    b = torch.tensor([-math.inf, 3.0, 4.5, math.nan])
    found = difference(a, b)
    assert (found.moved, found.norm, found.scale, found.relative) == (1, 0.5, 5.0, 0.1)
    gone = difference(a, torch.tensor([math.inf, 3.0, 4.0, math.nan]))
    assert gone.moved == 1 and gone.relative == math.inf and not gone.became_nan
    assert difference(torch.zeros(2), torch.tensor([0.0, 1e-30])).relative == math.inf


@pytest.mark.parametrize(
    "dtype",
    [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.complex64,
     torch.complex128, torch.int64, torch.int32, torch.int16, torch.uint8, torch.bool],
)  # fmt: skip
def test_every_dtype_and_layout(dtype: torch.dtype) -> None:
    a = torch.arange(6).reshape(2, 3).remainder(2).to(dtype)
    b = a.clone()
    b[1, 2] = 0  # row-major 5 was 1
    for one, other in ((a, b), (a.t(), b.t())):
        assert identical(one, one.clone()) and not identical(one, other)
        found = difference(one, other)
        assert (found.count, found.moved, found.norm) == (6, 1, 1.0)
        assert found.scale == pytest.approx(math.sqrt(3))
        assert [(m.place, m.before, m.after) for m in largest(one, other)] == [(5, 1, 0)]


def test_bits_of_zero_and_large_whole_numbers() -> None:
    zero = torch.tensor([0.0, 1.0])
    assert not identical(zero, -zero * torch.tensor([1.0, -1.0]))
    found = difference(zero, torch.tensor([-0.0, 1.0]))
    assert (found.moved, found.norm, found.relative) == (1, 0.0, 0.0)
    big = torch.tensor([2**60, -(2**62), 2**63 - 1])
    moved = largest(big, torch.tensor([2**60 + 1, 2**62, 2**63 - 1]))
    assert [m.difference for m in moved] == [2**63, 1]
    assert difference(big, torch.tensor([2**60 + 1, -(2**62), 2**63 - 1])).norm == 1.0


def test_norms_neither_overflow_nor_vanish() -> None:
    for size in (1e200, 1e-200):
        a = torch.tensor([3 * size, 4 * size], dtype=torch.float64)
        assert difference(a, 2 * a).norm == pytest.approx(5 * size, rel=1e-15)
        assert difference(a, 2 * a).relative == pytest.approx(1.0, rel=1e-15)


def test_large_tensors_are_compared_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(7, 11, generator=generator)
    b = torch.where(torch.rand(7, 11, generator=generator) < 0.3, torch.randn(7, 11, generator=generator), a)
    whole, rows = difference(a, b), largest(a, b, 9)
    monkeypatch.setattr("openheart.surgery.differences.PIECE", 5)
    pieces = difference(a, b)
    assert (pieces.count, pieces.moved, pieces.largest) == (whole.count, whole.moved, whole.largest)
    assert pieces.norm == pytest.approx(whole.norm, rel=1e-14)
    assert pieces.scale == pytest.approx(whole.scale, rel=1e-14)
    assert largest(a, b, 9) == rows


def test_another_batch_size_is_named_and_not_compared() -> None:
    model = torch.nn.Linear(2, 3)
    found = compare(oh.record(model, torch.ones(4, 2)), oh.record(model, torch.ones(5, 2)))
    reasons = {one.name: (one.reason, one.before, one.after) for one in found.incomparable}
    assert reasons["input"] == ("shape", "4×2", "5×2")
    assert reasons[".out"] == ("shape", "4×3", "5×3")
    assert {"weight", "bias"} <= set(found.unchanged) and not found.same and found.predictions is None
    with pytest.raises(OpaqueError, match="shape"):
        found.elements("input")


def test_what_was_not_kept_is_named() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    x = torch.ones(1, 2)
    whole, graph = oh.record(model, x), oh.record(model, x, keep="0")
    missing = [v for v in graph.values if not v.kept]
    assert missing, "everything was kept: this test shows nothing"
    reasons = {one.name: one.reason for one in compare(whole, graph).incomparable}
    assert {graph.name(v) for v in missing} == set(reasons)
    assert set(reasons.values()) == {"after_not_kept"}
    found = compare(graph, oh.record(model, x, keep="0"))
    assert found.same and set(found.unread) == set(reasons)


def test_other_dtypes_are_compared_as_float64() -> None:
    values = [[0.5, 0.1], [0.25, 2.0]]
    single = linear(values, torch.ones(1, 2))
    double = linear(values, torch.ones(1, 2, dtype=torch.float64), torch.float64)
    found = compare(single, double)
    changes = {change.name: change for change in found.changed}
    assert changes["weight"].dtypes == ("float32", "float64")
    assert changes["input"].moved == 0 and changes["input"].largest is None  # the same numbers
    assert changes["weight"].moved == 0  # both are made from the same float32 list
    assert not found.same


def test_rounding_is_told_from_change() -> None:
    x = torch.linspace(-1, 1, 64 * 48).reshape(64, 48)
    weight = torch.linspace(1, -2, 48 * 8).reshape(48, 8).cos()

    class Product(torch.nn.Module):
        def __init__(self, parts: int) -> None:
            super().__init__()
            self.parts = parts

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            step = 48 // self.parts
            return sum(x[:, i : i + step] @ weight[i : i + step] for i in range(0, 48, step)) + 0  # type: ignore[return-value]

    class Whole(torch.nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.scale = torch.tensor(scale)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * self.scale) @ weight

    found = compare(oh.record(Whole(1.0), x), oh.record(Whole(1.0 + 2**-23), x))
    change = next(c for c in found.changed if c.name == "mm.out" or c.kind == "output")
    assert found.within_rounding(change.name) == change.moved > 0
    real = compare(oh.record(Whole(1.0), x), oh.record(Whole(1.001), x))
    assert real.within_rounding(change.name) is not None
    assert real.within_rounding(change.name) < next(  # type: ignore[operator]
        c.moved for c in real.changed if c.name == change.name
    )
    assert compare(oh.record(Whole(1.0), x), oh.record(Whole(2.0), x)).within_rounding(change.name) is None


def test_only_some_values() -> None:
    before, after = run("iris"), run("iris", one_weight)
    everything = compare(before, after)
    grads = compare(before, after, only="*.grad")
    assert grads.changed and all(c.name.endswith(".grad") for c in grads.changed)
    assert set(grads.changed) <= set(everything.changed)
    kinds = compare(before, after, only=["parameter", "loss"])
    assert {c.kind for c in kinds.changed} == {"parameter", "loss"}
    assert [c.name for c in compare(before, after, only="0.weight").changed] == ["0.weight"]
    with pytest.raises(AddressError) as error:
        compare(before, after, only="0.wieght")
    assert error.value.suggestion == "0.weight"


def test_bad_questions_are_refused() -> None:
    recording = run("hand")
    with pytest.raises(InputError, match="a Linear"):
        compare(recording, torch.nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(AddressError):
        compare(recording, recording).elements("nowhere")
    assert compare(recording, recording).elements("0.weight") == []


def test_other_networks_are_named_by_what_only_one_has() -> None:
    small = oh.record(torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.ones(1, 2))
    large = oh.record(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()), torch.ones(1, 2))
    found = compare(small, large)
    assert found.only_before == () and "1.out" in found.only_after
    assert compare(large, small).only_before and not compare(large, small).only_after


def test_the_face() -> None:
    assert oh.compare is compare and oh.Comparison is Comparison


# A run and what would have happened -------------------------------------------------------------------------


def test_an_intervention_is_compared_number_by_number() -> None:
    before = run("seed")
    after = before.intervene({"0.weight[1,0]": 2.0})
    found = compare(before, after)
    wanted = naive(before, after)
    assert {change.name: change.moved for change in found.changed} == {
        name: moved for name, (moved, _, _) in wanted.items()
    }
    first = next(change for change in found.changed if change.name == "0.weight")
    assert (first.moved, first.largest, first.after) == (1, "0.weight[1,0]", 2.0)
    assert first.before == before.value("0.weight").array[1, 0]
    assert found.only_before == found.only_after == () and not found.incomparable
    assert "1.weight" in found.unchanged and found.loss is not None and found.loss.difference != 0


def test_an_intervention_is_a_fresh_run_of_the_edited_model() -> None:
    before = run("iris")
    fresh, replayed = run("iris", one_weight), before.intervene({"0.weight[1,0]": 2.0})
    direct, counterfactual = compare(before, fresh), compare(before, replayed)
    assert compare(fresh, replayed).changed == ()
    assert direct.changed == counterfactual.changed
    assert direct.predictions == counterfactual.predictions and direct.losses == counterfactual.losses


def test_an_edited_activation_keeps_its_name_and_what_it_was_has_another() -> None:
    before = run("iris")
    found = compare(before, before.intervene({"1.out": oh.scale(0.5)}))
    halved = next(change for change in found.changed if change.name == "1.out")
    assert halved.relative == pytest.approx(0.5, rel=1e-6)
    assert "1.out.before" in found.only_after and "0.out" in found.unchanged


def test_nothing_edited_is_the_same() -> None:
    before = run("iris")
    assert compare(before, before.replay()).same
    assert compare(before, before.intervene({"0.weight[1,0]": 2.0}).undo()).same


@pytest.mark.parametrize("name", ["digits-mlp", "tiny-gpt"])
def test_only_what_is_downstream_of_an_edit_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = patient(name)
    before = oh.record(subject.build(training=False), *subject.inputs())
    last = [v for v in before.values if v.origin == "parameter" and before.users(v)][-1]
    address = f"{before.name(last)}[{','.join('0' * len(last.shape))}]"
    after = before.intervene({address: 3.0})
    assert after.calls
    read: list[int] = []
    original = oh.Value.data.fget  # type: ignore[attr-defined]

    def reading(value: oh.Value) -> torch.Tensor:
        read.append(value.id)
        return original(value)

    monkeypatch.setattr(oh.Value, "data", property(reading))
    found = compare(before, after)
    assert found.changed and address in {change.largest for change in found.changed}
    assert len(read) <= 2 * len(found.changed) < len(before.values)


# Which value is which ---------------------------------------------------------------------------------------


class Program(torch.nn.Module):
    def __init__(self, does: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.does = does

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.does(x)


def _runs(*programs: Callable[[torch.Tensor], torch.Tensor], backward: bool = True) -> list[Any]:
    runs = []
    for program in programs:
        model = Program(program)
        x = torch.linspace(-1, 2, 6).requires_grad_()
        with oh.recording(model) as rec:
            out = model(x).sum()
            if backward:
                out.backward()
        runs.append(rec)
    return runs


def _stacked(x: torch.Tensor) -> torch.Tensor:
    turned = x.cos().sin()
    return torch.stack([x.sin(), turned])


def _swapped(x: torch.Tensor) -> torch.Tensor:
    right = x * torch.tensor(4.0)
    return x * torch.tensor(3.0) - right


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda x: x.tanh() * (2 * x).tanh(), lambda x: (2 * x).tanh() * x.tanh()),
        (lambda x: (x + 1).exp() + (x + 2).exp(), lambda x: (x + 2).exp() + (x + 1).exp()),
        (
            lambda x: torch.stack([x.sin(), x.cos().sin()]),
            _stacked,
        ),
        (lambda x: x * torch.tensor(3.0) - x * torch.tensor(4.0), _swapped),
    ],
    ids=["product", "sum", "stack", "constants"],
)
def test_the_order_of_calls_is_no_change(one: Any, other: Any) -> None:
    before, after = _runs(one, other, backward=False)
    found = compare(before, after)
    assert not found.changed and not found.only_before and not found.only_after, found.text(lang="en")
    assert compare(after, before).same


def test_a_constant_that_differs_is_a_change_of_what_follows() -> None:
    before, after = _runs(lambda x: x.tanh() * (2 * x).tanh(), lambda x: (3 * x).tanh() * x.tanh())
    found = compare(before, after)
    names = {change.name for change in found.changed}
    assert {"mul.out", "tanh_1.out", "input.grad"} <= names and "tanh.out" not in names
    assert not found.only_before and not found.only_after
    assert found.loss is not None


def test_one_more_call_moves_no_numbers_of_names() -> None:
    before, after = _runs(
        lambda x: x.tanh() + (x * 2).tanh(), lambda x: (x * 5).tanh() * 0 + (x.tanh() + (x * 2).tanh())
    )
    found = compare(before, after)
    assert {"tanh.out", "tanh_1.out", ".out"} <= set(found.unchanged)
    assert found.twin("tanh.out") == "tanh_1.out" and found.twin("output") == ".out"
    assert "tanh.out" in found.only_after
