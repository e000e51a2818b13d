"""The fused optimizers: one call that takes a whole step, for a list of parameters.

Every list that the call writes has a law of its own: the parameters θ, the averages m and v of the gradient
and of its square, their largest v so far, the momentum, the sum of squares. The names are those of the papers
(Kingma and Ba, *Adam*, 2015; Loshchilov and Hutter, *Decoupled Weight Decay*, 2019; Reddi, Kale and Kumar,
*On the Convergence of Adam*, 2018; Duchi, Hazan and Singer, *Adagrad*, 2011).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from openheart.formula.expr import Expr, Named, Number, Operand, expr, named, where
from openheart.formula.functions import double, maximum, sqrt
from openheart.rules.registry import rule, value_of
from openheart.rules.rows import stored


def forms(*names: str) -> tuple[str, ...]:
    """The learning rate as a number or as a tensor."""
    return tuple(f"{name}.{form}" for name in names for form in ("default", "tensor_lr"))


def scalar(x: Any) -> Expr:
    """A hyperparameter: a number, or the learning rate's tensor."""
    return expr(x[()] if hasattr(x, "shape") else x)


def scaled(grads: Any, grad_scale: Any, at: Any) -> Expr:
    """The gradient without the factor that mixed precision put on the loss."""
    g = grads[at]
    return g if grad_scale is None else g / grad_scale[tuple(Number(0) for _ in grad_scale.shape)]


def unless_found(found_inf: Any, old: Expr, new: Expr) -> Expr:
    """No step at all when a gradient overflowed."""
    if found_inf is None:
        return new
    return where(found_inf[tuple(Number(0) for _ in found_inf.shape)] == 1, old, new)


# -- Adam and AdamW --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Adam:
    """One parameter's step, and its parts."""

    theta: Expr
    m: Named
    v: Named
    largest_v: Expr | None


def adam(decoupled: bool, position: int, at: Any, given: dict[str, Any]) -> Adam:
    """θ ← θ − lr·m̂ / (√v̂ + ε), m̂ and v̂ the averages without their bias towards the zero they start from."""

    def of(name: str) -> Any:
        return scalar(given[name])

    theta: Expr = given["self"][position][at]
    g = scaled(given["grads"][position], given["grad_scale"], at)
    lr, beta1, beta2 = of("lr"), of("beta1"), of("beta2")
    step = given["state_steps"][position]
    t = named("t", step[tuple(Number(0) for _ in step.shape)])
    g = -g if given["maximize"] else g
    if value_of(given["weight_decay"]) != 0:
        if decoupled:
            theta = theta * double(1 - lr * of("weight_decay"))
        else:
            g = g + of("weight_decay") * theta
    g = named("g", g)
    m = named("m", beta1 * given["exp_avgs"][position][at] + double(1 - beta1) * g)
    v = named("v", beta2 * given["exp_avg_sqs"][position][at] + double(1 - beta2) * g * g)
    top = maximum(given["max_exp_avg_sqs"][position][at], v) if given["amsgrad"] else None
    m_hat = named("m̂", m / double(1 - beta1**t))
    root = named("√v̂", sqrt(v if top is None else top) / double(sqrt(1 - beta2**t)))
    return Adam(theta - lr * m_hat / (root + of("eps")), m, v, top)


def adam_laws(name: str, decoupled: bool) -> None:
    """Register the laws of all that `_fused_adam` or `_fused_adamw` writes."""
    written: Sequence[tuple[str, Callable[[Adam], Expr | None]]] = (
        ("self", lambda a: a.theta),
        ("grads", lambda a: None),
        ("exp_avgs", lambda a: a.m.body),
        ("exp_avg_sqs", lambda a: a.v.body),
        ("max_exp_avg_sqs", lambda a: a.largest_v),
    )
    for number, (argument, part) in enumerate(written):
        _adam_law(name, decoupled, argument, number, part)


def _adam_law(
    name: str, decoupled: bool, argument: str, number: int, part: Callable[[Adam], Expr | None]
) -> None:
    def law(
        self: Any,
        grads: Any,
        exp_avgs: Any,
        exp_avg_sqs: Any,
        max_exp_avg_sqs: Any,
        state_steps: Any,
        lr: Any,
        beta1: Any,
        beta2: Any,
        weight_decay: Any,
        eps: Any,
        amsgrad: bool,
        maximize: bool,
        grad_scale: Any,
        found_inf: Any,
        *,
        at: Any,
        position: int,
        result: Any,
    ) -> Operand:
        given = dict(locals())
        old = given[argument][position][at]
        if argument == "grads":
            return unless_found(found_inf, old, scaled(grads[position], grad_scale, at))
        made = part(adam(decoupled, position, at, given))
        return old if made is None else unless_found(found_inf, old, stored(made, result))

    rule(*forms(name))(law) if number == 0 else rule(*forms(name), output=number)(law)
    rule(*forms(f"{name}_"), output=argument)(law)


adam_laws("_fused_adam", decoupled=False)
adam_laws("_fused_adamw", decoupled=True)


# -- gradient descent with momentum ----------------------------------------------------------------


