"""What is shown while an audit goes on, that nothing is left of it, and that little is compiled at first."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import openheart as oh
from openheart import progress
from openheart.formula import loops


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def watched(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """stderr as a terminal without patience; called in the test itself, since pytest sets stderr anew."""
    made = Terminal()
    monkeypatch.setattr(sys, "stderr", made)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    return made


def run() -> oh.Recording:
    net = torch.nn.Sequential(torch.nn.Linear(200, 190), torch.nn.GELU())
    return oh.record(net, torch.randn(230, 200))


def test_an_audit_tells_a_terminal_what_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch)
    run().verify()
    assert "checking" in terminal.getvalue()
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")  # the line is cleared


@pytest.mark.skipif(not loops.available(), reason="Numba is not installed")
def test_compiling_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    terminal = watched(monkeypatch)
    monkeypatch.setattr(loops, "PAYS", 0)
    monkeypatch.setenv("OPENHEART_CACHE", str(tmp_path))
    for known in (loops._folder, loops._known, loops.compiled):
        known.cache_clear()
    try:
        told: list[str] = []
        rec = run()
        rec.verify(progress=lambda _done, _whole, at_hand: told.append(at_hand))
        assert "compiling" in told
        assert told.count("compiling") == len(list(tmp_path.glob("*/law_*.py")))
        loops.compiled.cache_clear()
        rec.verify()
        assert "compiling laws" not in terminal.getvalue(), "what is compiled already is not said"
    finally:
        for known in (loops._folder, loops._known, loops.compiled):
            known.cache_clear()


def test_nothing_is_shown_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    run().verify()
    assert capsys.readouterr().err == ""


def test_false_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch)
    run().verify(progress=False)
    assert terminal.getvalue() == ""


def test_an_audit_that_is_cancelled_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = watched(monkeypatch)
    rec = run()
    whole = rec.verify().to_dict()

    def stop(done: int, _whole: int, _at_hand: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rec.verify(progress=stop)

    def cut_short() -> None:
        with progress.counting("cli.progress.verifying") as report:
            report(1, 3, "addmm")
            stop(2, 3, "addmm")

    with pytest.raises(KeyboardInterrupt):
        cut_short()
    assert terminal.getvalue().rstrip().endswith("\x1b[2K")
    assert rec.verify().to_dict() == whole


FIRST = """
import openheart as oh
from openheart.patients import patient
subject = patient("digits-cnn")
model = subject.build()
with oh.recording(model) as rec:
    subject.loss()(model(*subject.inputs()), subject.target()).backward()
audit = rec.verify()
print(audit.ok, audit.scalars)
"""


@pytest.mark.skipif(not loops.available(), reason="Numba is not installed")
def test_the_first_audit_of_a_small_network_compiles_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST],
        env={**os.environ, "OPENHEART_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("True")
    assert not list(tmp_path.glob("*/law_*.py"))
    (worn,) = tmp_path.glob("*/worn.json")
    assert all(0 < n < loops.PAYS for n in json.loads(worn.read_text()).values())
