"""Activation functions, element by element."""

from __future__ import annotations

import math
from typing import Any

from openheart.formula.expr import Expr, Number, apply, expr, named, where
from openheart.formula.functions import cos, erf, exp, expm1, log1p, maximum, minimum, sigmoid, sin, tanh
from openheart.rules.registry import rule, value_of
from openheart.rules.rows import HALVES, held, row

ROOT_HALF = Number(math.sqrt(0.5), "√½")
ROOT_2_OVER_PI = Number(math.sqrt(2 / math.pi), "√(2/π)")


def like(scalar: Any, tensor: Any) -> Number:
    """A scalar as the kernel holds it: in the tensor's format, for half precision in float32."""
    dtype = "float32" if tensor.dtype in HALVES else tensor.dtype
    return Number(held(value_of(scalar), dtype), scalar.name)


def softplus_of(x: Expr) -> Expr:
    """log(1 + eˣ)."""
    return log1p(exp(x))


def gelu(self: Any, approximate: str = "none") -> Expr:
    """x·Φ(x), Φ the normal distribution; or its approximation by tanh (Hendrycks and Gimpel, 2016)."""
    if approximate == "tanh":
        inner = named("u", ROOT_2_OVER_PI * (self + 0.044715 * self**3))
        return 0.5 * self * (1 + tanh(inner))
    return self * 0.5 * (1 + erf(self * ROOT_HALF))


def softplus(self: Any, beta: Any = 1, threshold: Any = 20) -> Expr:
    # (1/β) log(1 + e^βx), and x itself where βx is beyond the threshold
    return where(self * beta > threshold, self, softplus_of(self * beta) / beta)


row("relu")(lambda self: maximum(self, 0))
row("relu6")(lambda self: minimum(maximum(self, 0), 6))
row("threshold")(
    lambda self, threshold, value, result: where(self <= like(threshold, result), like(value, result), self)
)
row("hardtanh")(lambda self, min_val=-1, max_val=1: minimum(maximum(self, min_val), max_val))
row("leaky_relu")(lambda self, negative_slope=0.01: where(self > 0, self, self * negative_slope))
row("_prelu_kernel")(lambda self, weight: where(self > 0, self, weight * self))
row("elu")(
    lambda self, alpha=1, scale=1, input_scale=1: where(
        self < 0, alpha * expr(scale) * expm1(self * input_scale), self * scale
    )
)
row("celu")(lambda self, alpha=1: where(self < 0, alpha * expm1(self * (1 / expr(alpha))), self))
row("silu")(lambda self: self / (1 + exp(-self)))
row("gelu")(gelu)
row("mish")(lambda self: self * tanh(softplus_of(self)))
row("softplus")(softplus)
row("hardsigmoid")(lambda self: minimum(maximum(self + 3, 0), 6) / 6)
row("hardswish")(lambda self: self * minimum(maximum(self + 3, 0), 6) / 6)
row("hardshrink")(lambda self, lambd=0.5: where((self >= -lambd) & (self <= lambd), 0, self))
row("softshrink")(
    lambda self, lambd=0.5: where(self > lambd, self - lambd, where(self < -lambd, self + lambd, self * 0))
)
row("sigmoid")(lambda self: sigmoid(self))
row("polar")(lambda abs, angle: apply("complex", abs * cos(angle), abs * sin(angle)))


# log σ(x) = min(x, 0) − log(1 + e^−|x|); the second output is kept for the backward pass
row("log_sigmoid_forward")(lambda self: minimum(self, 0) - log1p(exp(-abs(self))))
row("log_sigmoid_forward", output=1)(lambda self: exp(-abs(self)))


@rule("glu", "glu.out")
def glu(self: Any, dim: int, *, at: Any) -> Expr:
    # a·σ(b), a and b the halves of the input
    dim %= self.ndim
    half = self.shape[dim] // 2
    a, b = self[at], self[(*at[:dim], at[dim] + half, *at[dim + 1 :])]
    return a * sigmoid(b)
