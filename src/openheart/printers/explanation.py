"""An explanation for the terminal: calm, coloured where colour is wanted, from 40 columns up.

The layout is made of rich `Text` lines, so that a pipe, `NO_COLOR` and a narrow window are rich's affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from openheart.formula.expr import Scalar
from openheart.i18n import message
from openheart.printers import parts
from openheart.printers.digits import DIGITS, even, shown
from openheart.printers.latex import latex as latex_of
from openheart.printers.layout import SHADES, bar, block, flow, grid, paragraph, render, ruled
from openheart.printers.mathml import mathml as mathml_of
from openheart.printers.notation import Mark, Style, figure
from openheart.printers.parts import Equation, style_for
from openheart.printers.text import Piece, pieces, wrap

if TYPE_CHECKING:
    from openheart.explain import Explanation
    from openheart.update import Update

WIDTH = 100
NARROW = 72
"""Below this width a section's label stands on a line of its own."""
LABELS = 16


def text(
    explanation: Explanation,
    digits: int = DIGITS,
    lang: str | None = None,
    width: int | None = None,
    color: bool = False,
) -> str:
    """The explanation as text of at most `width` columns (100 unless given), with ANSI colours on request."""
    style = style_for(digits, lang, flat=True)
    return render(_lines(explanation, style, max(width or WIDTH, 20)), color)


@dataclass(frozen=True, slots=True)
class RichExplanation:
    """An explanation that rich prints at the console's own width."""

    explanation: Explanation
    digits: int = DIGITS
    lang: str | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        style = style_for(self.digits, self.lang, flat=True)
        yield from _lines(self.explanation, style, min(options.max_width, WIDTH))


def rich_explanation(
    explanation: Explanation, digits: int = DIGITS, lang: str | None = None
) -> RichExplanation:
    """What rich prints for an explanation."""
    return RichExplanation(explanation, digits, lang)


def latex(explanation: Explanation, digits: int = DIGITS, lang: str | None = None) -> str:
    r"""The law and its instance as one LaTeX `aligned` block, for a display environment."""
    style = style_for(digits, lang, flat=False)
    rows = [_latex_row(e, style) for e in _equations(explanation, style)]
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def mathml(explanation: Explanation, digits: int = DIGITS, lang: str | None = None) -> str:
    """The law and its instance as one MathML table, one row a line."""
    style = style_for(digits, lang, flat=False)
    rows = []
    for e in _equations(explanation, style):
        left, *right = (mathml_of(b, style) for b in (e.left, *e.tail))
        rows.append(f"<mtr><mtd>{left}</mtd><mtd><mrow>{''.join(right)}</mrow></mtd></mtr>")
    xmlns = "http://www.w3.org/1998/Math/MathML"
    return f'<math xmlns="{xmlns}" display="block"><mtable class="oh-lines">{"".join(rows)}</mtable></math>'


def _equations(explanation: Explanation, style: Style) -> list[Equation]:
    found = [*parts.law(explanation, style), *parts.numbers(explanation, style)]
    return found or [_alone(explanation, style)]


def _alone(explanation: Explanation, style: Style) -> Equation:
    """A number that no law makes: its address and its value."""
    value = figure(explanation.value, style, explanation.address)
    return Equation(Mark(explanation.address, "address"), value)


LATEX_ROW = 72
"""A row with more printed characters than this is broken before a + of its sum."""
LATEX_NAME = 24
"""A longer address stands on a row of its own."""


def _latex_row(e: Equation, style: Style) -> str:
    left, used = latex_of(e.left, style), 0
    out = f"{left} &" if parts.length(e.left, style) <= LATEX_NAME else f"&{left} \\\\\n &\\quad "
    for item in parts.flattened(e.tail, style):
        drawn = latex_of(item, style)
        size = parts.length(item, style)
        breaks = isinstance(item, Mark) and item.kind in ("infix", "relation") and item.glyph != "·"
        if breaks and used + size > LATEX_ROW:
            out, used = f"{out} \\\\\n &\\quad ", 0
        out += drawn
        used += size
    return out


def _lines(explanation: Explanation, style: Style, width: int) -> Iterator[Text]:
    wide = width >= NARROW
    inner = width - LABELS if wide else width - 2
    yield from _heading(explanation, style, width)
    for key, body in _sections(explanation, style, inner):
        yield Text()
        yield from block(message(f"section.{key}", style.lang), body, LABELS if wide else None)
    for child in explanation.inputs:
        yield Text()
        indented = _lines(child, style, width - 4)
        yield from (Text.assemble(("  │ ", SHADES["faint"]), line) for line in indented)


def _heading(explanation: Explanation, style: Style, width: int) -> Iterator[Text]:
    value = shown(explanation.value, style.digits).text(style.decimal)
    left = Text.assemble(
        (explanation.address, SHADES["address"]), (" = ", SHADES["operator"]), (value, "bold")
    )
    right = Text(" · ".join(parts.origin(explanation, style.lang)), style=SHADES["faint"])
    yield from ruled(left, right, width)


