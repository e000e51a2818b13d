"""Draw docs/architecture.svg from the imports as they are: a room a box, an arrow an import.

python scripts/architecture.py
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import grimp

PICTURE = Path(__file__).parent.parent / "docs" / "architecture.svg"
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 132, 40, 28, 58, 28
SMALL = {"errors", "i18n"}
"""Rooms that everybody may enter; their arrows would only hide the others."""


def rooms() -> dict[str, set[str]]:
    """Each room of the package, and the rooms that it imports when it is imported."""
    graph = grimp.build_graph("openheart", exclude_type_checking_imports=True)
    found: dict[str, set[str]] = defaultdict(set)
    for module in graph.modules:
        parts = module.split(".")
        if len(parts) < 2:
            continue
        found.setdefault(parts[1], set())
        for other in graph.find_modules_directly_imported_by(module):
            target = other.split(".")
            if len(target) > 1 and target[1] != parts[1]:
                found[parts[1]].add(target[1])
    return {room: targets - SMALL for room, targets in found.items() if room not in SMALL}


def levels(found: dict[str, set[str]]) -> list[list[str]]:
    """The rooms by height: a room stands above all that it imports (cycles through lazy imports cut)."""
    height: dict[str, int] = {}

    def of(room: str, above: frozenset[str]) -> int:
        if room not in height:
            below = [of(t, above | {room}) for t in sorted(found[room]) if t not in above]
            if above & found[room]:
                return 1 + max(below, default=-1)
            height[room] = 1 + max(below, default=-1)
        return height[room]

    for room in sorted(found):
        of(room, frozenset())
    rows: dict[int, list[str]] = defaultdict(list)
    for room, level in height.items():
        rows[level].append(room)
    return [sorted(rows[level]) for level in sorted(rows, reverse=True)]


def svg(found: dict[str, set[str]]) -> str:
    """The picture."""
    rows = levels(found)
    widest = max(len(row) for row in rows)
    width = 2 * MARGIN + widest * WIDTH + (widest - 1) * GAP_X
    height = 2 * MARGIN + len(rows) * HEIGHT + (len(rows) - 1) * GAP_Y
    place: dict[str, tuple[float, float]] = {}
    for r, row in enumerate(rows):
        start = (width - len(row) * WIDTH - (len(row) - 1) * GAP_X) / 2
        for n, room in enumerate(row):
            place[room] = start + n * (WIDTH + GAP_X), MARGIN + r * (HEIGHT + GAP_Y)
    style = (
        "text{font:14px ui-sans-serif,system-ui,sans-serif;text-anchor:middle;fill:#1d2433}"
        "rect{fill:#fff;stroke:#8d9ab0}path{fill:none;stroke:#8d9ab0;stroke-opacity:.6}"
        "@media(prefers-color-scheme:dark){text{fill:#e6ebf5}rect{fill:#1c2230;stroke:#5d6b85}}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
        f"<title>openheart: who imports whom</title><style>{style}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"',
        'orient="auto"><path d="M0 0 8 4 0 8" style="fill:#8d9ab0;stroke:none"/></marker></defs>',
    ]
    for room, targets in sorted(found.items()):
        x, y = place[room]
        for target in sorted(targets & place.keys()):
            u, v = place[target]
            if v <= y:
                continue
            middle = (y + HEIGHT + v) / 2
            parts.append(
                f'<path d="M{x + WIDTH / 2} {y + HEIGHT} C{x + WIDTH / 2} {middle} {u + WIDTH / 2} {middle} '
                f'{u + WIDTH / 2} {v - 2}" marker-end="url(#a)"/>'
            )
    for room, (x, y) in sorted(place.items()):
        parts.append(
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
            f'<text x="{x + WIDTH / 2}" y="{y + HEIGHT / 2 + 5}">{room}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(svg(rooms()), encoding="utf-8")
    print(f"wrote {PICTURE.name}")
