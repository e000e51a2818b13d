"""Normalizations: numbers made to have mean 0 and variance 1 over a batch, a layer or a group of channels.

All are x̂ = (x − μ)/√(σ² + ε), then γ·x̂ + β. They differ in what μ and σ² are taken over, and their
kernels in how they multiply out; each law does it as its kernel does (aten/src/ATen/native/cpu:
batch_norm_kernel.cpp, layer_norm_kernel.cpp, group_norm_kernel.cpp), since x·α + (β − μ·α) and
(x − μ)·α + β are not rounded alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._prims_common import suggest_memory_format

from openheart.formula.expr import Expr, Index, Number, Operand, Ref, Tensor, expr, index, mean, named, total
from openheart.formula.functions import computed_in, double, maximum, sqrt
from openheart.formula.precision import FLOAT32, FLOAT64, Precision
from openheart.rules.convolution import is_half
from openheart.rules.registry import rule, value_of
from openheart.rules.windows import places

Geometry = Mapping[str, Any]


def memory_format(geometry: Any) -> torch.memory_format:
    """In which order the numbers lie, as a kernel sees it; `preserve_format` for neither of the two."""
    like = torch.empty_strided(geometry.shape, geometry.stride, device="meta")
    suggested = suggest_memory_format(like)
    return suggested if like.is_contiguous(memory_format=suggested) else torch.preserve_format


@dataclass(frozen=True, slots=True)
class Channels:
    """How batch norm gathers the statistics of its channels."""

    x: Tensor
    summed: Callable[[Operand], Expr]
    """In which precision it adds up: double where float32 numbers lie channel by channel."""
    held: Precision
    """In which precision it holds each channel's sum, mean and factors: that of its parameters."""

    def hold(self, x: Expr) -> Expr:
        """A number kept in a tensor of the parameters' dtype."""
        return computed_in(self.held, computed_in(FLOAT32, x)) if is_half(self.held) else x

    def held_throughout(self, x: Expr) -> Expr:
        """A number whose every step is kept in the parameters' dtype."""
        return computed_in(self.held, x) if is_half(self.held) else x

    def over(self) -> list[Index]:
        """Index variables over the samples and places of a channel."""
        return [index("n", self.x.shape[0]), *(places(self.x.shape[2:]) if self.x.ndim > 2 else ())]

    def count(self) -> int:
        """How many numbers a channel has."""
        return math.prod(k.extent for k in self.over())

    def mean(self, c: Expr) -> Expr:
        n, *p = over = self.over()
        return named("μ", self.hold(self.summed(total(over, self.x[(n, c, *p)])) / self.count()))

    def squares(self, c: Expr) -> Expr:
        """Σ (x − μ)²."""
        n, *p = over = self.over()
        mu = self.mean(c) if self.held is FLOAT64 else computed_in(FLOAT32, self.mean(c))
        centered = self.x[(n, c, *p)] - mu
        return self.hold(self.summed(total(over, centered * centered)))


def channels(x: Tensor, geometry: Geometry, stored: Precision) -> Channels:
    place = geometry["input"]
    by_channel = memory_format(place) is torch.contiguous_format and math.prod(x.shape[2:]) > 1
    summed = double if by_channel and place.dtype == torch.float32 else expr
    for name in ("weight", "bias", "running_mean"):
        if name in geometry:
            return Channels(x, summed, FLOAT32 if geometry[name].dtype == torch.float32 else stored)
    return Channels(x, summed, stored)


def affine(x: Expr, mu: Expr, rstd: Expr, weight: Operand, bias: Operand) -> Expr:
    # out = x·α + (β − μ·α), α = γ/√(σ² + ε)
    alpha = named("α", rstd * weight)
    return x * alpha + named("β′", bias - mu * alpha)


def at_channel(x: Tensor | None, c: Expr, otherwise: float) -> Operand:
    return otherwise if x is None else x[c]


def inverse_deviation(variance: Expr, eps: Operand) -> Expr:
    # 1/√(σ² + ε)
    return 1 / sqrt(variance + eps)


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional")
def batch_norm(
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: Any,
    eps: Any,
    *,
    at: Any,
    out: Any,
    geometry: Any,
    stored: Any,
) -> Expr:
    if training:
        law = batch_norm_training(input, weight, bias, at=at, out=out, geometry=geometry, stored=stored)
        return expr(law)
    given = (input, weight, bias, running_mean, running_var, eps)
    return expr(batch_norm_inference(*given, at=at, geometry=geometry, stored=stored))


