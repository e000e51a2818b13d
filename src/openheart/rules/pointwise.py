"""Arithmetic and elementary functions, element by element: each row covers every form of its operator."""

from __future__ import annotations

import math
from typing import Any

from openheart.formula.expr import Apply, Expr, Operand, Ref, apply, expr, is_number, named, where
from openheart.formula.functions import (
    COMPUTED_IN,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    ceil,
    cos,
    cosh,
    exp,
    exp2,
    expm1,
    floor,
    fmod,
    gcd,
    hypot,
    imag,
    isinf,
    isnan,
    log,
    log1p,
    log2,
    log10,
    maximum,
    minimum,
    real,
    round_,
    sign,
    sin,
    sinh,
    sqrt,
    tan,
    tanh,
    trunc,
)
from openheart.formula.precision import PRECISIONS
from openheart.rules.registry import value_of
from openheart.rules.rows import HALVES, kind_of, row, stored


def whole(x: Any, rounded: Expr) -> Expr:
    """A rounding function: whole numbers are left as they are."""
    return expr(x) if kind_of(x) in ("int", "bool") else rounded


def quotient(self: Any, other: Any, result: Any, rounding_mode: str | None) -> Expr:
    """The quotient a / b, rounded as division's `rounding_mode` says."""
    if rounding_mode is None:
        return expr(self) / other
    if kind_of(self) in ("int", "bool") and kind_of(other) in ("int", "bool"):
        # towards zero: (a − a mod b) / b, where the remainder has the sign of a
        return apply("floordiv", self if rounding_mode == "floor" else self - fmod(self, other), other)
    narrow = result.dtype in HALVES and isinstance(other, Ref)
    if rounding_mode == "trunc":
        return trunc(stored(expr(self) / other, result) if narrow else expr(self) / other)
    if not narrow:
        return apply("floordiv", self, other)
    # in half precision each step of ⌊a/b⌋ is rounded: ((a − a mod b) / b, one less where the signs differ
    m = fmod(self, other)
    less = where((m != 0) & ((other < 0) != (m < 0)), 1, 0)
    return where(expr(other) == 0, self / other, round_(stored((self - m) / other - less, result)))


def remainder(self: Any, other: Any) -> Expr:
    """Self − other·⌊self/other⌋: the remainder that has the divisor's sign."""
    if kind_of(self) in ("int", "bool") and kind_of(other) in ("int", "bool"):
        return expr(self) % other
    m = fmod(self, other)
    return where((m != 0) & ((expr(other) < 0) != (m < 0)), m + other, m)


def magnitude(self: Any) -> Expr:
    """|x|, of a complex number √(a² + b²)."""
    return hypot(real(self), imag(self)) if kind_of(self) == "complex" else abs(self)


def direction(self: Any) -> Expr:
    """Sgn x: the sign, of a complex number z / |z|."""
    return where(self == 0, 0, self / magnitude(self)) if kind_of(self) == "complex" else whole_sign(self)


def whole_sign(self: Any) -> Expr:
    return expr(self) if kind_of(self) == "bool" else sign(self)


def angle(self: Any) -> Expr:
    """The argument of a number: of a negative one π."""
    if kind_of(self) == "complex":
        return atan2(imag(self), real(self))
    return where(isnan(self), self, where(self < 0, math.pi, 0.0))


def lerp(self: Any, end: Any, weight: Any) -> Expr:
    # a + w(b − a), from the end that is nearer
    near, far = self + weight * (end - self), end - (end - self) * (1 - expr(weight))
    known = value_of(weight)
    if not isinstance(known, Expr):
        return near if abs(known) < 0.5 else far
    return where(abs(weight) < 0.5, near, far)


def clamp(self: Any, min: Any = None, max: Any = None) -> Expr:
    """min(max(x, low), high)."""
    if min is not None:
        self = maximum(self, min)
    return self if max is None else minimum(self, max)


def rounded(self: Any, decimals: int = 0) -> Expr:
    """The nearest whole number (ties to even), or the nearest multiple of 10^−decimals."""
    if kind_of(self) in ("int", "bool"):
        return expr(self)
    if decimals == 0:
        return round_(self)
    tens = 10.0 ** abs(decimals)
    return round_(self * tens) / tens if decimals > 0 else round_(self / tens) * tens


