"""The pointwise functions of the formula language, one row each.

A row says how a function is computed in float64 and how errors pass through it. With arguments known to
within `e`, the result is known to within the returned error; `u` is the unit roundoff of the precision
in which the recorded number was computed (2⁻²⁴ for float32). The library functions of PyTorch's kernels
are accurate to a few units in the last place; ULPS is what we grant them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from openheart.formula import bits, special
from openheart.formula import expr as make
from openheart.formula.expr import Expr, Operand
from openheart.formula.precision import FLOAT64, PRECISIONS, Precision

Array: TypeAlias = Any  # numpy.ndarray or a scalar, float64 | int64 | bool | complex128
Error: TypeAlias = Any  # like Array, or None where the value is known exactly

ULPS = 4.0

COMPUTED_IN: dict[str, Precision] = {"double": FLOAT64, **PRECISIONS}
"""The functions that say in which precision their argument is computed."""
INTEGERS = {f"fits_{name}": np.iinfo(name) for name in ("uint8", "int8", "int16", "int32", "int64")}
"""The functions that say that C leaves a conversion to this type undefined where the number does not fit."""
ASIDE = frozenset({"accumulated", "u20", "cubic", *INTEGERS})
"""The functions that say something else about how their argument is computed."""
TRANSPARENT = frozenset({"float", *COMPUTED_IN, *ASIDE})
"""The functions that speak of precision only: they are not seen in a printed formula."""


@dataclass(frozen=True, slots=True)
class Function:
    """One pointwise function: how it is computed, and how errors pass."""

    name: str
    compute: Callable[..., Array]
    slope: Callable[[Array, Array], Array] | None = None
    """For a smooth function of one argument: the largest |f′| within `e` of `x`."""
    ulps: float = ULPS
    """How many unit roundoffs, relative to its result, the kernels' version may be off."""
    own: Callable[[Array, Array, float], Array] | None = None
    """How far the kernels may be off, by x, |f(x)| and the unit roundoff, where `ulps` cannot say it."""
    exact: bool = False
    """Whether the result is exact when the arguments are (comparisons, floor, abs, where …)."""


def _pow(a: Array, b: Array) -> Array:
    if np.ndim(b) == 0 and b == 2:
        return a * a
    if _is_integer(a) and _is_integer(b) and np.all(np.asarray(b) >= 0):
        return np.power(a, b)
    made = np.power(np.asarray(a, dtype=np.result_type(a, np.float64)), b)
    if np.ndim(b) == 0 and b == 0.5:  # NumPy takes a square root there, which of −∞ is a NaN
        return np.where(a == -np.inf, np.inf, made)[()]
    return made


def _is_integer(a: Array) -> bool:
    return np.asarray(a).dtype.kind in "iub"


def _div(a: Array, b: Array) -> Array:
    return np.true_divide(a, b)


def _slope_at_edge(f: Callable[[Array], Array]) -> Callable[[Array, Array], Array]:
    """For |f′| that grows towards zero: its value at the nearest point of the interval."""
    return lambda x, e: f(np.maximum(np.abs(x) - e, 0.0))


def _flat(bound: float) -> Callable[[Array, Array], Array]:
    return lambda x, e: bound


def _tanh_slope(x: Array, e: Array) -> Array:
    nearest = np.maximum(np.abs(x) - e, 0.0)
    return 1.0 / np.cosh(np.minimum(nearest, 300.0)) ** 2


def _erf_slope(x: Array, e: Array) -> Array:
    return 2.0 / math.sqrt(math.pi) * np.exp(-(np.maximum(np.abs(x) - e, 0.0) ** 2))


def _log1p(x: Array) -> Array:
    """Log (1 + x); of a complex number near 0 by ½ log1p(a(2 + a) + b²), since NumPy's loses it in 1 + x."""
    if not np.iscomplexobj(x):
        return np.log1p(x)
    a, b = np.real(x), np.imag(x)
    near = 0.5 * np.log1p(a * (2 + a) + b * b)
    return np.where(np.abs(x) < 0.5, near, np.log(np.hypot(1 + a, b))) + 1j * np.arctan2(b, 1 + a)


