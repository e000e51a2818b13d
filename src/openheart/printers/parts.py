"""What an explanation says, part by part, before any format: the text, HTML and JSON printers lay out these.

The general law with its named parts, the lines with their numbers and honest relation, where each number
comes from, the contributions, and the check's numbers with as many digits as show the difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from openheart.formula.expr import Apply, Definition, Expr, Named, Scalar
from openheart.formula.instance import Line, Slot, Terms
from openheart.i18n import decimal_mark, language, message
from openheart.printers.digits import MOST_DIGITS, Shown, shown
from openheart.printers.honesty import Relation, relation
from openheart.printers.notation import (
    Box,
    Fence,
    Figure,
    Mark,
    Row,
    Style,
    box,
    figure,
    free,
    named,
    parts,
    script,
    tall,
)
from openheart.printers.side_by_side import side_by_side
from openheart.printers.text import plain

if TYPE_CHECKING:
    from openheart.explain import Explanation
    from openheart.update import Update

CONTRIBUTIONS = 8
SOURCES = 24
"""At most this many are listed; the rest are counted."""

VERDICTS = {
    "exact": ("verdict.exact", "✓"),
    "within rounding": ("verdict.within", "✓"),
    "disagrees": ("verdict.disagrees", "✗"),
    "opaque": ("verdict.opaque", "?"),
    "unbounded": ("verdict.unbounded", "~"),
    "not checked": ("verdict.not_checked", "?"),
}
"""A verdict's catalogue key and its mark."""
ALARM = "!"
"""The mark of a number that is correct and not finite."""


def style_for(digits: int, lang: str | None, *, flat: bool) -> Style:
    """The style of one printing: the language and the decimal mark are looked up once."""
    return Style(digits=digits, lang=language(lang), decimal=decimal_mark(), flat=flat)


@dataclass(frozen=True, slots=True)
class Equation:
    """`left relation right`, and `= result` where a result is printed too."""

    left: Box
    right: Box
    relation: Relation = "="
    result: Box | None = None

    @property
    def row(self) -> Row:
        """The whole equation as one row."""
        return Row((self.left, *self.tail))

    @property
    def tail(self) -> tuple[Box, ...]:
        """All but the left side, signs included."""
        if self.result is None:
            return Mark("=", "relation"), self.right
        return Mark("=", "relation"), self.right, Mark(self.relation, "relation"), self.result


def law(explanation: Explanation | Update, style: Style) -> list[Equation]:
    """The law in general form, then its named parts."""
    found = explanation.law
    if found is None:
        return []
    general = replace(style, law=True)
    indices = tuple(Mark(i.name, "index") for i in found.indices)
    whole = Equation(script(named(found.output.name), indices), box(found.expr, general))
    return [whole, *(_part(part, general) for part in parts(found.expr))]


def _part(part: Named | Definition, style: Style) -> Equation:
    left = script(named(part.name), tuple(Mark(i.name, "index") for i in free(part)))
    return Equation(left, box(part.body, style))


def arguments(explanation: Explanation | Update) -> list[tuple[Box, str]]:
    """What the law's symbols stand for."""
    return [(named(name), address) for name, address in explanation.arguments]


def numbers(explanation: Explanation | Update, style: Style) -> list[Equation]:
    """The lines with their numbers: named parts first, the number itself last."""
    return [
        equation(line, style, explanation.address if line is explanation.lines[-1] else None)
        for line in explanation.lines
    ]


def steps(explanation: Explanation, style: Style) -> list[tuple[Equation, Explanation]]:
    """The optimizer's calls that lead to the number, each with its numbers."""
    return [(e, step) for step in explanation.steps for e in numbers(step, style)[-1:]]


