"""Pointwise functions where the writer of a loop stands: their operands, precisions and errors."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from openheart.formula.expr import (
    Apply,
    Expr,
    Index,
    Number,
    Reduce,
    walk,
)
from openheart.formula.functions import ASIDE, COMPUTED_IN, INTEGERS, ULPS
from openheart.formula.javascript_blocks import UNITS
from openheart.formula.javascript_rows import (
    ATOM,
    Operand,
    error_of,
    total_of,
    within,
    write,
)
from openheart.formula.precision import Precision

if TYPE_CHECKING:
    from openheart.formula.javascript_writer import Writer


def applied(w: Writer, node: Apply) -> Operand:
    """A function of its operands, with its error where bounds are carried."""
    name = node.function
    if name in COMPUTED_IN:
        return computed_within(w, node.args[0], COMPUTED_IN[name])
    if name in ASIDE:
        return aside(w, name, node.args[0])
    args = [w.of(arg) for arg in node.args]
    constant = not node.free and all(a.constant for a in args)
    if w.bounds and not constant:
        args = [w.operand(arg) for arg in node.args]
    whole = all(counting(w, arg) for arg in node.args)
    made = write(name, args, whole)
    if constant or not w.bounds:
        return Operand(made.value, None, made.kind, made.level, constant)
    args = [a if re.fullmatch(r"[\w.]+", a.value) else Operand(w.let(a.value), a.error, a.kind) for a in args]
    made = write(name, args, whole)
    if made.kind == "i" and not any(a.error for a in args):
        return made
    value = w.let(made.value)
    unit, tiny = UNITS[w.precision.name]
    error = error_of(name, value, made.kind, args, unit, tiny, lambda text: w.let(text, "e_t"))
    if name == "float" and args[0].kind != "f":
        error = total_of(error, f"whole({value}, {unit})")
    return Operand(value, error, made.kind)


def counting(w: Writer, node: Expr) -> bool:
    """Whether a node is a place: whole and never negative, by its form."""
    if isinstance(node, Index):
        return True
    if isinstance(node, Number):
        return type(node.value) is int and 0 <= node.value < 1 << 31
    return (
        isinstance(node, Apply)
        and node.function in ("add", "mul", "floordiv", "mod")
        and all(counting(w, arg) for arg in node.args)
    )


def computed_within(w: Writer, node: Expr, inner: Precision) -> Operand:
    """A part computed in a precision of its own, then rounded to the outer one where that is coarser."""
    outer = w.precision
    if outer is inner or not w.bounds:
        return w.of(node)
    w.precision = inner
    try:
        made = w.operand(node)
    finally:
        w.precision = outer
    if outer.unit > inner.unit:
        unit, tiny = UNITS[outer.name]
        value = made.value if re.fullmatch(r"\w+", made.value) else w.let(made.value)
        rounding = f"({value} === 0 ? 0 : {unit} * Math.abs({value}) + {tiny} * {unit})"
        if made.constant and outer.name == "float32":
            rounding = f"held({value})"
        error = w.let(f"settle({value}, {total_of(made.error, rounding)})", "e_t")
        return Operand(value, error, made.kind)
    return Operand(made.value, made.error, made.kind, made.level)


def aside(w: Writer, name: str, node: Expr) -> Operand:
    """What a kernel does on the side: terms added one by one, a fast function."""
    made = w.of(node)
    if not w.bounds or name in INTEGERS:
        return made
    unit = UNITS[w.precision.name][0]
    if name == "accumulated":
        terms = next((n for n in walk(node) if isinstance(n, Reduce)), None)
        if terms is None or not (isinstance(node, Apply) and node.function == "add"):
            return made
        start = w.of(node.args[0])
        count = max(math.prod(k.extent for k in terms.over) - 1, 0)
        if made.error is None:
            return made
        own = f"{count} * {unit} * Math.abs({within(start, ATOM)})"
    else:
        own = f"{2.0**-13 if name == 'cubic' else 40 - ULPS:g} * {'' if name == 'cubic' else unit + ' * '}"
        own += f"Math.abs({within(made, ATOM)})"
    value = made.value if re.fullmatch(r"\w+", made.value) else w.let(made.value)
    return Operand(value, w.let(f"settle({value}, {total_of(made.error, own)})", "e_t"), made.kind)
