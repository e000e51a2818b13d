"""Tensors made of nothing but their arguments: constants, ranges, index pairs, unwritten memory."""

from __future__ import annotations

from typing import Any

from openheart.formula.expr import Expr, Leaf, Number, named, where
from openheart.formula.functions import double, to_int
from openheart.rules.logic import converted
from openheart.rules.registry import rule, value_of
from openheart.rules.rows import scalar_in, stored


def constant(value: float, result: Any) -> Number:
    """0 or 1 as the kind of number that the tensor holds."""
    return Number({"bool": bool(value), "int": int(value)}.get(result.kind, value))


@rule("zeros", "zeros.out", "zeros_like", "zeros_like.out", "new_zeros", "_efficientzerotensor")
def zeros(*, result: Any) -> Expr:
    return constant(0.0, result)


@rule("ones", "ones.out", "ones_like", "ones_like.out", "new_ones")
def ones(*, result: Any) -> Expr:
    return constant(1.0, result)


@rule("full", "full.out", "full_like", "full_like.out", "new_full")
def full(fill_value: Any, *, result: Any) -> Expr:
    return converted(fill_value, result)


@rule("scalar_tensor")
def scalar_tensor(s: Any, *, result: Any) -> Expr:
    return converted(s, result)


@rule("empty.memory_format", "empty.out", "empty_like", "empty_strided", "empty_permuted")
@rule("new_empty", "new_empty_strided", "resize_", "resize_as_")
def empty() -> Expr:
    # memory that nobody has written yet
    return Leaf("uninitialized")


@rule("lift_fresh")
def lift_fresh(self: Any, *, at: Any) -> Expr:
    return self[at]


@rule("arange", "arange.out")
def arange(*, at: Any, result: Any) -> Expr:
    return stepped(0, 1, at[0], result)


@rule("arange.start")
def arange_from(start: Any, *, at: Any, result: Any) -> Expr:
    return stepped(start, 1, at[0], result)


@rule("arange.start_step", "arange.start_out", "range.step", "range.out")
def arange_by(start: Any, step: Any, *, at: Any, result: Any) -> Expr:
    return stepped(start, step, at[0], result)


def stepped(start: Any, step: Any, i: Expr, result: Any) -> Expr:
    """Start + i·step; the start of each vector is computed in double, then rounded."""
    if result.kind == "int":
        return int(value_of(start)) + int(value_of(step)) * i
    return stored(double(start) + i * step, result)


@rule(
    "linspace", "linspace.out", "linspace.Tensor_Tensor", "linspace.Tensor_Scalar", "linspace.Scalar_Tensor"
)
def linspace(start: Any, end: Any, steps: int, *, at: Any, result: Any) -> Expr:
    # from both ends towards the middle, so that both ends are exact
    first, last = (
        converted(x[()] if hasattr(x, "shape") else scalar_in(x, result), result) for x in (start, end)
    )
    if steps == 1:
        return first
    (i,) = at
    step = named("step", (last - first) / (steps - 1))
    place = where(i < steps // 2, first + step * i, last - step * (steps - 1 - i))
    return to_int(place) if result.kind == "int" else stored(place, result)


@rule("eye", "eye.m", "eye.out", "eye.m_out")
def eye(*, at: Any, result: Any) -> Expr:
    # 1 where the row is the column
    i, j = at
    return where(i == j, constant(1.0, result), constant(0.0, result))
