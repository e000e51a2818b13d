"""Notation as MathML Core, which browsers draw by themselves; every number with an address carries it."""

from __future__ import annotations

from html import escape

from openheart.i18n import message
from openheart.printers.digits import MINUS, Shown
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


def mathml(box: Box, style: Style) -> str:
    """A notation as MathML elements (to be put into a `<math>`)."""
    if isinstance(box, Figure):
        return number(box, style)
    if isinstance(box, Mark):
        return _mark(box)
    if isinstance(box, Row):
        return f"<mrow>{''.join(mathml(item, style) for item in box.items)}</mrow>"
    if isinstance(box, Script):
        return _script(box, style)
    if isinstance(box, Fraction):
        return f"<mfrac>{mathml(box.top, style)}{mathml(box.bottom, style)}</mfrac>"
    if isinstance(box, Root):
        return f"<msqrt>{mathml(box.body, style)}</msqrt>"
    if isinstance(box, Fence):
        grows = tall(box.body)
        body = mathml(box.body, style)
        return f"<mrow>{_paren(box.open, 'prefix', grows)}{body}{_paren(box.close, 'postfix', grows)}</mrow>"
    if isinstance(box, Big):
        return _big(box, style)
    if isinstance(box, Cases):
        return _cases(box, style)
    below = f"<mtext>{escape(box.words)}</mtext>"
    return f"<munder><munder>{mathml(box.figure, style)}<mo stretchy='true'>⏟</mo></munder>{below}</munder>"


def number(figure: Figure, style: Style) -> str:
    """A printed number; with an address it is a slot: `<mn data-address="0.weight[0,1]">`."""
    attributes = ""
    if figure.address is not None:
        address = escape(figure.address, quote=True)
        attributes = f' class="oh-slot" data-address="{address}"'
    elif figure.name is not None:
        attributes = f' data-name="{escape(figure.name, quote=True)}"'
    shown = figure.shown
    simple = not shown.negative and shown.exponent is None and shown.imaginary is None
    if simple:
        tag = "mtext" if shown.mantissa[0].isalpha() else "mn"
        return f"<{tag}{attributes}>{_mantissa(shown, style)}</{tag}>"
    return f"<mrow{attributes}>{_digits(shown, style)}</mrow>"


def _digits(shown: Shown, style: Style) -> str:
    if shown.imaginary is not None:
        real = Shown(shown.mantissa, shown.negative, shown.exponent)
        size = Shown(shown.imaginary.mantissa, exponent=shown.imaginary.exponent)
        sign = MINUS if shown.imaginary.negative else "+"
        return f"{_digits(real, style)}<mo>{sign}</mo>{_digits(size, style)}<mi>i</mi>"
    sign = f'<mo form="prefix" lspace="0" rspace="0">{MINUS}</mo>' if shown.negative else ""
    mantissa = f"<mn>{_mantissa(shown, style)}</mn>"
    if shown.exponent is None:
        return sign + mantissa
    exponent = f"<mn>{abs(shown.exponent)}</mn>"
    if shown.exponent < 0:
        exponent = f'<mrow><mo form="prefix">{MINUS}</mo>{exponent}</mrow>'
    power = f"<msup><mn>10</mn>{exponent}</msup>"
    return sign + (power if shown.mantissa == "1" else f"{mantissa}<mo>·</mo>{power}")


def _mantissa(shown: Shown, style: Style) -> str:
    return shown.mantissa.replace(".", style.decimal)


def _mark(box: Mark) -> str:
    glyph = escape(box.glyph)
    if box.kind in ("infix", "relation"):
        # Said, because an operator that starts a <math> of its own would count as a prefix.
        space = ' lspace="0.2222em" rspace="0.2222em"' if box.glyph != "·" else ""
        return f'<mo form="infix"{space}>{glyph}</mo>'
    if box.kind in ("open", "close"):
        return _paren(box.glyph, "prefix" if box.kind == "open" else "postfix", grows=False)
    if box.kind == "comma":
        return f"<mo>{glyph}</mo>"
    if box.kind == "prefix":
        return f'<mo form="prefix" lspace="0" rspace="0">{glyph}</mo>'
    if box.kind in ("word", "address"):
        return f'<mtext class="oh-{box.kind}">{glyph}</mtext>'
    if box.glyph.isdigit():
        return f"<mn>{glyph}</mn>"
    return f"<mi>{glyph}</mi>"


def _paren(glyph: str, form: str, grows: bool) -> str:
    stretchy = "true" if grows else "false"
    return f'<mo fence="true" form="{form}" stretchy="{stretchy}" lspace="0" rspace="0">{glyph}</mo>'


def _script(box: Script, style: Style) -> str:
    base = mathml(box.base, style)
    if not box.sub and box.sup is None:
        return base
    sub = ""
    if box.sub:
        items = [mathml(item, style) for item in box.sub]
        plain = all(isinstance(item, Mark) and len(item.glyph) == 1 for item in box.sub)
        sub = f"<mrow>{('' if plain else '<mo>,</mo>').join(items)}</mrow>"
    if box.sup is None:
        return f"<msub>{base}{sub}</msub>"
    sup = mathml(box.sup, style)
    return f"<msubsup>{base}{sub}{sup}</msubsup>" if sub else f"<msup>{base}{sup}</msup>"


LARGE = {"Σ": "∑", "Π": "∏"}
"""The n-ary operators, which a mathematical font draws large."""


def _big(box: Big, style: Style) -> str:
    over = "<mo>,</mo>".join(mathml(item, style) for item in box.over)
    glyph = f'<mo movablelimits="false">{LARGE.get(box.glyph, box.glyph)}</mo>'
    if box.glyph.isalpha() and box.glyph.islower():
        glyph = f'<mo movablelimits="false" rspace="0.2em">{box.glyph}</mo>'
    below = f"<mrow>{over}</mrow>"
    if box.conditions:
        rows = (below, *(mathml(c, style) for c in box.conditions))
        below = f"<mtable class='oh-below'>{''.join(f'<mtr><mtd>{row}</mtd></mtr>' for row in rows)}</mtable>"
    return f"<munder>{glyph}{below}</munder>"


def _cases(box: Cases, style: Style) -> str:
    rows = []
    for value, condition in box.rows:
        if condition is None:
            held = f"<mtext>{escape(message('otherwise', style.lang))}</mtext>"
        else:
            word = escape(message("if", style.lang))
            held = f"<mrow><mtext>{word}\u00a0</mtext>{mathml(condition, style)}</mrow>"
        rows.append(f"<mtr><mtd>{mathml(value, style)}</mtd><mtd>{held}</mtd></mtr>")
    table = f'<mtable class="oh-cases">{"".join(rows)}</mtable>'
    return f'<mrow><mo fence="true" form="prefix">{{</mo>{table}</mrow>'
