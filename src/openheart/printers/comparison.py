"""A comparison of two runs as text and as data; `comparison_html` has it as HTML.

The changes that are printed stand in the order of the run under each phase, so that one sees how an edit
travels. A value that only moves numbers of another one (a view, a copy) is counted, not listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from openheart.i18n import language, message
from openheart.printers.comparison_parts import (
    Listing,
    cell,
    heading,
    listing,
    lists,
    loss_lines,
    notes,
    prediction_lines,
    remark,
    summary,
)
from openheart.printers.digits import DIGITS
from openheart.printers.json import number
from openheart.printers.layout import SHADES, bar, block, paragraph, render

if TYPE_CHECKING:
    from openheart.surgery.comparison import Change, Comparison

WIDTH = 100
NARROW = 72
"""Below this width a section's label stands on a line of its own."""
LABELS = 16
VERSION = 1
GAP = 2
BAR = 12
LONGEST = 27
"""A longer name is cut at its beginning where that leaves room for numbers."""
COLUMNS = ("at", "numbers", "before", "after", "difference", "relative")
LAYOUTS: tuple[tuple[str, ...], ...] = (
    COLUMNS,
    ("at", "numbers", "before", "after", "relative"),
    ("at", "before", "after", "relative"),
    ("before", "after", "relative"),
    ("relative",),
)
"""The columns, from a wide terminal's to a narrow one's: the first that leave the names room are taken."""


def text(
    comparison: Comparison,
    digits: int = DIGITS,
    lang: str | None = None,
    top: int | None = None,
    width: int | None = None,
    color: bool = False,
) -> str:
    """The comparison as text of at most `width` columns (100 unless given)."""
    return render(_lines(comparison, digits, language(lang), top, max(width or WIDTH, 20)), color)


@dataclass(frozen=True, slots=True)
class RichComparison:
    """A comparison that rich prints at the console's own width."""

    comparison: Comparison
    digits: int = DIGITS
    lang: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(options.max_width, WIDTH)
        yield from _lines(self.comparison, self.digits, language(self.lang), None, width)


def rich_comparison(comparison: Comparison) -> RichComparison:
    """What rich prints for a comparison."""
    return RichComparison(comparison)


def comparison_dict(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain data for JSON; nothing in it depends on the language."""
    predictions = comparison.predictions
    return {
        "schema": "openheart.comparison",
        "version": VERSION,
        "same": comparison.same,
        "changed": [_change_dict(change) for change in comparison.changed],
        "unchanged": list(comparison.unchanged),
        "only_before": list(comparison.only_before),
        "only_after": list(comparison.only_after),
        "incomparable": [asdict(one) for one in comparison.incomparable],
        "unread": list(comparison.unread),
        "losses": [
            {name: plain(value) for name, value in asdict(loss).items()} for loss in comparison.losses
        ],
        "predictions": None
        if predictions is None
        else {
            "address": predictions.address,
            "classes": predictions.classes,
            "samples": [
                {name: plain(value) for name, value in asdict(each).items()} | {"changed": each.changed}
                for each in predictions.samples
            ],
        },
    }


def _change_dict(change: Change) -> dict[str, Any]:
    return {name: plain(value) for name, value in asdict(change).items()}


def plain(value: Any) -> Any:
    """A field as JSON can say it."""
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, str) else number(value)


def _lines(comparison: Comparison, digits: int, lang: str, top: int | None, width: int) -> Iterator[Text]:
    said = summary(comparison, lang)
    yield from paragraph(
        Text("   ").join(Text(f"{mark} {sentence}", SHADES[shade]) for shade, mark, sentence in said), width
    )
    wide = width >= NARROW
    inner = width - LABELS if wide else width - 2
    labels = LABELS if wide else None
    blocks: list[tuple[str, list[str]]] = []
    losses = [loss for loss in comparison.losses if loss.difference != 0]
    if losses:
        blocks.append((message("compare.loss", lang), loss_lines(comparison, digits, lang)))
    predicted = prediction_lines(comparison, digits, lang)
    if predicted:
        blocks.append((message("compare.predictions", lang), predicted))
    for label, sentences in blocks:
        yield Text()
        yield from block(label, [line for s in sentences for line in paragraph(Text(s), inner)], labels)
    found = listing(comparison, top)
    if found.rows:
        yield Text()
        yield from _table(found, digits, lang, width)
        if found.more:
            yield Text(message("list.more", lang, count=found.more), SHADES["faint"])
    for label, items in lists(comparison, lang):
        yield Text()
        yield from block(label, [line for item in items for line in paragraph(Text(item), inner)], labels)
    added = notes(comparison, found, lang)
    if added:
        yield Text()
        for note in added:
            yield from paragraph(Text(note, SHADES["faint"]), width)


def _table(found: Listing, digits: int, lang: str, width: int) -> Iterator[Text]:
    changes = [row.change for row in found.rows]
    remarks = [remark(row, lang)[0] for row in found.rows]
    longest = max(len(change.name) for change in changes) + 2
    bars = BAR if width >= 80 else BAR // 2
    side = max(bars, *map(len, remarks))
    for columns in LAYOUTS:
        heads = [message(f"compare.{column}", lang) for column in columns]
        cells = [[cell(column, change, digits) for column in columns] for change in changes]
        widths = [max(len(head), *(len(c[n]) for c in cells)) for n, head in enumerate(heads)]
        label = width - sum(widths) - GAP * (len(widths) + 1) - side
        if label >= min(longest, LONGEST):
            break
    if label < min(longest, 14):  # too narrow for the bars
        label, side = label + side + GAP, 0
    label = max(8, min(label, longest))
    head = message("compare.value", lang)[:label].ljust(label)
    heads_line = "".join(" " * GAP + _placed(c, h, w) for c, h, w in zip(columns, heads, widths, strict=True))
    yield Text(head + heads_line, SHADES["faint"])
    several = len({change.step for change in changes}) > 1
    at = 0
    for (step, phase), rows in found.phases:
        yield Text(heading(step, phase, several, lang), SHADES["label"])
        for row in rows:
            line = Text.assemble(
                "  ", (_short(row.change.name, label - 2).ljust(label - 2), SHADES["address"])
            )
            for n, column in enumerate(columns):
                written = _placed(column, cells[at][n], widths[n])
                line.append(" " * GAP + written, _shade(column))
            if side:
                words, shade = remark(row, lang)
                line.append(" " * GAP)
                line.append_text(Text(words, SHADES[shade]) if words else bar(row.share, bars))
            yield line
            at += 1


def _placed(column: str, written: str, width: int) -> str:
    return written.ljust(width) if column == "at" else written.rjust(width)


def _shade(column: str) -> str:
    return "bold" if column == "relative" else SHADES["faint"] if column in ("numbers", "at") else ""


def _short(name: str, width: int) -> str:
    """A name cut at its beginning: its end says what it is."""
    return name if len(name) <= width else "…" + name[len(name) - width + 1 :]