def equation(line: Line, style: Style, address: str | None = None) -> Equation:
    """One line of an instance, with its honest relation; `address` is set for the explained number itself."""
    left: Box = Mark(address, "address") if address is not None else part_name(line.name or "")
    result = figure(line.result, style, address, None if address is not None else line.name)
    right = box(line.instance, style)
    if isinstance(right, Figure) and right.shown == result.shown:
        # A number that was only copied or moved; its source is among the sources.
        return Equation(left, right)
    right, result = side_by_side(right, result)
    return Equation(left, right, relation(line, style.digits), result)


def part_name(name: str) -> Box:
    """The name of a line's part, with its place where it has one: `mu[0,3]`."""
    base, _, place = name.partition("[")
    at = tuple(Mark(i, "index") for i in place.rstrip("]").split(",")) if place else ()
    return script(named(base), at)


def slots(node: Expr) -> Iterator[Slot]:
    """The numbers of an instance that have an address, in reading order."""
    if isinstance(node, Slot):
        if node.address is not None:
            yield node
    elif isinstance(node, Apply):
        for arg in node.args:
            yield from slots(arg)
    elif isinstance(node, Terms):
        for item in node.items:
            yield from slots(item)


def sources(explanation: Explanation) -> dict[str, Scalar]:
    """Where the printed numbers come from: address and value, each once, in reading order."""
    found: dict[str, Scalar] = {}
    for line in explanation.lines:
        for slot in slots(line.instance):
            found.setdefault(slot.address or "", slot.value)
    return found


@dataclass(frozen=True, slots=True)
class Contribution:
    """One term of the sum: its value, the numbers it is made of, its share, and its bar from −1 to 1."""

    value: float
    factors: tuple[tuple[str | None, Scalar], ...]
    names: tuple[str | None, ...]
    product: bool
    share: float
    bar: float

    def labels(self, style: Style) -> list[tuple[str, str]]:
        """What each factor is called and what that is: an "address", the "name" of a line, or its value."""
        made = []
        for (address, value), name in zip(self.factors, self.names, strict=True):
            if address is not None:
                made.append((address, "address"))
            elif name is not None:
                made.append((plain(part_name(name), style), "name"))
            else:
                made.append((shown(value, style.digits).text(style.decimal), ""))
        return made


def contributions(explanation: Explanation) -> tuple[list[Contribution], int]:
    """The largest contributions, and how many more there are; none where there is one term only."""
    terms = explanation.terms
    count = len(terms)
    if count < 2:
        return [], 0
    top = list(terms[:CONTRIBUTIONS])
    largest = abs(top[0].value)
    unit = largest if largest and math.isfinite(largest) else 1.0
    rows = [
        Contribution(
            t.value,
            tuple(t.factors),
            tuple(t.names),
            t.product,
            t.share,
            _bar(t.value, unit),
        )
        for t in top
    ]
    return rows, count - len(rows)


def percent(share: float) -> str:
    """A share as a whole percentage; a little is not nothing."""
    if 0 < share < 0.005:
        return "<1 %"
    return "–" if math.isnan(share) else f"{100 * share:.0f} %"


def _bar(value: complex, unit: float) -> float:
    """The bar of one contribution; a complex one is as long as its modulus."""
    size = (abs(value) if isinstance(value, complex) else value) / unit
    return 0.0 if math.isnan(size) else max(-1.0, min(1.0, size))


@dataclass(frozen=True, slots=True)
class CheckNumbers:
    """The check line: recorded and float64 with the digits that show their difference."""

    recorded: Shown
    float64: Shown | None
    difference: Shown | None
    bound: Shown | None
    digits: Shown | None = None
    """How many decimal digits the bound leaves of an unbounded number."""


def check_numbers(explanation: Explanation, digits: int) -> CheckNumbers:
    """The recorded and the recomputed number, their difference and the bound on it."""
    recorded, computed = explanation.value, explanation.computed
    if computed is None:
        return CheckNumbers(shown(recorded, digits), None, None, None)
    error, bound, left = explanation.error, explanation.bound, explanation.digits_left
    fine = _telling(recorded, error, digits)
    return CheckNumbers(
        shown(recorded, fine),
        shown(computed, fine),
        None if error is None else shown(error, 1),
        None if bound is None else shown(bound, 1),
        shown(left, 1) if explanation.verdict == "unbounded" and left is not None else None,
    )


