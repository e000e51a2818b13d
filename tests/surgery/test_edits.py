"""What can be edited and how it is written; what cannot, and what is said then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.surgery.bench import differing, forward, training_step

import openheart as oh
from openheart.surgery.program import same_bits


@pytest.fixture(scope="module")
def iris() -> oh.Recording:
    return forward("iris")


@pytest.fixture(scope="module")
def trained() -> oh.Recording:
    return training_step("iris").recording


def test_slices_tensors_lists_and_functions(iris: oh.Recording) -> None:
    out = iris.value("0.out").data
    for address, given, expected in (
        ("0.out[:,2]", 1.5, [1.5] * 6),
        ("0.out[..., 2]", torch.arange(6.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
        ("0.out[:, -6]", [1, 2, 3, 4, 5, 6], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        ("0.out[::2,2]", 0, [0.0, out[1, 2].item(), 0.0, out[3, 2].item(), 0.0, out[5, 2].item()]),
        ("0.out[:,2]", lambda part: part * 0 + 3, [3.0] * 6),
        ("0.out[:,2]", oh.set(2.0), [2.0] * 6),
        ("0.out[:,2]", oh.ablate(), [0.0] * 6),
        ("0.out[:,2]", oh.ablate("mean"), [out[:, 2].mean().item()] * 6),
        ("0.out[:,2]", oh.add(1.0), (out[:, 2] + 1).tolist()),
        ("0.out[:,2]", oh.scale(2.0), (out[:, 2] * 2).tolist()),
    ):
        edited = iris.intervene({address: given})
        now = edited.value("0.out").data
        assert now[:, 2].tolist() == pytest.approx(expected)
        others = [column for column in range(8) if column != 2]
        assert same_bits(now[:, others], out[:, others])
        assert same_bits(edited.value("0.out.before").data, out)
        assert edited.verify().ok


def test_a_row_by_fewer_indices(iris: oh.Recording) -> None:
    assert iris.intervene({"0.weight[1]": 0.0}).value("0.weight").data[1].tolist() == [0.0] * 4


def test_an_edit_is_a_call_that_is_explained_and_checked(iris: oh.Recording) -> None:
    edited = iris.intervene({"0.out[:,2]": 1.5})
    explanation = edited.explain("0.out[0,2]")
    assert explanation.value == 1.5
    assert explanation.verdict == "exact"
    assert edited.explain("1.out[0,2]").verdict == "exact"


def test_several_edits_of_one_value_follow_one_another(iris: oh.Recording) -> None:
    edited = iris.intervene([{"0.out[:,2]": 1.0}, {"0.out[:,2]": oh.scale(3.0)}, {"0.out[0,2]": oh.add(1.0)}])
    assert edited.value("0.out").data[:, 2].tolist() == [4.0, 3.0, 3.0, 3.0, 3.0, 3.0]


def test_interventions_compose_and_are_undone(trained: oh.Recording) -> None:
    one = trained.intervene({"0.weight[1,0]": 2.0})
    two = one.intervene({"1.out[:,3]": 0.5})
    both = trained.intervene({"0.weight[1,0]": 2.0, "1.out[:,3]": 0.5})
    assert not differing(two, both)
    assert two.undo() is one
    assert two.undo(2) is trained
    assert not differing(two.undo("0.weight[1,0]"), trained.intervene({"1.out[:,3]": 0.5}))
    assert two.undo("1.out[:,3]").value("1.out").id == one.value("1.out").id
    with pytest.raises(oh.InterventionError, match="3 interventions"):
        two.undo(3)
    with pytest.raises(oh.InterventionError, match="was not edited"):
        two.undo("2.bias")


def test_patch_takes_the_activations_of_another_run(iris: oh.Recording, tmp_path: Path) -> None:
    def other_input(model: Any, inputs: list[torch.Tensor], optimizer: Any) -> None:
        inputs[0] = inputs[0].flip(0)

    other = forward("iris", other_input)
    patched = iris.intervene(oh.patch(other, "1.out"))
    assert same_bits(patched.output, other.output)
    some = iris.intervene({"1.out[:,0]": oh.patch(other)})
    assert same_bits(some.value("1.out").data[:, 0], other.value("1.out").data[:, 0])
    assert same_bits(some.value("1.out").data[:, 1:], iris.value("1.out").data[:, 1:])
    crossed = iris.intervene(oh.patch(other, "1.out[0]", source="1.out[5]"))
    assert same_bits(crossed.value("1.out").data[0], other.value("1.out").data[5])
    other.save(tmp_path / "other.oh")
    assert not differing(patched, iris.intervene(oh.patch(tmp_path / "other.oh", "1.out")))


def test_what_is_frozen_stays(trained: oh.Recording) -> None:
    edited = trained.intervene([oh.freeze("1.out"), {"0.weight": oh.scale(2.0)}])
    assert same_bits(edited.value("1.out").data, trained.value("1.out").data)
    assert not same_bits(edited.value("0.out").data, trained.value("0.out").data)
    still = trained.intervene(oh.freeze("0.weight"))
    assert same_bits(still.value("0.weight.after").data, trained.value("0.weight").data)
    assert same_bits(still.value("0.bias.after").data, trained.value("0.bias.after").data)


def test_edits_are_kept_in_a_file(trained: oh.Recording, tmp_path: Path) -> None:
    edits = [
        {"0.weight[1,0]": 2.0, "1.out[:,2]": oh.scale(0.5), "0.bias": torch.arange(8.0), "lr": 0.5},
        {"2.bias": [float("inf"), 0.0, 1.0], "2.out[0,0]": oh.ablate("mean")},
        oh.cut("1.out[:,1]", "2.out[:,1]"),
        oh.swap("relu", "tanh"),
        oh.freeze("0.weight"),
    ]
    path = tmp_path / "edits.json"
    oh.write_edits(edits, path)
    again = oh.read_edits(path)
    assert [repr(edit) for edit in again][:3] == [
        "oh.set('0.weight[1,0]', 2.0)",
        "oh.scale('1.out[:,2]', 0.5)",
        "oh.set('0.bias', tensor([0., 1., 2., 3., 4., 5., 6., 7.]))",
    ]
    first = [{"0.weight[1,0]": 2.0, "1.out[:,2]": oh.scale(0.5), "lr": 0.5}]
    oh.write_edits(first, path)
    assert not differing(trained.intervene(first), trained.intervene(list(oh.read_edits(path))))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no edits"),
        ('{"openheart": "edits", "version": 9, "edits": []}', "newer"),
        ('{"openheart": "edits", "version": 1, "edits": [{"edit": "boom"}]}', "kind 'boom'"),
        ('{"openheart": "edits", "version": 1, "edits": [{"edit": "set", "address": "a"}]}', "lacks 'value'"),
    ],
)
def test_a_file_that_holds_no_edits(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "edits.json"
    path.write_text(content)
    with pytest.raises(oh.InterventionError, match=message):
        oh.read_edits(path)
    with pytest.raises(oh.InterventionError, match="cannot read"):
        oh.read_edits(tmp_path / "none.json")


@pytest.mark.parametrize(
    "edit",
    [{"0.out": lambda part: part}, oh.swap("1", torch.nn.Tanh()), oh.patch(None, "0.out")],  # type: ignore[arg-type]
)
def test_what_a_file_cannot_hold(edit: Any, tmp_path: Path) -> None:
    with pytest.raises(oh.InterventionError, match="file"):
        oh.write_edits(edit, tmp_path / "edits.json")


@pytest.mark.parametrize(
    ("edits", "error", "message"),
    [
        ({"0.wieght[1,0]": 2.0}, oh.AddressError, "did you mean"),
        ({"0.weight[9,0]": 2.0}, oh.AddressError, "out of range"),
        ({"0.weight[0,0,0]": 2.0}, oh.AddressError, "3 indices"),
        ({"0.weight[a]": 2.0}, oh.AddressError, "numbers and slices"),
        ({"0.weight[5:5]": 2.0}, oh.AddressError, "no number"),
        ({"0.weight": torch.ones(3, 3)}, oh.InterventionError, "do not fit"),
        ({"0.weight[1,0]": "two"}, oh.InterventionError, "is none"),
        ({"0.weight[1,0]": 2j}, oh.InterventionError, "cannot hold"),
        ({"0.weight[1,0]": 1e60}, oh.InterventionError, "as large"),
        ({"0.out": lambda part: part[0]}, None, ""),
        ({"0.out": lambda part: part[:, :3]}, oh.InterventionError, "do not fit"),
        ({"target[0]": 1.5}, oh.InterventionError, "cannot hold"),
        ({"target[0]": 77}, oh.InterventionError, "cannot be"),
        ({"0.weight.after[0,0]": 1.0}, oh.InterventionError, "nothing in this recording reads"),
        ({3: 1.0}, oh.InterventionError, "by address"),
        ({}, oh.InterventionError, "no edit"),
        (oh.scale(2.0), oh.InterventionError, "has no address"),
        (7, oh.InterventionError, "dict by address"),
        ({"lr": "fast"}, oh.InterventionError, "cannot become"),
        ({"lr": float("nan")}, oh.InterventionError, "cannot become"),
        ({"@4 lr": 0.1}, oh.InterventionError, "last step"),
        ({"group_3.lr": 0.1}, oh.InterventionError, "1 groups"),
        (oh.swap("nothing", "tanh"), oh.InterventionError, "is no module"),
        (oh.swap("1", "frobnicate"), oh.InterventionError, "cannot take the place"),
        (oh.swap("1", torch.nn.Linear(8, 3)), oh.InterventionError, "shape"),
        (oh.swap("0", "relu"), oh.InterventionError, "optimizer"),
        (oh.cut("2.out", "0.out"), oh.InterventionError, "nothing leads"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(
    trained: oh.Recording, edits: Any, error: Any, message: str
) -> None:
    if error is None:
        assert trained.intervene(edits).verify().ok
        return
    with pytest.raises(error, match=message):
        trained.intervene(edits)


def test_an_ablation_knows_two_ways() -> None:
    with pytest.raises(oh.InterventionError, match='"zero" or "mean"'):
        oh.ablate("median")  # type: ignore[arg-type]


def test_an_activation_that_is_edited_twice_keeps_a_name_for_each_of_its_numbers(
    trained: oh.Recording,
) -> None:
    once = trained.intervene({"1.out[0,2]": 1.5})
    twice = once.intervene({"1.out[0,2]": 2.5})
    assert twice.value("1.out").data[0, 2] == 2.5
    assert twice.value("1.out.before").data[0, 2] == 1.5
    assert all(twice.name(value) for call in twice.calls for value in call.outputs)
    assert twice.explain("1.out[0,2]").verdict == "exact"
    assert twice.verify().ok


def test_swapping_a_module_that_returns_its_argument_is_refused_where_others_read_it_too() -> None:
    class Residual(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.idle = torch.nn.Linear(2, 2), torch.nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.first(x)
            return h + self.idle(h)

    recording = oh.record(Residual(), torch.ones(1, 2))
    with pytest.raises(oh.InterventionError, match="read more than once"):
        recording.intervene(oh.swap("idle", "relu"))


def test_a_hyperparameter_without_a_step_is_refused_with_the_way_out(iris: oh.Recording) -> None:
    with pytest.raises(oh.AddressError, match="record the training step"):
        iris.intervene({"lr": 0.5})
    assert "edited by oh.set('0.bias', 1.0)" in repr(iris.intervene({"0.bias": 1.0}))