@rule("_native_batch_norm_legit.no_stats", "_batch_norm_with_update")
def batch_norm_training(
    input: Any, weight: Any, bias: Any, *, at: Any, out: Any, geometry: Any, stored: Any
) -> Expr:
    # μ and 1/√(σ² + ε) are those of this batch: the call's other outputs
    c = at[1]
    normalized = affine(input[at], out[1][c], out[2][c], at_channel(weight, c, 1), at_channel(bias, c, 0))
    return channels(input, geometry, stored).held_throughout(normalized)


@rule("_native_batch_norm_legit_no_training", "_batch_norm_no_update")
def batch_norm_inference(
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    eps: Any,
    *,
    at: Any,
    geometry: Any,
    stored: Any,
) -> Expr:
    # μ and σ² are those that training has gathered
    c = at[1]
    rstd = inverse_deviation(running_var[c], eps)
    normalized = affine(input[at], running_mean[c], rstd, at_channel(weight, c, 1), at_channel(bias, c, 0))
    return channels(input, geometry, stored).held_throughout(normalized)


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit.no_stats",
    "_native_batch_norm_legit_functional",
    "_batch_norm_with_update",
    output=1,
)
def batch_mean(input: Any, *, at: Any, geometry: Any, stored: Any, result: Any) -> Expr:
    # μ = mean of x over the samples and places of a channel (an empty tensor in inference)
    return Number(0.0) if result.shape == (0,) else channels(input, geometry, stored).mean(at[0])


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit.no_stats",
    "_native_batch_norm_legit_functional",
    "_batch_norm_with_update",
    output=2,
)
def batch_inverse_deviation(
    input: Any, eps: Any, *, at: Any, geometry: Any, stored: Any, result: Any
) -> Expr:
    if result.shape == (0,):
        return Number(0.0)
    gathered = channels(input, geometry, stored)
    return inverse_deviation(named("σ²", gathered.squares(at[0]) / gathered.count()), eps)


@rule("_native_batch_norm_legit_no_training", output=1)
@rule("_native_batch_norm_legit_no_training", output=2)
def batch_nothing() -> Expr:
    # inference returns empty statistics
    return Number(0.0)


@rule("native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update", output="running_mean")
@rule("_native_batch_norm_legit_functional", output=3)
def running_mean(
    input: Any, running_mean: Any, momentum: Any, *, at: Any, geometry: Any, stored: Any
) -> Expr:
    # (1 − ρ)·running mean + ρ·μ, ρ PyTorch's momentum
    (c,) = at
    rate = Number(value_of(momentum), "ρ")
    gathered = channels(input, geometry, stored)
    return gathered.held_throughout(rate * gathered.mean(c) + (1 - rate) * running_mean[c])


@rule("native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update", output="running_var")
@rule("_native_batch_norm_legit_functional", output=4)
def running_variance(
    input: Any, running_var: Any, momentum: Any, *, at: Any, geometry: Any, stored: Any
) -> Expr:
    # (1 − ρ)·running variance + ρ·s², s² = Σ (x − μ)²/(n − 1)
    (c,) = at
    rate = Number(value_of(momentum), "ρ")
    gathered = channels(input, geometry, stored)
    unbiased = named("s²", gathered.squares(c) / (gathered.count() - 1))
    return gathered.held_throughout(rate * unbiased + (1 - rate) * running_var[c])


def rows(x: Tensor, normalized: Sequence[int], lead: Sequence[Expr]) -> tuple[list[Index], Expr]:
    """Index variables over one normalized row, and the element of `x` there."""
    k = [index(name, size) for name, size in zip(("k", "k′", "k″", "k‴"), normalized, strict=False)]
    return k, x[(*lead, *k)]


def row_mean(x: Tensor, normalized: Sequence[int], lead: Sequence[Expr]) -> Expr:
    k, element = rows(x, normalized, lead)
    return named("μ", mean(k, element))


