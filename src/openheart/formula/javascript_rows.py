"""The pointwise functions of the formula language in JavaScript, one row each, and how errors pass them.

Values are JavaScript numbers (float64; whole numbers exact up to 2⁵³), truth values its booleans. Names
like `erf` or `roundEven` are functions of `openheart/live/functions.js`. The errors follow
`formula.functions` and `formula.rounding`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openheart.formula.functions import COMPARISONS, FUNCTIONS, STEPS, ULPS

ATOM, UNARY, PRODUCT, SUM, COMPARE, AND, OR, TERNARY = 20, 15, 13, 12, 10, 5, 4, 2
"""How tightly JavaScript's operators bind."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A value in generated code: its expression, its error's (None where exact), kind and binding.

    `kind` is "f", "i" or "b". `constant` is arithmetic of constants alone, which is worked out in double.
    """

    value: str
    error: str | None
    kind: str
    level: int = ATOM
    constant: bool = False


def within(operand: Operand, level: int) -> str:
    """The value's source, in parentheses where something of this level binds tighter."""
    return operand.value if operand.level >= level else f"({operand.value})"


CALLS: dict[str, str] = {
    "abs": "Math.abs",
    "floor": "Math.floor",
    "ceil": "Math.ceil",
    "round": "roundEven",
    "trunc": "Math.trunc",
    "int": "Math.trunc",
    "isnan": "Number.isNaN",
    "isinf": "isInfinite",
    "sign": "sign",
    "exp": "Math.exp",
    "exp2": "exp2",
    "expm1": "Math.expm1",
    "log": "Math.log",
    "log2": "Math.log2",
    "log10": "Math.log10",
    "log1p": "Math.log1p",
    "sqrt": "Math.sqrt",
    "sin": "Math.sin",
    "cos": "Math.cos",
    "tan": "Math.tan",
    "asin": "Math.asin",
    "acos": "Math.acos",
    "atan": "Math.atan",
    "sinh": "Math.sinh",
    "cosh": "Math.cosh",
    "tanh": "Math.tanh",
    "asinh": "Math.asinh",
    "acosh": "Math.acosh",
    "atanh": "Math.atanh",
    "erf": "erf",
    "erfc": "erfc",
    "lgamma": "lgamma",
    "digamma": "digamma",
    "i0": "i0",
    "i0e": "i0e",
    "i1": "i1",
    "i1e": "i1e",
    "erfinv": "erfinv",
    "erfcx": "erfcx",
    "ndtri": "ndtri",
    "mantissa": "mantissa",
    "exponent": "exponent",
    "signbit": "signBit",
    "atan2": "Math.atan2",
    "hypot": "Math.hypot",
    "gcd": "gcd",
    "copysign": "copySign",
    "zeta": "zeta",
    "polygamma": "polygamma",
    "bitand": "bitAnd",
    "bitor": "bitOr",
    "bitxor": "bitXor",
    "shiftleft": "shiftLeft",
    "shiftright": "shiftRight",
    "max": "larger",
    "min": "smaller",
}
"""The functions that are calls in JavaScript."""

_KINDS = {
    "floor": "",
    "ceil": "",
    "round": "",
    "trunc": "",
    "abs": "",
    "sign": "",
    "int": "i",
    "exponent": "i",
    "gcd": "i",
    "isnan": "b",
    "isinf": "b",
    "signbit": "b",
}
_SIGNS = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


class NoJavaScript(Exception):
    """Raised where a formula holds something that has no JavaScript form (complex numbers)."""


def common(args: Sequence[Operand]) -> str:
    """The kind of number that these kinds make together."""
    kinds = {a.kind for a in args}
    return "f" if "f" in kinds else "i" if "i" in kinds else "b"


def truth(a: Operand, level: int) -> str:
    """The operand as a truth value."""
    return within(a, level) if a.kind == "b" else f"({within(a, COMPARE + 1)} != 0)"


