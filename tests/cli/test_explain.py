"""`openheart explain`: patients and networks of one's own, in every format."""

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("form", ["text", "latex", "mathml", "html", "json"])
def test_formats(call, lang, form) -> None:
    answer = call("explain", "seed", "1.out[0,0]", "--format", form, "--lang", lang)
    assert answer.code == 0
    assert answer.err == ""
    assert "0.8347" in answer.out or form == "json"
    if form == "json":
        data = json.loads(answer.out)
        assert data["address"] == "1.out[0,0]"
    elif form == "mathml":
        ET.fromstring(answer.out)
    elif form == "html":
        assert answer.out.startswith("<!DOCTYPE html>")
        assert f'lang="{lang}"' in answer.out
    elif form == "latex":
        assert answer.out.count(r"\begin{aligned}") == answer.out.count(r"\end{aligned}") == 1
    else:
        verdicts = ("dentro del redondeo", "exacto") if lang == "es" else ("within rounding", "exact")
        assert any(f"✓ {verdict} —" in answer.out for verdict in verdicts)  # as this machine's kernel adds up


@pytest.mark.parametrize(
    ("address", "value"),
    [
        ("0.out[0,1]", "2.8982"),
        ("loss", "0.0273"),
        ("0.weight.grad[1,0]", "−0.4797"),
        ("0.weight.after[1,0]", "0.2556"),
        ("@1 0.weight.after[1,0]", "0."),
        ("output[0,0]", "0.8347"),
        ("input[0,1]", "5"),
    ],
)
def test_the_address_decides_what_runs(call, address, value) -> None:
    answer = call("explain", "seed", address, "--lang", "en")
    assert answer.code == 0, answer.err
    assert f"= {value}" in answer.out


def test_digits_comma_and_depth(call) -> None:
    assert "0.83" in call("explain", "seed", "1.out[0,0]", "--digits", "2").out
    assert "0,8347" in call("explain", "seed", "1.out[0,0]", "--comma").out
    deep = call("explain", "seed", "1.out[0,0]", "--depth", "2").out
    assert len(deep) > len(call("explain", "seed", "1.out[0,0]").out)


def test_output_file(call, home) -> None:
    answer = call("explain", "seed", "1.out[0,0]", "--format", "latex", "-o", "one.tex", "--lang", "en")
    assert answer.code == 0
    assert str(home / "one.tex") in answer.out
    assert "aligned" in (home / "one.tex").read_text(encoding="utf-8")


def test_without_address_the_addresses(call) -> None:
    answer = call("explain", "seed", "--lang", "en")
    assert answer.code == 0
    assert "0.out" in answer.out
    listed = json.loads(call("explain", "seed", "--format", "json").out)
    assert {"address": "0.out", "shape": [1, 3], "first": "0.out[0,0]"} in listed


def test_patients(call) -> None:
    for lang in ("es", "en"):
        answer = call("patients", "--lang", lang)
        assert answer.code == 0
        assert "tiny-gpt" in answer.out
    data = json.loads(call("patients", "--format", "json").out)
    assert {"name", "story", "parameters", "loss", "optimizer"} <= set(data[0])
    assert next(row for row in data if row["name"] == "seed")["parameters"] == 13


# One's own network -----------------------------------------------------------------------------------------


def test_own_file_in_a_process(process, home) -> None:
    answer = process("explain", "net.py:build", "fc2.out[0,3]", "--input", "x.npy", "--lang", "es", cwd=home)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("fc2.out[0,3] = ")
    assert "building" not in answer.out  # what the file prints is not part of the answer
    again = process("explain", "net.py:build", "fc2.out[0,3]", "--input", "x.npy", "--lang", "es", cwd=home)
    assert again.out == answer.out  # random weights, but the same ones every time


def test_seed_changes_random_weights(call, home) -> None:
    same = call("explain", "net.py:Net", "fc2.out[0,3]", "--input", "x.npy").out
    assert call("explain", "net.py:Net", "fc2.out[0,3]", "--input", "x.npy", "--seed", "28").out == same
    assert call("explain", "net.py:Net", "fc2.out[0,3]", "--input", "x.npy", "--seed", "1").out != same


