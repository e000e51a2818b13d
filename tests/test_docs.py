"""The pages say what the product does: the README's example, the coverage, the two languages in step."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SECRET = re.compile(r"/(?:work|root|home)/|https?://(?!semver\.org)[^\s)\"']*(?:pypi|npmjs|pythonhosted)")


@pytest.mark.parametrize("script", ["readme.py", "coverage.py"])
def test_made_pages_are_fresh(script: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readmes_are_in_step() -> None:
    english, spanish = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.es.md"))

    def shape(page: str) -> tuple[int, ...]:
        return tuple(len(re.findall(mark, page, re.MULTILINE)) for mark in (r"^## ", r"^```", r"!\[", r"^\|"))

    assert shape(english) == shape(spanish)


def test_links_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_pages_name_no_machine_and_no_registry() -> None:
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.*"), *(ROOT / "benchmarks").glob("*.md")):
        if page.suffix in (".md", ".svg", ".json"):
            found = SECRET.search(page.read_text(encoding="utf-8"))
            assert found is None, f"{page.name}: {found.group(0) if found else ''}"
