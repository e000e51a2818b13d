"""What a comparison of two runs says, part by part, before any format: text and HTML lay out these."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby, islice, zip_longest
from typing import TYPE_CHECKING, Any

from openheart.i18n import decimal_mark, message
from openheart.printers.digits import MOST_DIGITS, shown

if TYPE_CHECKING:
    from openheart.surgery.comparison import Change, Comparison, Incomparable
    from openheart.surgery.predictions import Prediction

TOP = 20
"""So many changes are printed unless told otherwise."""
LISTED = 8
"""At most this many samples, names and reasons are listed; the rest are counted."""
PHASES = {"forward": 0, "loss": 1, "backward": 2, "optimizer": 3}


@dataclass(frozen=True, slots=True)
class Row:
    """One change as it is printed."""

    change: Change
    rounding: bool
    """Whether no number moved by more than the rounding bounds allow."""
    share: float
    """How long its bar is: effect ÷ (1 + effect), so that no single effect dwarfs the others."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The changes that are printed, in the order of the run, and how many are not."""

    rows: tuple[Row, ...]
    more: int
    copies: int

    @property
    def phases(self) -> list[tuple[tuple[int, str], list[Row]]]:
        """The rows of each phase of each training step."""
        return [
            (key, list(rows)) for key, rows in groupby(self.rows, lambda r: (r.change.step, r.change.phase))
        ]


def listing(comparison: Comparison, top: int | None) -> Listing:
    """Chooses `top` changes, from each phase in turn: optimizers' squares would crowd out all else.

    In a phase: the largest ones with a name of their own, then the largest of what is between. What only
    copies or views the numbers of another value is left out.
    """
    limit = top if top is not None else comparison.top if comparison.top is not None else TOP
    before = comparison.before
    own = {c.name for c in comparison.changed if before.has_own_name(before.value(c.name))}
    told = {_numbers(change) for change in comparison.changed if change.name in own}
    between = (c for c in comparison.changed if c.name not in own and _numbers(c) not in told)
    worth = [c for c in comparison.changed if c.name in own]
    worth += [c for c in between if not comparison.copies(c.name)]
    queues = [[c for c in worth if c.phase == phase] for phase in PHASES]
    turns = (c for turn in zip_longest(*queues) for c in turn if c is not None)
    chosen = sorted(islice(turns, limit), key=lambda c: (c.step, PHASES[c.phase], c.position))
    rows = tuple(
        Row(
            c,
            comparison.within_rounding(c.name) == c.moved,
            c.relative / (1.0 + c.relative) if math.isfinite(c.relative) else 1.0,
        )
        for c in chosen
    )
    return Listing(rows, len(worth) - len(chosen), len(comparison.changed) - len(worth))


def _numbers(change: Change) -> tuple[Any, ...]:
    return change.moved, change.unmoved, repr(change.norm), repr(change.before), repr(change.after)


def summary(comparison: Comparison, lang: str) -> list[tuple[str, str, str]]:
    """What was found: verdict, mark, sentence."""
    moved, same = len(comparison.changed), len(comparison.unchanged)
    if comparison.same:
        key = "compare.same" if same else "compare.empty"
        return [("exact" if same else "opaque", "=" if same else "?", message(key, lang, count=same))]
    found = []
    if moved:
        found.append(("address", "≠", message("compare.moved", lang, count=moved)))
    found.append(("exact", "=", message("compare.unmoved", lang, count=same)))
    if comparison.incomparable:
        said = message("compare.incomparable", lang, count=len(comparison.incomparable))
        found.append(("opaque", "?", said))
    return found


def heading(step: int, phase: str, several: bool, lang: str) -> str:
    """A phase's heading, with its step where the run has several."""
    name = message(f"phase.{phase}", lang)
    return message("compare.step", lang, step=step, phase=name) if several else name


def cell(column: str, change: Change, digits: int) -> str:
    """What a column says of a change."""
    if column == "numbers":
        return f"{grouped(change.moved)}/{grouped(change.moved + change.unmoved)}"
    if column == "relative":
        size = change.relative
        return amount(size, 3 if not 10 <= size < math.inf else 1 if size < 1000 else 0)
    if column == "at":
        return "" if change.largest is None else change.largest.removeprefix(change.name)
    if column == "difference":
        return amount(change.difference, digits)
    before, after = pair(change.before, change.after, digits)
    return before if column == "before" else after


def remark(row: Row, lang: str) -> tuple[str, str]:
    """What a row says in the place of its bar, and its shade; nothing where the bar says it."""
    change = row.change
    if change.became_nan:
        return message("compare.became_nan", lang, count=change.became_nan), "disagrees"
    if change.were_nan:
        return message("compare.were_nan", lang, count=change.were_nan), "disagrees"
    if change.dtypes[0] != change.dtypes[1]:
        return " → ".join(change.dtypes), "opaque"
    if row.rounding:
        return message("compare.rounding", lang), "within rounding"
    return "", ""


