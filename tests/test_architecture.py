"""The arrows of the architecture, and what `import openheart` may cost."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each of these costs from a tenth of a second to a second, and most runs need none of them.
HEAVY = (
    "transformers",
    "numba",
    "torch._dynamo",
    "sympy",
    "matplotlib",
    "sklearn",
    "scipy",
    "pandas",
    "torchlens",
)


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_arrows() -> None:
    linted = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))",
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


@pytest.mark.parametrize("module", ["openheart", "openheart.patients"])
def test_import_is_light(module: str) -> None:
    """What torch itself loads is torch's affair; openheart adds nothing heavy to it."""
    loaded = run_python(
        f"import sys, torch; before = set(sys.modules); import {module}; "
        f"print(*[name for name in {HEAVY!r} if name in sys.modules and name not in before])"
    )
    assert loaded == ""


def test_heavy_modules_stay_out() -> None:
    loaded = run_python(f"import sys, openheart; print(*[name for name in {HEAVY!r} if name in sys.modules])")
    assert loaded == ""


def test_typed_marker_ships() -> None:
    assert (ROOT / "src" / "openheart" / "py.typed").is_file()
