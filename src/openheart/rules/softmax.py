"""Softmax and its logarithm, along one dimension, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from openheart.formula.expr import Expr, Index, index, largest, named, total, where
from openheart.formula.functions import exp, log, rounded_to
from openheart.formula.precision import FLOAT32, PRECISIONS
from openheart.rules.registry import rule
from openheart.rules.rows import HALVES, stored

Row = Callable[[Expr], tuple[Expr, ...]]


def along(at: Any, dim: int, shape: tuple[int, ...]) -> tuple[Row, Index]:
    """The places of the row through `at` along a dimension, and the index that runs over it."""
    if not shape:
        return (lambda place: ()), index("k", 1)
    dim %= len(shape)
    return (lambda place: (*at[:dim], place, *at[dim + 1 :])), index("k", shape[dim])


def kept(x: Expr, held: bool, result: Any) -> Expr:
    """x, rounded on the way to the half-precision format that the kernel keeps it in, where it does."""
    return rounded_to(PRECISIONS[result.dtype], x, FLOAT32) if held and result.dtype in HALVES else x


def parts(self: Any, dim: int, at: Any, result: Any) -> tuple[Expr, Expr, Expr]:
    """m, the row's largest element; e^(xᵢ − m), which cannot overflow; and Z, the sum of these over the row.

    Along a dimension that is not the last, half-precision kernels keep the exponentials in the output.
    """
    row, k = along(at, dim, self.shape)
    inner = self.ndim > 0 and dim % self.ndim != self.ndim - 1
    m = named("m", largest(k, self[row(k)]))
    z = named("Z", total(k, kept(exp(self[row(k)] - m), inner, result)))
    return m, kept(exp(self[at] - m), inner, result), z


@rule("_softmax", "_softmax.out")
def softmax(self: Any, dim: int, *, at: Any, result: Any) -> Expr:
    # e^(xᵢ − m) / Σₖ e^(xₖ − m)
    _, e, z = parts(self, dim, at, result)
    return e / z


@rule("_safe_softmax")
def safe_softmax(self: Any, dim: int, *, at: Any, result: Any) -> Expr:
    # softmax, and 0 where the whole row is masked out (−∞)
    m, e, z = parts(self, dim, at, result)
    return where(m == -math.inf, 0.0, e / z)


@rule("_log_softmax", "_log_softmax.out")
def log_softmax(self: Any, dim: int, *, at: Any, result: Any) -> Expr:
    # xᵢ − m − log Σₖ e^(xₖ − m); along the last dimension half-precision kernels keep Z and its logarithm
    row, k = along(at, dim, self.shape)
    last = self.ndim == 0 or dim % self.ndim == self.ndim - 1
    m = named("m", largest(k, self[row(k)]))
    z = named("Z", total(k, exp(self[row(k)] - m)))
    return self[at] - m - kept(log(kept(z, last, result)), last, result)


@rule("_masked_softmax", "_masked_softmax.out")
def masked_softmax(
    self: Any, mask: Any, dim: int | None, mask_type: int | None, *, at: Any, result: Any
) -> Expr:
    # softmax over the places that the mask leaves (where it is false); a row without any is NaN
    row, k = along(at, -1 if dim is None else dim, self.shape)
    masked = hides(mask, mask_type, self.ndim)
    m = named("m", largest(k, self[row(k)], where=~masked(row(k))))
    z = named("Z", total(k, exp(self[row(k)] - m), where=~masked(row(k))))
    return where(m == -math.inf, math.nan, where(masked(at), 0.0, stored(exp(self[at] - m) / z, result)))


def hides(mask: Any, mask_type: int | None, rank: int) -> Callable[[tuple[Expr, ...]], Expr]:
    """Whether a place is masked: by query and key (type 0), by batch and key (1), or place by place (2)."""
    if mask_type == 0 and mask.ndim == 2 < rank:
        return lambda place: mask[place[-2], place[-1]]
    if mask_type == 1 and mask.ndim == 2 < rank:
        return lambda place: mask[place[0], place[-1]]
    return lambda place: mask.broadcast(place)


@rule("_softmax_backward_data", "_softmax_backward_data.out")
def softmax_backward(grad_output: Any, output: Any, dim: int, *, at: Any) -> Expr:
    # yᵢ·(gᵢ − Σₖ gₖyₖ)
    row, k = along(at, dim, output.shape)
    shared = named("s", total(k, grad_output[row(k)] * output[row(k)]))
    return output[at] * (grad_output[at] - shared)


@rule("_masked_softmax_backward", "_masked_softmax_backward.out")
def masked_softmax_backward(
    grad_output: Any, output: Any, mask: Any, dim: int | None, *, at: Any, result: Any
) -> Expr:
    # yᵢ·(gᵢ − Σₖ gₖyₖ), over the places that the mask leaves
    row, k = along(at, -1 if dim is None else dim, output.shape)
    shared = named("s", total(k, grad_output[row(k)] * output[row(k)], where=~mask.broadcast(row(k))))
    return where(mask.broadcast(at), 0.0, stored(output[at] * (grad_output[at] - shared), result))


@rule("_log_softmax_backward_data", "_log_softmax_backward_data.out")
def log_softmax_backward(grad_output: Any, output: Any, dim: int, *, at: Any) -> Expr:
    # gᵢ − e^yᵢ·Σₖ gₖ
    row, k = along(at, dim, output.shape)
    return grad_output[at] - exp(output[at]) * named("G", total(k, grad_output[row(k)]))
