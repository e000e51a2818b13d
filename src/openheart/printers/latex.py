r"""Notation as LaTeX, for any engine from pdfLaTeX to MathJax: \mathrm{out}_{ij} = \sum_{k} …."""

from __future__ import annotations

import re

from openheart.i18n import message
from openheart.printers.digits import Shown
from openheart.printers.glyphs import LATEX
from openheart.printers.notation import (
    Big,
    Box,
    Cases,
    Fence,
    Figure,
    Fraction,
    Mark,
    Root,
    Row,
    Script,
    Style,
    tall,
)

_ESCAPES = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
_ESCAPES |= {c: f"\\{c}" for c in "#$%&_{}"}


def latex(box: Box, style: Style) -> str:
    """A notation as LaTeX for math mode."""
    if isinstance(box, Figure):
        return number(box.shown, style)
    if isinstance(box, Mark):
        return mark(box)
    if isinstance(box, Row):
        return "".join(latex(item, style) for item in box.items)
    if isinstance(box, Script):
        return _script(box, style)
    if isinstance(box, Fraction):
        return rf"\frac{{{latex(box.top, style)}}}{{{latex(box.bottom, style)}}}"
    if isinstance(box, Root):
        return rf"\sqrt{{{latex(box.body, style)}}}"
    if isinstance(box, Fence):
        return _fence(box, style)
    if isinstance(box, Big):
        return _big(box, style)
    if isinstance(box, Cases):
        return _cases(box, style)
    return rf"\underbrace{{{latex(box.figure, style)}}}_{{\text{{{escaped(box.words)}}}}}"


def number(shown: Shown, style: Style) -> str:
    r"""A printed number: -0.1986, 1.2346\cdot10^{-7}, 2{,}7539."""
    if shown.imaginary is not None:
        real = Shown(shown.mantissa, shown.negative, shown.exponent)
        imaginary = number(shown.imaginary, style)
        return f"{number(real, style)}{'' if imaginary.startswith('-') else '+'}{imaginary}\\,i"
    sign = "-" if shown.negative else ""
    if shown.mantissa == "∞":
        return f"{sign}\\infty "
    if shown.mantissa[0].isalpha():
        return rf"\text{{{shown.mantissa}}}"
    mantissa = shown.mantissa.replace(".", "{,}" if style.decimal == "," else ".")
    if shown.exponent is None:
        return sign + mantissa
    power = f"10^{{{shown.exponent}}}"
    return sign + (power if mantissa == "1" else rf"{mantissa}\cdot{power}")


def mark(box: Mark) -> str:
    """One glyph, name or word."""
    glyph = box.glyph
    if box.kind == "address":
        return rf"\texttt{{{escaped(glyph)}}}"
    if box.kind == "word":
        return rf"\text{{{escaped(glyph)}}}"
    known = LATEX.get(glyph)
    if known is not None:
        return known
    if len(glyph) == 1 or box.kind in ("infix", "relation", "comma"):
        return glyph
    if box.kind == "function":
        return rf"\operatorname{{{escaped(glyph)}}}"
    return rf"\mathrm{{{escaped(glyph)}}}" if glyph.isascii() else _lettered(glyph)


ACCENTS = {"\u0302": r"\hat", "\u0303": r"\tilde", "\u0304": r"\bar", "\u0307": r"\dot"}


def _lettered(name: str) -> str:
    """A name of Greek letters, primes and accents, letter by letter: β′, m̂, Δx."""
    out: list[str] = []
    for letter in name:
        if letter in ACCENTS and out:
            out[-1] = f"{ACCENTS[letter]}{{{out[-1].strip()}}}"
        elif letter == "′":
            out.append("'")
        else:
            out.append(LATEX.get(letter) or escaped(letter))
    return "".join(out).strip()


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is."""
    out = "".join(_ESCAPES.get(c, c) for c in text)
    return out.replace("ᵀ", r"\ensuremath{^\top}").replace("−", r"\ensuremath{-}")


def _script(box: Script, style: Style) -> str:
    base = latex(box.base, style).rstrip()
    if isinstance(box.base, Script):
        base = f"{{{base}}}"
    subs = [latex(item, style) for item in box.sub]
    plain = all(re.fullmatch(r"[a-z0-9]", sub) for sub in subs)
    sub = f"_{{{('' if plain else ',').join(subs)}}}" if subs else ""
    sup = f"^{{{latex(box.sup, style)}}}" if box.sup is not None else ""
    return f"{base}{sub}{sup}"


def _fence(box: Fence, style: Style) -> str:
    grow = tall(box.body)
    opening, closing = (LATEX.get(glyph, glyph).strip() for glyph in (box.open, box.close))
    body = latex(box.body, style)
    if grow:
        return rf"\left{opening} {body} \right{closing}"
    space = " " if opening[-1].isalpha() else ""
    return f"{opening}{space}{body}{closing}"


def _big(box: Big, style: Style) -> str:
    over = ",".join(latex(item, style) for item in box.over)
    if box.conditions:
        rows = r" \\ ".join((over, *(latex(c, style) for c in box.conditions)))
        over = rf"\substack{{{rows}}}"
    glyph = LATEX.get(box.glyph, box.glyph)
    return f"{glyph}_{{{over}}} "


def _cases(box: Cases, style: Style) -> str:
    rows = []
    for value, condition in box.rows:
        if condition is None:
            held = rf"\text{{{message('otherwise', style.lang)}}}"
        else:
            held = rf"\text{{{message('if', style.lang)} }}{latex(condition, style)}"
        rows.append(f"{latex(value, style)} & {held}")
    joined = r" \\ ".join(rows)
    return rf"\begin{{cases}} {joined} \end{{cases}}"