def sgd_gradient(
    self: Any, grads: Any, weight_decay: Any, maximize: bool, grad_scale: Any, position: int, at: Any
) -> Expr:
    """The gradient that counts, g = ±∇L + λθ."""
    g = scaled(grads[position], grad_scale, at)
    g = -g if maximize else g
    if value_of(weight_decay) != 0:
        g = g + scalar(weight_decay) * self[position][at]
    return named("g", g)


def sgd_momentum(g: Expr, old: Any, momentum: Any, dampening: Any, first: bool, at: Any) -> Expr:
    """The momentum, b ← μ·b + (1 − τ)·g; at the first step b = g."""
    if first:
        return g
    return scalar(momentum) * old[at] + double(1 - scalar(dampening)) * g


@rule(*forms("_fused_sgd_"), output="self")
@rule(*forms("_fused_sgd"))
def sgd(
    self: Any,
    grads: Any,
    momentum_buffer_list: Any,
    weight_decay: Any,
    momentum: Any,
    lr: Any,
    dampening: Any,
    nesterov: bool,
    maximize: bool,
    is_first_step: bool,
    grad_scale: Any,
    found_inf: Any,
    *,
    at: Any,
    position: int,
    result: Any,
) -> Operand:
    # θ ← θ − lr·b; Nesterov looks ahead: θ ← θ − lr·(g + μ·b)
    theta = self[position][at]
    g = sgd_gradient(self, grads, weight_decay, maximize, grad_scale, position, at)
    if value_of(momentum) != 0:
        old = momentum_buffer_list[position]
        b = named("b", sgd_momentum(g, old, momentum, dampening, is_first_step, at))
        g = g + scalar(momentum) * b if nesterov else b
    return unless_found(found_inf, theta, stored(theta - scalar(lr) * g, result))


@rule(*forms("_fused_sgd_"), output="momentum_buffer_list")
@rule(*forms("_fused_sgd"), output=2)
def sgd_buffer(
    self: Any,
    grads: Any,
    momentum_buffer_list: Any,
    weight_decay: Any,
    momentum: Any,
    dampening: Any,
    maximize: bool,
    is_first_step: bool,
    grad_scale: Any,
    found_inf: Any,
    *,
    at: Any,
    position: int,
    result: Any,
) -> Operand:
    # b ← μ·b + (1 − τ)·g
    old = momentum_buffer_list[position]
    if value_of(momentum) == 0:
        return old[at]
    g = sgd_gradient(self, grads, weight_decay, maximize, grad_scale, position, at)
    b = sgd_momentum(g, old, momentum, dampening, is_first_step, at)
    return unless_found(found_inf, old[at], stored(b, result))


# -- Adagrad ---------------------------------------------------------------------------------------


def adagrad_sum(
    self: Any, grads: Any, state_sums: Any, weight_decay: Any, maximize: bool, grad_scale: Any
) -> Any:
    """g, and s ← s + g², as functions of the place."""

    def parts(position: int, at: Any) -> tuple[Expr, Expr]:
        g = sgd_gradient(self, grads, weight_decay, maximize, grad_scale, position, at)
        return g, named("s", state_sums[position][at] + g * g)

    return parts


@rule(*forms("_fused_adagrad_"), output="self")
@rule(*forms("_fused_adagrad"))
def adagrad(
    self: Any,
    grads: Any,
    state_sums: Any,
    state_steps: Any,
    lr: Any,
    lr_decay: Any,
    weight_decay: Any,
    eps: Any,
    maximize: bool,
    grad_scale: Any,
    found_inf: Any,
    *,
    at: Any,
    position: int,
    result: Any,
) -> Operand:
    # θ ← θ − lr / (1 + (t − 1)·decay) · g / (√s + ε)
    g, s = adagrad_sum(self, grads, state_sums, weight_decay, maximize, grad_scale)(position, at)
    step = state_steps[position]
    t = named("t", step[tuple(Number(0) for _ in step.shape)])
    rate = named("rate", double(scalar(lr) / (1 + (t - 1) * scalar(lr_decay))))
    theta = self[position][at]
    return unless_found(found_inf, theta, stored(theta - rate * g / (sqrt(s) + scalar(eps)), result))


@rule(*forms("_fused_adagrad_"), output="state_sums")
@rule(*forms("_fused_adagrad"), output=2)
def adagrad_sums(
    self: Any,
    grads: Any,
    state_sums: Any,
    weight_decay: Any,
    maximize: bool,
    grad_scale: Any,
    found_inf: Any,
    *,
    at: Any,
    position: int,
    result: Any,
) -> Operand:
    # s ← s + g²
    _, s = adagrad_sum(self, grads, state_sums, weight_decay, maximize, grad_scale)(position, at)
    return unless_found(found_inf, state_sums[position][at], stored(s.body, result))


@rule("_fused_adagrad_", output="state_steps")
@rule("_fused_adagrad", output=3)
def adagrad_steps(state_steps: Any, *, at: Any, position: int) -> Operand:
    # counted before the call
    return state_steps[position][at]


@rule(*forms("_fused_sgd_"), *forms("_fused_adagrad_"), output="grads")
@rule(*forms("_fused_sgd"), *forms("_fused_adagrad"), output=1)
def gradients(grads: Any, grad_scale: Any, found_inf: Any, *, at: Any, position: int) -> Operand:
    # the gradients stay, but for mixed precision's scale
    return unless_found(found_inf, grads[position][at], scaled(grads[position], grad_scale, at))