def write(name: str, args: Sequence[Operand], whole: bool = False) -> Operand:
    """The function's value as source; errors are left to `error_of`.

    `whole` says that the arguments are places: whole and never negative.

    **Raises** `NoJavaScript` for the functions of complex numbers, and of a number's bits.
    """
    a = args[0]
    b = args[1] if len(args) > 1 else a
    kind = common(args)
    if name in ("float", "real"):
        return Operand(f"+{within(a, UNARY)}" if a.kind == "b" else a.value, None, "f", a.level)
    if name == "conj":
        return a
    if name in COMPARISONS:
        return Operand(
            f"{within(a, COMPARE + 1)} {_SIGNS[name]} {within(b, COMPARE + 1)}", None, "b", COMPARE
        )
    if name == "and" or (name == "mul" and kind == "b"):
        return Operand(f"{truth(a, AND)} && {truth(b, AND)}", None, "b", AND)
    if name == "or" or (name == "add" and kind == "b"):
        return Operand(f"{truth(a, AND)} || {truth(b, AND)}", None, "b", OR)
    if name == "xor" or (name == "bitxor" and kind == "b"):
        return Operand(f"{truth(a, COMPARE + 1)} != {truth(b, COMPARE + 1)}", None, "b", COMPARE)
    if name in ("bitand", "bitor") and kind == "b":
        return write({"bitand": "and", "bitor": "or"}[name], args)
    if name == "not" or (name == "bitnot" and kind == "b"):
        return Operand(f"!{truth(a, UNARY)}", None, "b", UNARY)
    if name == "bitnot":
        return Operand(f"-{within(a, UNARY)} - 1", None, "i", SUM)
    if name == "bool":
        return Operand(f"{within(a, COMPARE + 1)} != 0", None, "b", COMPARE)
    if name == "neg":
        return Operand(f"-{within(a, UNARY + 1)}", None, "f" if kind == "f" else "i", UNARY)
    if name == "add":
        return Operand(f"{within(a, SUM)} + {within(b, SUM)}", None, _number(kind), SUM)
    if name == "sub":
        return Operand(f"{within(a, SUM)} - {within(b, SUM + 1)}", None, _number(kind), SUM)
    if name == "mul":
        return Operand(f"{within(a, PRODUCT)} * {within(b, PRODUCT + 1)}", None, kind, PRODUCT)
    if name == "div":
        return Operand(f"{within(a, PRODUCT)} / {within(b, PRODUCT + 1)}", None, "f", PRODUCT)
    if name == "fmod":
        return Operand(f"{within(a, PRODUCT)} % {within(b, PRODUCT + 1)}", None, kind, PRODUCT)
    if name in ("floordiv", "mod"):
        if whole and name == "mod":
            return Operand(f"{within(a, PRODUCT)} % {within(b, PRODUCT + 1)}", None, "i", PRODUCT)
        if whole:
            return Operand(f"({within(a, PRODUCT)} / {within(b, PRODUCT + 1)} | 0)", None, "i")
        return Operand(
            f"{'floorDivide' if name == 'floordiv' else 'modulo'}({a.value}, {b.value})", None, kind
        )
    if name == "pow":
        if b.value == "2" and a.level == ATOM:
            return Operand(f"{a.value} * {a.value}", None, a.kind, PRODUCT)
        return Operand(f"power({a.value}, {b.value})", None, kind if kind != "b" else "i")
    if name == "where":
        condition, then, other = args
        text = f"{truth(condition, TERNARY + 1)} ? {within(then, TERNARY + 1)} : {within(other, TERNARY)}"
        return Operand(text, None, common(args[1:]), TERNARY)
    if name in CALLS:
        made = _KINDS.get(name, "f") or a.kind
        if name in ("max", "min", "bitand", "bitor", "bitxor", "shiftleft", "shiftright"):
            made = _number(kind)
        return Operand(f"{CALLS[name]}({', '.join(arg.value for arg in args)})", None, made)
    raise NoJavaScript(f"the function {name} ({'bits' if 'bits' in name else 'complex numbers'})")


def _number(kind: str) -> str:
    return "f" if kind == "f" else "i"


# -- errors ----------------------------------------------------------------------------------------

SLOPES: dict[str, str] = {
    "exp": "Math.exp({x} + {e})",
    "exp2": "exp2({x} + {e})",
    "expm1": "Math.exp({x} + {e})",
    "log": "1 / nearest({x}, {e})",
    "log2": "1.4426950408889634 / nearest({x}, {e})",
    "log10": "0.4342944819032518 / nearest({x}, {e})",
    "log1p": "1 / Math.max(1 + {x} - {e}, 0)",
    "sqrt": "0.5 / Math.sqrt(nearest({x}, {e}))",
    "sin": "1",
    "cos": "1",
    "tan": "1 + (Math.abs(Math.tan({x})) + 2 * {e}) ** 2",
    "asin": "1 / Math.sqrt(Math.max(1 - (Math.abs({x}) + {e}) ** 2, 0))",
    "acos": "1 / Math.sqrt(Math.max(1 - (Math.abs({x}) + {e}) ** 2, 0))",
    "atan": "1",
    "sinh": "Math.cosh(Math.abs({x}) + {e})",
    "cosh": "Math.sinh(Math.abs({x}) + {e})",
    "tanh": "1 / Math.cosh(Math.min(nearest({x}, {e}), 300)) ** 2",
    "asinh": "1",
    "acosh": "1 / Math.sqrt(Math.max(({x} - {e}) ** 2 - 1, 0))",
    "atanh": "1 / Math.max(1 - (Math.abs({x}) + {e}) ** 2, 0)",
    "erf": "1.1283791670955126 * Math.exp(-(nearest({x}, {e}) ** 2))",
    "erfc": "1.1283791670955126 * Math.exp(-(nearest({x}, {e}) ** 2))",
}
"""The largest |f′| within `e` of `x`."""

