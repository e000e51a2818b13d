"""Every patient: it builds, it runs a whole training step, it is always the same, and it disturbs nothing."""

import pickle

import pytest
import torch
from torch import Tensor, nn

from openheart.errors import OpenheartError, PatientError
from openheart.patients import Patient, patient, patients
from openheart.patients.anatomy import DATA, WEIGHTS

NAMES = [each.name for each in patients()]
PROMISED = {
    *("hand", "seed", "seed-batch", "seed-sigmoid", "seed-softmax", "seed-relu"),
    *("xor", "iris", "digits-mlp", "digits-cnn", "tiny-gpt", "lstm"),
}


def training_steps(who: Patient, steps: int) -> tuple[list[float], dict[str, Tensor]]:
    """The losses of some steps on the patient's own samples, and the state after them."""
    torch.manual_seed(7)  # for dropout, which draws from the global stream as it does in anyone's training
    model = who.build()
    optimizer, loss = who.optimizer(model.parameters()), who.loss()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        error = loss(model(*who.inputs()), who.target())
        error.backward()
        optimizer.step()
        losses.append(error.item())
    return losses, dict(model.state_dict())


@pytest.fixture(params=NAMES)
def who(request: pytest.FixtureRequest) -> Patient:
    return patient(request.param)


def test_the_promised_are_here() -> None:
    assert PROMISED <= set(NAMES)
    assert len(NAMES) == len(set(NAMES))


def test_builds_in_the_mode_asked_for(who: Patient) -> None:
    assert isinstance(who.build(), nn.Module)
    assert all(module.training for module in who.build().modules())
    assert not any(module.training for module in who.build(training=False).modules())


def test_a_training_step_runs_and_reaches_every_parameter(who: Patient) -> None:
    model = who.build()
    error = who.loss()(model(*who.inputs()), who.target())
    assert error.shape == ()
    assert error.isfinite()
    error.backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters()
    )
    who.optimizer(model.parameters()).step()


def test_the_same_every_time(who: Patient) -> None:
    first, second = training_steps(who, 3), training_steps(who, 3)
    assert first[0] == second[0]
    assert all(torch.equal(first[1][name], second[1][name]) for name in first[1])


def test_nothing_is_shared_between_two_builds(who: Patient) -> None:
    before = {name: tensor.clone() for name, tensor in who.build().state_dict().items()}
    spoiled = who.build()
    with torch.no_grad():
        for parameter in spoiled.parameters():
            parameter.fill_(9)
        who.inputs()[0].zero_()
        who.target().zero_()
    after = who.build().state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert who.inputs()[0].any()


def test_the_global_random_state_is_left_alone(who: Patient) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    who.build()
    who.inputs()
    who.target()
    who.data("train")
    assert torch.equal(before, torch.get_rng_state())


def test_the_global_random_state_does_not_matter(who: Patient) -> None:
    torch.manual_seed(1)
    first = who.build().state_dict()
    torch.manual_seed(2)
    second = who.build().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_story_is_one_line_in_both_languages(who: Patient) -> None:
    assert set(who.story) == {"es", "en"}
    for line in who.story.values():
        assert "\n" not in line
        assert 30 <= len(line) <= 92
        assert line[0].isupper()
        assert line.endswith(".")
    assert who.story["es"] != who.story["en"]


def test_labels_name_the_output(who: Patient) -> None:
    if who.labels:
        assert who.build(training=False)(*who.inputs()).shape[-1] == len(who.labels)


def test_the_optimizers_between_them_use_every_rule() -> None:
    groups = {}
    for each in patients():
        optimizer = each.optimizer(each.build().parameters())
        groups.setdefault(type(optimizer).__name__, []).append(optimizer.param_groups[0])
    assert set(groups) == {"SGD", "Adam", "AdamW", "RMSprop"}
    sgd, rmsprop = groups["SGD"], groups["RMSprop"]
    assert {bool(group["momentum"]) for group in sgd} == {True, False}
    assert {group["nesterov"] for group in sgd} == {True, False}
    assert {bool(group["weight_decay"]) for group in sgd} == {True, False}
    assert {bool(group["dampening"]) for group in sgd} == {True, False}
    assert {group["centered"] for group in rmsprop} == {True, False}
    assert {bool(group["momentum"]) for group in rmsprop} == {True, False}


@pytest.mark.parametrize(
    ("asked", "meant"), [("digits_cnn", "digits-cnn"), ("tinygpt", "tiny-gpt"), ("Iris", "iris")]
)
def test_a_name_that_is_none_gets_the_nearest(asked: str, meant: str) -> None:
    with pytest.raises(PatientError, match=f"\"{asked}\".*did you mean '{meant}'") as caught:
        patient(asked)
    assert isinstance(caught.value, OpenheartError)


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(PatientError, match="hand, seed"):
        patient("zzzzzz")


def test_what_ships_is_small_and_is_no_pickle() -> None:
    files = [*DATA.iterdir(), *WEIGHTS.iterdir()]
    assert sum(file.stat().st_size for file in files) < 1_000_000
    assert {file.suffix for file in files} <= {".npz", ".txt", ".csv", ".safetensors"}
    for file in files:
        with pytest.raises(Exception), file.open("rb") as stream:  # noqa: B017
            pickle.load(stream)
