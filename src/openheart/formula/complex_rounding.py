"""How errors pass through functions of complex numbers, and what each function adds of its own.

An error bounds the distance in the plane. Kernels compute the two parts by real functions, so what a function
adds of its own follows from its formula and from what the real functions are granted (`formula.functions`):
exp, log, sinh, cosh, atan2 and hypot 4 units, sin and cos 7.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from openheart.formula.functions import FUNCTIONS, ULPS, Array, Error

PRODUCT = math.sqrt(5.0)
"""Rounding of a complex product, relative to it, in units (Brent, Percival, Zimmermann, *Error Bounds on
Complex Floating-Point Multiplication*, 2007)."""
QUOTIENT = 7.0
"""Of a quotient: a product with the conjugate, over the squared modulus (3), in two divisions."""


def _least(modulus: Array) -> Array:
    return np.maximum(modulus, 0.0)


def _around(x: Array, e: Array) -> Array:
    """How far x² may move when x moves by `e`."""
    return (2 * np.abs(x) + e) * e


SLOPES: dict[str, Callable[[Array, Array], Array]] = {
    "exp": lambda x, e: np.exp(x.real + e),
    "expm1": lambda x, e: np.exp(x.real + e),
    "log": lambda x, e: 1 / _least(np.abs(x) - e),
    "log2": lambda x, e: 1 / (math.log(2) * _least(np.abs(x) - e)),
    "log10": lambda x, e: 1 / (math.log(10) * _least(np.abs(x) - e)),
    "log1p": lambda x, e: 1 / _least(np.abs(1 + x) - e),
    "sqrt": lambda x, e: 0.5 / np.sqrt(_least(np.abs(x) - e)),
    "sin": lambda x, e: np.cosh(np.abs(x.imag) + e),
    "cos": lambda x, e: np.cosh(np.abs(x.imag) + e),
    "sinh": lambda x, e: np.cosh(np.abs(x.real) + e),
    "cosh": lambda x, e: np.cosh(np.abs(x.real) + e),
    "tan": lambda x, e: 1 / _least(np.abs(np.cos(x)) - e * np.cosh(np.abs(x.imag) + e)) ** 2,
    "tanh": lambda x, e: 1 / _least(np.abs(np.cosh(x)) - e * np.cosh(np.abs(x.real) + e)) ** 2,
    "asin": lambda x, e: 1 / np.sqrt(_least(np.abs(1 - x * x) - _around(x, e))),
    "acos": lambda x, e: 1 / np.sqrt(_least(np.abs(1 - x * x) - _around(x, e))),
    "asinh": lambda x, e: 1 / np.sqrt(_least(np.abs(1 + x * x) - _around(x, e))),
    "acosh": lambda x, e: 1 / np.sqrt(_least(np.abs(1 - x * x) - _around(x, e))),
    "atan": lambda x, e: 1 / _least(np.abs(1 + x * x) - _around(x, e)),
    "atanh": lambda x, e: 1 / _least(np.abs(1 - x * x) - _around(x, e)),
}
"""The largest |f′| within `e` of x."""

OWN: dict[str, tuple[float, float]] = {
    # eᵃ·(cos b + i sin b): 4 + 7 + 1; sin a·cosh b and its like are no worse.
    **dict.fromkeys(("exp", "sin", "cos", "sinh", "cosh"), (12.0, 0.0)),
    # (eᵃ − 1)·cos b − 2 sin²(b/2), beside which eᵃ·sin b is large where the two cancel.
    "expm1": (24.0, 0.0),
    # log hypot + i atan2: what hypot is off by is no smaller where the logarithm is.
    "log": (ULPS, ULPS),
    "log2": (ULPS + 3, ULPS / math.log(2)),
    "log10": (ULPS + 3, ULPS / math.log(10)),
    # ½ log1p(a(2 + a) + b²) within ½ of 0, where it is at least |z|/2; else log hypot, at least 0.4 in size.
    "log1p": (16.0, 0.0),
    "sqrt": (8.0, 0.0),
    # hypot, square root, one more sum, and the logarithm or the angle of it.
    **dict.fromkeys(("asin", "acos", "asinh", "acosh"), (12.0, 0.0)),
    # glibc's catan: ¼ log1p(4b / (a² + (1 − b)²)): 5 + 1 + 4, and half an angle.
    **dict.fromkeys(("atan", "atanh"), (12.0, 0.0)),
    # glibc's ctan: sinh b·cosh b / (cos² a + sinh² b): 9 + 10 + 1.
    "tan": (20.0, 0.0),
    "tanh": (20.0, 0.0),
}
"""How many units a function may be off of its own: relative to its result, and relative to 1."""


def complex_error(
    name: str, value: Array, values: Sequence[Array], errors: Sequence[Error], unit: float
) -> Array:
    """How errors pass through a function of one complex number, plus the rounding of its own result."""
    x, error = np.asarray(values[-1]), errors[-1]
    size = np.abs(value)
    relative, absolute = OWN.get(name, (FUNCTIONS[name].ulps, 0.0))
    own = unit * (relative * size + absolute)
    if error is None:
        return own
    slope = SLOPES.get(name)
    passed = np.inf if slope is None else slope(x, error) * error
    return own + np.where(error == 0, 0.0, passed)


def complex_power_error(value: Array, values: Sequence[Array], errors: Sequence[Error], unit: float) -> Array:
    """How errors pass through aᵇ = exp(b·log a), as glibc's cpow computes it, plus its own rounding.

    The logarithm is off by 4 units of 1 + |log a|, the product by 3 of |b·log a|, the exponential by 12.
    """
    (a, b), (ea, eb) = values, errors
    size, log = np.abs(value), np.abs(np.log(np.asarray(a, dtype=np.complex128)))
    inside = unit * (np.abs(b) * (ULPS + (ULPS + 3) * log))
    if ea is not None:
        inside = inside + np.where(ea == 0, 0.0, np.abs(b) * ea / _least(np.abs(a) - ea))
    if eb is not None:
        inside = inside + np.where(eb == 0, 0.0, log * eb)
    own = size * (12 * unit + np.where(inside < 1, 2 * inside, np.inf))  # |eᵈ − 1| ≤ 2|d| for |d| ≤ 1
    return np.where(np.abs(a) == 0, 0.0, own)
