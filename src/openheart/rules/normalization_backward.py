"""Gradients of the normalizations, multiplied out as their kernels do.

With x̂ = (x − μ)·r, r = 1/√(σ² + ε), and g the gradient that arrives, a normalization over n numbers gives
∂L/∂x = r·(γg − mean(γg) − x̂·mean(γg·x̂)): the mean and the variance are functions of x too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openheart.formula.expr import Expr, Index, Operand, Tensor, index, named, total
from openheart.formula.functions import computed_in
from openheart.formula.precision import FLOAT32
from openheart.rules.convolution import is_half
from openheart.rules.normalization import (
    Channels,
    Geometry,
    at_channel,
    channels,
    grouped,
    inverse_deviation,
    rows,
)
from openheart.rules.registry import format_of, rule
from openheart.rules.windows import places


def channel_statistics(
    c: Expr, running_mean: Any, running_var: Any, save_mean: Any, save_invstd: Any, train: bool, eps: Operand
) -> tuple[Expr, Expr]:
    """μ and 1/√(σ² + ε) of a channel: the batch's own in training, else the gathered ones."""
    if train:
        return save_mean[c], save_invstd[c]
    return running_mean[c], inverse_deviation(running_var[c], eps)


def sums(given: Channels, g: Tensor, c: Expr, mu: Expr) -> tuple[Expr, Expr]:
    """Σ g and Σ (x − μ)·g over a channel."""
    n, *p = over = given.over()
    term = g[(n, c, *p)]
    dot = (given.x[(n, c, *p)] - mu) * term
    return total(over, term), total(over, dot)


@rule("native_batch_norm_backward")
def batch_norm_backward(
    grad_out: Any,
    input: Any,
    weight: Any,
    running_mean: Any,
    running_var: Any,
    save_mean: Any,
    save_invstd: Any,
    train: Any,
    eps: Any,
    *,
    at: Any,
    geometry: Any,
    stored: Any,
) -> Expr:
    # ∂L/∂x = (g − mean(g) − (x − μ)·k)·r·γ, k = r²·mean(g·(x − μ)); in inference μ and r are constants
    c = at[1]
    mu, rstd = channel_statistics(c, running_mean, running_var, save_mean, save_invstd, train, eps)
    gamma = at_channel(weight, c, 1)
    if not train:
        return in_tensors(grad_out[at] * (rstd * gamma), geometry)
    given = channels(input, geometry, stored)
    whole, dot = sums(given, grad_out, c, mu)
    k = named("k", dot * rstd * rstd / given.count())
    gradient = (grad_out[at] - whole / given.count() - (input[at] - mu) * k) * rstd * gamma
    return in_tensors(gradient, geometry)


@rule("native_batch_norm_backward", output=1)
def batch_norm_weight_gradient(
    grad_out: Any,
    input: Any,
    running_mean: Any,
    running_var: Any,
    save_mean: Any,
    save_invstd: Any,
    train: Any,
    eps: Any,
    *,
    at: Any,
    geometry: Any,
    stored: Any,
) -> Expr:
    # ∂L/∂γ = r·Σ g·(x − μ)
    (c,) = at
    mu, rstd = channel_statistics(c, running_mean, running_var, save_mean, save_invstd, train, eps)
    return in_tensors(sums(channels(input, geometry, stored), grad_out, c, mu)[1] * rstd, geometry)


@rule("native_batch_norm_backward", output=2)
def batch_norm_bias_gradient(grad_out: Any, input: Any, *, at: Any, geometry: Any, stored: Any) -> Expr:
    # ∂L/∂β = Σ g
    (c,) = at
    given = channels(input, geometry, stored)
    n, *p = over = given.over()
    return in_tensors(total(over, grad_out[(n, c, *p)]), geometry)


def in_tensors(x: Expr, geometry: Geometry) -> Expr:
    """Batch norm's gradient keeps its parts in tensors of the input's dtype."""
    held = format_of(geometry["input"].dtype)
    assert held is not None
    return computed_in(held, x) if is_half(held) else x


