"""The command line among others: interrupts, pipes, full disks, names of files, scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-c", "from openheart.cli import main; main()"]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}


# What runs in a shell's background is born deaf to interrupts, and the tests with it.
HEARING = "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


def test_an_interrupt_is_130_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import time\nfrom torch import nn\n\n\nclass Net(nn.Linear):\n    def forward(self, x):\n"
        "        print('now', flush=True)\n        time.sleep(60)\n\n\ndef build():\n    return Net(2, 1)\n",
        encoding="utf-8",
    )
    request = [*COMMAND, "explain", "net.py:build", "weight[0,0]", "-i", "[[1.0, 2.0]]"]
    process = subprocess.Popen(
        [sys.executable, "-c", HEARING, *request],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=_environment(), text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:  # what a network prints goes to stderr
        if line == "now\n":
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [*COMMAND, "explain", "seed"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(),
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(60) == 0
    process.stderr.close()


@pytest.mark.parametrize("lang", ["en", "es"])
def test_a_full_disk_behind_stdout_is_one_sentence(lang: str) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [*COMMAND, "explain", "seed", "loss", "--lang", lang],
            stdout=full, stderr=subprocess.PIPE, env=_environment(), text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr
    assert {"en": "unexpected", "es": "inesperado"}[lang] not in done.stderr.lower()


def test_an_unknown_language_is_a_clear_error(call: Any) -> None:
    for arguments in (["--lang", "fr"], ["--lang=fr"]):
        answer = call("explain", "seed", "loss", *arguments)
        assert answer.code == 2
        assert '"fr"' in answer.err or "«fr»" in answer.err
        assert "es" in answer.err
        assert "unexpected" not in answer.err


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [
        (".html", "<!DOCTYPE html>"),
        (".json", "{"),
        (".tex", "\\begin"),
        (".mathml", "<math"),
        (".txt", "loss"),
        ("", "loss"),
    ],
)
def test_a_file_is_what_its_name_says(suffix: str, begins: str, call: Any, tmp_path: Path) -> None:
    path = tmp_path / f"made{suffix}"
    assert call("explain", "seed", "loss", "-o", path).code == 0
    assert path.read_text(encoding="utf-8").startswith(begins)


@pytest.mark.parametrize("lang", ["en", "es"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "seed", "loss", "-o", "made.svg"],
        ["explain", "seed", "loss", "-o", "made.pdf"],
        ["explain", "seed", "loss", "-o", "made.PNG"],
        ["explain", "seed", "loss", "--format", "json", "-o", "made.html"],
        ["explain", "seed", "loss", "--format", "text", "-o", "made.html"],
        ["verify", "seed", "-o", "made.tex"],
        ["show", "seed", "-o", "made.pdf"],
        ["show", "seed", "-o", "made.json"],
        ["export", "seed", "-o", "made.html"],
        ["intervene", "seed", "--set", "0.weight[0,0]=1", "--html", "made.svg"],
        ["intervene", "seed", "--set", "0.weight[0,0]=1", "-o", "made.svg"],
    ],
)
def test_what_no_command_writes_is_refused(
    arguments: list[str], lang: str, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = call(*arguments, "--lang", lang)
    assert answer.code == 2
    assert "made." in answer.err
    assert list(tmp_path.iterdir()) == []


def test_forms_that_fit_are_written_as_asked(call: Any, tmp_path: Path) -> None:
    path = tmp_path / "made.txt"
    assert call("explain", "seed", "loss", "--format", "json", "-o", path).code == 0
    json.loads(path.read_text(encoding="utf-8"))
    assert call("verify", "seed", "-o", tmp_path / "made.log").code == 0
    assert call("export", "seed", "-o", tmp_path / "made.mjs", "--format", "json").code == 0


@pytest.mark.parametrize(
    "name", ["fifo", "fifo.pt2", "fifo.onnx", "fifo.py", "zero", "/dev/zero", "fifo.py:build"]
)
def test_a_model_that_never_ends_is_not_waited_for(
    name: str, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for fifo in ("fifo", "fifo.pt2", "fifo.onnx", "fifo.py"):
        os.mkfifo(fifo)
    (tmp_path / "zero").symlink_to("/dev/zero")
    answer = call("explain", name, "loss")
    assert answer.code == 2
    assert "unexpected" not in answer.err


NET = """
import sys
import torch
from torch import nn

torch.manual_seed(0)


class Leaves(nn.Module):
    def forward(self, x):
        sys.exit(7)


class Ids(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 3)

    def forward(self, ids):
        return self.table(ids)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 1)

    def forward(self, x):
        return self.fc(x)
"""


def test_a_network_that_leaves_is_one_sentence(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    answer = call("explain", "net.py:Leaves", "out[0]", "-i", "[1.0]")
    assert answer.code == 2
    assert "SystemExit" in answer.err
    assert "net.py:11" in answer.err


def test_the_refusal_that_is_told_is_the_one_that_helps(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")
    ids = call("explain", "net.py:Ids", "table.out[0,0]", "-i", "[99]")
    assert ids.code == 2
    assert "out of range" in ids.err
    assert "FloatTensor" not in ids.err
    wide = call("explain", "net.py:Wide", "fc.out[0,0]", "-i", "[[1, 2]]")
    assert wide.code == 2
    assert "shapes cannot be multiplied" in wide.err
    assert call("explain", "net.py:Ids", "table.out[0,0]", "-i", "[3]").code == 0
    assert call("explain", "net.py:Wide", "fc.out[0,0]", "-i", "[[1, 2, 3]]").code == 0


@pytest.mark.parametrize("lang", ["en", "es"])
def test_a_script_that_works_is_announced(
    lang: str, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    quiet = "import torch\nfrom torch import nn\n\ntorch.manual_seed(0)\nnet = nn.Linear(2, 1)\n"
    guarded = quiet + 'if __name__ == "__main__":\n    for _ in range(3):\n        print("trained")\n'
    loud = quiet + "for _ in range(3):\n    print('training')\n"
    for name, text, said in (("quiet", quiet, False), ("guarded", guarded, False), ("loud", loud, True)):
        Path(f"{name}.py").write_text(text, encoding="utf-8")
        for model in (f"{name}.py", f"{name}.py:net"):
            answer = call("explain", model, "weight[0,0]", "-i", "[[1, 2]]", "--lang", lang)
            assert answer.code == 0
            assert ("__main__" in answer.err) is said
            assert ("training" in answer.err) is said
            if said:
                assert "6" in answer.err.partition("training")[0]


def test_a_network_in_the_place_of_a_command_is_told_of_show(call: Any) -> None:
    for name in ("seed", "net.py:build", "net.py"):
        answer = call(name)
        assert answer.code == 2
        assert f"openheart show {name}" in answer.err
    assert "openheart show" not in call("sed").err