def _sections(explanation: Explanation, style: Style, width: int) -> Iterator[tuple[str, list[Text]]]:
    laws = parts.law(explanation, style)
    if laws:
        yield "law", [*_law(laws, style, width), *_arguments(explanation, style, width)]
        yield "numbers", [t for e in parts.numbers(explanation, style) for t in _equation(e, style, width)]
    update = explanation.update
    if update is not None:
        lines = [t for e in parts.numbers(update, style) for t in _equation(e, style, width)]
        yield (
            "rule",
            [*_law(parts.law(update, style), style, width), *_arguments(update, style, width), *lines],
        )
    taken = parts.steps(explanation, style)
    if taken:
        yield "steps", [t for e, step in taken for t in _step(e, step, style, width)]
    rows, more = parts.contributions(explanation)
    if rows:
        yield "contributions", _contributions(rows, more, style, width)
    found = list(parts.sources(explanation).items())
    if found:
        yield "sources", _sources(found, style, width)
    yield "check", _check(explanation, style, width)
    said = parts.notes(explanation, style)
    if said:
        yield "notes", [line for note in said for line in paragraph(Text(note, SHADES["note"]), width)]


def _law(laws: Sequence[Equation], style: Style, width: int) -> Iterator[Text]:
    yield from _equation(laws[0], style, width)
    word = message("with", style.lang)
    for n, part in enumerate(laws[1:]):
        label = Text((word if n == 0 else "").ljust(len(word) + 1), SHADES["faint"])
        for m, line in enumerate(_equation(part, style, width - len(word) - 1)):
            yield Text.assemble(label if m == 0 else Text(" " * len(label)), line)


def _equation(e: Equation, style: Style, width: int) -> Iterator[Text]:
    run = list(pieces(e.row, style))
    hang = 4 if width > 30 else 2
    for n, line in enumerate(wrap(run, width, width - hang)):
        yield Text.assemble(" " * hang if n else "", *(_painted(p) for p in line))


def _step(e: Equation, step: Explanation, style: Style, width: int) -> Iterator[Text]:
    *lines, last = _equation(e, style, width - 2)
    yield from lines
    yield Text.assemble(last, " ", (parts.verdict(step, style.lang)[1], SHADES[parts.tone(step)]))


def _painted(piece: Piece) -> tuple[str, str]:
    if piece.figure is not None:
        known = piece.figure.address or piece.figure.name
        return piece.text, SHADES["figure" if known else "constant"]
    return piece.text, SHADES.get(piece.role, "")


def _arguments(explanation: Explanation | Update, style: Style, width: int) -> list[Text]:
    items = []
    for symbol, address in parts.arguments(explanation):
        name = "".join(p.text for p in pieces(symbol, style))
        items.append(Text.assemble((f"{name} = ", SHADES["faint"]), (address, SHADES["address"])))
    return list(flow(items, width))


def _contributions(rows: Sequence[parts.Contribution], more: int, style: Style, width: int) -> list[Text]:
    values = [n.text(style.decimal) for n in even([r.value for r in rows], style.digits)]
    names = [_factors(r, style) for r in rows]
    number, name = max(map(len, values)), max(len(n.plain) for n in names)
    bars = width - name - number - 12
    lines = []
    for row, value, factors in zip(rows, values, names, strict=True):
        share = Text(parts.percent(row.share).rjust(6), SHADES["faint"])
        aligned = Text(value.rjust(number), "bold")
        if bars >= 8:
            gap = Text(" " * (name - len(factors.plain) + 2))
            lines.append(Text.assemble(factors, gap, aligned, share, "  ", bar(row.bar, min(bars, 24))))
        else:
            lines += paragraph(factors, width)
            lines.append(
                Text.assemble("  ", aligned, share, "  ", bar(row.bar, max(4, min(24, width - number - 12))))
            )
    if more:
        lines.append(Text(message("list.more", style.lang, count=more), SHADES["faint"]))
    return lines


def _factors(row: parts.Contribution, style: Style) -> Text:
    made = Text(message("kind.constant", style.lang) if not row.factors else "", SHADES["faint"])
    for n, (label, kind) in enumerate(row.labels(style)):
        made.append((" · " if row.product else ", ") if n else "", SHADES["operator"])
        made.append(label, SHADES["address"] if kind == "address" else "")
    return made


def _sources(found: Sequence[tuple[str, Scalar]], style: Style, width: int) -> list[Text]:
    listed = found[: parts.SOURCES]
    values = [n.text(style.decimal) for n in even([value for _, value in listed], style.digits)]
    items = []
    for (address, _), value in zip(listed, values, strict=True):
        items.append(Text.assemble((address, SHADES["address"]), (" = ", SHADES["faint"]), value))
    lines = list(grid(items, width))
    if len(found) > len(listed):
        more = message("list.more", style.lang, count=len(found) - len(listed))
        lines.append(Text(more, SHADES["faint"]))
    return lines


def _check(explanation: Explanation, style: Style, width: int) -> list[Text]:
    check = parts.check_numbers(explanation, style.digits)
    word, mark, why = parts.verdict(explanation, style.lang)
    shade = SHADES[parts.tone(explanation)]
    said = Text.assemble((f"{mark} {word}", shade), (f" — {why}", SHADES["faint"]))
    if check.float64 is None or mark == "·":
        return paragraph(said, width)
    named = (
        ("check.recorded", check.recorded),
        ("check.float64", check.float64),
        ("check.difference", check.difference),
        ("check.bound", check.bound),
        ("check.digits", check.digits),
    )
    items = [
        Text.assemble((message(key, style.lang) + " ", SHADES["faint"]), (number.text(style.decimal), ""))
        for key, number in named
        if number is not None
    ]
    return [*paragraph(said, width), *flow(items, width)]