@pytest.mark.parametrize("model", ["net.py:Net", "net.py:build", "net:Net", "only.py", "net.py:ready"])
def test_ways_to_name_a_network(call, home, model) -> None:
    answer = call("explain", model, "output[0,1]", "--input", "x.npy")
    assert answer.code == 0, answer.err


def test_training_step_by_options(call, home) -> None:
    options = ("--input", "[[1, 2, 3]]", "--loss", "mse", "--target", "[[1, 0, 0, 2]]")
    assert call("explain", "net.py:Net", "loss", *options).code == 0
    assert call("explain", "net.py:Net", "fc1.weight.grad[0,0]", *options).code == 0
    with_step = (*options, "--optimizer", "sgd,lr=0.1,momentum=0.9")
    answer = call("explain", "net.py:Net", "@1 fc1.bias.after[2]", *with_step, "--format", "json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["check"]["verdict"] in ("exact", "within rounding")


def test_classes_stay_whole(call, home) -> None:
    options = ("--input", "x.npy", "--loss", "cross-entropy", "--target", "[0, 3]")
    assert call("explain", "net.py:Net", "loss", *options).code == 0


def test_own_loss_and_no_target(call, home) -> None:
    own = ("--input", "x.npy", "--loss", "net.py:my_loss", "--target", "x.npy")
    assert call("explain", "only.py:build", "loss", "--input", "x.npy", "--loss", "sum").code == 0
    assert call("explain", "net.py:ready", "loss", *own[:4], "--target", "[[1.5, 2], [3, 4]]").code == 0


def test_ids_stay_whole_where_the_network_asks(call, home) -> None:
    assert call("explain", "net.py:Words", "output[0,2]", "--input", "[[1, 2, 6]]").code == 0
    keyword = '{"input_ids": [[1, 2]], "scale": 2.5}'
    answer = call("explain", "net.py:Words", "output[0,2]", "--input", keyword)
    assert answer.code == 0, answer.err


def test_weights(call, home) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(torch.nn.Linear(3, 2).state_dict(), home / "weights.safetensors")
    for file in ("weights.pt", "weights.safetensors"):
        answer = call(
            "explain", "only.py", "weight[0,0]", "--input", "x.npy", "--weights", file, "--format", "json"
        )
        assert answer.code == 0, answer.err


def test_trusted_pickles(call, home) -> None:
    assert call("explain", "whole.pt", "output[0,0]", "--input", "x.npy", "--trust").code == 0
    assert call("explain", "only.py", "output[0,0]", "--input", "tensor.pt", "--trust").code == 0


def test_exported_program(call, home) -> None:
    program = torch.export.export(
        torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), (torch.ones(2, 3),)
    )
    torch.export.save(program, home / "net.pt2")
    answer = call("explain", "net.pt2", "output[0,0]", "--input", "x.npy")
    assert answer.code == 0, answer.err
    assert call("verify", "net.pt2", "--input", "x.npy").code == 0


@pytest.mark.parametrize("form", ["L", "RGB"])
def test_picture(call, home, form) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image.fromarray(pixels if form == "L" else np.stack([pixels] * 3, -1)).save(home / "p.png")
    answer = call("explain", "net.py:Picture", "conv.out[0,1,2,3]", "--input", "p.png")
    assert answer.code == 0, answer.err


def test_not_finite_is_explained_with_a_warning(call, home) -> None:
    answer = call("explain", "net.py:Net", "fc1.out[0,0]", "--input", "nan.npy", "--lang", "en")
    assert answer.code == 0
    assert "warning" in answer.err
    assert "input[0,1] = NaN" in answer.err


def test_disagreement_exits_with_one(call, monkeypatch) -> None:
    from openheart.cli import commands
    from openheart.explain import Explanation
    from openheart.printers import parts

    honest = commands.explain_in

    def planted(*arguments):
        explanation = honest(*arguments)
        assert isinstance(explanation, Explanation)
        explanation.verdict = "disagrees"
        return explanation

    monkeypatch.setattr(commands, "explain_in", planted)
    assert parts.VERDICTS["disagrees"]
    assert call("explain", "seed", "1.out[0,0]").code == 1