def _telling(value: Any, error: float | None, digits: int) -> int:
    """How many decimals show a difference with two digits."""
    if error is None or error == 0 or not math.isfinite(error):
        return digits
    decimals = 1 - math.floor(math.log10(error))
    exponent = shown(value, digits).exponent
    return min(MOST_DIGITS, max(digits, decimals + (exponent or 0)))


def verdict(explanation: Explanation, lang: str) -> tuple[str, str, str]:
    """The verdict's word, its mark and why; a number that nothing computed has no check to pass."""
    key, mark = VERDICTS[explanation.verdict]
    if explanation.verdict not in ("opaque", "not checked") and explanation.kind != "computed":
        word, mark, why = message(f"kind.{explanation.kind}", lang), "·", message("verdict.given.why", lang)
    else:
        word, why = message(key, lang), message(f"{key}.why", lang)
    if explanation.nonfinite is None or explanation.verdict == "disagrees":
        return word, mark, why
    number = shown(explanation.value).text(decimal_mark())
    word = message("verdict.but", lang, verdict=word, number=number)
    return word, ALARM, message("verdict.but.why", lang, why=why)


def tone(explanation: Explanation) -> str:
    """What a verdict is coloured by: itself, "nonfinite", or "faint" where there was nothing to check."""
    if explanation.verdict != "disagrees" and explanation.nonfinite is not None:
        return "nonfinite"
    if explanation.verdict in ("opaque", "not checked") or explanation.kind == "computed":
        return explanation.verdict
    return "faint"


def origin(explanation: Explanation, lang: str) -> list[str]:
    """Where in the run the number was made: operator, phase, source line, step."""
    found = [explanation.operator] if explanation.operator else [message(f"kind.{explanation.kind}", lang)]
    if explanation.phase:
        found.append(message(f"phase.{explanation.phase}", lang))
    if explanation.step:
        found.append(message("step", lang, step=explanation.step))
    if explanation.source:
        found.append(explanation.source)
    return found


def notes(explanation: Explanation, style: Style) -> list[str]:
    """What a teacher would add."""
    return [sentence(note.key, note.params, style) for note in explanation.notes]


def sentence(key: str, params: Mapping[str, Any], style: Style) -> str:
    """A note of the catalogue, its numbers printed; "note.given" has a sentence for each kind."""
    if key == "note.given":
        return message(f"note.given.{params['kind']}", style.lang)

    def told(value: Any) -> Any:
        if isinstance(value, Expr):
            return plain(box(value, style), style)
        if isinstance(value, Mapping):
            return ", ".join(f"{name} = {_option(part, style)}" for name, part in value.items())
        return (
            shown(value, style.digits).text(style.decimal) if isinstance(value, (float, complex)) else value
        )

    return message(key, style.lang, **{name: told(value) for name, value in params.items()})


def _option(value: Any, style: Style) -> str:
    """A hyperparameter as its user wrote it: `0.1`, `(0.9, 0.999)`."""
    if isinstance(value, list):
        return f"({', '.join(_option(part, style) for part in value)})"
    return f"{value:g}".replace(".", style.decimal) if isinstance(value, float) else str(value)


LONG = 40
"""A fence around more characters than this may be broken across lines."""


def flattened(boxes: Iterable[Box], style: Style) -> Iterator[Box]:
    """The boxes of nested rows and of long fences, side by side: where a long line may be broken."""
    for item in boxes:
        if isinstance(item, Row):
            yield from flattened(item.items, style)
        elif isinstance(item, Fence) and not tall(item) and length(item, style) > LONG:
            yield Mark(item.open, "open")
            yield from flattened((item.body,), style)
            yield Mark(item.close, "close")
        else:
            yield item


def length(item: Box, style: Style) -> int:
    """About how many characters wide a box is."""
    return len(plain(item, style))
