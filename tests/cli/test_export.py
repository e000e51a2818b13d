"""`openheart export`: the program is written and runs, what it can do is said, bad requests are told."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest


def test_the_program_is_written_and_runs(call, home) -> None:
    answer = call("export", "seed", "-o", "program.js", "--format", "json")
    assert answer.code == 0, answer.err
    about = json.loads(answer.out)
    assert about["file"] == str(home / "program.js")
    assert about["step"] is True
    assert "lr" in about["options"]
    assert set(about["frozen"].values()) <= {"uninitialized"}
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node on this machine: the program was not run")
    said = 'import { create } from "./program.js"; console.log(typeof create());'
    done = subprocess.run(
        [node, "--input-type=module", "-e", said], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "object"


@pytest.mark.parametrize(("lang", "said"), [("es", "paso de entrenamiento"), ("en", "training step")])
def test_what_it_can_do_is_said(call, home, lang, said) -> None:
    answer = call("export", "xor", "--lang", lang)
    assert answer.code == 0, answer.err
    assert said in answer.out
    assert (home / "openheart-xor.js").exists()
    assert said not in call("export", "xor", "--steps", "0", "--lang", lang).out


def test_what_stays_as_recorded_is_said(call, home) -> None:
    (home / "drop.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Sequential(nn.Linear(3, 2), nn.Dropout())\n",
        encoding="utf-8",
    )
    answer = call("export", "drop.py", "--input", "x.npy", "--train", "--lang", "en")
    assert answer.code == 0, answer.err
    assert "as recorded" in answer.out
    assert "as recorded" not in call("export", "only.py", "--input", "x.npy", "--lang", "en").out


def test_numbers_apart(call, home) -> None:
    assert call("export", "net.py:Net", "--input", "x.npy", "-o", "net.js", "--separate").code == 0
    assert (home / "net.bin").stat().st_size > 0


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("seed", "--limit", "3"), ["3", "--limit"]),
        (("seed", "-o", "no/program.js"), ["no/program.js"]),
        (("sed",), ["sed", "seed"]),
        (("net.py:Net",), ["--input"]),
        (("seed", "--limit", "0"), ["--limit"]),
        (("seed", "-o", "."), ["."]),
    ],
)
def test_bad_requests(call, home, options, named, lang) -> None:
    answer = call("export", *options, "--lang", lang)
    assert answer.code == 2
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert all(name in answer.err for name in named)
