"""Matrices and proofs of affine maps as text, HTML and LaTeX, with honest digits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from rich.text import Text

from openheart.formula.expr import Expr, Scalar, apply
from openheart.formula.instance import Line, Slot, Terms
from openheart.i18n import decimal_mark, message
from openheart.printers.digits import MOST_DIGITS, shown
from openheart.printers.glyphs import SUBSCRIPTS
from openheart.printers.latex import latex, number
from openheart.printers.layout import SHADES
from openheart.printers.notation import Mark, Row, Style
from openheart.printers.parts import Equation, equation, style_for
from openheart.printers.text import plain

__all__ = [
    "MARKS",
    "STYLE",
    "Held",
    "equation_text",
    "html_table",
    "latex_matrix",
    "matrix_lines",
    "product_line",
    "table_lines",
    "telling",
]

ROWS = 10
"""At most this many rows and columns of a matrix are printed; an ellipsis stands for the others."""
PLAIN = {below: digit for digit, below in SUBSCRIPTS.items()}
STYLE = (
    "<style>.oh-affine table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    ".oh-affine th,.oh-affine td{padding:.12rem .55rem;text-align:right;white-space:nowrap}"
    ".oh-affine th{font-weight:500;font-size:.86em;color:var(--oh-faint)}"
    ".oh-affine th:first-child,.oh-affine td:first-child{padding-left:0}"
    ".oh-affine .oh-proof th:first-child,.oh-affine .oh-proof td:first-child{text-align:left}"
    ".oh-affine .oh-maps{display:flex;flex-wrap:wrap;gap:.3rem 1.8rem;align-items:center}"
    ".oh-affine .oh-maps>div{display:flex;gap:.7rem;align-items:center;min-width:0}"
    ".oh-affine .oh-maps span{flex:none}"
    ".oh-affine .oh-part>div{min-width:0}.oh-affine .oh-scroll{overflow-x:auto;max-width:100%}"
    ".oh-affine .oh-matrix{border:solid var(--oh-faint);border-width:0 1px;border-radius:6px}"
    ".oh-affine .oh-matrix{padding:0 .35rem;width:fit-content}"
    ".oh-affine .oh-matrix td:first-child{padding-left:.55rem}"
    ".oh-affine .oh-notes p,.oh-affine .oh-part p{margin:.25rem 0}</style>"
)
"""What the fragments of affine maps add to the common style sheet."""
MARKS = {"exact": "✓", "within rounding": "✓", "disagrees": "✗"}


@dataclass(frozen=True, slots=True)
class Held:
    """One number of a proof: recorded by the network, computed by the affine map, and how far apart."""

    address: str
    recorded: float
    computed: float
    bound: float
    exact: bool

    @property
    def difference(self) -> float:
        """|recorded − computed|."""
        return abs(self.recorded - self.computed)

    @property
    def agrees(self) -> bool:
        """Whether the difference is no larger than rounding can make it."""
        return self.exact or self.difference <= self.bound


def telling(value: float, difference: float, digits: int) -> int:
    """How many decimals show a difference with two digits."""
    if difference == 0 or not math.isfinite(difference):
        return digits
    exponent = shown(value, digits).exponent or 0
    return min(MOST_DIGITS, max(digits, 1 - math.floor(math.log10(difference)) + exponent))


def figures(value: float, digits: int) -> str:
    """A number as it is printed."""
    return shown(value, digits).text(decimal_mark())


def _few(count: int) -> list[int]:
    """Which of `count` rows are printed; −1 stands for the ellipsis."""
    if count <= ROWS:
        return list(range(count))
    return [*range(ROWS - 2), -1, count - 1]


def matrix_cells(matrix: Any, digits: int) -> list[list[str]]:
    """A matrix (or a vector, as a row) as cells, long ones with ellipses."""
    grid = np.atleast_2d(np.asarray(matrix, dtype=np.float64))
    rows, columns = _few(grid.shape[0]), _few(grid.shape[1])
    return [["…" if i < 0 or j < 0 else figures(float(grid[i, j]), digits) for j in columns] for i in rows]


def matrix_lines(matrix: Any, digits: int) -> list[Text]:
    """A matrix as lines of text, its columns aligned."""
    return [Text(row) for row in _aligned(matrix_cells(matrix, digits))]


def _aligned(cells: Sequence[Sequence[str]], heads: Sequence[str] = (), left: int = 0) -> list[str]:
    rows = [list(heads), *map(list, cells)] if heads else [list(row) for row in cells]
    if not rows:
        return []
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return [
        "  ".join(
            c.ljust(w) if n < left else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def table_lines(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[Text]:
    """A table as lines of text; the first `left` columns stand at the left."""
    for n, line in enumerate(_aligned(rows, heads, left)):
        yield Text(line.rstrip(), SHADES["faint"] if n == 0 else "")


def proof_rows(held: Iterable[Held], digits: int) -> list[list[str]]:
    """The rows of a proof: address, recorded, computed, difference, bound, mark."""
    made = []
    for each in held:
        fine = telling(each.recorded, each.difference, digits)
        mark = MARKS["exact" if each.agrees else "disagrees"]
        made.append(
            [
                each.address,
                figures(each.recorded, fine),
                figures(each.computed, fine),
                figures(each.difference, 1),
                figures(each.bound, 1),
                mark,
            ]
        )
    return made


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], addresses: Sequence[int] = ()) -> str:
    """A table as HTML; the first column holds addresses, and so do the columns `addresses`."""
    top = "".join(f"<th>{escape(h)}</th>" for h in heads)
    columns = {0, *addresses}

    def cell(n: int, said: str) -> str:
        inside = f'<span class="oh-address">{escape(said)}</span>' if n in columns else escape(said)
        return f"<td>{inside}</td>"

    body = "".join(f"<tr>{''.join(cell(n, said) for n, said in enumerate(row))}</tr>" for row in rows)
    return (
        f'<div class="oh-scroll"><table class="oh-proof"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def html_matrix(matrix: Any, digits: int) -> str:
    """A matrix as a table without heads, between brackets."""
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in matrix_cells(matrix, digits)
    )
    return f'<div class="oh-scroll oh-matrix"><table><tbody>{rows}</tbody></table></div>'


def latex_matrix(matrix: Any, digits: int, lang: str | None = None) -> str:
    """A matrix as LaTeX, with every number; a vector stands upright."""
    style = style_for(digits, lang, flat=False)
    grid = np.asarray(matrix, dtype=np.float64)
    grid = grid[:, None] if grid.ndim == 1 else grid
    rows = " \\\\ ".join(" & ".join(number(shown(float(v), digits), style) for v in row) for row in grid)
    return f"\\begin{{pmatrix}} {rows} \\end{{pmatrix}}"


# Sums of products, worked out ------------------------------------------------------------------------


def product_line(name: str, pairs: Sequence[tuple[Slot, Slot]], extra: Slot | None, result: Scalar) -> Line:
    """`name = Σ a·b + extra = result`, as a line that the printers print with its honest relation."""
    items: list[Expr] = [apply("mul", a, b) for a, b in pairs]
    if extra is not None:
        items.append(extra)
    whole: Expr = Terms("sum", tuple(items), None, len(items))
    return Line(name, whole, whole, result)


def drawn(line: Line, style: Style) -> Equation:
    """The line as an equation, its name as it is written."""
    made = equation(line, style)
    return Equation(Mark(line.name or "", "address"), made.right, made.relation, made.result)


def equation_text(line: Line, digits: int, lang: str | None = None) -> str:
    """The line in one line of text."""
    style = style_for(digits, lang, flat=True)
    return plain(drawn(line, style).row, style)


def equation_latex(line: Line, digits: int, lang: str | None = None) -> str:
    """The line as LaTeX."""
    style = style_for(digits, lang, flat=False)
    return f"{_latex_name(line.name or '')} {latex(Row(drawn(line, style).tail), style)}"


def _latex_name(name: str) -> str:
    """W₂₁[0,1] as W^{(21)}_{0,1}."""
    base, _, place = name.partition("[")
    letter, sub = base[0], "".join(PLAIN[c] for c in base[1:])
    return f"{letter}{f'^{{({sub})}}' if sub else ''}_{{{place.rstrip(']')}}}"


def shape_text(shape: Sequence[int]) -> str:
    """A shape as it is read: 3×4, and 1 for a single number."""
    return "×".join(map(str, shape)) or "1"


def more_rows(count: int, lang: str) -> str:
    """What stands for the rows that are not printed."""
    return message("collapse.more.rows", lang, count=count)
