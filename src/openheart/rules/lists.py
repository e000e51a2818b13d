"""One number for each tensor of a list: what clipping a gradient asks for."""

from __future__ import annotations

import math
from typing import Any

from openheart.formula.expr import Expr, count, index, largest, smallest, total
from openheart.formula.functions import sqrt
from openheart.rules.registry import rule, value_of


def entries(self: Any, position: int) -> tuple[tuple[Any, ...], Expr]:
    """The indices over one tensor of the list, and its element there."""
    tensor = self[position]
    over = tuple(index("ijlmpq"[a] if a < 6 else f"i{a}", n) for a, n in enumerate(tensor.shape))
    return over, tensor[over]


@rule("_foreach_norm.Scalar")
def norm(self: Any, ord: Any, *, position: int) -> Expr:
    # (Σ|x|ᵖ)^(1/p); the largest |x| for p = ∞, how many are not 0 for p = 0
    over, x = entries(self, position)
    p = value_of(ord)
    if p in (math.inf, -math.inf):
        return largest(over, abs(x)) if p > 0 else smallest(over, abs(x))
    if p == 0:
        return count(over, x != 0)
    if p == 1:
        return total(over, abs(x))
    return sqrt(total(over, x * x)) if p == 2 else total(over, abs(x) ** p) ** (1 / p)


@rule("_foreach_powsum.Scalar")
def powsum(self: Any, ord: Any, *, position: int) -> Expr:
    # Σ|x|ᵖ
    over, x = entries(self, position)
    p = value_of(ord)
    return total(over, abs(x)) if p == 1 else total(over, x * x if p == 2 else abs(x) ** p)


@rule("_foreach_max")
def maximum(self: Any, *, position: int) -> Expr:
    return largest(*entries(self, position))


@rule("_foreach_clone")
def clone(self: Any, *, position: int, at: Any) -> Expr:
    return self[position][at]
