"""Each benchmark runs and prints its table. What it measures is nobody's test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

NODE = pytest.mark.skipif(shutil.which("node") is None, reason="no Node on this machine")


@pytest.mark.parametrize(
    ("script", "options", "said"),
    [
        ("record.py", ("--models", "mlp", "--no-torchlens"), "bare dispatch mode"),
        ("explain.py", (), "conv 512×3×3"),
        ("verify.py", ("--models", "mlp"), "| hand "),
        ("pytorch_tests.py", (), "| op_db "),
        ("replay.py", ("--models", "mlp"), "forward hook, whole pass"),
        pytest.param("live_program.py", (), "÷ by hand", marks=NODE),
    ],
)
def test_a_quick_run(script: str, options: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), "--quick", *options],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line]
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)
    assert any(said in line for line in lines)


def test_every_benchmark_is_run_here() -> None:
    scripts = {"record.py", "explain.py", "verify.py", "pytorch_tests.py", "replay.py", "live_program.py"}
    assert {path.name for path in BENCHMARKS.glob("*.py")} == scripts


def test_the_table_of_audits_counts_what_the_command_counts() -> None:
    """The step alone: the digits are loaded before."""
    shown = subprocess.run(
        [sys.executable, str(BENCHMARKS / "verify.py"), "--patients", "digits-mlp"],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=True,
    )
    row = next(line for line in shown.stdout.splitlines() if line.startswith("| digits-mlp"))
    scalars = int(row.split("|")[3].replace(",", ""))
    asked = [sys.executable, "-m", "openheart", "verify", "digits-mlp", "--steps", "1", "--format", "json"]
    done = subprocess.run(asked, capture_output=True, encoding="utf-8", check=True)
    assert scalars == json.loads(done.stdout)["scalars"] < 50_000
