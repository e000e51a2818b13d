"""Unit roundoffs, and the constant γₙ of rounding-error analysis.

Source: N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., SIAM 2002, §2.1, §3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

DOUBLE_UNIT = 2.0**-53


@dataclass(frozen=True, slots=True)
class Precision:
    """A binary floating-point format: `unit` is half the gap after 1, `tiny` the smallest normal number."""

    name: str
    unit: float
    tiny: float
    largest: float

    def holds(self, value: float) -> bool:
        """Whether a finite number of its range has no more digits than the format."""
        mantissa = math.frexp(value)[0] / self.unit
        return mantissa == math.floor(mantissa)


FLOAT64 = Precision("float64", 2.0**-53, 2.0**-1022, 1.7976931348623157e308)
FLOAT32 = Precision("float32", 2.0**-24, 2.0**-126, 3.4028234663852886e38)
BFLOAT16 = Precision("bfloat16", 2.0**-8, 2.0**-126, 3.3895313892515355e38)
FLOAT16 = Precision("float16", 2.0**-11, 2.0**-14, 65504.0)
QUARTERS = {
    p.name: p
    for p in (
        Precision("float8_e4m3fn", 2.0**-4, 2.0**-6, 448.0),
        Precision("float8_e4m3fnuz", 2.0**-4, 2.0**-7, 240.0),
        Precision("float8_e5m2", 2.0**-3, 2.0**-14, 57344.0),
        Precision("float8_e5m2fnuz", 2.0**-3, 2.0**-15, 57344.0),
    )
}
"""Formats that numbers are only kept in (Micikevicius et al., *FP8 Formats for Deep Learning*, 2022). Only
e5m2 has an infinity. What overruns e4m3fn is its largest number, what overruns the other two a NaN."""
PRECISIONS = {p.name: p for p in (FLOAT64, FLOAT32, BFLOAT16, FLOAT16)}


def gamma(n: float, unit: float) -> float:
    """γₙ = n·u / (1 − n·u): a sum of n terms, added in any order, lies within γₙ·Σ|tᵢ| of the exact one.

    For n·u ≥ ½ the textbook bound is void; n·u itself (Rump's bound, 2012, valid for any n when the
    terms are summed with rounding to nearest) is returned instead.
    """
    nu = n * unit
    return nu / (1.0 - nu) if nu < 0.5 else nu
