"""`openheart collapse`: formats, languages, exit codes."""

import dataclasses
import json
import sys
from importlib import import_module

import pytest


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("form", ["text", "latex", "html", "json"])
def test_formats(call, form, lang) -> None:
    answer = call("collapse", "seed", "0", "1", "--format", form, "--lang", lang)
    assert answer.code == 0, answer.err
    assert answer.err == ""
    if form == "json":
        assert json.loads(answer.out)["verdict"] in ("exact", "within rounding")
    elif form == "html":
        assert answer.out.startswith("<!DOCTYPE html>")
    elif form == "latex":
        assert "pmatrix" in answer.out
    else:
        assert ("redonde" if lang == "es" else "round") in answer.out


def test_digits_and_comma(call) -> None:
    assert "0.04" in call("collapse", "seed", "0", "1", "--digits", "2").out
    assert "0,0433" in call("collapse", "seed", "0", "1", "--comma").out
    assert "0.0433" in call("collapse", "seed", "0", "1").out


def test_ones_own_network(call, home) -> None:
    drawn = call("collapse", "only.py", "", "", "--format", "json")
    assert drawn.code == 0, drawn.err
    assert json.loads(drawn.out)["proof"]["seed"] == 28
    given = call("collapse", "net.py:build", "fc2", "fc2", "--input", "x.npy", "--format", "json")
    assert given.code == 0, given.err
    data = json.loads(given.out)
    assert (data["in_shape"], data["out_shape"], data["proof"]["seed"]) == ([5], [4], None)


def test_to_a_file(call, home) -> None:
    assert call("collapse", "seed", "0", "1", "-o", "map.txt").code == 0
    assert "W" in (home / "map.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("seed-relu", "0", "2"), "relu"),
        (("seed", "0", "7"), "7"),
        (("seed", "1", "0"), "1"),
        (("sed", "0", "1"), "seed"),
        (("tiny-gpt", "", ""), "int64"),
        (("seed", "0"), ""),
        (("seed", "0", "1", "--input", "[[1,2,3]]"), "(1, 3)"),
    ],
)
def test_bad_input_exits_with_two(call, arguments, said, lang) -> None:
    answer = call("collapse", *arguments, "--lang", lang)
    assert answer.code == 2
    assert said in answer.err
    assert answer.out == ""


def test_disagreement_exits_with_one(call, monkeypatch) -> None:
    import_module("openheart.surgery.collapse")
    room = sys.modules["openheart.surgery.collapse"]  # `openheart.surgery.collapse` is the verb
    honest = room.collapse

    def planted(*arguments, **options):
        return dataclasses.replace(honest(*arguments, **options), _agree=False)

    monkeypatch.setattr(room, "collapse", planted)
    answer = call("collapse", "seed", "0", "1")
    assert answer.code == 1
    assert "✗" in answer.out