def pair(before: Any, after: Any, digits: int) -> tuple[str, str]:
    """Two numbers with as many decimals as tell them apart."""
    if before is None or after is None:
        return "", ""
    both = amount(before, digits), amount(after, digits)
    for more in range(digits + 1, MOST_DIGITS + 1):
        if both[0] != both[1] or before == after:
            break
        both = amount(before, more), amount(after, more)
    return both


def amount(value: Any, digits: int) -> str:
    """A number as it is printed; a zero that kept its sign keeps it here too."""
    if value is None:
        return ""
    written = shown(value, digits).text(decimal_mark())
    if isinstance(value, float) and value == 0 and math.copysign(1.0, value) < 0:
        return "−0"
    return written


def grouped(count: int) -> str:
    """A count, its thousands set apart: 38 597 376."""
    return f"{count:,}".replace(",", "\u202f")


def notes(comparison: Comparison, found: Listing, lang: str) -> list[str]:
    """What there is to add below the table."""
    said = [message("compare.note.effect", lang)] if found.rows else []
    if any(row.rounding for row in found.rows):
        said.append(message("compare.note.rounding", lang))
    if any(row.change.nan for row in found.rows):
        said.append(message("compare.note.nan", lang))
    if any(row.change.dtypes[0] != row.change.dtypes[1] for row in found.rows):
        said.append(message("compare.note.dtype", lang))
    if found.copies:
        said.append(message("compare.note.copies", lang, count=found.copies))
    if comparison.unread:
        said.append(message("compare.note.unread", lang, count=len(comparison.unread)))
    return said


def prediction_line(prediction: Prediction, digits: int, lang: str) -> str:
    """One sample whose class changed."""
    sample = ",".join(map(str, prediction.sample))
    unknown = message("compare.no_class", lang)
    return message(
        "compare.class",
        lang,
        sample=f"[{sample}]" if sample else "[]",
        before=unknown if prediction.before is None else prediction.before,
        after=unknown if prediction.after is None else prediction.after,
        margin_before=amount(prediction.margin_before, digits),
        margin_after=amount(prediction.margin_after, digits),
    )


def prediction_lines(comparison: Comparison, digits: int, lang: str) -> list[str]:
    """How many samples changed class, which, and how narrowly; nothing without classes."""
    found = comparison.predictions
    if found is None or all(each.moved == 0 for each in found.samples):
        return []
    said = [
        message("compare.classes", lang, count=len(found.changed), samples=len(found.samples))
        if found.changed
        else message("compare.classes.none", lang, count=len(found.samples))
    ]
    said += [prediction_line(each, digits, lang) for each in found.changed[:LISTED]]
    if len(found.changed) > LISTED:
        said.append(message("list.more", lang, count=len(found.changed) - LISTED))
    closest = found.closest
    if closest is not None and not found.changed:
        before, after = pair(closest.margin_before, closest.margin_after, digits)
        where = "[" + ",".join(map(str, closest.sample)) + "]"
        said.append(message("compare.closest", lang, sample=where, before=before, after=after))
    return said


def reason(one: Incomparable, lang: str) -> str:
    """Why two values of one name cannot be compared."""
    return message(f"compare.reason.{one.reason}", lang, name=one.name, before=one.before, after=one.after)


def lists(comparison: Comparison, lang: str) -> list[tuple[str, list[str]]]:
    """The names that stand outside of the table, under their headings."""
    found = [
        (
            message("compare.incomparable.label", lang),
            [reason(one, lang) for one in comparison.incomparable],
        ),
        (message("compare.only_before", lang), list(comparison.only_before)),
        (message("compare.only_after", lang), list(comparison.only_after)),
    ]
    made = []
    for label, items in found:
        rest = len(items) - LISTED
        after = [message("list.more", lang, count=rest)] if rest > 0 else []
        if items:
            made.append((label, items[:LISTED] + after))
    return made


def loss_lines(comparison: Comparison, digits: int, lang: str) -> list[str]:
    """The losses that moved, the last ones of a long run."""
    said = []
    moved = [loss for loss in comparison.losses if loss.difference != 0]
    for loss in moved[-LISTED:]:
        before, after = pair(loss.before, loss.after, digits)
        moved_by = amount(loss.difference, digits)
        key = "compare.loss.line" if len(comparison.losses) == 1 else "compare.loss.step"
        said.append(message(key, lang, name=loss.address, before=before, after=after, difference=moved_by))
    return said
