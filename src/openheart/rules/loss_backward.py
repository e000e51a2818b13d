"""Gradients of the losses: the loss's slope times what comes from above, over N when the loss is a mean."""

from __future__ import annotations

import math
from typing import Any

from openheart.formula.expr import Expr, Number, index, named, total, where
from openheart.formula.functions import exp, maximum
from openheart.rules.loss import MEAN, SUM, listed, weighed
from openheart.rules.registry import rule, value_of
from openheart.rules.rows import held, row, stored


def size(self: Any, reduction: int) -> int:
    """N, over which a mean divides."""
    return math.prod(self.tensor.shape) if reduction == MEAN else 1


def mse_loss_backward(grad_output: Any, self: Any, target: Any, reduction: int, result: Any) -> Expr:
    # ((x − y)²)′ = 2(x − y)
    return stored(2 / size(self, reduction) * (self - target) * grad_output, result)


def smooth_l1_loss_backward(
    grad_output: Any, self: Any, target: Any, reduction: int, beta: Any, result: Any
) -> Expr:
    # d/β near zero, ±1 from β on
    d = self - target
    norm = 1 / size(self, reduction)
    outside = where(d >= beta, norm * grad_output, norm * d * grad_output / beta)
    return stored(where(d <= -beta, -norm * grad_output, outside), result)


def huber_loss_backward(
    grad_output: Any, self: Any, target: Any, reduction: int, delta: Any, result: Any
) -> Expr:
    # d near zero, ±δ beyond δ
    d = self - target
    norm = 1 / size(self, reduction)
    outside = where(d >= delta, norm * grad_output * delta, norm * d * grad_output)
    return stored(where(d <= -delta, -norm * grad_output * delta, outside), result)


def soft_margin_loss_backward(grad_output: Any, self: Any, target: Any, reduction: int, result: Any) -> Expr:
    # (log(1 + z))′ = −y·z / (1 + z), z = e^(−yx)
    z = named("z", exp(-target * self))
    return stored(target * z * (-1 / size(self, reduction)) / (1 + z) * grad_output, result)


def binary_cross_entropy_backward(
    grad_output: Any, self: Any, target: Any, weight: Any, reduction: int, result: Any
) -> Expr:
    # (x − y) / (x(1 − x))
    least = held(held(1e-12, "float32"), result.dtype)  # the kernel's constant, a float
    slope = grad_output * (self - target) / maximum((1 - self) * self, least)
    if weight is not None:
        slope = slope * weight
    return stored(slope / size(self, reduction), result)


row("mse_loss_backward")(mse_loss_backward)
row("smooth_l1_loss_backward")(smooth_l1_loss_backward)
row("huber_loss_backward", scalars="either")(huber_loss_backward)
row("soft_margin_loss_backward")(soft_margin_loss_backward)
row("binary_cross_entropy_backward")(binary_cross_entropy_backward)


@rule("nll_loss_backward", "nll_loss_backward.grad_input")
@rule("nll_loss2d_backward", "nll_loss2d_backward.grad_input")
def nll_loss_backward(
    grad_output: Any,
    self: Any,
    target: Any,
    weight: Any,
    reduction: int,
    ignore_index: int,
    total_weight: Any,
    *,
    at: Any,
    result: Any,
) -> Expr:
    # −w_c where c is the target's class, 0 elsewhere; of a mean, over W
    place, c = ((), at[0]) if self.ndim == 1 else ((at[0], *at[2:]), at[1])
    y = target[place] if target.ndim else target[()]
    above = grad_output[tuple(Number(0) for _ in grad_output.shape)]
    if reduction == MEAN:
        above = above / total_weight[tuple(Number(0) for _ in total_weight.shape)]
    elif reduction != SUM and self.ndim > 1:
        above = grad_output[place]
    return where((y == c) & (y != ignore_index), stored(-(weighed(weight, c) * above), result), 0.0)


@rule("multi_margin_loss_backward", "multi_margin_loss_backward.grad_input")
def multi_margin_loss_backward(
    grad_output: Any,
    self: Any,
    target: Any,
    p: Any,
    margin: Any,
    weight: Any,
    reduction: int,
    *,
    at: Any,
) -> Expr:
    # for c ≠ y: w_y·p·max(0, margin − x_y + x_c)ᵖ⁻¹ / C; for y minus their sum
    *row, d = at
    c = index("c", self.shape[-1])
    y = target[tuple(row)] if target.ndim else target[()]
    rows = self.shape[0] if self.ndim > 1 and reduction == MEAN else 1

    def slope(k: Expr) -> Expr:
        lag = margin - self[(*row, y)] + self[(*row, k)]
        pull = weighed(weight, y) * (1 / max(rows * c.extent, 1))
        return where(lag > 0, pull if value_of(p) == 1 else 2 * lag * pull, 0.0)

    above = grad_output[tuple(row) if grad_output.ndim else ()]
    return where(d == y, -total(c, slope(c), where=c != y), slope(d)) * above


@rule("multilabel_margin_loss_backward", "multilabel_margin_loss_backward.grad_input")
def multilabel_margin_loss_backward(
    grad_output: Any, self: Any, target: Any, reduction: int, is_target: Any, *, at: Any
) -> Expr:
    # each pair (y listed, c not) with x_y − x_c < 1 pulls y up and c down by 1/C
    if not self.ndim:
        return Number(0.0)  # a single class has no others
    *place, d = at
    row = tuple(place)
    classes = self.shape[-1]
    c, k = index("c", classes), index("k", classes)
    pull = 1 / (classes * (self.shape[0] if self.ndim > 1 and reduction == MEAN else 1))

    def close(y: Expr, other: Expr) -> Expr:
        return 1 - self[(*row, y)] + self[(*row, other)] > 0

    y = target[(*row, k)]
    others = is_target[(*row, c)] == 0
    up = total((k, c), 1.0, where=listed(target, row, k) & (y == d) & others & close(d, c))
    down = total(k, 1.0, where=listed(target, row, k) & close(y, d))
    above = grad_output[row if grad_output.ndim else ()]
    return where(is_target[tuple(at)] == 0, pull * down, -pull * up) * above
