"""How numbers are printed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openheart.printers.digits import constant, shown

ROWS = [
    (2.753868341445923, 4, "2.7539"),
    (0.8347163796424866, 4, "0.8347"),
    (-0.01709797792136669, 4, "−0.0171"),
    (5.0, 4, "5"),
    (-5.0, 4, "−5"),
    (0.5, 4, "0.5"),
    (0.25, 1, "0.2"),
    (4.99999, 4, "5.0000"),
    (6.491e-07, 4, "6.4910e-07"),
    (1.2345678e-07, 4, "1.2346e-07"),
    (0.0009999, 4, "9.9990e-04"),
    (0.001, 4, "0.0010"),
    (123456.789, 4, "123456.7890"),
    (1234567.89, 4, "1.2346e+06"),
    (1e10, 4, "1e+10"),
    (16777216.0, 4, "16777216"),
    (3.4028234663852886e38, 4, "3.4028e+38"),
    (5e-324, 4, "4.9407e-324"),
    (2.75, 0, "3"),
    (0.53, 0, "5e-01"),
    (math.pi, 17, "3.14159265358979312"),
    (0.1, 17, "0.10000000000000001"),
    (0.0, 4, "0"),
    (-0.0, 4, "−0"),
    (math.nan, 4, "nan"),
    (math.inf, 4, "∞"),
    (-math.inf, 4, "−∞"),
    (True, 4, "True"),
    (7, 4, "7"),
    (-(2**62), 4, "−4611686018427387904"),
    (0.5 + 1.2345678j, 4, "0.5 + 1.2346i"),
    (-1 - 2j, 4, "−1 − 2i"),
]


@pytest.mark.parametrize(("value", "digits", "text"), ROWS)
def test_shown(value: complex, digits: int, text: str) -> None:
    assert shown(value, digits).text() == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9, "0.9"), (0.999, "0.999"), (1e-8, "1e-08"), (1e-05, "1e-05"), (0.044715, "0.044715"),
        (0.7978845608028654, "0.7979"), (9.99999993922529e-09, "1e-08"), (-0.009999999776482582, "−0.01"),
        (2.0, "2"), (3, "3"), (0.0001, "0.0001"), (2.5e-07, "2.5e-07"), (1e300, "1e+300"),
    ],
)  # fmt: skip
def test_constants_are_printed_in_full_where_that_is_short(value: float, text: str) -> None:
    assert constant(value).text() == text


def test_decimal_comma() -> None:
    assert shown(2.7539).text(",") == "2,7539"
    assert shown(1.5e-9).text(",") == "1,5000e-09"


@pytest.mark.parametrize("digits", [-1, 18])
def test_digits_out_of_range(digits: int) -> None:
    with pytest.raises(ValueError, match="0 to 17"):
        shown(1.5, digits)


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 17))
def test_printed_digits_are_the_correctly_rounded_number(value: float, digits: int) -> None:
    made = shown(value, digits)
    assert made.value is not None
    from fractions import Fraction

    assert abs(made.value - Fraction(value)) <= made.ulp / 2


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 17))
def test_only_exact_numbers_drop_zeros(value: float, digits: int) -> None:
    """A number printed with fewer decimals than asked for is exactly what is printed."""
    from fractions import Fraction

    made = shown(value, digits)
    if len(made.mantissa.partition(".")[2]) < digits:
        assert made.value == Fraction(value)
