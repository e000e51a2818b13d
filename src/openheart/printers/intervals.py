"""Arithmetic that knows how sure it is: exact fractions, widened only by what float64 functions may err.

A printed number is a point. Sums, products, quotients and whole powers of points stay points; exp, log and
their like are computed in float64 and widened by a few units in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

ULPS = 8
LARGEST_POWER = 4096


class UndecidedError(ArithmeticError):
    """The printed digits do not determine the result: a division by zero, a comparison too close."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A real number between `low` and `high`."""

    low: Fraction
    high: Fraction

    def __add__(self, other: Number) -> Number:
        if isinstance(other, Complex):
            return Complex(self, ZERO) + other
        return Interval(self.low + other.low, self.high + other.high)

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low)

    def __sub__(self, other: Number) -> Number:
        return self + -other

    def __mul__(self, other: Number) -> Number:
        if isinstance(other, Complex):
            return other * self
        if self.low == self.high and other.low == other.high:
            return point(self.low * other.low)
        corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(corners), max(corners))

    def inverse(self) -> Interval:
        """1 / x, when 0 is not in the interval."""
        if self.low <= 0 <= self.high:
            raise UndecidedError("division by zero")
        return Interval(1 / self.high, 1 / self.low)

    def __truediv__(self, other: Number) -> Number:
        if isinstance(other, Complex):
            return Complex(self, ZERO) / other
        return self * other.inverse()


@dataclass(frozen=True, slots=True)
class Complex:
    """A complex number, each part in an interval."""

    real: Interval
    imaginary: Interval

    def __add__(self, other: Number) -> Number:
        b = _complex(other)
        return Complex(_real(self.real + b.real), _real(self.imaginary + b.imaginary))

    def __neg__(self) -> Complex:
        return Complex(-self.real, -self.imaginary)

    def __sub__(self, other: Number) -> Number:
        return self + -other

    def __mul__(self, other: Number) -> Number:
        b = _complex(other)
        return Complex(
            _real(self.real * b.real - self.imaginary * b.imaginary),
            _real(self.real * b.imaginary + self.imaginary * b.real),
        )

    def __truediv__(self, other: Number) -> Number:
        b = _complex(other)
        size = _real(b.real * b.real + b.imaginary * b.imaginary)
        above = _complex(self * Complex(b.real, -b.imaginary))
        return Complex(_real(above.real / size), _real(above.imaginary / size))


Number: TypeAlias = "Interval | Complex"


def point(value: Fraction | int | bool) -> Interval:
    """A number known exactly."""
    exact = Fraction(value)
    return Interval(exact, exact)


ZERO = point(0)
ONE = point(1)


def _complex(value: Number) -> Complex:
    return value if isinstance(value, Complex) else Complex(value, ZERO)


def _real(value: Number) -> Interval:
    if isinstance(value, Complex):
        raise UndecidedError("a complex number where a real one is needed")
    return value


def power(base: Number, exponent: Number) -> Number:
    """Whole powers exactly, others through float64."""
    n = _real(exponent)
    if n.low == n.high and n.low.denominator == 1 and abs(n.low) <= LARGEST_POWER:
        whole = int(n.low)
        if isinstance(base, Interval) and base.low == base.high:
            if base.low == 0 and whole < 0:
                raise UndecidedError("division by zero")
            return point(base.low**whole)
        made: Number = ONE
        for _ in range(abs(whole)):
            made = made * base
        return ONE / made if whole < 0 else made
    a = _real(base)
    corners = [_outward(x, y, up) for x in (a.low, a.high) for y in (n.low, n.high) for up in (False, True)]
    return Interval(min(corners), max(corners))


def _outward(base: Fraction, exponent: Fraction, up: bool) -> Fraction:
    x, n = float(base), float(exponent)
    made = math.pow(x, n)
    # Turning the arguments into floats moves each by at most half an ulp.
    condition = 2 + abs(n) + abs(n * math.log(abs(x) or 1.0))
    size = abs(made) * ULPS * 2**-53 * condition
    return Fraction(made) + (Fraction(size) if up else -Fraction(size))


def smooth(f: Callable[[float], float], x: Number, monotone: bool = True) -> Interval:
    """A float64 function at both ends, widened by a few ulps (by its span too, where it turns)."""
    a = _real(x)
    left, right = _float(a.low, up=False), _float(a.high, up=True)
    ends = (Fraction(f(left)), Fraction(f(right)))
    slack = max(abs(e) for e in ends) * ULPS * Fraction(1, 2**52) + Fraction(5e-324)
    if not monotone:
        slack += 4 * abs(ends[1] - ends[0]) + Fraction(right) - Fraction(left)
    return Interval(min(ends) - slack, max(ends) + slack)


def _float(x: Fraction, up: bool) -> float:
    made = float(x)
    if Fraction(made) == x:
        return made
    return math.nextafter(made, math.inf if up else -math.inf)


def step(f: Callable[[Fraction], int | Fraction], x: Number) -> Interval:
    """A function that jumps: the same at both ends, or undecided."""
    a = _real(x)
    low, high = f(a.low), f(a.high)
    if low != high:
        raise UndecidedError("too close to a jump")
    return point(low)


def size(x: Number) -> Interval:
    """|x|."""
    if isinstance(x, Complex):
        return smooth(math.sqrt, x.real * x.real + x.imaginary * x.imaginary)
    if x.low >= 0:
        return x
    return -x if x.high <= 0 else Interval(Fraction(0), max(-x.low, x.high))


def largest(a: Number, b: Number) -> Interval:
    """The larger of two numbers."""
    x, y = _real(a), _real(b)
    return Interval(max(x.low, y.low), max(x.high, y.high))


def smallest(a: Number, b: Number) -> Interval:
    """The smaller of two numbers."""
    x, y = _real(a), _real(b)
    return Interval(min(x.low, y.low), min(x.high, y.high))


def less(a: Number, b: Number) -> bool:
    """Whether a < b, when that can be told."""
    x, y = _real(a), _real(b)
    if x.high < y.low:
        return True
    if x.low >= y.high:
        return False
    raise UndecidedError("too close to compare")


def equal(a: Number, b: Number) -> bool:
    """Whether a = b, when that can be told."""
    x, y = _complex(a), _complex(b)
    pairs = ((x.real, y.real), (x.imaginary, y.imaginary))
    if any(p.high < q.low or q.high < p.low for p, q in pairs):
        return False
    if all(p.low == p.high == q.low == q.high for p, q in pairs):
        return True
    raise UndecidedError("too close to compare")


def whole(x: Number) -> int:
    """The integer that a number is."""
    a = _real(x)
    if a.low != a.high or a.low.denominator != 1:
        raise UndecidedError("not a whole number")
    return int(a.low)


def truth(x: Number) -> bool:
    """Whether a number counts as true: any but 0."""
    return not equal(x, ZERO)
