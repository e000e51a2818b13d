"""The command line in this process (quick) and in one of its own (real), and a network of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from openheart.cli import run
from openheart.i18n import set_language

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 5)
        self.fc2 = nn.Linear(5, 4)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 3)

    def forward(self, input_ids, scale=None):
        found = self.table(input_ids).sum(1)
        return found if scale is None else found * scale


class Picture(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return self.conv(x)


def build():
    print("building, said on stdout")
    return Net()


def needs(width):
    return nn.Linear(width, 1)


def broken():
    raise RuntimeError("the disk is on fire")


def number():
    return 42


class Raises(nn.Module):
    def forward(self, x):
        return x.no_such_method()


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 1)

    def forward(self, x):
        self.fc(x)
        return "a word"


ready = nn.Linear(3, 2)


def my_loss(output, target):
    return (output - target).abs().sum()
"""


@dataclass(frozen=True)
class Answer:
    """What a command line said."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Iterator[Call]:
    """Runs a command line here; the language that it chose ends with the test."""

    def called(*arguments: str) -> Answer:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    yield called
    set_language(None)


@pytest.fixture(scope="session")
def process() -> Call:
    """Runs a command line in a process of its own, in `cwd`."""

    def called(*arguments: str, cwd: Path | None = None, **environment: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-c", "from openheart.cli import main; main()", *map(str, arguments)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            check=False,
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    return called


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with somebody's own network, inputs and weights, as the working directory."""
    (tmp_path / "net.py").write_text(NET, encoding="utf-8")
    (tmp_path / "only.py").write_text(
        "from torch import nn\n\ndef build():\n    return nn.Linear(3, 2)\n", encoding="utf-8"
    )
    (tmp_path / "typo.py").write_text("import torch\n\ndef build(:\n", encoding="utf-8")
    (tmp_path / "fails.py").write_text("import torch\n\nvalue = 1 / 0\n", encoding="utf-8")
    generator = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", generator.normal(size=(2, 3)).astype(np.float32))
    np.save(tmp_path / "empty.npy", np.zeros((0, 3), dtype=np.float32))
    np.save(tmp_path / "nan.npy", np.array([[1.0, np.nan, 2.0]], dtype=np.float32))
    np.save(tmp_path / "wide.npy", np.ones((1, 9), dtype=np.float32))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    torch.save(torch.nn.Linear(3, 2), tmp_path / "whole.pt")
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "weights.pt")
    torch.save(torch.ones(1, 3), tmp_path / "tensor.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path
