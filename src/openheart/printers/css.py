"""The style sheets of fragments and pages, ready to be put into HTML."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path


@cache
def sheet(name: str) -> str:
    """A style sheet of this folder, without comments and needless spaces."""
    source = (Path(__file__).parent / f"{name}.css").read_text(encoding="utf-8")
    source = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)
    return re.sub(r"\s*([{};])\s*", r"\1", re.sub(r"\s+", " ", source)).strip()


def style_tag(*names: str) -> str:
    """The sheets as a `<style>` element: a fragment carries its own, a page of several carries it once."""
    return f"<style>{''.join(sheet(name) for name in names or ('fragment',))}</style>"
