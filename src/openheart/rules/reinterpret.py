"""The same memory, read as numbers of another type."""

from __future__ import annotations

from typing import Any

from openheart.formula.bits import WIDTHS
from openheart.formula.expr import Expr, Number, Ref, apply, where
from openheart.formula.functions import imag, real, to_bool, to_int
from openheart.rules.logic import BITS
from openheart.rules.registry import rule

PARTS = {"complex64": "float32", "complex128": "float64"}
"""What each of a complex number's two parts is."""
SIZES = {"bool": 8, **BITS, **WIDTHS}


@rule("view.dtype", "view_copy.dtype")
def view_dtype(self: Any, *, at: Any, result: Any) -> Expr | None:
    # The bits of self, read as another type, the lowest first: the last dimension grows or shrinks with the
    # number of bits that one number has.
    if self.dtype == result.dtype:
        return Ref(self, tuple(at))
    source, target = (PARTS.get(t.dtype, t.dtype) for t in (self, result))
    if source not in SIZES or target not in SIZES:
        return None
    narrow = min(SIZES[source], SIZES[target])
    pieces, joined = SIZES[source] // narrow, SIZES[target] // narrow
    *rest, last = at or (Number(0),)

    def part(n: Expr) -> Expr:
        """Part n of self along its last dimension; a complex number has two."""
        if self.dtype not in PARTS:
            return self[(*rest, n)] if self.ndim else self[()]
        z = self[(*rest, n // 2)] if self.ndim else self[()]
        return where(n % 2 == 0, real(z), imag(z))

    def piece(n: Expr) -> Expr:
        if pieces == 1:
            return bits(part(n), source)
        shifted = apply("shiftright", bits(part(n // pieces), source), n % pieces * narrow)
        return apply("bitand", shifted, (1 << narrow) - 1)

    def number(n: Expr) -> Expr:
        if source == target:
            return part(n)
        whole = piece(n * joined)
        for k in range(1, joined):
            whole = whole + apply("shiftleft", piece(n * joined + k), k * narrow)
        return read(whole, target)

    if result.dtype not in PARTS:
        return number(last)
    return apply("complex", number(last * 2), number(last * 2 + 1))


def bits(x: Expr, dtype: str) -> Expr:
    """The bits of a number of this type, as a whole number."""
    if dtype in WIDTHS:
        return apply(f"bits_{dtype}", x)
    if dtype == "bool":
        return to_int(x)
    return x if dtype in ("uint8", "int64") else apply("bitand", x, (1 << SIZES[dtype]) - 1)


def read(whole: Expr, dtype: str) -> Expr:
    """The number of this type that has these bits."""
    if dtype in WIDTHS:
        return apply(f"{dtype}_of_bits", whole)
    if dtype == "bool":
        return to_bool(whole)
    size = SIZES[dtype]
    if dtype in ("uint8", "int64"):
        return whole
    return where(whole >= 1 << (size - 1), whole - (1 << size), whole)
