"""Numbers drawn at random: no law makes them. What is computed from the draw has one."""

from __future__ import annotations

from typing import Any

from openheart.formula.expr import Expr, Leaf, Number, expr, where
from openheart.formula.functions import rounded_to
from openheart.formula.precision import FLOAT32, PRECISIONS
from openheart.rules.registry import rule, value_of
from openheart.rules.rows import HALVES, forms, row, slot

DRAWN = (
    "rand rand_like randn randn_like randint randint_like randperm bernoulli uniform normal exponential "
    "geometric cauchy log_normal random multinomial poisson binomial _standard_gamma _sample_dirichlet"
)


def drawn() -> Expr:
    """A number that nobody computed."""
    return Leaf("random")


def _register() -> None:
    for name in DRAWN.split():
        for key, schema in forms(name, anything=True):
            rule(key, output=slot(schema))(drawn)


_register()


@rule("native_dropout", "native_dropout.out", output=1)
def native_dropout_mask(input: Any, p: Any, train: Any, *, result: Any) -> Expr:
    # who stays: drawn in training, everybody otherwise
    probability = value_of(p)
    if train is False or probability == 0:
        return Number(True)
    return Number(False) if probability == 1 else Leaf("random")


@rule("native_dropout", "native_dropout.out")
def native_dropout(input: Any, p: Any, train: Any, *, at: Any, out: Any) -> Expr:
    # x·mask / (1 − p)
    probability = value_of(p)
    if train is False or probability == 0:
        return input[at]
    if probability == 1:
        return Number(0.0)
    return input[at] * out[1][at] * (1 / (1 - probability))


row("native_dropout_backward")(lambda grad_output, mask, scale: grad_output * mask * scale)


@rule("rrelu_with_noise", "rrelu_with_noise_", "rrelu_with_noise.out")
def rrelu_with_noise(
    self: Any, lower: Any, upper: Any, training: bool, *, at: Any, out: Any, result: Any
) -> Expr:
    # x above zero, r·x below: r was drawn in training, else it is the middle of its range
    # (in half precision the kernel multiplies by what it drew, of which the noise is the nearest number)
    x = self[at]
    slope = out[-1][at] if training else (expr(lower) + upper) / 2
    if training and result.dtype in HALVES:
        slope = rounded_to(PRECISIONS[result.dtype], slope, FLOAT32)
    return where(x > 0, x, x * slope)


@rule("rrelu_with_noise", "rrelu_with_noise_", output="noise")
def rrelu_noise(self: Any, noise: Any, training: bool, *, at: Any) -> Expr:
    # the slopes: 1 above zero, drawn below
    return where(self[at] > 0, 1.0, Leaf("random")) if training else noise[at]
