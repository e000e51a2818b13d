"""Comparisons, logic, bits, choices and copies, element by element."""

from __future__ import annotations

from typing import Any

from openheart.formula.expr import Expr, Number, Ref, apply, expr, where
from openheart.formula.functions import (
    computed_in,
    copysign,
    exponent,
    isinf,
    isnan,
    mantissa,
    signbit,
    to_bool,
    to_float,
)
from openheart.formula.precision import PRECISIONS, QUARTERS
from openheart.rules.registry import cast, value_of
from openheart.rules.rows import held, kind_of, row

BITS = {"uint8": 8, "int8": 8, "int16": 16, "int32": 32, "int64": 64}


def like(scalar: Any, tensor: Any) -> Any:
    """A scalar as the kernel compares it: as the tensor's format holds it, unless that is promoted."""
    value = value_of(scalar)
    dtype = tensor.tensor.dtype
    promoted = type(value) is float and dtype not in PRECISIONS
    if isinstance(value, Expr) or type(value) not in (int, float) or promoted or dtype == "bool":
        return scalar
    return Number(held(value, dtype), getattr(scalar, "name", None))


def converted(x: Any, result: Any) -> Expr:
    """The number x as the result's kind of number: whole numbers cut off a fraction, formats round."""
    whole = cast(x, result.kind, kind_of(x))  # type: ignore[arg-type]
    if result.dtype in BITS and kind_of(x) in ("float", "complex"):
        return apply(f"fits_{result.dtype}", whole)
    if result.dtype in QUARTERS:
        return to_float(whole)
    if not isinstance(x, Ref) or whole is not x or result.dtype not in PRECISIONS:
        return whole
    rounds = getattr(x.tensor, "dtype", result.dtype) != result.dtype
    return computed_in(PRECISIONS[result.dtype], x) if rounds else x


def shifted(self: Any, other: Any, dtype: str, left: bool) -> Expr:
    """a·2ᵇ or ⌊a/2ᵇ⌋; shifts by more bits than there are leave 0 (−1 of a negative number)."""
    last = BITS[dtype] - 1
    outside = (expr(other) < 0) | (expr(other) > last)
    if left:
        return where(outside, 0, apply("shiftleft", self, where(outside, 0, other)))
    if dtype == "uint8":
        return where(outside, 0, apply("shiftright", self, where(outside, 0, other)))
    return apply("shiftright", self, where(outside, last, other))


def binary(function: str) -> Any:
    return lambda self, other: apply(function, self, other)


# -- comparisons: scalars are rounded to the tensor's format first ---------------------------------
row("eq")(lambda self, other: expr(self) == like(other, self))
row("ne")(lambda self, other: expr(self) != like(other, self))
row("lt")(lambda self, other: expr(self) < like(other, self))
row("le")(lambda self, other: expr(self) <= like(other, self))
row("gt")(lambda self, other: expr(self) > like(other, self))
row("ge")(lambda self, other: expr(self) >= like(other, self))
row("isnan")(lambda self: isnan(self))
row("isinf")(lambda self: isinf(self))
row("isposinf")(lambda self: isinf(self) & (self > 0))
row("isneginf")(lambda self: isinf(self) & (self < 0))
row("signbit")(lambda self: signbit(self) if kind_of(self) == "float" else self < 0)
row("heaviside")(lambda self, values, result: where(self == 0, values, converted(self > 0, result)))
row("copysign", scalars="stored")(lambda self, other: copysign(self, other))

# -- logic: whatever is not zero is true -----------------------------------------------------------
row("logical_not")(lambda self: ~to_bool(self))
row("logical_and")(lambda self, other: to_bool(self) & to_bool(other))
row("logical_or")(lambda self, other: to_bool(self) | to_bool(other))
row("logical_xor")(lambda self, other: to_bool(self) != to_bool(other))

# -- bits ------------------------------------------------------------------------------------------
row("bitwise_not")(lambda self: apply("bitnot", self))
row("bitwise_and")(binary("bitand"))
row("bitwise_or")(binary("bitor"))
row("bitwise_xor")(binary("bitxor"))
row("bitwise_left_shift", "__lshift__", "__ilshift__")(
    lambda self, other, result: shifted(self, other, result.dtype, left=True)
)
row("bitwise_right_shift", "__rshift__", "__irshift__")(
    lambda self, other, result: shifted(self, other, result.dtype, left=False)
)

# -- choices and copies ----------------------------------------------------------------------------
row("where")(lambda condition, self, other: where(to_bool(condition), self, other))
row("masked_fill")(lambda self, mask, value, result: where(mask, converted(value, result), self))
row("_to_copy")(lambda self, result: converted(self, result))
row("copy")(lambda src, result: converted(src, result))
row("fill")(lambda value, result: converted(value, result))
row("zero")(lambda result: Number({"bool": False, "int": 0}.get(result.kind, 0.0)))
row("frexp")(lambda self: mantissa(self))
row("frexp", output=1)(lambda self: exponent(self))
# a lazy conjugate is a view with a mark on it: its numbers are the conjugates
row("conj_physical", "_conj_physical", "_conj", "_conj_copy")(
    lambda self: apply("conj", self) if kind_of(self) == "complex" else expr(self)
)
row("complex")(lambda real, imag: apply("complex", real, imag))
