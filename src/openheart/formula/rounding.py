"""How errors pass through the operations of a formula, and what each operation adds of its own.

Sources: N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., SIAM 2002, §2.2 and §3.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from openheart.formula import special
from openheart.formula.complex_rounding import PRODUCT, QUOTIENT, complex_error, complex_power_error
from openheart.formula.functions import COMPARISONS, FUNCTIONS, STEPS, ULPS, Array, Error
from openheart.formula.precision import DOUBLE_UNIT, Precision

SUMMED: dict[str, Callable[..., Array]] = {
    "zeta": special.zeta_size,
    "polygamma": lambda n, x: math.factorial(int(n)) * special.zeta_size(n + 1.0, x),
}
"""The size of what a series adds up, for the functions that kernels compute as one."""


def settled(value: Array, error: Error) -> Error:
    """An infinite result is exact (−∞ from a mask); an error nobody can state is infinite."""
    if error is None or np.isfinite(np.max(error, initial=0.0)):
        return error
    return np.where(np.isfinite(value), np.where(np.isnan(error), np.inf, error), 0.0)


def plus(a: Error, b: Error) -> Error:
    """The sum of two errors, either of which may be nothing."""
    return b if a is None else a if b is None else a + b


def zero(error: Error) -> Array:
    """An error as a number: 0 where there is none."""
    return 0.0 if error is None else error


def integers(values: Sequence[Array]) -> bool:
    """Whether all arrays hold whole numbers or truth values."""
    return all(np.asarray(v).dtype.kind in "iub" for v in values)


def wide_type(*values: Array) -> type:
    """float64, or complex128 where one of the values is complex."""
    return np.complex128 if any(map(np.iscomplexobj, values)) else np.float64


def gammas(counts: Array, unit: float) -> Array:
    """γₙ as `gamma` gives it, place by place."""
    nu = counts * unit
    return np.where(nu < 0.5, nu / (1.0 - nu), nu)


def underflow(wide: Array, fold: Callable[[Array], Array], n: Array, precision: Precision) -> Array:
    """What a product may lose where a part of it falls below the smallest normal number."""
    most = n * precision.tiny * fold(np.maximum(wide, 1.0))
    return np.where(fold(np.minimum(wide, 1.0)) < precision.tiny, most, 0.0)


def inexact(value: Array, source: Array, precision: Precision) -> Error:
    """The rounding of whole numbers that the precision cannot hold."""
    if precision.unit <= DOUBLE_UNIT or not integers([source]):
        return None
    size = np.abs(value)
    held = size * precision.unit < 0.5  # below 2ᵖ every whole number is there
    return None if np.all(held) else np.where(held, 0.0, precision.unit * size)


def exact_error(name: str, value: Array, values: list[Array], errors: list[Error]) -> Error:
    """How errors pass through a function that adds none of its own."""
    if name in COMPARISONS:
        gap = np.abs(np.asarray(values[0], dtype=wide_type(*values)) - values[1])
        around = sum(zero(e) for e in errors)
        doubt = (gap <= around) & (around > 0)
        return doubt if np.any(doubt) else None
    if name in ("and", "or", "xor", "not", "isnan", "isinf", "bool"):
        doubt = np.asarray(False)
        for e in errors:
            if e is not None:
                doubt = doubt | (np.asarray(e) != 0)
        return doubt if np.any(doubt) else None
    if name in STEPS and name != "floordiv":
        row = FUNCTIONS[name].compute
        high, low = row(values[0] + errors[0]), row(values[0] - errors[0])
        return np.maximum(np.abs(high - value), np.abs(low - value))
    if name == "floordiv":
        return np.ones_like(np.asarray(value, dtype=np.float64))
    if name == "mod":
        return zero(errors[0]) + np.abs(value) * 0
    if name in ("max", "min"):
        return np.maximum(zero(errors[0]), zero(errors[1]))
    if name == "complex":
        return zero(errors[0]) + zero(errors[1])
    return sum((zero(e) for e in errors), start=np.zeros(()))


def rounded_error(
    name: str, value: Array, values: list[Array], errors: list[Error], precision: Precision
) -> Error:
    """How errors pass through a rounded function, plus the rounding of its own result."""
    unit, tiny = precision.unit + DOUBLE_UNIT, precision.tiny
    size = np.abs(value)
    if np.iscomplexobj(value):
        if name == "pow":
            return complex_power_error(value, values, errors, unit) + tiny
        if name not in ("add", "sub", "mul", "div"):
            return complex_error(name, value, values, errors, unit) + tiny
        unit *= {"mul": PRODUCT, "div": QUOTIENT}.get(name, 1.0)
    if name in ("add", "sub"):
        own = unit * size
        for e in errors:
            own = plus(own, e)
        return own
    if name == "mul":
        own = unit * size + tiny
        (a, b), (ea, eb) = values, errors
        if ea is not None:
            own = own + np.abs(b) * ea
        if eb is not None:
            own = own + np.abs(a) * eb
        if ea is not None and eb is not None:
            own = own + ea * eb
        return own
    if name == "div":
        own = unit * size + tiny
        (_, b), (ea, eb) = values, errors
        if ea is None and eb is None:
            return own
        least = np.abs(b) - zero(eb)
        spread = (zero(ea) + size * zero(eb)) / np.where(least > 0, least, 0.0)
        return own + np.where(np.isnan(spread), 0.0, spread)
    if name == "pow":
        return power_error(size, values, errors, ULPS * unit, tiny)
    if name == "hypot":
        return plus(plus(ULPS * unit * size + tiny, errors[0]), errors[1])
    if name == "atan2":
        passed = sum(zero(e) for e in errors)
        return ULPS * unit * size + tiny + np.where(passed == 0, 0.0, passed / np.hypot(*values))
    row, x = FUNCTIONS[name], values[-1]
    ulps = 2.0 if name == "sqrt" else row.ulps  # of MKL: within one unit in the last place (0.75 measured)
    if name in SUMMED:  # below zero the terms of a series may cancel; what they are off by does not
        size = SUMMED[name](*values)
    own = (ulps * unit * size if row.own is None else row.own(x, size, unit)) + tiny
    error = errors[-1]
    if error is None:
        return own
    if row.slope is None:  # monotone between its poles: the ends of the interval are its extremes
        high, low = row.compute(*values[:-1], x + error), row.compute(*values[:-1], x - error)
        return own + np.maximum(np.abs(high - value), np.abs(low - value))
    passed = np.abs(row.slope(x, error)) * error  # of a complex number, the modulus
    if name == "sqrt":
        passed = np.minimum(np.where(np.isnan(passed), np.inf, passed), np.sqrt(error))
    return own + np.where(error == 0, 0.0, passed)


def power_error(size: Array, values: list[Array], errors: list[Error], unit: float, tiny: float) -> Error:
    """How errors pass through aᵇ, plus the rounding of its own result."""
    (a, b), (ea, eb) = values, errors
    own = unit * size + tiny
    if ea is not None:
        edge = np.where(np.asarray(b) >= 1, np.abs(a) + ea, np.maximum(np.abs(a) - ea, 0.0))
        passed = np.abs(b) * edge ** (np.asarray(b) - 1.0) * ea
        own = own + np.where(ea == 0, 0.0, passed)
    if eb is not None:
        own = own + size * np.abs(np.log(np.abs(a))) * eb
    return own