def _sign(x: Array) -> Array:
    """−1, 0 or 1; 0 for a NaN, as PyTorch has it."""
    return np.sign(x) if _is_integer(x) else np.nan_to_num(np.sign(x), nan=0.0)


def _erf_own(x: Array, size: Array, unit: float) -> Array:
    """How far PyTorch's erf may be off.

    The vectorized float version is Abramowitz and Stegun's formula 7.1.26 (1.5·10⁻⁷ off, and 10 units of
    rounding where its polynomial is largest); oneDNN's, inside gelu, is a piecewise minimax polynomial, up
    to 12 units off at |x| ≈ 3 (measured on a grid of 4·10⁶ points). Both are errors relative to 1.
    """
    return ULPS * unit * size if unit < 1e-10 else np.full(np.shape(x), 16 * unit)


def _absolute(ulps: float) -> Callable[[Array, Array, float], Array]:
    """Functions with zeros that nobody can hit: accurate relative to 1 where the result is smaller."""
    return lambda x, size, unit: ulps * unit * np.maximum(size, 1.0)


_ROWS = [
    Function("neg", np.negative, exact=True),
    Function("abs", np.abs, exact=True),
    Function("sign", _sign, exact=True),
    Function("floor", np.floor, exact=True),
    Function("ceil", np.ceil, exact=True),
    Function("round", np.rint, exact=True),
    Function("trunc", np.trunc, exact=True),
    Function("lt", np.less, exact=True),
    Function("le", np.less_equal, exact=True),
    Function("gt", np.greater, exact=True),
    Function("ge", np.greater_equal, exact=True),
    Function("eq", np.equal, exact=True),
    Function("ne", np.not_equal, exact=True),
    Function("and", np.logical_and, exact=True),
    Function("or", np.logical_or, exact=True),
    Function("xor", np.logical_xor, exact=True),
    Function("not", np.logical_not, exact=True),
    Function("bitand", np.bitwise_and, exact=True),
    Function("bitor", np.bitwise_or, exact=True),
    Function("bitxor", np.bitwise_xor, exact=True),
    Function("bitnot", np.bitwise_not, exact=True),
    Function("max", np.maximum, exact=True),
    Function("min", np.minimum, exact=True),
    Function("isnan", np.isnan, exact=True),
    Function("isinf", np.isinf, exact=True),
    Function("where", np.where, exact=True),
    Function("floordiv", np.floor_divide, exact=True),
    Function("mod", np.mod, exact=True),
    Function("int", lambda x: np.trunc(x).astype(np.int64), exact=True),
    Function("bool", lambda x: np.asarray(x) != 0, exact=True),
    Function("float", lambda x: np.asarray(x, dtype=np.float64), exact=True),
    *(Function(name, lambda x: x, exact=True) for name in (*COMPUTED_IN, *sorted(ASIDE))),
    Function("real", np.real, exact=True),
    Function("imag", np.imag, exact=True),
    Function("conj", np.conj, exact=True),
    Function("complex", lambda a, b: a + 1j * np.asarray(b), exact=True),
    Function("add", np.add),
    Function("sub", np.subtract),
    Function("mul", np.multiply),
    Function("div", _div),
    Function("pow", _pow),
    Function("atan2", np.arctan2),
    Function("exp", np.exp, slope=lambda x, e: np.exp(x + e)),
    Function("exp2", np.exp2, slope=lambda x, e: np.exp2(x + e)),
    Function("expm1", np.expm1, slope=lambda x, e: np.exp(x + e)),
    Function("log", np.log, slope=_slope_at_edge(lambda x: 1 / x)),
    Function("log2", np.log2, slope=_slope_at_edge(lambda x: 1.4426950408889634 / x)),
    Function("log10", np.log10, slope=_slope_at_edge(lambda x: 0.4342944819032518 / x)),
    Function("log1p", _log1p, slope=lambda x, e: 1 / np.maximum(1 + x - e, 0.0)),
    Function("sqrt", np.sqrt, slope=_slope_at_edge(lambda x: 0.5 / np.sqrt(x))),
    # Sleef's sinf_u35 and cosf_u35: within 3.5 units in the last place, of two unit roundoffs at most.
    Function("sin", np.sin, slope=_flat(1.0), ulps=7.0),
    Function("cos", np.cos, slope=_flat(1.0), ulps=7.0),
    Function("tan", np.tan, slope=lambda x, e: 1 + (np.abs(np.tan(x)) + 2 * e) ** 2),
    Function("asin", np.arcsin, slope=lambda x, e: 1 / np.sqrt(np.maximum(1 - (np.abs(x) + e) ** 2, 0.0))),
    Function("acos", np.arccos, slope=lambda x, e: 1 / np.sqrt(np.maximum(1 - (np.abs(x) + e) ** 2, 0.0))),
    Function("atan", np.arctan, slope=_flat(1.0)),
    Function("sinh", np.sinh, slope=lambda x, e: np.cosh(np.abs(x) + e)),
    Function("cosh", np.cosh, slope=lambda x, e: np.sinh(np.abs(x) + e)),
    Function("tanh", np.tanh, slope=_tanh_slope),
    Function("asinh", np.arcsinh, slope=_flat(1.0)),
    Function("acosh", np.arccosh, slope=lambda x, e: 1 / np.sqrt(np.maximum((x - e) ** 2 - 1, 0.0))),
    Function("atanh", np.arctanh, slope=lambda x, e: 1 / np.maximum(1 - (np.abs(x) + e) ** 2, 0.0)),
    Function("erf", special.erf, slope=_erf_slope, own=_erf_own),
    Function("erfc", special.erfc, slope=_erf_slope),
    Function("fmod", np.fmod, exact=True),
    Function("gcd", np.gcd, exact=True),
    Function("signbit", np.signbit, exact=True),
    Function("copysign", np.copysign, exact=True),
    Function("shiftleft", np.left_shift, exact=True),
    Function("shiftright", np.right_shift, exact=True),
    Function("mantissa", lambda x: np.frexp(x)[0], exact=True),
    Function("exponent", lambda x: np.frexp(x)[1].astype(np.int64), exact=True),
    *(Function(f"bits_{name}", bits.bits_of(name), exact=True) for name in bits.WIDTHS),
    *(Function(f"{name}_of_bits", bits.number_of(name), exact=True) for name in bits.WIDTHS),
    Function("hypot", np.hypot),
    # Moshier's Cephes, which PyTorch follows, states these peak errors (in units of 2⁻²⁴):
    # psif 8.2e-7, absolute below 1; i0f, i0ef 4.0e-7; i1f, i1ef 1.5e-6; ndtri, zeta, erfcx: a few units.
    Function("digamma", special.digamma, own=_absolute(14.0)),
    Function("i0", special.i0, ulps=7.0),
    Function("i0e", special.i0e, ulps=7.0),
    Function("i1", special.i1, ulps=26.0),
    Function("i1e", special.i1e, ulps=26.0),
    Function("zeta", special.zeta, ulps=16.0),
    Function("polygamma", special.polygamma, ulps=18.0),
    Function("erfinv", special.erfinv),
    Function("erfcx", special.erfcx, ulps=8.0),
    Function("ndtri", special.ndtri, ulps=8.0),
    # Sleef's lgammaf_u10: one unit in the last place, or absolute near the zeros.
    Function("lgamma", special.lgamma, own=_absolute(ULPS)),
]
FUNCTIONS: dict[str, Function] = {row.name: row for row in _ROWS}
OF_BITS = frozenset(f"bits_{name}" for name in bits.WIDTHS)
"""The functions that read a number's bits: they take it as it was recorded, a NaN's bits and all."""
COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
STEPS = frozenset({"floor", "ceil", "round", "trunc", "sign", "floordiv", "int"})


