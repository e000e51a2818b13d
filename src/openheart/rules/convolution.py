"""Convolutions of any number of spatial axes, grouped, dilated or transposed, and their gradients.

In a grouped convolution the channels fall into `groups` equal parts, and each part sees only its own
channels. A transposed convolution is the gradient of a convolution with respect to its input.

On a machine without matrix instructions for half precision, PyTorch's own kernels gather a convolution's
input gradient (and a transposed convolution) offset by offset, and a weight's gradient sample by sample,
in numbers of the tensor's own dtype (aten/src/ATen/native: ConvolutionMM2d.cpp, im2col.h,
NaiveConvolutionTranspose2d.cpp); with them oneDNN sums in float32. The half-precision laws allow both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard

from openheart.formula.expr import Expr, Index, Tensor, index, total
from openheart.formula.functions import accumulated, computed_in
from openheart.formula.precision import FLOAT32, Precision
from openheart.rules.registry import rule
from openheart.rules.windows import Axis, axes, offsets, places, seen_at, seers_of


@rule("convolution", "_convolution", "convolution_overrideable")
def convolution(
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: Any,
    groups: Any,
    *,
    at: Any,
    result: Any,
    stored: Any,
) -> Expr:
    if not transposed:
        window = axes(input.shape[2:], result.shape[2:], weight.shape[2:], stride, padding, dilation)
        out = slide(window, input, weight, groups, at)
        return out if bias is None else accumulated(bias[at[1]], out)
    window = axes(result.shape[2:], input.shape[2:], weight.shape[2:], stride, padding, dilation)
    out = spread_out(window, input, weight, groups, at, stored)
    if bias is None:
        return out
    return computed_in(stored, out + bias[at[1]]) if is_half(stored) else out + bias[at[1]]


def is_half(stored: Precision | None) -> TypeGuard[Precision]:
    """Whether a kernel stores what it makes in half precision; whole numbers have no precision."""
    return stored is not None and stored.unit > FLOAT32.unit


def slide(window: Sequence[Axis], x: Tensor, weight: Tensor, groups: int, at: Sequence[Index]) -> Expr:
    # out[n, o, p] = Σ_c Σ_u w[o, c, u] · x[n, c, p·s + u·d − padding]
    n, o, *at_place = at
    c, u = index("c", weight.shape[1]), offsets(window)
    seen, inside = seen_at(window, at_place, u)
    channel = c if groups == 1 else o // (weight.shape[0] // groups) * weight.shape[1] + c
    return total((c, *u), x[(n, channel, *seen)] * weight[(o, c, *u)], where=inside)


def spread_out(
    window: Sequence[Axis], x: Tensor, weight: Tensor, groups: int, at: Sequence[Index], stored: Precision
) -> Expr:
    # out[n, o, p] = Σ_c Σ_u w[c, o, u] · x[n, c, (p + padding − u·d) / s], where s divides
    n, o, *at_place = at
    c, u = index("c", weight.shape[0] // groups), offsets(window)
    seers, exists = seers_of(window, at_place, u)
    each = weight.shape[1]
    channel, within = (c, o) if groups == 1 else (o // each * c.extent + c, o % each)
    term = x[(n, channel, *seers)] * weight[(channel, within, *u)]
    if is_half(stored):
        return computed_in(stored, total(u, computed_in(FLOAT32, total(c, term)), where=exists))
    return total((c, *u), term, where=exists)


def _backward_window(
    grad_output: Tensor, x: Tensor, weight: Tensor, transposed: bool, move: Sequence[Sequence[int]]
) -> list[Axis]:
    large, small = (grad_output, x) if transposed else (x, grad_output)
    return axes(large.shape[2:], small.shape[2:], weight.shape[2:], *move)


@rule("convolution_backward", "convolution_backward_overrideable", output=0)
def input_gradient(
    grad_output: Any,
    input: Any,
    weight: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: Any,
    groups: Any,
    *,
    at: Any,
    stored: Any,
) -> Expr:
    # the gradient of a convolution is a transposed convolution, and the other way round
    window = _backward_window(grad_output, input, weight, transposed, (stride, padding, dilation))
    if transposed:
        return slide(window, grad_output, weight, groups, at)
    return spread_out(window, grad_output, weight, groups, at, stored)


@rule("convolution_backward", "convolution_backward_overrideable", output=1)
def weight_gradient(
    grad_output: Any,
    input: Any,
    weight: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: Any,
    groups: Any,
    *,
    at: Any,
    stored: Any,
) -> Expr:
    # ∂L/∂w[o, c, u] = Σ_n Σ_p g[n, o, p] · x[n, c, p·s + u·d − padding]; x and g change places if transposed
    window = _backward_window(grad_output, input, weight, transposed, (stride, padding, dilation))
    still, moving = (input, grad_output) if transposed else (grad_output, input)
    first, second, *u = at
    n, p = index("n", input.shape[0]), places(still.shape[2:])
    seen, inside = seen_at(window, p, u)
    channel = second if groups == 1 else first // (weight.shape[0] // groups) * weight.shape[1] + second
    term = still[(n, first, *p)] * moving[(n, channel, *seen)]
    if is_half(stored):
        return computed_in(stored, total(n, computed_in(FLOAT32, total(p, term, where=inside))))
    return total((n, *p), term, where=inside)


@rule("convolution_backward", "convolution_backward_overrideable", output=2)
def bias_gradient(grad_output: Any, *, at: Any, stored: Any) -> Expr:
    # ∂L/∂b[o] = Σ_n Σ_p g[n, o, p]
    (o,) = at
    n, p = index("n", grad_output.shape[0]), places(grad_output.shape[2:])
    term = grad_output[(n, o, *p)]
    if is_half(stored):
        return computed_in(stored, total(n, computed_in(FLOAT32, total(p, term))))
    return total((n, *p), term)
