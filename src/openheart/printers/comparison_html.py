"""A comparison of two runs as an HTML fragment that needs nothing else: no script, no font, no file."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from openheart.i18n import language, message
from openheart.printers.comparison_parts import (
    Listing,
    Row,
    amount,
    cell,
    grouped,
    heading,
    listing,
    lists,
    loss_lines,
    notes,
    pair,
    prediction_lines,
    remark,
    summary,
)
from openheart.printers.css import style_tag
from openheart.printers.digits import DIGITS

if TYPE_CHECKING:
    from openheart.surgery.comparison import Comparison

SHADES = {
    "address": "",
    "exact": "oh-good",
    "within rounding": "oh-good",
    "disagrees": "oh-bad",
    "opaque": "oh-warn",
}


def comparison_html(
    comparison: Comparison,
    digits: int = DIGITS,
    lang: str | None = None,
    top: int | None = None,
    *,
    styled: bool = True,
) -> str:
    """The fragment; without `styled` the page around it has the sheets `fragment` and `comparison`."""
    spoken = language(lang)
    found = listing(comparison, top)
    head = "".join(
        f'<span class="oh-verdict {SHADES[shade]}">{mark} {escape(said)}</span>'
        for shade, mark, said in summary(comparison, spoken)
    )
    body = ""
    if any(loss.difference != 0 for loss in comparison.losses):
        body += _part(message("compare.loss", spoken), loss_lines(comparison, digits, spoken))
    predicted = prediction_lines(comparison, digits, spoken)
    if predicted:
        body += _part(message("compare.predictions", spoken), predicted)
    if found.rows:
        body += _table(found, digits, spoken)
    if found.more:
        body += f'<p class="oh-more">{escape(message("list.more", spoken, count=found.more))}</p>'
    for label, items in lists(comparison, spoken):
        body += _part(label, items)
    added = "".join(f"<p>{escape(note)}</p>" for note in notes(comparison, found, spoken))
    if added:
        body += f'<div class="oh-legend">{added}</div>'
    title = escape(message("compare.title", spoken), quote=True)
    sheets = style_tag("fragment", "comparison") if styled else ""
    return (
        f'{sheets}<article class="oh oh-comparison" lang="{spoken}" aria-label="{title}">'
        f'<div class="oh-head">{head}</div>{body}</article>'
    )


def _part(label: str, lines: list[str]) -> str:
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<section class="oh-part"><h4>{escape(label)}</h4><div class="oh-moves">{said}</div></section>'


def _table(found: Listing, digits: int, lang: str) -> str:
    keys = ("value", "numbers", "arrow", "difference", "relative")
    heads = "".join(f"<th>{escape(_head(key, lang))}</th>" for key in keys)
    several = len({row.change.step for row in found.rows}) > 1
    bodies = "".join(
        f'<tbody><tr class="oh-phase"><th colspan="6">{escape(heading(step, phase, several, lang))}</th></tr>'
        f"{''.join(_row(row, digits, lang) for row in rows)}</tbody>"
        for (step, phase), rows in found.phases
    )
    return (
        f'<div class="oh-scroll"><table class="oh-changes"><thead><tr>{heads}<th></th></tr></thead>'
        f"{bodies}</table></div>"
    )


def _head(key: str, lang: str) -> str:
    if key == "arrow":
        return f"{message('compare.before', lang)} → {message('compare.after', lang)}"
    return message(f"compare.{key}", lang)


def _row(row: Row, digits: int, lang: str) -> str:
    change = row.change
    before, after = pair(change.before, change.after, digits)
    numbers = (
        f'<span class="oh-before">{escape(before)}</span> → {escape(after)}'
        if change.largest is not None
        else ""
    )
    where = escape(change.largest or change.name, quote=True)
    words, shade = remark(row, lang)
    if words:
        said = f'<span class="oh-words {SHADES[shade]}">{escape(words)}</span>'
    else:
        said = f'<span class="oh-track"><i style="width:{100 * row.share:.1f}%"></i></span>'
    return (
        f'<tr class="oh-change" data-address="{where}"><td class="oh-name">'
        f'<span class="oh-address">{escape(change.name)}</span>'
        f'<span class="oh-at">{escape(cell("at", change, digits))}</span></td>'
        f'<td class="oh-count oh-faint">{grouped(change.moved)}/{grouped(change.moved + change.unmoved)}</td>'
        f'<td class="oh-numbers">{numbers}</td>'
        f'<td class="oh-difference">{escape(amount(change.difference, digits))}</td>'
        f'<td class="oh-effect">{escape(cell("relative", change, digits))}</td>'
        f'<td class="oh-bar">{said}</td></tr>'
    )
