"""How a number is printed, and what its printed digits say.

With `digits` decimals, 4 by default: 2.7539, 0.8347; scientific, with as many decimals, where plain
decimals would hide the number (6.4910e-07, 1.2346e+08). A number that is exactly what is printed drops its
trailing zeros (5, 0.5, 1e+09); a rounded one keeps them (5.0000), so one can tell the two apart. Side by side
in one line, numbers that have decimals have equally many (−3.7000 and −2.5000, not −2.5): see `even`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

import numpy as np

Printable: TypeAlias = "bool | int | float | complex"

DIGITS = 4
MOST_DIGITS = 17
MINUS = "−"
"""U+2212, as wide as the plus sign; exponents keep the hyphen that every language reads (1e-07)."""
WHOLE = 1e9
"""Below this, a whole-numbered float is printed as a whole number."""
LARGE = 1e6
"""From here on, other floats are scientific."""
CONSTANT_LENGTH = 6
"""A constant of the law is printed in full when this many significant digits suffice (0.044715, 1e-08)."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A printed number: sign, mantissa with a decimal point, power of ten; or a word (nan, ∞, True)."""

    mantissa: str
    negative: bool = False
    exponent: int | None = None
    imaginary: Shown | None = None

    @property
    def value(self) -> Fraction | None:
        """What the printed digits say, exactly; None for what is not a finite real number."""
        if self.imaginary is not None:
            return None
        if self.mantissa in ("True", "False"):
            return Fraction(self.mantissa == "True")
        if self.mantissa in ("nan", "∞"):
            return None
        size = Fraction(self.mantissa) * Fraction(10) ** (self.exponent or 0)
        return -size if self.negative else size

    @property
    def ulp(self) -> Fraction:
        """One unit of the last printed digit."""
        decimals = len(self.mantissa.partition(".")[2])
        return Fraction(10) ** ((self.exponent or 0) - decimals)

    def text(self, decimal: str = ".") -> str:
        """The number in plain Unicode: −0.1986, 1.2346e-07, 0.5000 + 1.2000i."""
        mantissa = self.mantissa.replace(".", decimal)
        size = mantissa if self.exponent is None else f"{mantissa}e{self.exponent:+03d}"
        real = f"{MINUS}{size}" if self.negative else size
        if self.imaginary is None:
            return real
        sign = MINUS if self.imaginary.negative else "+"
        return f"{real} {sign} {_positive(self.imaginary).text(decimal)}i"


def _positive(shown: Shown) -> Shown:
    return Shown(shown.mantissa, exponent=shown.exponent)


def shown(value: Printable, digits: int = DIGITS) -> Shown:
    """A recorded or computed number with `digits` decimals (0 to 17).

    **Raises** `ValueError` for another number of digits.
    """
    if not 0 <= digits <= MOST_DIGITS:
        raise ValueError(f"digits is a number from 0 to {MOST_DIGITS}, not {digits}")
    if isinstance(value, bool):
        return Shown(str(value))
    if isinstance(value, int):
        return Shown(str(abs(value)), value < 0)
    if isinstance(value, complex):
        real, imaginary = shown(value.real, digits), shown(value.imag, digits)
        return Shown(real.mantissa, real.negative, real.exponent, imaginary)
    return _float(float(value), digits)


def decimals(number: Shown) -> int:
    """How many decimals are printed; 0 for whole numbers, words, and powers of ten."""
    if number.exponent is not None:
        return 0
    own = len(number.mantissa.partition(".")[2])
    return own if number.imaginary is None else max(own, decimals(number.imaginary))


def padded(number: Shown, most: int) -> Shown:
    """The number with `most` decimals, if it has any: zeros are added, so it says what it said."""
    imaginary = None if number.imaginary is None else padded(number.imaginary, most)
    mantissa = number.mantissa
    if number.exponent is None and "." in mantissa:
        mantissa += "0" * (most - len(mantissa.partition(".")[2]))
    return replace(number, mantissa=mantissa, imaginary=imaginary)


def even(values: Iterable[Printable], digits: int = DIGITS) -> list[Shown]:
    """Numbers that stand side by side: those with decimals have equally many.

    >>> [number.text() for number in even([-3.7000000476837, -2.5, 4])]
    ['−3.7000', '−2.5000', '4']
    """
    made = [shown(value, digits) for value in values]
    most = max(map(decimals, made), default=0)
    return [padded(number, most) for number in made]


def constant(value: Printable, digits: int = DIGITS) -> Shown:
    """A constant of a law: in full where that is short (0.9, 0.044715, 1e-08), else as any number."""
    if not isinstance(value, float) or not math.isfinite(value) or value == 0:
        return shown(value, digits)
    exact = Decimal(_shortest(value)).normalize()
    sign, figures, _ = exact.as_tuple()
    if len(figures) > CONSTANT_LENGTH or (value.is_integer() and abs(value) < WHOLE):
        return shown(value, digits)
    written = "".join(map(str, figures))
    leading = exact.adjusted()
    if -4 <= leading < 6:
        return Shown(f"{abs(exact):f}", bool(sign))
    return Shown(written[0] + ("." + written[1:] if written[1:] else ""), bool(sign), leading)


def _shortest(value: float) -> str:
    """The shortest digits that tell the number from its neighbours; of float32's, where it is one of them."""
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return str(single) if float(single) == value else repr(value)


def _float(value: float, digits: int) -> Shown:
    if math.isnan(value):
        return Shown("nan")
    negative, size = math.copysign(1.0, value) < 0, abs(value)
    if math.isinf(size):
        return Shown("∞", negative)
    if size.is_integer() and size < WHOLE:
        return Shown(str(int(size)), negative)
    if 10.0 ** -min(digits, 3) <= size < LARGE:
        return Shown(_short(f"{size:.{digits}f}", size), negative)
    mantissa, _, exponent = f"{size:.{digits}e}".partition("e")
    return Shown(_short(mantissa, size, int(exponent)), negative, int(exponent))


def _short(written: str, size: float, exponent: int = 0) -> str:
    """Without its trailing zeros where the number is exactly what is written."""
    if "." in written and Fraction(written) * Fraction(10) ** exponent == Fraction(size):
        return written.rstrip("0").rstrip(".")
    return written
