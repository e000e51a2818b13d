"""An explanation as an HTML fragment that needs nothing else: no script, no font, no file, no network.

Formulas are MathML, which browsers draw by themselves. A number with an address carries it as `title` and
`data-address`. A long sum is one `<math>` a term, so that it wraps on a narrow screen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from openheart.formula.expr import Scalar
from openheart.i18n import message
from openheart.printers import parts
from openheart.printers.css import style_tag
from openheart.printers.digits import DIGITS, Shown, even, shown
from openheart.printers.mathml import mathml
from openheart.printers.notation import Box, Mark, Row, Style
from openheart.printers.parts import Equation, style_for

if TYPE_CHECKING:
    from openheart.explain import Explanation
    from openheart.update import Update

SHADES = {"exact": "oh-good", "within rounding": "oh-good", "disagrees": "oh-bad", "opaque": "oh-warn"}
SHADES |= dict.fromkeys(("unbounded", "not checked", "nonfinite"), "oh-warn") | {"faint": "", "correct": ""}


def explanation_html(
    explanation: Explanation, digits: int = DIGITS, lang: str | None = None, *, styled: bool = True
) -> str:
    """The fragment; without `styled` the page around it has the style sheet already."""
    style = style_for(digits, lang, flat=False)
    return (style_tag() if styled else "") + _article(explanation, style)


def _article(explanation: Explanation, style: Style) -> str:
    lang = style.lang
    sections = "".join(
        _part(message(f"section.{key}", lang), body) for key, body in _sections(explanation, style)
    )
    inside = "".join(_article(child, style) for child in explanation.inputs)
    if inside:
        inside = f"<details open><summary>{_word('section.inputs', lang)}</summary>{inside}</details>"
    address = escape(explanation.address, quote=True)
    return (
        f'<article class="oh oh-explanation" lang="{lang}" data-address="{address}">'
        f"{_head(explanation, style)}{sections}{inside}</article>"
    )


def _head(explanation: Explanation, style: Style) -> str:
    word, mark, why = parts.verdict(explanation, style.lang)
    shade = SHADES[parts.tone(explanation)]
    where = " · ".join(parts.origin(explanation, style.lang))
    return (
        f'<div class="oh-head"><h3>{_address(explanation.address)}<span class="oh-eq">=</span>'
        f"{value(explanation.value, style)}</h3>"
        f'<span class="oh-verdict {shade}" title="{escape(why, quote=True)}">{mark} {escape(word)}</span>'
        "</div>"
        f'<p class="oh-origin">{escape(where)}</p>'
    )


def _sections(explanation: Explanation, style: Style) -> Iterator[tuple[str, str]]:
    laws = parts.law(explanation, style)
    if laws:
        yield (
            "law",
            "".join(_line(e, style, named=n > 0) for n, e in enumerate(laws))
            + _arguments(explanation, style),
        )
        yield "numbers", "".join(_line(e, style) for e in parts.numbers(explanation, style))
    update = explanation.update
    if update is not None:
        rule = "".join(_line(e, style, named=n > 0) for n, e in enumerate(parts.law(update, style)))
        shown_at = "".join(_line(e, style) for e in parts.numbers(update, style))
        yield "rule", rule + _arguments(update, style) + shown_at
    taken = parts.steps(explanation, style)
    if taken:
        yield "steps", "".join(_line(e, style, checked=step) for e, step in taken)
    rows, more = parts.contributions(explanation)
    if rows:
        yield "contributions", _terms(rows, more, style)
    found = list(parts.sources(explanation).items())
    if found:
        yield "sources", _sources(found, style)
    yield "check", _check(explanation, style)
    said = parts.notes(explanation, style)
    if said:
        yield "notes", f'<div class="oh-notes">{"".join(f"<p>{escape(note)}</p>" for note in said)}</div>'


def _part(label: str, body: str) -> str:
    return f'<section class="oh-part"><h4>{escape(label)}</h4><div>{body}</div></section>'


def _word(key: str, lang: str) -> str:
    return escape(message(key, lang))


def _address(address: str) -> str:
    # A long address may break after a slash.
    return f'<span class="oh-address">{escape(address).replace("/", "/<wbr>")}</span>'


def value(number: Scalar, style: Style, address: str | None = None, written: Shown | None = None) -> str:
    """A number outside of a formula, `written` so where others stand beside it.

    Its full digits are its title, or its address is.
    """
    text = (written or shown(number, style.digits)).text(style.decimal)
    title = repr(number) if address is None else address
    slot = f' data-address="{escape(address, quote=True)}"' if address is not None else ""
    return f'<span class="oh-number" title="{escape(title, quote=True)}"{slot}>{escape(text)}</span>'


def _line(e: Equation, style: Style, *, named: bool = False, checked: Explanation | None = None) -> str:
    terms = list(_broken([e.left, *e.tail], style))
    drawn = "\u200b".join(
        f'<math displaystyle="true">{"".join(mathml(b, style) for b in term)}</math>' for term in terms
    )
    end = ""
    if checked is not None:
        word, mark, _ = parts.verdict(checked, style.lang)
        title = escape(word, quote=True)
        end = f' <span class="oh-mark {SHADES[parts.tone(checked)]}" title="{title}">{mark}</span>'
    return f'<div class="oh-line {"oh-named" if named else "oh-sum"}">{drawn}{end}</div>'


def _broken(boxes: Sequence[Box], style: Style) -> Iterator[list[Box]]:
    """A line's boxes in groups, each starting with its sign: where the line may wrap."""
    group: list[Box] = []
    for item in parts.flattened(boxes, style):
        starts = isinstance(item, Mark) and (
            item.kind == "relation" or (item.kind == "infix" and item.glyph in "+−")
        )
        if starts and group:
            yield group
            group = []
        group.append(item)
    yield group


