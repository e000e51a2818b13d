"""Write docs/COVERAGE.md from the rulebook: every operator that has a law, and what its law states.

python scripts/coverage.py            write the page
python scripts/coverage.py --check    exit with 1 when the page is not what the rulebook says
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

from openheart.rules import registry

PAGE = Path(__file__).parent.parent / "docs" / "COVERAGE.md"


def page() -> str:
    """The page's text."""
    rows: dict[str, dict[str, list[tuple[str, str, str]]]] = defaultdict(lambda: defaultdict(list))
    for (key, output), rule in sorted(
        registry.all_rules().items(), key=lambda row: (row[0][0], str(row[0][1]))
    ):
        namespace, name, overload = key.split(".", 2)
        shown = name if namespace == "aten" else f"{namespace}.{name}"
        rows[rule.source.rsplit(".py", 1)[0]][shown].append((overload, str(output), rule.source))
    overloads = {key for key, _ in registry.all_rules()}
    operators = {key.rsplit(".", 1)[0] for key in overloads}
    count = f"{len(overloads)} overloads of {len(operators)} operators have a law"
    lines = [
        "# What the rulebook covers",
        "",
        f"{count}; {len(registry.all_rules())} outputs in all. Made by `make docs`; do not edit by hand.",
        "",
        "A call of an operator that is not here is *opaque*: it is recorded, shown and counted as such.",
        "",
    ]
    for family in sorted(rows):
        lines += [f"## {family}", "", "| operator | overloads | outputs |", "|---|---|---|"]
        for name in sorted(rows[family]):
            found = rows[family][name]
            which = ", ".join(f"`{o}`" for o in sorted({o for o, _, _ in found}))
            outputs = ", ".join(sorted({o for _, o, _ in found}))
            lines.append(f"| `{name}` | {which} | {outputs} |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Write or check the page."""
    made = page()
    if "--check" in sys.argv:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == made
        if not same:
            print("docs/COVERAGE.md is not what the rulebook says: run `make docs`")
        return 0 if same else 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(made, encoding="utf-8")
    print(f"wrote {PAGE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
