"""From a formula to its notation: a small tree of rows, scripts, fractions and fences.

What is decided here is what all formats share: precedence, fences around negative numbers, which parts are a
fraction, how a sum is signed. `text`, `latex` and `mathml` only draw these boxes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from openheart.formula.expr import (
    Apply,
    Definition,
    Expr,
    Index,
    Leaf,
    Named,
    Number,
    Reduce,
    Ref,
    Scalar,
    children,
)
from openheart.formula.instance import Rest, Slot, Terms
from openheart.i18n import message
from openheart.printers.digits import DIGITS, Shown, constant, shown
from openheart.printers.glyphs import (
    AND,
    ATOM,
    BIG,
    BIG_GLYPHS,
    COMPARE,
    FENCES,
    FRACTION,
    FUNCTION_NAMES,
    INFIX,
    OR,
    POWER,
    PRODUCT,
    SUM,
    UNSEEN,
    symbol,
)

MarkKind: TypeAlias = Literal[
    "infix", "relation", "prefix", "function", "name", "index", "address", "word", "comma", "open", "close"
]


@dataclass(frozen=True, slots=True)
class Mark:
    """A glyph or a word. A `spaced` operator stands between spaces in text."""

    glyph: str
    kind: MarkKind
    spaced: bool = True


@dataclass(frozen=True, slots=True)
class Figure:
    """A printed number; with an address or a name it is a slot that a page can refresh and link.

    A `constant` of the law is printed as the law has it, whatever stands beside it.
    """

    shown: Shown
    value: Scalar
    address: str | None = None
    name: str | None = None
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Boxes side by side."""

    items: tuple[Box, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A base with a subscript (indices, side by side) and a superscript."""

    base: Box
    sub: tuple[Box, ...] = ()
    sup: Box | None = None


@dataclass(frozen=True, slots=True)
class Fraction:
    """One box over another (never in flat notation)."""

    top: Box
    bottom: Box


@dataclass(frozen=True, slots=True)
class Root:
    """The square root of a box."""

    body: Box


@dataclass(frozen=True, slots=True)
class Fence:
    """A box between two glyphs."""

    body: Box
    open: str = "("
    close: str = ")"


@dataclass(frozen=True, slots=True)
class Big:
    """Σ, Π, max … over index variables, where all conditions hold; the body is the box after it."""

    glyph: str
    over: tuple[Box, ...]
    conditions: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Cases:
    """Values, each with its condition; the last without one holds otherwise."""

    rows: tuple[tuple[Box, Box | None], ...]


@dataclass(frozen=True, slots=True)
class Gathered:
    """One number that stands for `count` terms; `words` says how many."""

    figure: Figure
    words: str


Box: TypeAlias = "Mark | Figure | Row | Script | Fraction | Root | Fence | Big | Cases | Gathered"


@dataclass(frozen=True, slots=True)
class Style:
    """How to write: decimals, language, the decimal mark, on one line (`flat`) or in two dimensions.

    `law` puts spaces around products, as between names, and prints hyperparameters by their names.
    """

    digits: int = DIGITS
    lang: str = "en"
    decimal: str = "."
    flat: bool = True
    law: bool = False


def box(node: Expr, style: Style, need: int = 0, lead: bool = True) -> Box:
    """The notation of a formula or an instance, fenced if it binds less than `need`.

    `lead` says that nothing stands before it, so that a minus sign needs no fence.
    """
    made, level = _box(node, style, lead)
    if level >= need:
        return made
    return Fence(made if lead else _box(node, style, lead=True)[0])


def _box(node: Expr, style: Style, lead: bool) -> tuple[Box, int]:
    if isinstance(node, (Slot, Rest, Number)):
        return _number(node, style, lead)
    if isinstance(node, Index):
        return Mark(node.name, "index"), ATOM
    if isinstance(node, Ref):
        return script(named(node.tensor.name), tuple(box(i, style) for i in node.index)), ATOM
    if isinstance(node, Named):
        return script(named(node.name), tuple(Mark(i.name, "index") for i in free(node))), ATOM
    if isinstance(node, Leaf):
        return Mark(message(f"leaf.{node.kind}", style.lang), "word"), ATOM
    if isinstance(node, Terms):
        return _terms(node, style, lead)
    if isinstance(node, Reduce):
        return _reduce(node, style)
    if not isinstance(node, Apply):
        raise TypeError(f"no notation for a {type(node).__name__}")
    return _apply(node, style, lead)


def figure(value: Scalar, style: Style, address: str | None = None, name: str | None = None) -> Figure:
    """A recorded or computed number."""
    return Figure(shown(value, style.digits), value, address, name)


def named(name: str) -> Box:
    """A tensor's, a part's or a hyperparameter's name as its symbol."""
    letter, sub, sup = symbol(name)
    base = Mark(letter, "name")
    if not sub and not sup:
        return base
    return Script(base, tuple(Mark(s, "index") for s in sub), Mark(sup, "index") if sup else None)


def script(base: Box, sub: tuple[Box, ...] = (), sup: Box | None = None) -> Box:
    """A base with scripts, put beside those that it has where their places are free: σ² and i give σ²ᵢ."""
    if not sub and sup is None:
        return base
    if isinstance(base, Script) and not (base.sub and sub) and (base.sup is None or sup is None):
        return Script(base.base, base.sub or sub, base.sup if sup is None else sup)
    return Script(base, sub, sup)


def free(part: Named | Definition) -> list[Index]:
    """The index variables that a part's name carries."""
    if isinstance(part, Definition):
        return list(part.indices)
    return sorted(part.free, key=lambda i: i.name)


def _number(node: Slot | Rest | Number, style: Style, lead: bool) -> tuple[Box, int]:
    if isinstance(node, Number):
        if node.name is not None and style.law:
            return named(node.name), ATOM
        made = Figure(constant(node.value, style.digits), node.value, name=node.name, constant=True)
    elif isinstance(node, Slot):
        made = figure(node.value, style, node.address, node.name)
    else:
        rest = figure(node.value, style)
        words = message("more", style.lang, count=node.count)
        gathered = Gathered(rest, words)
        return Fence(gathered) if rest.shown.negative and not lead else gathered, ATOM
    if made.shown.imaginary is not None or (made.shown.negative and not lead):
        return Fence(made), ATOM
    # A leading minus or a power of ten binds like a product: (−0.3)², (1.2346·10⁻⁷)².
    return made, FRACTION if made.shown.negative or made.shown.exponent is not None else ATOM


def _terms(node: Terms, style: Style, lead: bool) -> tuple[Box, int]:
    parts: tuple[Expr, ...] = node.items if node.rest is None else (*node.items, node.rest)
    if node.kind == "rank":
        return figure(node.count, style), ATOM
    if not parts:
        return (
            (Mark("∅", "name"), ATOM) if node.kind not in EMPTY else (figure(EMPTY[node.kind], style), ATOM)
        )
    if node.kind == "mean":
        return _quotient(Terms("sum", node.items, node.rest, node.count), Number(node.count), style, lead)
    if node.kind not in JOINED:
        return _call(BIG_GLYPHS[node.kind], parts, style), ATOM
    if len(parts) == 1:
        return _box(parts[0], style, lead)
    row = INFIX[JOINED[node.kind]]
    if node.kind == "sum":
        return _sum([signed for part in parts for signed in _signed(part)], style, lead), SUM
    return _joined(parts, row.glyph, row.right, style, lead), row.level


EMPTY: dict[str, Scalar] = {"sum": 0, "product": 1, "any": False, "all": True}
JOINED = {"sum": "add", "product": "mul", "any": "or", "all": "and"}


def _reduce(node: Reduce, style: Style) -> tuple[Box, int]:
    over = tuple(Mark(i.name, "index") for i in node.over)
    conditions = () if node.where is None else tuple(_conjuncts(node.where, style))
    if node.kind == "rank":
        inside: list[Box] = [*_commas(over, "")]
        for n, condition in enumerate(conditions):
            inside += [Mark("∧" if n else ":", "relation"), condition]
        return Row((Mark("#", "prefix"), Fence(Row(tuple(inside)), "{", "}"))), ATOM
    body = box(node.body, style, BIG, lead=True)
    big = Row((Big(BIG_GLYPHS[node.kind], over, conditions), body))
    if node.kind != "mean":
        return big, BIG
    places = 1
    for i in node.over:
        places *= i.extent
    one, many = figure(1, style), figure(places, style)
    if style.flat:
        return Row((one, Mark("/", "infix", spaced=False), many, Mark("·", "infix"), big)), BIG
    return Row((Fraction(one, many), big)), BIG


def _conjuncts(node: Expr, style: Style) -> Iterator[Box]:
    """The conditions that hold together; `x ≥ a ∧ x < b` is written a ≤ x < b."""
    held = list(_all_of(node))
    while held:
        first, *held = held
        second = held[0] if held else None
        if _compares(first, "ge") and _compares(second, "lt"):
            assert isinstance(first, Apply)
            assert isinstance(second, Apply)
            middle = box(first.args[0], style, SUM)
            if middle == box(second.args[0], style, SUM):
                low, high = box(first.args[1], style, SUM), box(second.args[1], style, SUM)
                yield Row((low, Mark("≤", "relation"), middle, Mark("<", "relation"), high))
                held = held[1:]
                continue
        yield box(first, style, COMPARE)


def _all_of(node: Expr) -> Iterator[Expr]:
    if isinstance(node, Apply) and node.function == "and":
        for arg in node.args:
            yield from _all_of(arg)
    else:
        yield node


def _compares(node: Expr | None, function: str) -> bool:
    return isinstance(node, Apply) and node.function == function


def _apply(node: Apply, style: Style, lead: bool) -> tuple[Box, int]:
    name, args = node.function, node.args
    if name in UNSEEN:
        return _box(args[0], style, lead)
    if name in ("add", "sub"):
        return _sum(list(_signed(node)), style, lead), SUM
    if name == "neg":
        return Row((Mark("−", "prefix"), box(args[0], style, PRODUCT, lead=False))), SUM
    if name == "mul":
        factors = list(_factors(node))
        if len(factors) == 2 and isinstance(factors[0], Index) and isinstance(factors[1], Number):
            factors.reverse()  # 2·l, as one writes it
        # Whatever follows a product that ends in Σ would read as part of the sum.
        return _joined(factors, "·", PRODUCT, style, lead), BIG if _ends_big(factors[-1], style) else PRODUCT
    if name == "div":
        return _quotient(args[0], args[1], style, lead)
    if name == "pow":
        return _power(args[0], args[1], style)
    special = _SPECIAL.get(name)
    if special is not None:
        return _box(special(*args), style, lead)
    if name == "exp":
        if style.flat or not _small(args[0]):
            return _call("exp", args, style), ATOM
        return Script(Mark("e", "name"), sup=box(args[0], style)), POWER
    if name == "sqrt":
        return _root(args[0], style), ATOM
    if name in FENCES:
        return Fence(box(args[0], style), *FENCES[name]), ATOM
    if name == "floordiv":
        return Fence(_quotient(args[0], args[1], style, lead=True)[0], "⌊", "⌋"), ATOM
    if name == "where":
        return Cases(tuple(_cases(node, style))), ATOM if style.flat else COMPARE
    if name == "not":
        return Row((Mark("¬", "prefix"), box(args[0], style, ATOM))), ATOM
    if name == "complex":
        imaginary = (box(args[1], style, PRODUCT, lead=False), Mark("i", "index"))
        return Row((box(args[0], style, SUM, lead), Mark("+", "infix"), *imaginary)), SUM
    row = INFIX.get(name)
    if row is not None:
        chains = row.level in (OR, AND)
        left = box(args[0], style, row.level if chains else row.level + 1, lead)
        right = box(args[1], style, row.right, lead=row.level <= COMPARE)
        mark = Mark(row.glyph, "infix" if row.level > COMPARE else "relation")
        return Row((left, mark, right)), row.level
    return _call(FUNCTION_NAMES.get(name, name), args, style), ATOM


_SPECIAL = {
    # The same number, as a textbook writes it.
    "log1p": lambda x: Apply("log", (Apply("add", (Number(1), x)),)),
    "expm1": lambda x: Apply("sub", (Apply("exp", (x,)), Number(1))),
    "exp2": lambda x: Apply("pow", (Number(2), x)),
}


def _call(name: str, args: Iterable[Expr], style: Style) -> Box:
    inside = tuple(_commas([box(arg, style) for arg in args], style.decimal))
    return Row((Mark(name, "function"), Fence(Row(inside))))


def _commas(items: Sequence[Box], decimal: str) -> Iterator[Box]:
    """Between arguments a comma, or a semicolon where the comma marks decimals."""
    for n, item in enumerate(items):
        if n:
            yield Mark(";" if decimal == "," else ",", "comma")
        yield item


def _signed(node: Expr, positive: bool = True) -> Iterator[tuple[bool, Expr]]:
    """The terms of nested sums and differences, each with its sign."""
    if isinstance(node, Apply) and node.function in ("add", "sub"):
        yield from _signed(node.args[0], positive)
        right = positive if node.function == "add" else not positive
        if node.function == "add" or not _is_sum(node.args[1]):
            yield from _signed(node.args[1], right)
        else:
            yield right, node.args[1]
    elif isinstance(node, Apply) and node.function == "neg" and not _is_sum(node.args[0]):
        yield not positive, node.args[0]
    elif isinstance(node, Apply) and node.function in UNSEEN:
        yield from _signed(node.args[0], positive)
    elif isinstance(node, Terms) and node.kind == "sum" and positive and node.items:
        for item in node.items:
            yield from _signed(item)
        if node.rest is not None:
            yield True, node.rest
    else:
        yield positive, node


def _is_sum(node: Expr) -> bool:
    if isinstance(node, Apply):
        if node.function in UNSEEN:
            return _is_sum(node.args[0])
        return node.function in ("add", "sub", "neg", "expm1", "complex")
    return isinstance(node, Terms) and node.kind == "sum"


def _sum(parts: list[tuple[bool, Expr]], style: Style, lead: bool) -> Box:
    row: list[Box] = []
    for n, (positive, part) in enumerate(parts):
        if n or not positive:
            row.append(Mark("+" if positive else "−", "infix" if n else "prefix"))
        row.append(box(part, style, BIG, lead=lead and not row))
    return Row(tuple(row))


def _factors(node: Expr) -> Iterator[Expr]:
    if isinstance(node, Apply) and node.function in UNSEEN:
        yield from _factors(node.args[0])
    elif isinstance(node, Apply) and node.function == "mul":
        yield from _factors(node.args[0])
        yield from _factors(node.args[1])
    elif isinstance(node, Terms) and node.kind == "product" and node.items and node.rest is None:
        for item in node.items:
            yield from _factors(item)
    else:
        yield node


def _joined(parts: Sequence[Expr], glyph: str, need: int, style: Style, lead: bool) -> Box:
    row: list[Box] = []
    product = glyph == "·"
    for n, part in enumerate(parts):
        if n:
            row.append(Mark(glyph, "infix", spaced=style.law or not product))
        # A sum sign at the end of a product needs no fence, a division before another factor does.
        last = n == len(parts) - 1
        row.append(box(part, style, (BIG if last else FRACTION) if product else need, lead=lead and not row))
    return Row(tuple(row))


def _ends_big(node: Expr, style: Style) -> bool:
    return _box(node, style, lead=True)[1] == BIG


def _quotient(top: Expr, bottom: Expr, style: Style, lead: bool) -> tuple[Box, int]:
    if not style.flat:
        return Fraction(box(top, style), box(bottom, style)), FRACTION
    above = box(top, style, PRODUCT, lead)
    return Row((above, Mark("/", "infix", spaced=False), box(bottom, style, FRACTION, lead=False))), PRODUCT


def _power(base: Expr, exponent: Expr, style: Style) -> tuple[Box, int]:
    if isinstance(exponent, Number) and exponent.name is None and exponent.value == 0.5:
        return _root(base, style), ATOM
    return script(box(base, style, ATOM, lead=False), sup=box(exponent, style)), POWER


def _root(body: Expr, style: Style) -> Box:
    if not style.flat:
        return Root(box(body, style))
    inside = box(body, style, ATOM, lead=False)
    return Root(inside if isinstance(inside, (Fence, Figure, Script, Mark)) else Fence(inside))


def _cases(node: Expr, style: Style) -> Iterator[tuple[Box, Box | None]]:
    while isinstance(node, Apply) and node.function == "where":
        yield box(node.args[1], style), box(node.args[0], style)
        node = node.args[2]
    yield box(node, style), None


def _small(node: Expr) -> bool:
    """Whether an exponent is short enough to stand as one."""
    if isinstance(node, (Reduce, Terms)):
        return False
    if isinstance(node, Apply) and node.function not in ("add", "sub", "mul", "neg", *UNSEEN):
        return False
    return all(_small(part) for part in children(node) if not isinstance(node, (Ref, Named)))


def tall(box: Box) -> bool:
    """Whether a box is taller than a line of letters, so that its fence must grow."""
    if isinstance(box, (Fraction, Big, Cases, Gathered)):
        return True
    if isinstance(box, Row):
        return any(tall(item) for item in box.items)
    if isinstance(box, Script):
        return tall(box.base)
    return isinstance(box, (Fence, Root)) and tall(box.body)


def parts(law: Expr) -> list[Named | Definition]:
    """The named parts and definitions of a law, each after those that it is made of."""
    found: dict[int, Named | Definition] = {}

    def visit(node: Expr) -> None:
        made: Named | Definition | None = None
        if isinstance(node, Named):
            made = node
        elif isinstance(node, Ref) and isinstance(node.tensor, Definition):
            made = node.tensor
        if made is not None and id(made) in seen:
            return
        if made is not None:
            seen.add(id(made))
        if isinstance(made, Definition):
            visit(made.body)
        for child in children(node):
            visit(child)
        if made is not None:
            found[id(made)] = made

    seen: set[int] = set()
    visit(law)
    return list(found.values())
