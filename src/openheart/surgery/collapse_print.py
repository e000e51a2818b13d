"""A collapse as text, HTML, LaTeX and data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Any

from rich.text import Text

from openheart.i18n import language, message
from openheart.printers.css import style_tag
from openheart.printers.glyphs import SUBSCRIPTS
from openheart.printers.html import SHADES as HTML_SHADES
from openheart.printers.html import _line
from openheart.printers.json import number
from openheart.printers.layout import SHADES, block, render, ruled
from openheart.printers.parts import VERDICTS, style_for
from openheart.surgery.affine_print import (
    MARKS,
    STYLE,
    drawn,
    equation_latex,
    equation_text,
    figures,
    html_matrix,
    html_table,
    latex_matrix,
    matrix_lines,
    more_rows,
    proof_rows,
    shape_text,
    table_lines,
)

if TYPE_CHECKING:
    from openheart.formula.instance import Line
    from openheart.surgery.collapse import Collapse

WIDTH = 100
LABELS = 12
PROOF = 8
"""At most this many outputs are printed side by side."""
WORKED = 8
"""Every entry is worked out where there are no more than this; else the first of W and of b."""
VERSION = 1


def text(found: Collapse, digits: int = 4, lang: str | None = None) -> str:
    """The map, how its entries are made, and the proof."""
    return render(list(_lines(found, digits, language(lang))))


def _lines(found: Collapse, digits: int, lang: str) -> Iterator[Text]:
    title = Text(message("collapse.title", lang, first=found.first, last=found.last))
    shapes = f"{shape_text(found.in_shape)} → {shape_text(found.out_shape)}"
    yield from ruled(title, Text(shapes, SHADES["faint"]), WIDTH)
    yield Text()
    yield from block("W", _weight_lines(found, digits, lang), LABELS)
    yield from block("b", matrix_lines(found.bias, digits), LABELS)
    for n, step in enumerate(found.steps if len(found.steps) > 1 else (), 1):
        sub = _sub(n)
        yield Text()
        body = [Text(f"{step.kind}  {shape_text(step.in_shape)} → {shape_text(step.out_shape)}")]
        yield from block(step.path, body, LABELS)
        yield from block(f"  W{sub}", matrix_lines(step.weight, digits), LABELS)
        yield from block(f"  b{sub}", matrix_lines(step.bias, digits), LABELS)
    worked = list(worked_lines(found))
    if worked:
        yield Text()
        made = [Text(said) for line in worked for said in _wrapped(equation_text(line, digits, lang))]
        yield from block(message("collapse.entries", lang), made, LABELS)
    yield Text()
    body = [Text(sample_words(found, lang), SHADES["faint"]), *_proof_lines(found, digits, lang)]
    yield from block(message("collapse.proof", lang), body, LABELS)
    yield Text()
    shade = SHADES[found.verdict if found.verdict == "disagrees" else "exact"]
    yield Text(f"{MARKS[found.verdict]} {verdict_words(found, lang)}", shade)
    yield Text(f"  {worst_words(found, lang)}", SHADES["faint"])
    if found.dense:
        yield Text(f"  {rounding_words(found, lang)}", SHADES["faint"])


def _sub(n: int) -> str:
    return "".join(SUBSCRIPTS[c] for c in str(n))


def _wrapped(said: str) -> list[str]:
    """A long line broken before its signs."""
    width = WIDTH - LABELS
    if len(said) <= width:
        return [said]
    lines, line = [], ""
    for word in said.replace(" + ", "\n+ ").replace(" = ", "\n= ").replace(" ≈ ", "\n≈ ").split("\n"):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = "    " + word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _weight_lines(found: Collapse, digits: int, lang: str) -> list[Text]:
    if found.dense:
        return matrix_lines(found.weight, digits)
    rows, columns = math.prod(found.out_shape), math.prod(found.in_shape)
    return [Text(message("collapse.not_laid", lang, rows=rows, columns=columns))]


def worked_lines(found: Collapse) -> Iterator[Line]:
    """The entries that are worked out: all of a small map, else W's first and b's first."""
    if len(found.steps) < 2:
        return
    rows, columns = found.weight.shape
    every = rows * (columns + 1) <= WORKED and len(found.steps) == 2
    for i in range(rows if every else 1):
        for j in range(columns if every else 1):
            yield from found.entry(i, j)
        yield from found.entry(i)


def heads(lang: str) -> list[str]:
    """The heads of a proof's columns."""
    keys = ("collapse.output", "collapse.stack", "collapse.composed", "collapse.difference", "collapse.bound")
    return [*(message(key, lang) for key in keys), ""]


def _proof_lines(found: Collapse, digits: int, lang: str) -> Iterator[Text]:
    yield from table_lines(heads(lang), proof_rows(found.proof.rows(PROOF), digits))
    rest = found.proof.recorded.numel() - PROOF
    if rest > 0:
        yield Text(more_rows(rest, lang), SHADES["faint"])


def sample_words(found: Collapse, lang: str) -> str:
    """Where the proof's sample comes from."""
    count = found.proof.recorded.shape[0]
    if found.proof.seed is None:
        return message("collapse.sample.given", lang, count=count)
    return message("collapse.sample.drawn", lang, count=count, seed=found.proof.seed)


def verdict_words(found: Collapse, lang: str) -> str:
    """The verdict in a sentence."""
    return message(f"collapse.verdict.{VERDICTS[found.verdict][0].rpartition('.')[2]}", lang)


