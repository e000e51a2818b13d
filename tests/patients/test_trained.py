"""The trained patients do what their table says, on samples that they never saw."""

import math
from collections import Counter

import pytest
import torch

from openheart.patients import Patient, gpt, lstm, patient, patients
from openheart.patients.anatomy import HERE
from openheart.patients.train.__main__ import RECIPES, row, table
from openheart.patients.train.fit import Recipe, fit, measure

TRAINED = [each.name for each in patients() if each.trained]


def accuracy_of(name: str) -> float | None:
    who = patient(name)
    return measure(who, who.build(), "test").accuracy


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [("xor", 1.0), ("iris", 0.95), ("digits-mlp", 0.95), ("digits-cnn", 0.97), ("tiny-gpt", 0.35)],
)
def test_accuracy_on_held_out_samples(name: str, accuracy: float) -> None:
    assert accuracy_of(name) >= accuracy


def test_gpt_knows_more_than_the_characters_frequencies() -> None:
    text = gpt.chapter()
    entropy = -sum(n / len(text) * math.log(n / len(text)) for n in Counter(text).values())
    who = patient("tiny-gpt")
    assert measure(who, who.build(), "test").loss < entropy - 0.6


def test_lstm_beats_repeating_the_last_year() -> None:
    past, following = lstm.decades()["test"]
    repeating = torch.nn.functional.mse_loss(past[:, -1], following).item()
    who = patient("lstm")
    assert measure(who, who.build(), "test").loss < repeating / 2


def test_the_readme_table_is_that_of_the_weights() -> None:
    assert table() in (HERE / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TRAINED)
def test_every_trained_patient_has_a_recipe_and_a_row(name: str) -> None:
    assert name in RECIPES
    assert row(patient(name)).startswith(f"| `{name}` |")


def test_nothing_held_out_was_trained_on() -> None:
    for name in TRAINED:
        if name == "xor":  # four rows are all there is
            continue
        train, test = patient(name).data("train"), patient(name).data("test")
        assert train is not None
        assert test is not None
        assert len(train[0]) > len(test[0])
    years, _ = lstm.sunspots()
    assert len(lstm.decades()["test"][0]) == int((years >= lstm.FIRST_TEST_YEAR).sum())


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn"])
def test_the_demo_digit_is_read_rightly(name: str) -> None:
    who = patient(name)
    probabilities = who.build(training=False)(*who.inputs()).softmax(dim=-1)
    assert probabilities[0].argmax() == who.target()[0]
    assert probabilities[0].max() > 0.9


def test_samples_are_held_out() -> None:
    for name in ("iris", "digits-mlp", "digits-cnn", "lstm"):
        who = patient(name)
        held_out = who.data("test")
        assert held_out is not None
        for sample in who.inputs()[0]:
            assert (held_out[0] == sample).flatten(1).all(dim=1).any()


def test_the_chapter_opens_as_it_should_and_survives_its_tokens() -> None:
    opening = "En un lugar de la Mancha, de cuyo nombre no quiero acordarme"
    assert gpt.chapter().startswith(opening)
    assert gpt.decode(gpt.encode(opening)) == opening
    assert gpt.decode(patient("tiny-gpt").inputs()[0][0]) == opening[: gpt.CONTEXT]


def test_attention_sees_only_the_past() -> None:
    who = patient("tiny-gpt")
    model, (tokens,) = who.build(training=False), who.inputs()
    changed = tokens.clone()
    changed[:, 20:] = 0
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_training_again_goes_the_same_way() -> None:
    def losses(who: Patient) -> list[float]:
        seen: list[float] = []
        fit(who, Recipe(epochs=2, batch=16), lambda _, loss: seen.append(loss))
        return seen

    first, second = losses(patient("iris")), losses(patient("iris"))
    assert first == second
    assert first[1] < first[0]


def test_an_untrained_patient_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match="hand has no training data"):
        fit(patient("hand"), Recipe(epochs=1, batch=1), lambda *_: None)