_RELATIVE_TO_ONE = {"digamma": 14.0, "lgamma": ULPS}
_PASSING = ("neg", "abs", "float", "real", "conj", "copysign", "fmod", "mod")
_TRUTHFUL = ("and", "or", "xor", "not", "isnan", "isinf", "bool", "signbit")


def total_of(*parts: str | None) -> str | None:
    """The sum of errors, None where there is none."""
    return " + ".join(p for p in parts if p) or None


def error_of(
    name: str, value: str, kind: str, args: Sequence[Operand], unit: str, tiny: str, let: Callable[[str], str]
) -> str | None:
    """The source of the error of `name(args)`, whose value is `value`; None where it is exact.

    `unit` and `tiny` are those of the precision; `let` gives a name to a source.
    """
    errors = [a.error for a in args]
    known = [e for e in errors if e]
    if name in COMPARISONS:
        if not known:
            return None
        return let(f"inDoubt({args[0].value}, {args[1].value}, {total_of(*known)})")
    if name in _TRUTHFUL:
        return let(f"+({' || '.join(f'{e} > 0' for e in known)})") if known else None
    if name == "where":
        return _where_error(args, let)
    if name in ("max", "min"):
        return let(f"Math.max({', '.join(known)})") if known else None
    exact = FUNCTIONS[name].exact or (name in ("add", "sub", "mul", "pow") and kind != "f")
    if exact and not known:
        return None
    if name in STEPS and name != "floordiv":
        return let(_ends(name, value, args))
    if name in _PASSING:
        return total_of(*known)
    if exact:
        return let(f"({total_of(*known)}) > 0 ? Infinity : 0")
    return let(f"settle({value}, {_rounded(name, value, args, unit, tiny)})")


def _where_error(args: Sequence[Operand], let: Callable[[str], str]) -> str | None:
    condition, a, b = args
    if not (condition.error or a.error or b.error):
        return None
    picked = f"({truth(condition, TERNARY + 1)} ? {a.error or 0} : {b.error or 0})"
    if condition.error:
        picked += (
            f" + ({condition.error} > 0 ? apart({a.value}, {b.value}, {a.error or 0}, {b.error or 0}) : 0)"
        )
    return let(picked)


def _ends(name: str, value: str, args: Sequence[Operand]) -> str:
    *first, last = args
    before = "".join(f"{a.value}, " for a in first)
    call = f"(x) => {write(name, [*first, Operand('x', None, last.kind)]).value}" if not before else None
    call = call or f"(x) => {CALLS[name]}({before}x)"
    return f"ends({call}, {last.value}, {last.error or 0}, {value})"


def _rounded(name: str, value: str, args: Sequence[Operand], unit: str, tiny: str) -> str:
    x = args[-1]
    a, ea = args[0].value, args[0].error
    b, eb = x.value, x.error
    own = f"{unit} * Math.abs({value})"
    if name in ("add", "sub"):
        return total_of(own, ea, eb) or "0"
    if name == "mul":
        both = [f"Math.abs({b}) * {ea}" if ea else None, f"Math.abs({a}) * {eb}" if eb else None]
        return total_of(f"{own} + {tiny}", *both, f"{ea} * {eb}" if ea and eb else None) or "0"
    if name == "div":
        if not (ea or eb):
            return f"{own} + {tiny}"
        return f"{own} + {tiny} + quotientError({value}, {b}, {ea or 0}, {eb or 0})"
    if name == "pow":
        return f"{ULPS:g} * {own} + {tiny} + powerError({a}, {b}, {ea or 0}, {eb or 0})"
    if name == "hypot":
        return total_of(f"{ULPS:g} * {own} + {tiny}", ea, eb) or "0"
    if name == "atan2":
        passed = total_of(ea, eb)
        spread = f" + ({passed}) / Math.hypot({a}, {b})" if passed else ""
        return f"{ULPS:g} * {own} + {tiny}{spread}"
    if name == "erf":
        own = f"({unit} < 1e-10 ? {ULPS:g} * {own} : 16 * {unit})"
    elif name in _RELATIVE_TO_ONE:
        own = f"{_RELATIVE_TO_ONE[name]:g} * {unit} * Math.max(Math.abs({value}), 1)"
    else:
        own = f"{2.0 if name == 'sqrt' else FUNCTIONS[name].ulps:g} * {own}"
    if not eb:
        return f"{own} + {tiny}"
    if name not in SLOPES:
        return f"{own} + {tiny} + {_ends(name, value, args)}"
    passed = f"({SLOPES[name].format(x=b, e=eb)}) * {eb}"
    if name == "sqrt":
        passed = f"least({passed}, Math.sqrt({eb}))"
    return f"{own} + {tiny} + ({eb} > 0 ? {passed} : 0)"
