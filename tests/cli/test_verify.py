"""`openheart verify`: counts, formats, exit codes."""

import dataclasses
import json
from importlib import import_module

import pytest


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("form", ["text", "html", "json"])
def test_formats(call, form, lang) -> None:
    answer = call("verify", "hand", "--format", form, "--lang", lang)
    assert answer.code == 0, answer.err
    assert answer.err == ""
    if form == "json":
        data = json.loads(answer.out)
        assert data["disagree"] == 0
    elif form == "html":
        assert answer.out.startswith("<!DOCTYPE html>")
    else:
        assert "addmm" in answer.out


def test_training_steps_check_more(call) -> None:
    forward = json.loads(call("verify", "seed", "--format", "json").out)
    step = json.loads(call("verify", "seed", "--steps", "1", "--format", "json").out)
    assert step["scalars"] > forward["scalars"]


@pytest.mark.parametrize(("lang", "words"), [("en", "note: "), ("es", "nota: ")])
def test_what_there_is_to_know_about_the_recording_is_said(call, lang, words) -> None:
    answer = call("verify", "hand", "--steps", "1", "--lang", lang)
    assert answer.code == 0
    assert answer.out.startswith("✓")
    assert words in answer.out


def test_sample(call) -> None:
    data = json.loads(call("verify", "digits-mlp", "--sample", "3", "--format", "json").out)
    assert data["sampled"]


def test_disagreement_exits_with_one(call, monkeypatch) -> None:
    room = import_module("openheart.verify")  # `openheart.verify` is the verb
    honest = room.verify

    def planted(*arguments, **options):
        return dataclasses.replace(honest(*arguments, **options), disagree=1)

    monkeypatch.setattr(room, "verify", planted)
    assert call("verify", "hand").code == 1


def test_strict_counts_what_could_not_be_checked(call, monkeypatch) -> None:
    room = import_module("openheart.verify")  # `openheart.verify` is the verb
    honest = room.verify
    monkeypatch.setattr(room, "verify", lambda *a, **o: dataclasses.replace(honest(*a, **o), opaque=1))
    assert call("verify", "hand").code == 0
    assert call("verify", "hand", "--strict").code == 1