def _unary(name: str) -> Callable[[Operand], Expr]:
    def call(x: Operand) -> Expr:
        return make.apply(name, x)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"{name}(x), element by element."
    return call


exp, exp2, expm1 = _unary("exp"), _unary("exp2"), _unary("expm1")
log, log2, log10, log1p = _unary("log"), _unary("log2"), _unary("log10"), _unary("log1p")
sqrt, sign, erf, erfc, lgamma = map(_unary, ("sqrt", "sign", "erf", "erfc", "lgamma"))
sin, cos, tan, asin, acos, atan = map(_unary, ("sin", "cos", "tan", "asin", "acos", "atan"))
sinh, cosh, tanh, asinh, acosh, atanh = map(_unary, ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"))
floor, ceil, round_, trunc = _unary("floor"), _unary("ceil"), _unary("round"), _unary("trunc")
signbit = _unary("signbit")
digamma, erfinv, erfcx, ndtri = map(_unary, ("digamma", "erfinv", "erfcx", "ndtri"))
i0, i0e, i1, i1e, mantissa, exponent = map(_unary, ("i0", "i0e", "i1", "i1e", "mantissa", "exponent"))
isnan, isinf, to_int, to_bool, to_float = map(_unary, ("isnan", "isinf", "int", "bool", "float"))
real, imag, conj = _unary("real"), _unary("imag"), _unary("conj")
double = _unary("double")
double.__doc__ = (
    "x, computed in double precision whatever the call's precision is (scalar arithmetic in kernels)."
)


def computed_in(precision: Precision, x: Operand) -> Expr:
    """x, where a kernel rounds each step of computing it to this precision rather than to the call's."""
    return make.apply(precision.name, x)


def accumulated(start: Operand, terms: Operand) -> Expr:
    """Start + terms, where a kernel adds the terms of a sum onto `start` one by one, in any order."""
    return make.apply("accumulated", make.expr(start) + terms)


def fast(x: Operand) -> Expr:
    """x, by a fast library function that is right to 20 units in the last place."""
    return make.apply("u20", x)


def cubic(x: Operand) -> Expr:
    """x, an exponential by a cubic in the exponent's fraction: right to 2⁻¹³ of itself.

    Source: Malossi, Ineichen, Bekas, Curioni, *Fast Exponential Computation on SIMD Architectures* (2015);
    the cubic of PyTorch's `Vectorized<float>::fexp_u20` is off by 1.07·10⁻⁴, its roundings by 1.4·10⁻⁵.
    """
    return make.apply("cubic", x)


def rounded_to(precision: Precision, x: Operand, computed: Precision) -> Expr:
    """x, computed in one precision and stored in another on the way."""
    return make.apply(precision.name, make.apply(computed.name, x))


def maximum(a: Operand, b: Operand) -> Expr:
    """The larger of two numbers."""
    return make.apply("max", a, b)


def minimum(a: Operand, b: Operand) -> Expr:
    """The smaller of two numbers."""
    return make.apply("min", a, b)


def atan2(y: Operand, x: Operand) -> Expr:
    """The angle of the point (x, y)."""
    return make.apply("atan2", y, x)


def hypot(a: Operand, b: Operand) -> Expr:
    """√(a² + b²), without overflow."""
    return make.apply("hypot", a, b)


def fmod(a: Operand, b: Operand) -> Expr:
    """The remainder of a / b that has the sign of a; exact."""
    return make.apply("fmod", a, b)


def gcd(a: Operand, b: Operand) -> Expr:
    """The greatest common divisor."""
    return make.apply("gcd", a, b)


def copysign(a: Operand, b: Operand) -> Expr:
    """|a| with the sign of b."""
    return make.apply("copysign", a, b)


def polygamma(n: Operand, x: Operand) -> Expr:
    """The n-th derivative of digamma."""
    return make.apply("polygamma", n, x)


def zeta(s: Operand, q: Operand) -> Expr:
    """Hurwitz's zeta function Σₙ (q + n)⁻ˢ."""
    return make.apply("zeta", s, q)


def sigmoid(x: Operand) -> Expr:
    """1 / (1 + e⁻ˣ)."""
    return 1 / (1 + exp(-make.expr(x)))
