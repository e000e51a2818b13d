"""Honest digits: whether a printed line holds, computed from the very digits that it prints.

`4·0.1803 + 5·0.3263 + 0.4011 = 2.7538`, read from the page, is 2.7538: the line may say `=`. When the
printed digits give another last digit than the printed result's, the line says `≈`. Printed sub-results
(μ, Z) count as printed digits, and so does the one number that stands for a long sum's other terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from typing import Any, Literal, TypeAlias

import numpy as np

from openheart.formula.expr import Apply, Expr, Scalar
from openheart.formula.expr import Number as Constant
from openheart.formula.functions import FUNCTIONS, TRANSPARENT
from openheart.formula.instance import Line, Rest, Slot, Terms
from openheart.printers import intervals
from openheart.printers.digits import DIGITS, Shown, constant, shown
from openheart.printers.intervals import Complex, Interval, Number, UndecidedError, point

Relation: TypeAlias = Literal["=", "≈"]


def relation(line: Line, digits: int = DIGITS) -> Relation:
    """`=` when the line, recomputed from its own printed digits, gives the printed result to its last digit.

    A tie counts as not giving it, so that every rule of rounding agrees. A result that is exactly what is
    printed (5, 0.5) is held to `digits` decimals all the same.
    """
    result = shown(line.result, digits)
    try:
        if _finite(line.instance) and math.isfinite(abs(line.result)):
            return "=" if _gives(recompute(line.instance, digits), result, digits) else "≈"
        return "=" if shown(_float64(line.instance, digits), digits) == result else "≈"
    except (ArithmeticError, ValueError, TypeError):
        # TypeError: a complex number in a function of real ones.
        return "≈"


def _gives(made: Number, result: Shown, digits: int) -> bool:
    if result.imaginary is not None:
        both = made if isinstance(made, Complex) else Complex(made, intervals.ZERO)
        real = Shown(result.mantissa, result.negative, result.exponent)
        return _gives(both.real, real, digits) and _gives(both.imaginary, result.imaginary, digits)
    value = result.value
    if value is None or isinstance(made, Complex):
        return False
    half = min(result.ulp, Fraction(10) ** ((result.exponent or 0) - digits)) / 2
    return value - half < made.low and made.high < value + half


def printed(node: Slot | Rest | Constant, digits: int = DIGITS) -> Shown:
    """The number that a leaf of an instance prints."""
    return constant(node.value, digits) if isinstance(node, Constant) else shown(node.value, digits)


def recompute(node: Expr, digits: int = DIGITS) -> Number:
    """The value of an instance from its printed digits.

    **Raises** `UndecidedError`, or another `ArithmeticError`, where the digits do not determine it.
    """
    if isinstance(node, (Slot, Rest, Constant)):
        return _read(printed(node, digits))
    if isinstance(node, Terms):
        return _terms(node, digits)
    if isinstance(node, Apply):
        function = APPLY.get(node.function)
        if function is None:
            raise UndecidedError(f"no printed arithmetic for {node.function}")
        return function(*(recompute(arg, digits) for arg in node.args))
    raise UndecidedError(f"a {type(node).__name__} has no printed digits")


def _read(number: Shown) -> Number:
    if number.imaginary is not None:
        real = Shown(number.mantissa, number.negative, number.exponent)
        return Complex(_point(real), _point(number.imaginary))
    return _point(number)


def _point(number: Shown) -> Interval:
    value = number.value
    if value is None:
        raise UndecidedError("not a finite number")
    return point(value)


def _terms(node: Terms, digits: int) -> Number:
    if node.kind == "rank":
        return point(node.count)
    parts = [recompute(item, digits) for item in node.items]
    if node.kind in ("argmax", "argmin"):
        return _position(node, parts)
    if node.rest is not None:
        parts.append(recompute(node.rest, digits))
    if node.kind == "mean":
        return reduce(_add, parts) / point(node.count)
    start, combine = FOLDS[node.kind]
    if start is None:
        if not parts:
            raise UndecidedError("nothing to reduce")
        return reduce(combine, parts)
    return reduce(combine, parts, start)


def _position(node: Terms, parts: list[Number]) -> Interval:
    if node.rest is not None or not parts:
        raise UndecidedError("the position among terms that are not printed")
    best = 0
    for place, part in enumerate(parts[1:], 1):
        left, right = (parts[best], part) if node.kind == "argmax" else (part, parts[best])
        if intervals.less(left, right):
            best = place
    return point(best)


def _add(a: Number, b: Number) -> Number:
    return a + b


FOLDS: dict[str, tuple[Number | None, Callable[[Number, Number], Number]]] = {
    "sum": (intervals.ZERO, _add),
    "product": (intervals.ONE, lambda a, b: a * b),
    "max": (None, intervals.largest),
    "min": (None, intervals.smallest),
    "any": (intervals.ZERO, lambda a, b: point(intervals.truth(a) or intervals.truth(b))),
    "all": (intervals.ONE, lambda a, b: point(intervals.truth(a) and intervals.truth(b))),
}


def _finite(node: Expr) -> bool:
    if isinstance(node, (Slot, Rest, Constant)):
        return math.isfinite(abs(node.value))
    if isinstance(node, Terms):
        return (node.rest is None or _finite(node.rest)) and all(_finite(item) for item in node.items)
    return not isinstance(node, Apply) or all(_finite(arg) for arg in node.args)


def _float64(node: Expr, digits: int) -> Scalar:
    """The value from the printed digits in float64, where infinities and nan follow IEEE 754."""
    if isinstance(node, (Slot, Rest, Constant)):
        number = printed(node, digits)
        if number.imaginary is not None:
            raise UndecidedError("a complex number that is not finite")
        value = number.value
        if value is None:
            return math.nan if number.mantissa == "nan" else -math.inf if number.negative else math.inf
        return float(value)
    with np.errstate(all="ignore"):
        if isinstance(node, Terms):
            parts = [_float64(p, digits) for p in (*node.items, *([node.rest] if node.rest else []))]
            if node.kind not in IEEE_FOLDS:
                raise UndecidedError(f"{node.kind} of numbers that are not finite")
            folded = float(IEEE_FOLDS[node.kind](np.asarray(parts, dtype=np.float64)))
            return folded / node.count if node.kind == "mean" else folded
        if isinstance(node, Apply):
            args = [np.asarray(_float64(arg, digits), dtype=np.float64) for arg in node.args]
            made: Scalar = np.asarray(FUNCTIONS[node.function].compute(*args)).item()
            return made
    raise UndecidedError(f"a {type(node).__name__} has no printed digits")


IEEE_FOLDS: dict[str, Callable[[Any], Any]] = {
    "sum": np.sum,
    "mean": np.sum,
    "product": np.prod,
    "max": np.max,
    "min": np.min,
}


def _step(f: Callable[[Fraction], int | Fraction]) -> Callable[[Number], Number]:
    return lambda x: intervals.step(f, x)


def _smooth(f: Callable[[float], float], monotone: bool = True) -> Callable[[Number], Number]:
    return lambda x: intervals.smooth(f, x, monotone)


def _bits(f: Callable[[int, int], int]) -> Callable[[Number, Number], Number]:
    return lambda a, b: point(f(intervals.whole(a), intervals.whole(b)))


def _truths(f: Callable[[bool, bool], bool]) -> Callable[[Number, Number], Number]:
    return lambda a, b: point(f(intervals.truth(a), intervals.truth(b)))


def _floordiv(a: Number, b: Number) -> Number:
    return intervals.step(math.floor, a / b)


def _conj(x: Number) -> Number:
    return Complex(x.real, -x.imaginary) if isinstance(x, Complex) else x


def _imag(x: Number) -> Number:
    return x.imaginary if isinstance(x, Complex) else intervals.ZERO


APPLY: dict[str, Callable[..., Number]] = {
    **dict.fromkeys(TRANSPARENT, lambda x: x),
    "neg": lambda x: -x,
    "abs": intervals.size,
    "sign": _step(lambda x: (x > 0) - (x < 0)),
    "floor": _step(math.floor),
    "ceil": _step(math.ceil),
    "round": _step(round),
    "trunc": _step(math.trunc),
    "int": _step(math.trunc),
    "bool": lambda x: point(intervals.truth(x)),
    "lt": lambda a, b: point(intervals.less(a, b)),
    "le": lambda a, b: point(not intervals.less(b, a)),
    "gt": lambda a, b: point(intervals.less(b, a)),
    "ge": lambda a, b: point(not intervals.less(a, b)),
    "eq": lambda a, b: point(intervals.equal(a, b)),
    "ne": lambda a, b: point(not intervals.equal(a, b)),
    "and": _truths(lambda a, b: a and b),
    "or": _truths(lambda a, b: a or b),
    "xor": _truths(lambda a, b: a != b),
    "not": lambda x: point(not intervals.truth(x)),
    "bitand": _bits(int.__and__),
    "bitor": _bits(int.__or__),
    "bitxor": _bits(int.__xor__),
    "bitnot": lambda x: point(~intervals.whole(x)),
    "max": intervals.largest,
    "min": intervals.smallest,
    "isnan": lambda _: intervals.ZERO,
    "isinf": lambda _: intervals.ZERO,
    "floordiv": _floordiv,
    "mod": lambda a, b: a - b * _floordiv(a, b),
    "real": lambda x: x.real if isinstance(x, Complex) else x,
    "imag": _imag,
    "conj": _conj,
    "complex": lambda a, b: Complex(a, intervals.ZERO) + Complex(intervals.ZERO, b),
    "add": _add,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": intervals.power,
    "exp": _smooth(math.exp),
    "exp2": lambda x: intervals.power(point(2), x),
    "expm1": lambda x: intervals.smooth(math.exp, x) - intervals.ONE,
    "log": _smooth(math.log),
    "log2": _smooth(math.log2),
    "log10": _smooth(math.log10),
    "log1p": lambda x: intervals.smooth(math.log, intervals.ONE + x),
    "sqrt": _smooth(math.sqrt),
    "sin": _smooth(math.sin, monotone=False),
    "cos": _smooth(math.cos, monotone=False),
    "tan": _smooth(math.tan, monotone=False),
    "asin": _smooth(math.asin),
    "acos": _smooth(math.acos),
    "atan": _smooth(math.atan),
    "sinh": _smooth(math.sinh),
    "cosh": _smooth(math.cosh, monotone=False),
    "tanh": _smooth(math.tanh),
    "asinh": _smooth(math.asinh),
    "acosh": _smooth(math.acosh),
    "atanh": _smooth(math.atanh),
    "erf": _smooth(math.erf),
    "erfc": _smooth(math.erfc),
    "lgamma": _smooth(math.lgamma, monotone=False),
}
"""What is not here is printed too, but its line says ≈."""