def first_of(a: Any, b: Any, chosen: Expr) -> Expr:
    """`chosen`, where neither is a NaN; else the other one (fmax and fmin pass over NaNs)."""
    if kind_of(a) != "float" and kind_of(b) != "float":
        return chosen
    return where(isnan(a), b, where(isnan(b), a, chosen))


def logaddexp(self: Any, other: Any, power: Any, inverse: Any, plus_one: Any) -> Expr:
    # log(eᵃ + eᵇ) = m + log(1 + e^−|a−b|), m the larger of the two
    if kind_of(self) == "complex":
        return complex_logaddexp(self, other)
    m = maximum(self, other)
    return where(isinf(self) & (self == other), self, m + plus_one(power(-abs(self - other))))


def complex_logaddexp(self: Any, other: Any) -> Expr:
    """log(eᵃ + eᵇ) = m + log(1 + e^(l−m)), m the one with the larger real part."""
    a, b = real(self), real(other)
    low, high = named("l", where(a < b, self, other)), named("m", where(a < b, other, self))
    whole = where(
        isinf(a) & (a == b), where(a < 0, low, log(exp(low) + exp(high))), log1p(exp(low - high)) + high
    )
    return where(isnan(self), self, where(isnan(other), other, whole))


def exp2_of(self: Any) -> Expr:
    """2ˣ; of a complex number e^(x·ln 2), the product rounded."""
    return exp(math.log(2) * self) if kind_of(self) == "complex" else exp2(self)


def times_log(factor: Any, argument: Any, logarithm: Expr) -> Expr:
    """X · log y, 0 where x is 0, NaN where y is."""
    return where(isnan(argument), argument, where(expr(factor) == 0, 0.0, factor * logarithm))


def filled(self: Any, nan: Any, posinf: Any, neginf: Any, largest: float) -> Expr:
    """NaN → `nan` (0), ∞ → `posinf` (the largest number), −∞ → `neginf` (the smallest)."""
    above = largest if posinf is None else posinf
    below = -largest if neginf is None else neginf
    finite = where(isinf(self), where(self > 0, above, below), self)
    return where(isnan(self), 0.0 if nan is None else nan, finite)


def nan_to_num(self: Any, nan: Any = None, posinf: Any = None, neginf: Any = None) -> Expr:
    if kind_of(self) in ("int", "bool"):
        return expr(self)
    return filled(self, nan, posinf, neginf, PRECISIONS[self.tensor.dtype].largest)


def power(self: Any, exponent: Any, result: Any) -> Expr:
    """aᵇ; of whole numbers with a negative exponent only ±1 have one, the others give 0.

    But for float16 the kernel has forms of its own for the exponents ½, −½, 3 and −2: a square root of −∞ is
    a NaN, and in bfloat16 each of their steps is rounded (aten/src/ATen/native/cpu/PowKernel.cpp).
    """
    plain = exponent
    while isinstance(plain, Apply) and plain.function in COMPUTED_IN:
        (plain,) = plain.args
    known = value_of(plain)
    special = result.kind == "float" and result.dtype != "float16"
    if special and not isinstance(known, Expr) and isinstance(self, Expr):
        if known == 0.5:
            return sqrt(self)
        if known == -0.5:
            return 1 / stored(sqrt(self), result)
        if known in (3, -2) and result.dtype == "bfloat16":
            square = stored(self * self, result)
            return square * self if known == 3 else 1 / square
    if isinstance(exponent, Ref) and kind_of(self) == "int" and kind_of(exponent) == "int":
        inverse = where(abs(self) == 1, expr(self) ** abs(exponent), 0)
        return where(exponent < 0, inverse, expr(self) ** maximum(exponent, 0))
    return expr(self) ** exponent


def plus(self: Any, other: Any, result: Any, alpha: Operand = 1) -> Expr:
    """The sum a + α·b."""
    return expr(self) + (other if is_number(alpha, 1) else stored(alpha * expr(other), result))


def minus(self: Any, other: Any, result: Any, alpha: Operand = 1) -> Expr:
    """The difference a − α·b."""
    return expr(self) - (other if is_number(alpha, 1) else stored(alpha * expr(other), result))


