"""Gradients of the activation functions: what comes from above times the function's slope."""

from __future__ import annotations

import math
from typing import Any

from openheart.formula.expr import Expr, Number, expr, named, where
from openheart.formula.functions import conj, erf, exp, log1p, sigmoid, tanh
from openheart.rules.activation import ROOT_2_OVER_PI, ROOT_HALF, like
from openheart.rules.registry import rule, value_of
from openheart.rules.rows import held, row, stored


def gelu_backward(grad_output: Any, self: Any, approximate: str = "none") -> Expr:
    # (x·Φ(x))′ = Φ(x) + x·φ(x)
    if approximate == "tanh":
        t = named("t", tanh(ROOT_2_OVER_PI * (self + 0.044715 * self**3)))
        inner = ROOT_2_OVER_PI * (1 + 3 * 0.044715 * self**2)
        return grad_output * (0.5 * (1 + t) + 0.5 * self * (1 - t * t) * inner)
    cdf = named("Φ", 0.5 * (1 + erf(self * ROOT_HALF)))
    pdf = named("φ", exp(-0.5 * self * self) / Number(math.sqrt(2 * math.pi), "√(2π)"))
    return grad_output * (cdf + self * pdf)


def elu_backward(
    grad_output: Any, alpha: Any, scale: Any, input_scale: Any, is_result: bool, self_or_result: Any
) -> Expr:
    # below zero (α·s·(e^cx − 1))′ = α·s·c·e^cx = c·(y + α·s)
    below = (
        self_or_result + alpha * expr(scale)
        if is_result
        else alpha * expr(scale) * exp(self_or_result * input_scale)
    )
    return where(self_or_result > 0, grad_output * scale, grad_output * input_scale * below)


def softplus_backward(grad_output: Any, self: Any, beta: Any, threshold: Any) -> Expr:
    # (1/β log(1 + e^βx))′ = σ(βx)
    z = named("z", exp(self * beta))
    return where(self * beta > threshold, grad_output, grad_output * z / (z + 1))


def mish_backward(grad_output: Any, self: Any) -> Expr:
    # (x·tanh(s))′ = t + x·(1 − t²)·σ(x), s = softplus(x), t = tanh s
    t = named("t", tanh(log1p(exp(self))))
    return grad_output * (t + self * sigmoid(self) * (1 - t * t))


def hardswish_backward(grad_output: Any, self: Any) -> Expr:
    # (x(x + 3)/6)′ = x/3 + 1/2
    return where(self >= 3, grad_output, where(self <= -3, 0.0, grad_output * (self / 3 + 0.5)))


def log_sigmoid_backward(grad_output: Any, self: Any, buffer: Any) -> Expr:
    # (log σ(x))′ = 1 − σ(x), from z = e^−|x|, which the forward pass kept
    share = named("s", buffer / (1 + buffer))
    return grad_output * where(self < 0, 1 - share, share)


def sigmoid_backward(grad_output: Any, output: Any, result: Any) -> Expr:
    # σ′ = (1 − σ)·σ; of a complex number autograd takes the conjugate
    if output.tensor.kind == "complex":
        return grad_output * conj((1 - output) * output)
    return stored(grad_output * (1 - output) * output, result, ("float16",))


def tanh_backward(grad_output: Any, output: Any) -> Expr:
    # tanh′ = 1 − tanh²; of a complex number autograd takes the conjugate
    slope = 1 - output * output
    return grad_output * (conj(slope) if output.tensor.kind == "complex" else slope)


def silu_backward(grad_output: Any, self: Any) -> Expr:
    # (x·σ(x))′ = σ(x)·(1 + x·(1 − σ(x)))
    s = named("σ", sigmoid(self))
    return grad_output * s * (1 + self * (1 - s))


def rrelu_backward(grad_output: Any, self: Any, noise: Any, lower: Any, upper: Any, training: bool) -> Expr:
    # in training the slopes below zero were drawn: the noise holds them
    if training and value_of(upper) - value_of(lower) > 1e-6:
        return noise * grad_output
    slope = (lower + upper) / 2
    return where(self > 0, grad_output, grad_output * slope)


row("threshold_backward")(
    lambda grad_output, self, threshold: where(self <= like(threshold, self.tensor), 0, grad_output)
)
row("hardtanh_backward")(
    lambda grad_output, self, min_val, max_val: where((self > min_val) & (self < max_val), grad_output, 0)
)
row("leaky_relu_backward")(
    lambda grad_output, self, negative_slope: where(self > 0, grad_output, grad_output * negative_slope)
)
row("elu_backward")(elu_backward)
row("sigmoid_backward")(sigmoid_backward)
row("tanh_backward")(tanh_backward)
row("silu_backward")(silu_backward)
row("gelu_backward")(gelu_backward)
row("mish_backward")(mish_backward)
row("softplus_backward")(softplus_backward)
# the kernel's ⅙ is a float32, in float64 calls as well
row("hardsigmoid_backward")(
    lambda grad_output, self: where((self > -3) & (self < 3), grad_output * held(1 / 6, "float32"), 0.0)
)
row("hardswish_backward")(hardswish_backward)
row("hardshrink_backward")(lambda grad_out, self, lambd: where((self > lambd) | (self < -lambd), grad_out, 0))
row("softshrink_backward")(
    lambda grad_output, self, lambd: where((self > lambd) | (self < -lambd), grad_output, 0)
)
row("log_sigmoid_backward")(log_sigmoid_backward)
row("_prelu_kernel_backward")(
    lambda grad_output, self, weight: where(self > 0, grad_output, weight * grad_output)
)
row("_prelu_kernel_backward", output=1)(lambda grad_output, self: where(self > 0, 0.0, self * grad_output))
row("rrelu_with_noise_backward")(rrelu_backward)


@rule("glu_backward", "glu_backward.grad_input")
def glu_backward(grad_output: Any, self: Any, dim: int, *, at: Any, result: Any) -> Expr:
    # (a·σ(b))′: for the first half g·σ(b), for the second g·a·σ(b)·(1 − σ(b))
    dim %= self.ndim
    half = self.shape[dim] // 2

    def along(place: Any) -> Any:
        return (*at[:dim], place, *at[dim + 1 :])

    j = at[dim]
    first = j < half
    g = grad_output[along(where(first, j, j - half))]
    a, b = self[along(where(first, j, j - half))], self[along(where(first, j + half, j))]
    s = named("σ", sigmoid(b))
    return stored(where(first, g * s, g * a * s * (1 - s)), result)