def worst_words(found: Collapse, lang: str) -> str:
    """The largest difference of the proof, and its bound."""
    difference = found.proof.difference
    if not difference.numel():
        return message("collapse.worst", lang, difference="0", bound="0")
    place = int(difference.argmax())
    bound = float(found.proof.bound.reshape(-1)[place])
    return message(
        "collapse.worst", lang, difference=figures(float(difference.max()), 1), bound=figures(bound, 1)
    )


def rounding_words(found: Collapse, lang: str) -> str:
    """How far W and b may lie from the exact ones."""
    worst = max(float(a.max()) if a.numel() else 0.0 for a in (found.weight_bound, found.bias_bound))
    return message("collapse.rounding", lang, bound=figures(worst, 1))


def html(found: Collapse, digits: int = 4, lang: str | None = None) -> str:
    """The same as an HTML fragment."""
    spoken = language(lang)
    style = style_for(digits, spoken, flat=False)

    def part(label: str, body: str) -> str:
        return f'<section class="oh-part"><h4>{escape(label)}</h4><div>{body}</div></section>'

    weight = (
        html_matrix(found.weight, digits)
        if found.dense
        else f"<p>{escape(_weight_lines(found, digits, spoken)[0].plain)}</p>"
    )
    sections = part("W", weight) + part("b", html_matrix(found.bias, digits))
    for n, step in enumerate(found.steps if len(found.steps) > 1 else (), 1):
        shapes = f"{step.kind} {shape_text(step.in_shape)} → {shape_text(step.out_shape)}"
        body = f'<p class="oh-more">{escape(shapes)}</p>'
        named = ((f"W{_sub(n)}", step.weight), (f"b{_sub(n)}", step.bias))
        maps = "".join(f"<div><span>{name} =</span>{html_matrix(each, digits)}</div>" for name, each in named)
        body += f'<div class="oh-maps">{maps}</div>'
        sections += part(step.path, body)
    worked = list(worked_lines(found))
    if worked:
        sections += part(
            message("collapse.entries", spoken), "".join(_line(drawn(line, style), style) for line in worked)
        )
    rest = found.proof.recorded.numel() - PROOF
    more = f'<p class="oh-more">{escape(more_rows(rest, spoken))}</p>' if rest > 0 else ""
    table = html_table(heads(spoken), proof_rows(found.proof.rows(PROOF), digits))
    said = f'<p class="oh-more">{escape(sample_words(found, spoken))}</p>'
    sections += part(message("collapse.proof", spoken), said + table + more)
    shade = HTML_SHADES[found.verdict]
    word = message(VERDICTS[found.verdict][0], spoken)
    why = escape(verdict_words(found, spoken), quote=True)
    title = escape(message("collapse.title", spoken, first=found.first, last=found.last))
    shapes = f"{shape_text(found.in_shape)} → {shape_text(found.out_shape)}"
    said_last = [verdict_words(found, spoken), worst_words(found, spoken)]
    said_last += [rounding_words(found, spoken)] if found.dense else []
    foot = "".join(f"<p>{escape(each)}</p>" for each in said_last)
    return (
        f'{style_tag()}{STYLE}<article class="oh oh-affine" lang="{spoken}">'
        f'<div class="oh-head"><h3>{title}</h3>'
        f'<span class="oh-verdict {shade}" title="{why}">{MARKS[found.verdict]} {escape(word)}</span></div>'
        f'<p class="oh-origin">{escape(shapes)}</p>{sections}<div class="oh-notes">{foot}</div></article>'
    )


def latex(found: Collapse, digits: int = 4, lang: str | None = None) -> str:
    """The map as a displayed equation, the product of its steps, and the entries that are worked out."""
    weight, bias = (latex_matrix(part, digits, lang) for part in (found.weight, found.bias))
    lines = [f"y = W x + b, \\quad W = {weight}, \\quad b = {bias}"]
    if len(found.steps) > 1:
        names = " ".join(f"W_{{{n}}}" for n in range(len(found.steps), 0, -1))
        product = " ".join(latex_matrix(s.weight, digits, lang) for s in reversed(found.steps))
        lines.append(f"W = {names} = {product}")
        lines += [equation_latex(line, digits, lang) for line in worked_lines(found)]
    return "\n".join(f"\\[ {line} \\]" for line in lines)


def to_dict(found: Collapse) -> dict[str, Any]:
    """Plain data: matrices as nested lists, W null where it is not laid out."""
    proof = found.proof
    return {
        "schema": "openheart.collapse",
        "version": VERSION,
        "first": found.first,
        "last": found.last,
        "in_shape": list(found.in_shape),
        "out_shape": list(found.out_shape),
        "weight": _lists(found.weight) if found.dense else None,
        "bias": _lists(found.bias),
        "verdict": found.verdict,
        "bound": number(found.bound),
        "steps": [
            {
                "module": step.path,
                "kind": step.kind,
                "in_shape": list(step.in_shape),
                "out_shape": list(step.out_shape),
                "weight": _lists(step.weight),
                "bias": _lists(step.bias),
            }
            for step in found.steps
        ],
        "proof": {
            "seed": proof.seed,
            "sample": _lists(proof.sample),
            "output": proof.name,
            **{
                name: _lists(getattr(proof, name)) for name in ("recorded", "composed", "difference", "bound")
            },
            "exact": proof.exact.tolist(),
        },
    }


def _lists(tensor: Any) -> Any:
    def said(part: Any) -> Any:
        return [said(each) for each in part] if isinstance(part, list) else number(part)

    return said(tensor.tolist())
