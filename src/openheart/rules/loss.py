"""Losses, element by element or averaged or added, as `reduction` says (0: neither, 1: mean, 2: sum)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from openheart.formula.expr import (
    Expr,
    Index,
    Leaf,
    Number,
    count,
    exists,
    index,
    mean,
    named,
    smallest,
    total,
    where,
)
from openheart.formula.functions import exp, log, log1p, maximum, minimum
from openheart.rules.registry import rule, value_of
from openheart.rules.rows import stored

MEAN, SUM = 1, 2
NAMES = "ijlmpq"


def places(shape: Sequence[int]) -> tuple[Index, ...]:
    """An index for each dimension."""
    return tuple(index(NAMES[a] if a < len(NAMES) else f"i{a}", n) for a, n in enumerate(shape))


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that tensors of these shapes have together."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(0 if 0 in sizes else max(sizes) for sizes in zip(*padded, strict=True))


def reduced(
    term: Callable[[Sequence[Expr]], Expr], tensors: Sequence[Any], reduction: int, at: Any, result: Any
) -> Expr:
    """The loss `term` at one place, or its mean or sum over all of them."""
    if reduction not in (MEAN, SUM):
        return stored(term(at), result)
    over = places(broadcast(*(t.shape for t in tensors if t is not None)))
    each = stored(term(over), result)
    return mean(over, each) if reduction == MEAN else total(over, each)


@rule("mse_loss", "mse_loss.out")
def mse_loss(self: Any, target: Any, reduction: int, *, at: Any, result: Any) -> Expr:
    # (x − y)²
    return reduced(
        lambda i: (self.broadcast(i) - target.broadcast(i)) ** 2, (self, target), reduction, at, result
    )


@rule("smooth_l1_loss", "smooth_l1_loss.out")
def smooth_l1_loss(self: Any, target: Any, reduction: int, beta: Any, *, at: Any, result: Any) -> Expr:
    # ½d²/β near zero, |d| − ½β from β on
    def term(i: Sequence[Expr]) -> Expr:
        d = abs(self.broadcast(i) - target.broadcast(i))
        return d if value_of(beta) == 0 else where(d < beta, 0.5 * d**2 / beta, d - 0.5 * beta)

    return reduced(term, (self, target), reduction, at, result)


@rule("huber_loss", "huber_loss.out")
def huber_loss(self: Any, target: Any, reduction: int, delta: Any, *, at: Any, result: Any) -> Expr:
    # ½d² near zero, δ·(|d| − ½δ) beyond δ
    def term(i: Sequence[Expr]) -> Expr:
        d = abs(self.broadcast(i) - target.broadcast(i))
        return where(d <= delta, 0.5 * d**2, delta * (d - 0.5 * delta))

    return reduced(term, (self, target), reduction, at, result)


@rule("soft_margin_loss", "soft_margin_loss.out")
def soft_margin_loss(self: Any, target: Any, reduction: int, *, at: Any, result: Any) -> Expr:
    # log(1 + e^(−yx)), four calls, each with a result of the tensor's own format
    def term(i: Sequence[Expr]) -> Expr:
        return stored(log1p(exp(-target.broadcast(i) * self.broadcast(i))), result)

    return reduced(term, (self, target), reduction, at, result)


@rule("binary_cross_entropy", "binary_cross_entropy.out")
def binary_cross_entropy(
    self: Any, target: Any, weight: Any, reduction: int, *, at: Any, result: Any
) -> Expr:
    # −(y·log x + (1 − y)·log(1 − x)), each logarithm at least −100
    def term(i: Sequence[Expr]) -> Expr:
        x, y = self.broadcast(i), target.broadcast(i)
        loss = (y - 1) * maximum(log1p(-x), -100) - y * maximum(log(x), -100)
        return loss if weight is None else loss * weight.broadcast(i)

    return reduced(term, (self, target), reduction, at, result)


@rule("binary_cross_entropy_with_logits", "binary_cross_entropy_with_logits.out")
def binary_cross_entropy_with_logits(
    self: Any, target: Any, weight: Any, pos_weight: Any, reduction: int, *, at: Any, result: Any
) -> Expr:
    # (1 − y)·x − (1 + (p − 1)·y)·log σ(x), where log σ(x) = min(x, 0) − log(1 + e^−|x|)
    def term(i: Sequence[Expr]) -> Expr:
        x, y = self.broadcast(i), target.broadcast(i)
        log_sigmoid = minimum(x, 0) - log1p(exp(-abs(x)))
        if pos_weight is not None:
            log_sigmoid = ((pos_weight.broadcast(i) - 1) * y + 1) * log_sigmoid
        loss = (1 - y) * x - log_sigmoid
        return loss if weight is None else loss * weight.broadcast(i)

    return reduced(term, (self, target, weight, pos_weight), reduction, at, result)


# -- negative log-likelihood: −w_y·x_y, y the target's class ----------------------------------------


def picked(self: Any, target: Any, place: Sequence[Expr]) -> tuple[Expr, Expr]:
    """The class that is right at a place of the target, and the input there."""
    y = target[tuple(place)] if target.ndim else target[()]
    if self.ndim == 1:
        return y, self[y]
    return y, self[(place[0], y, *place[1:])]


def weighed(weight: Any, y: Expr) -> Expr:
    return Number(1.0) if weight is None else weight[y]


def total_weight_of(target: Any, weight: Any, ignore_index: int) -> Expr:
    """W, the weights of all targets that are not ignored."""
    over = places(target.shape)
    y = target[over]
    if not over:
        return where(y == ignore_index, 0.0, weighed(weight, y))
    return (
        count(over, y != ignore_index) if weight is None else total(over, weight[y], where=y != ignore_index)
    )


@rule("nll_loss_forward", "nll_loss_forward.output", "nll_loss2d_forward", "nll_loss2d_forward.output")
def nll_loss(
    self: Any, target: Any, weight: Any, reduction: int, ignore_index: int, *, at: Any, result: Any
) -> Expr:
    def term(place: Sequence[Expr]) -> tuple[Expr, Expr]:
        y, x = picked(self, target, place)
        return y, -x * weighed(weight, y)

    if result.ndim or (reduction not in (MEAN, SUM) and target.ndim):
        y, loss = term(at)
        return where(y == ignore_index, 0.0, loss)
    over = places(target.shape)
    y, loss = term(over)
    added = total(over, loss, where=y != ignore_index) if over else where(y == ignore_index, 0.0, loss)
    if reduction != MEAN:
        return stored(added, result)
    return stored(added / named("W", total_weight_of(target, weight, ignore_index)), result)


@rule("nll_loss_forward", "nll_loss_forward.output", output=1)
@rule("nll_loss2d_forward", "nll_loss2d_forward.output", output=1)
def nll_total_weight(
    self: Any, target: Any, weight: Any, reduction: int, ignore_index: int, *, result: Any
) -> Expr:
    # W; without a reduction nobody asks for it, and it is left at 0
    if reduction not in (MEAN, SUM) and self.ndim > 1:
        return Number(0.0)
    return stored(total_weight_of(target, weight, ignore_index), result)


# -- margins: the right class should lead every other by the margin --------------------------------


@rule("multi_margin_loss", "multi_margin_loss.out")
def multi_margin_loss(
    self: Any, target: Any, p: Any, margin: Any, weight: Any, reduction: int, *, at: Any
) -> Expr:
    # (1/C) Σ_{c ≠ y} w_y·max(0, margin − x_y + x_c)ᵖ
    c = index("c", self.shape[-1])

    def term(place: Sequence[Expr]) -> Expr:
        row = tuple(place) if self.ndim > 1 else ()
        y = target[tuple(place)] if target.ndim else target[()]
        lag = maximum(margin - self[(*row, y)] + self[(*row, c)], 0)
        return total(c, weighed(weight, y) * lag ** value_of(p), where=c != y) / c.extent

    if reduction not in (MEAN, SUM):
        return term(at)
    if 0 in self.shape:  # the kernel returns at once: its result is memory that nobody wrote
        return Leaf("uninitialized")
    over = places(target.shape)
    return mean(over, term(over)) if reduction == MEAN else total(over, term(over))


def listed(target: Any, row: tuple[Expr, ...], k: Expr) -> Expr:
    """Whether the k-th entry of a row of classes counts: the list ends at its first −1."""
    j = index("j", target.shape[-1])
    end = named("n", smallest(j, where(target[(*row, j)] < 0, j, target.shape[-1])))
    return k < end


@rule("multilabel_margin_loss_forward", "multilabel_margin_loss_forward.output", output=1)
def multilabel_is_target(target: Any, *, at: Any) -> Expr:
    # whether a class is in the row's list; a single number is a row of one class
    if not target.ndim:
        return where(target[()] == 0, 1.0, 0.0)
    *row, c = at
    k = index("k", target.shape[-1])
    found = exists(k, (target[(*row, k)] == c) & listed(target, tuple(row), k))
    return where(found, 1.0, 0.0)


@rule("multilabel_margin_loss_forward", "multilabel_margin_loss_forward.output")
def multilabel_margin_loss(self: Any, target: Any, reduction: int, *, at: Any, out: Any) -> Expr:
    # (1/C) Σ_y Σ_c max(0, 1 − (x_y − x_c)), y over the classes listed, c over the others
    if not self.ndim:
        return Number(0.0)  # a single class has no others
    c, k = index("c", self.shape[-1]), index("k", target.shape[-1])

    def term(row: tuple[Expr, ...]) -> Expr:
        lag = maximum(1 - self[(*row, target[(*row, k)])] + self[(*row, c)], 0)
        counted = listed(target, row, k) & (out[1][(*row, c)] == 0)
        return total((k, c), lag, where=counted) / c.extent

    if self.ndim < 2:
        return term(())
    if reduction not in (MEAN, SUM):
        return term(tuple(at))
    over = places(self.shape[:-1])
    return mean(over, term(over)) if reduction == MEAN else total(over, term(over))
