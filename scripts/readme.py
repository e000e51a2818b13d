"""Fill in what README.md and README.es.md say that the product prints.

python scripts/readme.py            write
python scripts/readme.py --check    exit with 1 when they say something else

How a kernel orders a sum is the machine's affair, so the last digits of a recorded number and whether it is
exact or within rounding may differ from machine to machine: `--check` does not look at those.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from pathlib import Path

import openheart as oh

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "en", "README.es.md": "es"}
PARTS = re.compile(r"<!-- example -->\n```python\n(.*?)```(.*?)<!-- output -->\n```\n.*?```\n", re.DOTALL)


CHECK = re.compile(r"^(check|comprobación)( +)✓ .*\n.*$", re.MULTILINE)


def steady(page: str) -> str:
    """The page without what the machine decides: the verdict of a number that agrees, and its last digits."""
    return CHECK.sub(r"\1\2✓", page)


def filled(page: str, lang: str) -> str:
    """The page with the output of its examples, as it is now; each goes on from the one before."""
    names: dict[str, object] = {}

    def run(found: re.Match[str]) -> str:
        code, between = found.groups()
        printed = io.StringIO()
        oh.set_language(lang)
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(code, "example.py", "exec"), names)
        finally:
            oh.set_language(None)
        lines = "\n".join(line.rstrip() for line in printed.getvalue().strip().splitlines())
        return f"<!-- example -->\n```python\n{code}```{between}<!-- output -->\n```\n{lines}\n```\n"

    made, count = PARTS.subn(run, page)
    assert count == 2, "the page has two examples, each with its output"
    return made


def main() -> int:
    """Write or check both pages."""
    stale = []
    for name, lang in PAGES.items():
        path = ROOT / name
        page = path.read_text(encoding="utf-8")
        made = filled(page, lang)
        if steady(made) != steady(page):
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(made, encoding="utf-8")
                print(f"wrote {name}")
    if "--check" in sys.argv and stale:
        print(f"{', '.join(stale)}: not what the product prints; run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
