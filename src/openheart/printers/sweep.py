"""A sweep as text, as an HTML fragment and as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from openheart.i18n import decimal_mark, language, message
from openheart.printers.css import style_tag
from openheart.printers.digits import DIGITS, shown
from openheart.printers.sweep_chart import chosen_lines, sweep_svg

if TYPE_CHECKING:
    from openheart.surgery.batching import Work
    from openheart.surgery.sweep import Sweep

__all__ = ["finite", "how_run", "sweep_dict", "sweep_html", "sweep_text"]

NARROW, WIDE = 350, 720


def sweep_text(sweep: Sweep, digits: int = DIGITS, lang: str | None = None, rows: int = 12) -> str:
    """A table of at most `rows` values, evenly taken, and the sentences under it."""
    spoken, mark = language(lang), decimal_mark()
    lines, more = chosen_lines(sweep)
    count = len(sweep.values)
    if count > rows > 1:
        places = sorted({round(k * (count - 1) / (rows - 1)) for k in range(rows)})
    else:
        places = list(range(count))
    values = sweep.values.tolist()
    table = [[sweep.address, *(name for name, _, _ in lines)]]
    table += [
        [shown(values[p], digits).text(mark), *(shown(n[p], digits).text(mark) for _, n, _ in lines)]
        for p in places
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    said = [
        "   ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in table
    ]
    said.insert(1, "   ".join("─" * width for width in widths))
    extra = [message("list.more", spoken, count=more)] if more else []
    return "\n".join([_head(sweep, digits, spoken), "", *said, *extra, "", *_notes(sweep, digits, spoken)])


def _head(sweep: Sweep, digits: int, lang: str) -> str:
    mark = decimal_mark()
    low, high = sweep.values.min().item(), sweep.values.max().item()
    said = message(
        "sweep.head",
        lang,
        address=sweep.address,
        count=len(sweep.values),
        low=shown(low, digits).text(mark),
        high=shown(high, digits).text(mark),
    )
    return said if sweep.kind == "set" else f"{said} · oh.{sweep.kind}"


def _notes(sweep: Sweep, digits: int, lang: str) -> Iterator[str]:
    """What there is to say: the recorded point, extremes, what does not depend on it, and how it was run."""
    mark = decimal_mark()
    old = sweep.recorded[sweep.address]
    if old.numel() == 1 and not old.dtype.is_complex:
        value = shown(old.reshape(-1)[0].item(), digits).text(mark)
        yield message("sweep.was", lang, address=sweep.address, value=value)
    values = sweep.values.tolist()
    constant = set(sweep.constant)
    lines, _ = chosen_lines(sweep)
    for name, numbers, _ in lines:
        finite_at = [p for p, number in enumerate(numbers) if math.isfinite(number)]
        if name.split("[", maxsplit=1)[0] in {c.split("[", maxsplit=1)[0] for c in constant}:
            continue
        if len(lines) == 1 and finite_at:
            best = min(finite_at, key=lambda p: numbers[p])
            worst = max(finite_at, key=lambda p: numbers[p])
            yield message(
                "sweep.extremes",
                lang,
                name=name,
                low=shown(numbers[best], digits).text(mark),
                at=shown(values[best], digits).text(mark),
                high=shown(numbers[worst], digits).text(mark),
                there=shown(values[worst], digits).text(mark),
            )
        if len(finite_at) < len(numbers):
            yield message("sweep.infinite", lang, name=name, count=len(numbers) - len(finite_at))
    for name in sweep.constant:
        yield message("sweep.constant", lang, name=name, address=sweep.address)
    yield from how_run(sweep.work, digits, lang, sweep.values.tolist())
    for note in sweep.work.notes:
        yield note.text(lang)


def how_run(work: Work, digits: int, lang: str, values: list[float] | None = None) -> Iterator[str]:
    """Whether the runs were made together, and how far that is from runs by themselves."""
    if not work.batched:
        yield message("sweep.exact", lang, count=work.runs)
        return
    yield message("sweep.batched", lang, calls=work.calls, count=work.runs)
    at = "" if values is None or work.held is None else shown(values[work.held], digits).text(decimal_mark())
    if not work.difference and not work.unequal:
        yield message("sweep.same", lang, at=at)
    else:
        difference = shown(work.difference, 1).text(decimal_mark())
        worst = shown(round(work.worst, 2), 2).text(decimal_mark())
        if not work.difference:
            yield message("sweep.held.same", lang, at=at, count=work.unequal, worst=worst)
            return
        yield message("sweep.held", lang, at=at, difference=difference, count=work.unequal, worst=worst)


def sweep_html(sweep: Sweep, digits: int = DIGITS, lang: str | None = None, *, styled: bool = True) -> str:
    """The fragment: the picture (one for wide screens, one for narrow ones) and the sentences under it."""
    spoken = language(lang)
    said = "".join(f"<p>{escape(note)}</p>" for note in _notes(sweep, digits, spoken))
    head = escape(_head(sweep, digits, spoken))
    sheets = style_tag("fragment", "sweep") if styled else ""
    return (
        f'{sheets}<article class="oh oh-sweep" lang="{spoken}"><p class="oh-origin">{head}</p>'
        f'<div class="oh-wide">{sweep_svg(sweep, digits, spoken, WIDE)}</div>'
        f'<div class="oh-narrow">{sweep_svg(sweep, digits, spoken, NARROW)}</div>'
        f'<div class="oh-said">{said}</div></article>'
    )


def sweep_dict(sweep: Sweep) -> dict[str, Any]:
    """Plain data: the address, the values, the curves, what was recorded, how it was run."""
    work = sweep.work
    return {
        "openheart": "sweep",
        "version": 1,
        "address": sweep.address,
        "edit": sweep.kind,
        "values": sweep.values.tolist(),
        "curves": {name: finite(numbers.tolist()) for name, numbers in sweep.curves.items()},
        "recorded": {name: finite(number.tolist()) for name, number in sweep.recorded.items()},
        "origin": sweep.origin,
        "constant": list(sweep.constant),
        "batched": sweep.batched,
        "calls": work.calls,
        "runs": work.runs,
        "one_by_one": dict(work.one_by_one),
        "held": work.held,
        "difference": finite(work.difference),
        "worst": finite(work.worst),
    }


def finite(item: Any) -> Any:
    """Numbers as JSON has them; the others as strings."""
    if isinstance(item, list):
        return [finite(part) for part in item]
    if isinstance(item, complex):
        return [finite(item.real), finite(item.imag)]
    if isinstance(item, float) and not math.isfinite(item):
        return "nan" if math.isnan(item) else "inf" if item > 0 else "-inf"
    return item
