"""`openheart intervene`: edits of every kind, formats, files, bad edits; every refusal in both languages."""

from __future__ import annotations

import json

import pytest

import openheart as oh
from openheart.loading import open_subject


def changed(answer) -> dict[str, dict]:
    assert answer.code == 0, answer.err
    return {each["name"]: each for each in json.loads(answer.out)["comparison"]["changed"]}


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("form", ["text", "json", "html"])
def test_formats(call, form, lang) -> None:
    answer = call("intervene", "seed", "--set", "0.weight[1,0]=2", "--format", form, "--lang", lang)
    assert answer.code == 0, answer.err
    if form == "json":
        data = json.loads(answer.out)
        assert data["edits"] == [{"edit": "set", "address": "0.weight[1,0]", "value": 2}]
        assert data["comparison"]["schema"] == "openheart.comparison"
    elif form == "html":
        assert answer.out.startswith("<!DOCTYPE html>")
        assert "0.weight[1,0]" in answer.out
    else:
        assert ("cambiaron" if lang == "es" else "moved") in answer.out


@pytest.mark.parametrize(
    ("options", "edits"),
    [
        (["--set", "0.weight[1,0]=2"], {"0.weight[1,0]": 2.0}),
        (["--set", "0.bias=[1, 0, -1, 2]"], {"0.bias": [1, 0, -1, 2]}),
        (["--scale", "0.out[:,2]=0.5"], {"0.out[:,2]": oh.scale(0.5)}),
        (["--add", "0.bias = 1e-1"], {"0.bias": oh.add(0.1)}),
        (["--ablate", "0.out[:,1]"], {"0.out[:,1]": oh.ablate()}),
        (["--ablate", "0.out[:,1]=mean"], {"0.out[:,1]": oh.ablate("mean")}),
        (["--cut", "0.out[:,2] -> 1.out[:,0]"], [oh.cut("0.out[:,2]", "1.out[:,0]")]),
        (["--swap", "relu=tanh"], [oh.swap("relu", "tanh")]),
        (
            ["--set", "0.bias=1", "--ablate", "0.out[0,1]"],
            {"0.bias": 1.0, "0.out[0,1]": oh.ablate()},
        ),
    ],
)
def test_edits_are_those_of_python(call, options, edits) -> None:
    name = "seed-relu" if "--swap" in options else "seed-batch"
    found = changed(call("intervene", name, *options, "--format", "json"))
    before = open_subject(name).run(0).recording
    expected = oh.compare(before, before.intervene(edits)).changed
    assert set(found) == {change.name for change in expected}
    assert all(found[change.name]["after"] == change.after for change in expected)


def test_a_training_step_is_recorded_where_an_edit_needs_it(call) -> None:
    def run(*options: str):
        return changed(call("intervene", "seed", *options, "--format", "json"))

    assert "loss" not in run("--set", "0.weight[1,0]=2")
    assert "loss" in run("--set", "0.weight[1,0]=2", "--steps", "1")
    assert "0.weight.after" in run("--set", "0.weight.grad[1,0]=0")
    assert set(run("--scale", "lr=2")) == {
        "0.weight.after", "0.bias.after", "1.weight.after", "1.bias.after",
    }  # fmt: skip
    assert set(run("--freeze", "0.weight")) == {"0.weight.after"}


