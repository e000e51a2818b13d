"""Lines of rich `Text` laid out for a terminal: labelled blocks, flowing items, little bars."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from openheart.spelling import harmless

SHADES = {
    "": "",
    "figure": "bold",
    "constant": "",
    "address": "cyan",
    "operator": "dim",
    "relation": "dim",
    "fence": "dim",
    "index": "",
    "name": "",
    "word": "dim",
    "note": "italic",
    "label": "bold dim",
    "faint": "dim",
    "positive": "blue",
    "negative": "magenta",
    "exact": "bold green",
    "within rounding": "green",
    "disagrees": "bold red",
    "opaque": "bold yellow",
    "unbounded": "bold yellow",
    "not checked": "bold yellow",
    "nonfinite": "bold yellow",
    "correct": "",
}
"""The terminal's colours by role; all of them are readable on light and on dark."""

EIGHTHS = " ▏▎▍▌▋▊▉█"


def render(lines: Iterable[Text], color: bool = False) -> str:
    """The lines as one string, plain or with ANSI colours."""
    if not color:
        return harmless("\n".join(line.plain.rstrip() for line in lines))
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, color_system="standard", width=10_000, legacy_windows=False
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False)
    return out.getvalue().rstrip("\n")


def block(label: str, body: Sequence[Text], labels: int | None) -> Iterator[Text]:
    """A labelled block: the label in a column of `labels`, or above an indented body when that is None."""
    if labels is None:
        yield Text(label, SHADES["label"])
        yield from (Text.assemble("  ", line) for line in body)
        return
    for n, line in enumerate(body):
        yield Text.assemble((label.ljust(labels) if n == 0 else " " * labels, SHADES["label"]), line)


def ruled(left: Text, right: Text, width: int) -> Iterator[Text]:
    """A heading: `right` at the right edge where both fit, else below."""
    gap = width - cell_len(left.plain) - cell_len(right.plain)
    if gap >= 3:
        yield Text.assemble(left, " " * gap, right)
    else:
        yield from paragraph(left, width)
        yield from paragraph(right, width)


def flow(items: Sequence[Text], width: int, gap: int = 3) -> Iterator[Text]:
    """Items side by side, as many as fit on a line."""
    line = Text()
    for item in items:
        size = cell_len(item.plain)
        if line.plain and cell_len(line.plain) + gap + size > width:
            yield line
            line = Text()
        if line.plain:
            line.append(" " * gap)
        if size > width:
            *full, item = paragraph(item, width)
            yield from full
        line.append_text(item)
    if line.plain:
        yield line


def grid(items: Sequence[Text], width: int, gap: int = 3) -> Iterator[Text]:
    """Items in columns of one width."""
    column = max((cell_len(item.plain) for item in items), default=0)
    across = max(1, (width + gap) // (column + gap))
    for start in range(0, len(items), across):
        row = Text()
        for n, item in enumerate(items[start : start + across]):
            row.append(" " * (n * (column + gap) - cell_len(row.plain)))
            row.append_text(item)
        yield from [row] if cell_len(row.plain) <= width else paragraph(row, width)


def paragraph(text: Text, width: int) -> list[Text]:
    """Words wrapped to a width; a word longer than a line is cut."""
    console = Console(width=max(width, 1), file=io.StringIO(), legacy_windows=False)
    lines = text.wrap(console, max(width, 1))
    for line in lines:
        line.rstrip()
    return list(lines)


def bar(size: float, width: int) -> Text:
    """A bar of −1 to 1 times the width; its colour tells the sign."""
    eighths = round(abs(size) * width * 8)
    full, rest = divmod(eighths, 8)
    glyphs = "█" * full + (EIGHTHS[rest] if rest else "")
    return Text(glyphs, SHADES["positive" if size >= 0 else "negative"])