@rule("native_layer_norm_backward")
def layer_norm_backward(
    grad_out: Any, input: Any, normalized_shape: Any, mean: Any, rstd: Any, weight: Any, *, at: Any
) -> Expr:
    # ∂L/∂x = r·γ·g + b·x + c, where over a row of n numbers
    # b = (Σγg·μ − Σγg·x)·r³/n and c = −b·μ − Σγg·r/n
    split = len(at) - len(normalized_shape)
    lead, place = at[:split], at[split:]
    k, x = rows(input, normalized_shape, lead)
    g = grad_out[(*lead, *k)] if weight is None else grad_out[(*lead, *k)] * weight[tuple(k)]
    here = grad_out[at] if weight is None else grad_out[at] * weight[place]
    mu, r = (t[(*lead, *(0,) * len(place))] for t in (mean, rstd))
    return _through_moments(here, input[at], g, x, k, mu, r)


def _through_moments(
    here: Expr, x: Expr, g: Expr, xs: Expr, over: Sequence[Index], mu: Expr, r: Expr
) -> Expr:
    n = 1
    for k in over:
        n *= k.extent
    dot, whole = named("Σγgx", total(over, g * xs)), named("Σγg", total(over, g))
    b = named("b", (whole * mu - dot) * r * r * r / n)
    return r * here + b * x + named("c", -b * mu - whole * r / n)


@rule("native_layer_norm_backward", output=1)
def layer_norm_weight_gradient(
    grad_out: Any, input: Any, normalized_shape: Any, mean: Any, rstd: Any, *, at: Any, geometry: Any
) -> Expr:
    # ∂L/∂γ = Σ over the rows of g·(x − μ)·r
    m = _leading(input, normalized_shape)
    zeros = (0,) * len(at)
    centered = input[(*m, *at)] * rstd[(*m, *zeros)] - mean[(*m, *zeros)] * rstd[(*m, *zeros)]
    return summed_rows(m, grad_out[(*m, *at)] * centered, geometry)


@rule("native_layer_norm_backward", output=2)
def layer_norm_bias_gradient(
    grad_out: Any, input: Any, normalized_shape: Any, *, at: Any, geometry: Any
) -> Expr:
    # ∂L/∂β = Σ over the rows of g
    m = _leading(input, normalized_shape)
    return summed_rows(m, grad_out[(*m, *at)], geometry)


def summed_rows(over: Sequence[Index], body: Expr, geometry: Geometry) -> Expr:
    """Row after row added to a buffer of the input's dtype."""
    buffer = format_of(geometry["input"].dtype)
    assert buffer is not None
    return (
        computed_in(buffer, total(over, computed_in(FLOAT32, body))) if is_half(buffer) else total(over, body)
    )


def _leading(x: Tensor, normalized: Sequence[int]) -> list[Index]:
    """Index variables over the rows that are normalized."""
    lead = x.shape[: x.ndim - len(normalized)]
    return [index("m" + "′" * n, size) for n, size in enumerate(lead)]


@rule("native_group_norm_backward")
def group_norm_backward(
    grad_out: Any,
    input: Any,
    mean: Any,
    rstd: Any,
    weight: Any,
    C: Any,
    group: Any,
    *,
    at: Any,
) -> Expr:
    # as in layer norm, over the channels and places of a group
    n, c = at[0], at[1]
    g = c // (C // group)
    over, x = grouped(input, C, group, n, g)
    arrived, here = grad_out[x.index], grad_out[at]
    if weight is not None:
        arrived, here = arrived * weight[x.index[1]], here * weight[c]
    return _through_moments(here, input[at], arrived, x, over, mean[n, g], rstd[n, g])


def _places(x: Tensor) -> list[Index]:
    return places(x.shape[2:]) if x.ndim > 2 else []


@rule("native_group_norm_backward", output=1)
def group_norm_weight_gradient(
    grad_out: Any, input: Any, mean: Any, rstd: Any, C: Any, group: Any, *, at: Any
) -> Expr:
    # ∂L/∂γ = Σ_n (Σ g·x − μ·Σ g)·r
    (c,) = at
    g = c // (C // group)
    n, p = index("n", input.shape[0]), _places(input)
    arrived, x = grad_out[(n, c, *p)], input[(n, c, *p)]
    return total(n, (total(p, arrived * x) - mean[n, g] * total(p, arrived)) * rstd[n, g])


@rule("native_group_norm_backward", output=2)
def group_norm_bias_gradient(grad_out: Any, *, at: Any) -> Expr:
    # ∂L/∂β = Σ g
    (c,) = at
    n, p = index("n", grad_out.shape[0]), _places(grad_out)
    return total((n, *p), grad_out[(n, c, *p)])