# -- arithmetic ------------------------------------------------------------------------------------
row("add", scalars="stored")(plus)
row("sub", scalars="stored")(minus)
row("rsub", scalars="stored")(lambda self, other, result, alpha=1: minus(other, self, result, alpha))
row("mul")(lambda self, other: expr(self) * other)
row("div")(lambda self, other, result, rounding_mode=None: quotient(self, other, result, rounding_mode))
row("floor_divide")(lambda self, other, result: quotient(self, other, result, "floor"))
row("ldexp")(lambda self, other, result: self * stored(2.0 ** expr(other), result))
row("remainder", scalars="stored")(remainder)
row("fmod", scalars="stored")(lambda self, other: fmod(self, other))
row("pow", "float_power", scalars="either")(power)
row("reciprocal")(lambda self: 1 / self)
# a lazy negative (the imaginary part of a lazy conjugate) is a view with a mark on it
row("neg", "_neg_view", "_neg_view_copy")(lambda self: -self)
row("abs")(magnitude)
row("sign")(whole_sign)
row("sgn")(direction)
row("angle")(angle)
row("square")(lambda self: self**2)
row("addcmul")(lambda self, tensor1, tensor2, value=1: self + value * tensor1 * tensor2)
row("addcdiv")(lambda self, tensor1, tensor2, value=1: self + value * tensor1 / tensor2)
row("lerp")(lerp)
row("gcd")(lambda self, other: gcd(self, other))
row("lcm")(
    lambda self, other: where(
        (self == 0) & (other == 0), 0, abs(self // maximum(gcd(self, other), 1) * other)
    )
)
row("deg2rad")(lambda self: self * (math.pi / 180))
row("rad2deg")(lambda self: self * (180 / math.pi))
row("hypot", scalars="stored")(lambda self, other: hypot(self, other))

# -- the larger, the smaller, and between ----------------------------------------------------------
row("clamp")(clamp)
row("clamp_min", scalars="stored")(lambda self, min: maximum(self, min))
row("clamp_max", scalars="stored")(lambda self, max: minimum(self, max))
row("maximum", scalars="stored")(lambda self, other: maximum(self, other))
row("minimum", scalars="stored")(lambda self, other: minimum(self, other))
row("nan_to_num")(nan_to_num)
row("fmax", scalars="stored")(lambda self, other: first_of(self, other, maximum(self, other)))
row("fmin", scalars="stored")(lambda self, other: first_of(self, other, minimum(self, other)))

# -- to whole numbers ------------------------------------------------------------------------------
row("floor")(lambda self: whole(self, floor(self)))
row("ceil")(lambda self: whole(self, ceil(self)))
row("trunc")(lambda self: whole(self, trunc(self)))
row("round")(rounded)
row("frac")(lambda self: self - trunc(self))

# -- powers, exponentials and logarithms -----------------------------------------------------------
row("sqrt")(lambda self: sqrt(self))
row("rsqrt")(lambda self, result: 1 / stored(sqrt(self), result))
row("exp")(lambda self: exp(self))
row("exp2")(exp2_of)
row("expm1")(lambda self: expm1(self))
row("log")(lambda self: log(self))
row("log2")(lambda self: log2(self))
row("log10")(lambda self: log10(self))
row("log1p")(lambda self: log1p(self))
row("logaddexp", scalars="stored")(lambda self, other: logaddexp(self, other, exp, log, log1p))
row("logaddexp2", scalars="stored")(
    lambda self, other: logaddexp(self, other, exp2, log2, lambda x: log2(1 + x))
)

# -- trigonometry ----------------------------------------------------------------------------------
row("sin")(lambda self: sin(self))
row("cos")(lambda self: cos(self))
row("tan")(lambda self: tan(self))
row("asin")(lambda self: asin(self))
row("acos")(lambda self: acos(self))
row("atan")(lambda self: atan(self))
row("atan2", scalars="stored")(lambda self, other: atan2(self, other))
row("sinh")(lambda self: sinh(self))
row("cosh")(lambda self: cosh(self))
row("tanh")(lambda self: tanh(self))
row("asinh")(lambda self: asinh(self))
row("acosh")(lambda self: acosh(self))
row("atanh")(lambda self: atanh(self))