def row_rstd(x: Tensor, normalized: Sequence[int], lead: Sequence[Expr], eps: Operand) -> Expr:
    k, element = rows(x, normalized, lead)
    centered = element - row_mean(x, normalized, lead)
    return inverse_deviation(named("σ²", mean(k, centered * centered)), eps)


def keeps_statistics(geometry: Geometry, stored: Precision) -> bool:
    """Whether the recorded statistics are the ones the kernel computed with, not narrower copies."""
    parameter = geometry.get("weight") or geometry.get("bias")
    return not is_half(stored) or (parameter is not None and parameter.dtype == torch.float32)


@rule("native_layer_norm")
def layer_norm(
    input: Any,
    normalized_shape: Any,
    weight: Any,
    bias: Any,
    eps: Any,
    *,
    at: Any,
    out: Any,
    geometry: Any,
    stored: Any,
) -> Expr:
    # out = (x − μ)/√(σ² + ε)·γ + β
    split = len(at) - len(normalized_shape)
    lead, place = at[:split], at[split:]
    if keeps_statistics(geometry, stored):
        ones = (Number(0),) * len(place)
        mu, rstd = out[1][(*lead, *ones)], out[2][(*lead, *ones)]
    else:
        mu = row_mean(input, normalized_shape, lead)
        rstd = row_rstd(input, normalized_shape, lead, eps)
    # half-precision kernels multiply out first
    scaled = input[at] * rstd - mu * rstd if is_half(stored) else (input[at] - mu) * rstd
    scaled = expr(scaled if weight is None else scaled * weight[place])
    return scaled if bias is None else scaled + bias[place]


@rule("native_layer_norm", output=1)
def layer_mean(input: Any, normalized_shape: Any, *, at: Any) -> Expr:
    return row_mean(input, normalized_shape, at[: len(at) - len(normalized_shape)])


@rule("native_layer_norm", output=2)
def layer_inverse_deviation(input: Any, normalized_shape: Any, eps: Any, *, at: Any) -> Expr:
    return row_rstd(input, normalized_shape, at[: len(at) - len(normalized_shape)], eps)


def grouped(input: Tensor, channels: int, group: int, n: Expr, g: Expr) -> tuple[list[Index], Ref]:
    """Index variables over one group of channels, and the element of the input there."""
    each = channels // group
    c, p = index("c", each), places(input.shape[2:]) if input.ndim > 2 else []
    return [c, *p], input[(n, g * each + c, *p)]


def group_mean(input: Tensor, channels: int, group: int, n: Expr, g: Expr) -> Expr:
    over, element = grouped(input, channels, group, n, g)
    return named("μ", mean(over, element))


def group_rstd(
    input: Tensor, channels: int, group: int, n: Expr, g: Expr, eps: Operand, geometry: Geometry
) -> Expr:
    over, element = grouped(input, channels, group, n, g)
    mu = group_mean(input, channels, group, n, g)
    if memory_format(geometry["input"]) in (torch.channels_last, torch.channels_last_3d):
        # where channels lie last the kernel takes the mean of the squares, less the square of the mean
        variance = maximum(mean(over, element * element) - mu * mu, 0.0)
    else:
        variance = mean(over, (element - mu) * (element - mu))
    return inverse_deviation(named("σ²", variance), eps)


@rule("native_group_norm")
def group_norm(
    input: Any,
    weight: Any,
    bias: Any,
    C: Any,
    group: Any,
    eps: Any,
    *,
    at: Any,
    out: Any,
    geometry: Any,
    stored: Any,
) -> Expr:
    n, c = at[0], at[1]
    g = c // (C // group)
    if keeps_statistics(geometry, stored):
        mu, rstd = out[1][n, g], out[2][n, g]
    else:
        mu = group_mean(input, C, group, n, g)
        rstd = group_rstd(input, C, group, n, g, eps, geometry)
    return affine(input[at], mu, rstd, at_channel(weight, c, 1), at_channel(bias, c, 0))


@rule("native_group_norm", output=1)
def group_means(input: Any, C: Any, group: Any, *, at: Any) -> Expr:
    return group_mean(input, C, group, *at)


@rule("native_group_norm", output=2)
def group_inverse_deviations(input: Any, C: Any, group: Any, eps: Any, *, at: Any, geometry: Any) -> Expr:
    n, g = at
    return group_rstd(input, C, group, n, g, eps, geometry)