def _arguments(explanation: Explanation | Update, style: Style) -> str:
    items = (
        f"<span><math>{mathml(Row((symbol, Mark('=', 'relation'))), style)}</math> {_address(address)}</span>"
        for symbol, address in parts.arguments(explanation)
    )
    made = "".join(items)
    return f'<div class="oh-args">{made}</div>' if made else ""


def _terms(rows: Sequence[parts.Contribution], more: int, style: Style) -> str:
    written = even([row.value for row in rows], style.digits)
    body = "".join(_term(row, number, style) for row, number in zip(rows, written, strict=True))
    after = f'<p class="oh-more">{escape(message("list.more", style.lang, count=more))}</p>' if more else ""
    return f'<table class="oh-terms"><tbody>{body}</tbody></table>{after}'


def _term(row: parts.Contribution, written: Shown, style: Style) -> str:
    names = (" · " if row.product else ", ").join(
        _address(label) if kind == "address" else escape(label) for label, kind in row.labels(style)
    )
    if not row.factors:
        names = f'<span class="oh-constant">{_word("kind.constant", style.lang)}</span>'
    sign = ' class="oh-minus"' if row.bar < 0 else ""
    number = value(row.value, style, written=written)
    return (
        f'<tr><td class="oh-name">{names}</td><td class="oh-number">{number}</td>'
        f'<td class="oh-share">{escape(parts.percent(row.share))}</td>'
        f'<td class="oh-bar"><i{sign} style="width:{100 * abs(row.bar):.1f}%"></i></td></tr>'
    )


def _sources(found: Sequence[tuple[str, Scalar]], style: Style) -> str:
    listed = found[: parts.SOURCES]
    written = even([v for _, v in listed], style.digits)
    pairs = zip(listed, written, strict=True)
    items = "".join(f"<li>{_address(a)}{value(v, style, a, number)}</li>" for (a, v), number in pairs)
    rest = len(found) - len(listed)
    after = f'<p class="oh-more">{escape(message("list.more", style.lang, count=rest))}</p>' if rest else ""
    widest = max(len(a) + len(number.text()) for (a, _), number in zip(listed, written, strict=True)) + 3
    return f'<ul class="oh-sources" style="--oh-column:{widest}ch">{items}</ul>{after}'


def _check(explanation: Explanation, style: Style) -> str:
    check = parts.check_numbers(explanation, style.digits)
    word, mark, why = parts.verdict(explanation, style.lang)
    shade = SHADES[parts.tone(explanation)]
    said = f'<p class="oh-why"><b class="{shade}">{mark} {escape(word)}</b> — {escape(why)}</p>'
    if check.float64 is None or mark == "·":
        return said
    named = (
        ("check.recorded", check.recorded),
        ("check.float64", check.float64),
        ("check.difference", check.difference),
        ("check.bound", check.bound),
        ("check.digits", check.digits),
    )
    items = "".join(
        f"<div><dt>{_word(key, style.lang)}</dt><dd>{escape(number.text(style.decimal))}</dd></div>"
        for key, number in named
        if number is not None
    )
    return f'{said}<dl class="oh-check">{items}</dl>'