def test_files(call, home) -> None:
    edits = ("--set", "0.bias=1", "--scale", "0.out[:,0]=2")
    first = call(
        "intervene",
        "seed",
        *edits,
        "--save-edits",
        "edits.json",
        "--save",
        "after.oh",
        "--html",
        "c.html",
        "-o",
        "c.txt",
    )
    assert first.code == 0, first.err
    assert (home / "c.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    again = call("intervene", "seed", "--edits", "edits.json")
    assert (home / "c.txt").read_text(encoding="utf-8") == again.out
    after = oh.load(home / "after.oh")
    assert after.value("0.bias").data.tolist() == [1, 1, 1]
    patched = changed(call("intervene", "seed", "--patch", "0.out=after.oh", "--format", "json"))
    assert "0.out" in patched
    assert "0.bias" not in patched


def test_top_and_digits(call) -> None:
    answer = call(
        "intervene", "seed", "--set", "0.weight[1,0]=2", "--top", "1", "--digits", "2", "--lang", "en"
    )
    assert "and 2 more" in answer.out
    assert "3.37" in answer.out
    assert "3.3732" not in answer.out


BAD = {
    "no edit": ([], ["--set"]),
    "no value": (["--set", "0.weight[1,0]"], ["--set", "0.weight[1,0]"]),
    "no address": (["--set", "=2"], ["--set", "=2"]),
    "a word": (["--set", "0.bias=two"], ["--set", "two"]),
    "ragged": (["--set", "0.weight=[[1,2],[3]]"], ["0.weight"]),
    "a list of factors": (["--scale", "0.bias=[1,2,3]"], ["--scale", "[1,2,3]"]),
    "unknown address": (["--set", "0.wieght=1"], ["0.wieght", "0.weight"]),
    "outside": (["--set", "0.weight[9,0]=1"], ["0.weight[9,0]", "(3, 2)"]),
    "too many indices": (["--set", "0.bias[0,0]=1"], ["0.bias[0,0]"]),
    "no index": (["--set", "0.weight[a,b]=1"], ["0.weight[a,b]", "(3, 2)"]),
    "shape": (["--set", "0.bias=[1,2]"], ["(2,)", "(3,)"]),
    "too large": (["--set", "0.bias=1e99"], ["1e+99", "float32"]),
    "nothing reads it": (["--set", "0.weight.after=1"], ["0.weight.after", "--steps"]),
    "half a cut": (["--cut", "0.out"], ["--cut", "->"]),
    "no edge": (["--cut", "1.out -> 0.out"], ["1.out", "0.out"]),
    "unknown swap": (["--swap", "relu=tanh"], ["relu"]),
    "swap by what": (["--swap", "0=tahn"], ["tahn", "tanh"]),
    "ablate how": (["--ablate", "0.out=median"], ["median", "mean"]),
    "freeze to what": (["--freeze", "0.weight=2"], ["--freeze"]),
    "no such recording": (["--patch", "0.out=other.oh"], ["other.oh"]),
    "no recording": (["--patch", "0.out=net.py"], ["net.py"]),
    "no such edits": (["--edits", "edits.json"], ["edits.json"]),
    "edits that are not JSON": (["--edits", "net.py"], ["net.py", "JSON", "--save-edits"]),
    "JSON that is not edits": (["--edits", "list.json"], ["list.json", "--save-edits"]),
    "an edit of another kind": (["--edits", "kind.json"], ["kind.json", "melt"]),
    "hyperparameter ablated to the mean": (["--ablate", "lr=mean"], ["--scale"]),
    "group": (["--set", "group_3.lr=1"], ["group_3.lr", "1"]),
    "a folder that is not there": (["--set", "0.bias=1", "--html", "no/page.html"], ["no/page.html"]),
    "top": (["--set", "0.bias=1", "--top", "0"], ["--top"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_edits_are_told_in_both_languages(case, call, home) -> None:
    (home / "list.json").write_text("[1, 2]", encoding="utf-8")
    kind = {"openheart": "edits", "version": 1, "edits": [{"edit": "melt", "address": "0.bias"}]}
    (home / "kind.json").write_text(json.dumps(kind), encoding="utf-8")
    options, named = BAD[case]
    said = {}
    for lang in ("es", "en"):
        answer = call("intervene", "seed", *options, "--lang", lang)
        assert answer.code == 2, answer.out
        assert answer.out == ""
        assert "Traceback" not in answer.err
        for name in named:
            assert name in answer.err
        said[lang] = answer.err
    assert said["es"] != said["en"]
