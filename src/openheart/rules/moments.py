"""Variance, deviation, norms and the logarithm of a sum of exponentials, over some dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from openheart.formula.expr import (
    Expr,
    Index,
    Number,
    Operand,
    Ref,
    Tensor,
    expr,
    largest,
    mean,
    named,
    smallest,
    total,
    where,
)
from openheart.formula.functions import computed_in, double, exp, hypot, imag, isinf, isnan, log, real, sqrt
from openheart.formula.precision import FLOAT32
from openheart.rules.convolution import is_half
from openheart.rules.reduction import across, element, holds
from openheart.rules.registry import rule, value_of


def average(over: Sequence[Index], x: Expr) -> Expr:
    return named("μ", mean(over, x)) if over else x


def variance(
    self: Tensor,
    dim: Any,
    correction: Any,
    keepdim: bool,
    at: Sequence[Index],
    stored: Any = None,
    part: Callable[[Expr], Expr] = expr,
) -> Expr:
    # σ² = Σ (x − μ)²/(n − correction); a reduction to one element centres on μ as the mean's kernel rounds it
    over, given = across(self, dim, keepdim, at)
    x = part(given)
    mu = average(over, x)
    if stored is FLOAT32 and math.prod(i.extent for i in at) == 1:
        mu = computed_in(FLOAT32, mu)
    centered = x - mu
    less = value_of(correction)
    size = math.prod(k.extent for k in over)
    n = size - (1 if less is None else less) if size else 0  # of nothing: 0/0, whatever the correction
    return named("σ²", total(over, centered * centered) / Number(max(n, 0)))


def carried(x: Expr, stored: Any) -> Expr:
    """What the kernel carries in double (Welford's running moments) and rounds at the end."""
    return double(x) if stored is FLOAT32 else x


@rule("var.correction", "var_mean.correction")
def variance_over(self: Any, dim: Any, correction: Any, keepdim: Any, *, at: Any, stored: Any) -> Expr:
    # of complex numbers the real parts' and the imaginary parts' together: Σ |z − μ|²
    parts = (real, imag) if self.kind == "complex" else (expr,)
    first, *others = (
        carried(variance(self, dim, correction, keepdim, at, stored, part), stored) for part in parts
    )
    return first + others[0] if others else first


@rule("std.correction", "std_mean.correction")
def deviation_over(self: Any, dim: Any, correction: Any, keepdim: Any, *, at: Any, stored: Any) -> Expr:
    if self.kind == "complex":
        return sqrt(expr(variance_over(self, dim, correction, keepdim, at=at, stored=stored)))
    return carried(sqrt(variance(self, dim, correction, keepdim, at, stored)), stored)


@rule("var_mean.correction", "std_mean.correction", output=1)
def mean_beside(self: Any, dim: Any, keepdim: Any, *, at: Any, stored: Any, result: Any) -> Expr:
    # running moments turn an infinity into NaN, unless it comes last in the kernel's order
    mu = average(*across(self, dim, keepdim, at))
    kept = mu if self.kind != "float" else where(isinf(mu) & isnan(result[at]), math.nan, mu)
    return carried(kept, stored)


def norm(over: Sequence[Index], x: Ref, body: Expr, order: float) -> Expr:
    """‖x‖_p = (Σ |x|^p)^(1/p); the largest |x| for p = ∞, the smallest for −∞, how many are not 0 for 0.

    Of a complex number |z| = √(a² + b²) is what is added up (aten/src/ATen/native/SharedReduceOps.h).
    """
    if x.tensor.kind == "complex":
        body = named("r", hypot(real(x), imag(x)))
    if order == math.inf:
        return largest(over, abs(body))
    if order == -math.inf:
        return smallest(over, abs(body))
    if order == 0:
        return total(over, where(holds(x), 1.0, 0.0))
    if order == 1:
        return total(over, abs(body))
    if order == 2:
        return sqrt(total(over, body * body))
    return total(over, abs(body) ** order) ** (1.0 / order)


@rule("linalg_vector_norm", "linalg_vector_norm.out")
def vector_norm(
    self: Any, ord: Any, dim: Any, keepdim: Any, *, at: Any, result: Any, geometry: Any, stored: Any
) -> Expr:
    over, x = across(self, dim, keepdim, at)
    body = x if self.kind == "complex" else element(x, result, geometry, stored)
    return norm(over, x, body, float(value_of(ord)))


@rule("norm.ScalarOpt_dim", "norm.ScalarOpt_dim_dtype")
def norm_over(
    self: Any, p: Any, dim: Any, keepdim: Any, *, at: Any, result: Any, geometry: Any, stored: Any
) -> Expr:
    order: Operand = 2 if p is None else p
    return expr(
        vector_norm(self, order, dim, keepdim, at=at, result=result, geometry=geometry, stored=stored)
    )


@rule("norm.Scalar", "norm.ScalarOpt_dtype")
def norm_of_all(self: Any, p: Any, *, at: Any, result: Any, geometry: Any, stored: Any) -> Expr:
    return expr(norm_over(self, p, None, False, at=at, result=result, geometry=geometry, stored=stored))


@rule("logsumexp", "logsumexp.out")
def logsumexp(self: Any, dim: Any, keepdim: Any, *, at: Any, stored: Any) -> Expr:
    # m + log Σ exp(x − m), m the largest x (0 where that is infinite); of complex numbers, the largest real
    # part
    over, x = across(self, dim, keepdim, at)
    compared = real(x) if self.kind == "complex" else expr(x)
    top = largest(over, compared) if over else compared
    m = named("m", where(isinf(top), 0.0, top))
    if not is_half(stored):
        return m + log(total(over, exp(x - m)))
    # four calls, each with a half-precision result
    parts = computed_in(stored, exp(x - m))
    return computed_in(stored, m + log(computed_in(FLOAT32, total(over, parts))))
