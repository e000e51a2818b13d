"""The one rule of an optimizer's step, as its paper writes it, whatever calls a loop or a kernel makes of it.

A fused kernel has this rule as its law. For a step in plain calls it is put together from the same recorded
numbers: the parameter, its gradient and its state as the step found them. It is only shown where it gives the
number that was recorded, within its rounding bound; the number's own check is that of the call that made it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from openheart.check import judge
from openheart.formula.evaluate import evaluate
from openheart.formula.expr import Expr, Index, Number, Tensor, index, named
from openheart.formula.functions import double, maximum, sqrt
from openheart.formula.instance import Instance, Line
from openheart.formula.precision import FLOAT32, FLOAT64
from openheart.hyperparameters import plain
from openheart.recording import Element, Value
from openheart.rules.optimizer import adagrad_sum, adam, sgd_gradient, sgd_momentum
from openheart.rules.registry import INDEX_NAMES, Law, format_of, kind_of

if TYPE_CHECKING:
    from openheart.explain import Explanation

__all__ = ["Update", "update_of"]


@dataclass(frozen=True, slots=True)
class Update:
    """The rule at one place: its law, its lines with their numbers, what its symbols stand for."""

    address: str
    law: Law
    lines: tuple[Line, ...]
    arguments: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Found:
    """What a step found of one parameter, as symbols; each that is asked for is kept with its value."""

    explanation: Explanation
    at: tuple[Index, ...]
    values: dict[str, Value]

    def symbol(self, name: str, value: Value | None) -> Tensor | None:
        if value is None or not value.kept:
            return None
        self.values[name] = value
        return Tensor(name, tuple(value.shape), kind_of(value.dtype), (name, None), str(value.dtype)[6:])

    def state(self, name: str, after: bool = False) -> Tensor | None:
        """What the optimizer keeps, before the step or after it; at a first step it has just been made."""
        made = None if after else self.group.states[self.place].get(name)
        if not isinstance(made, Value):
            made = self.value(f"{name}.after" if after else name)
        return self.symbol(name, made)

    def value(self, name: str) -> Value | None:
        owner = self.explanation.owner
        assert owner is not None
        step = f"@{owner[0].step} " if owner[0].step else ""
        return self.explanation.recording.get(f"{step}{self.group.names[self.place]}.{name}")

    @property
    def group(self) -> Any:
        owner = self.explanation.owner
        assert owner is not None
        return owner[0].groups[owner[1]]

    @property
    def place(self) -> int:
        owner = self.explanation.owner
        assert owner is not None
        return owner[2]

    def option(self, name: str, symbol: str = "") -> Number:
        return Number(plain(self.group.options[name]), symbol or name)

    def whether(self, name: str) -> bool:
        return bool(plain(self.group.options.get(name)))


def update_of(explanation: Explanation) -> Update | None:
    """The rule that made a parameter; None where its law is the rule, or its optimizer has none."""
    if explanation.owner is None or explanation.operator.startswith("fused_"):
        return None
    step, number, k = explanation.owner
    rule, group = _RULES.get(step.kind.rsplit(".", 1)[-1]), step.groups[number]
    if rule is None or group.names[k] is None or group.gradients[k] is None:
        return None
    theta = group.parameters[k]
    at = tuple(
        index(INDEX_NAMES[a] if a < len(INDEX_NAMES) else f"i{a}", n) for a, n in enumerate(theta.shape)
    )
    found = _Found(explanation, at, {})
    target = explanation.element.value
    if found.value("after") is not target or target.dtype.is_complex:
        return None
    parameter = found.symbol("theta", theta)
    gradient = found.symbol("grad", group.gradients[k])
    made = None if parameter is None or gradient is None else rule(found, parameter, gradient)
    if made is None or parameter is None or explanation.law is None:
        return None
    precision = FLOAT64 if format_of(target.dtype) is FLOAT64 else FLOAT32
    law = Law(made, at, replace(parameter, name="out"), precision, explanation.law.rule)

    def fetch(tensor: Tensor) -> Any:
        return found.values[tensor.name].array

    def address(tensor: Tensor, place: tuple[int, ...]) -> str:
        return explanation.recording.address(Element(found.values[tensor.name], place))

    env = dict(zip(at, explanation.element.index, strict=True))
    computed, bound = evaluate(made, at, fetch, precision, env)
    if not judge(law, explanation.value, computed, bound, format_of(target.dtype)).agrees:
        return None
    builder = Instance(fetch, precision, address, frozenset(at))
    instance = builder.of(made, env)
    lines = (*builder.lines, Line(explanation.address, made, instance, explanation.value))
    names = tuple((name, explanation.recording.name(value)) for name, value in found.values.items())
    return Update(explanation.address, law, lines, names)


def _adam(decoupled: bool) -> Callable[[_Found, Tensor, Tensor], Expr | None]:
    def rule(found: _Found, theta: Tensor, grad: Tensor) -> Expr | None:
        amsgrad = found.whether("amsgrad")
        m, v, t = found.state("exp_avg"), found.state("exp_avg_sq"), found.state("step", after=True)
        top = found.state("max_exp_avg_sq") if amsgrad else None
        if m is None or v is None or t is None or (amsgrad and top is None):
            return None
        beta1, beta2 = map(plain, found.group.options["betas"])
        given = {
            "self": [theta],
            "grads": [grad],
            "exp_avgs": [m],
            "exp_avg_sqs": [v],
            "max_exp_avg_sqs": [top],
            "state_steps": [t],
            "lr": found.option("lr"),
            "beta1": Number(beta1, "beta1"),
            "beta2": Number(beta2, "beta2"),
            "eps": found.option("eps"),
            "weight_decay": found.option("weight_decay"),
            "amsgrad": amsgrad,
            "maximize": found.whether("maximize"),
            "grad_scale": None,
        }
        return adam(decoupled or found.whether("decoupled_weight_decay"), 0, found.at, given).theta

    return rule


def _gradient(found: _Found, theta: Tensor, grad: Tensor) -> Expr:
    maximize = found.whether("maximize")
    return sgd_gradient([theta], [grad], found.option("weight_decay"), maximize, None, 0, found.at)


def _sgd(found: _Found, theta: Tensor, grad: Tensor) -> Expr | None:
    # θ ← θ − η·b; Nesterov looks ahead: θ ← θ − η·(g + μ·b)
    g = _gradient(found, theta, grad)
    if plain(found.group.options["momentum"]):
        momentum = found.option("momentum")
        first = not isinstance(found.group.states[found.place].get("momentum_buffer"), Value)
        old = None if first else found.state("momentum_buffer")
        if not first and old is None:
            return None
        b = named("b", sgd_momentum(g, old, momentum, found.option("dampening"), first, found.at))
        g = g + momentum * b if found.whether("nesterov") else b
    return theta[found.at] - found.option("lr") * g


def _rmsprop(found: _Found, theta: Tensor, grad: Tensor) -> Expr | None:
    # v ← α·v + (1 − α)·g²; θ ← θ − η·g/(√v + ε)
    old = found.state("square_avg")
    if old is None or found.whether("centered"):
        return None
    g, alpha = _gradient(found, theta, grad), found.option("alpha")
    v = named("v", alpha * old[found.at] + double(1 - alpha) * g * g)
    change = g / (sqrt(v) + found.option("eps"))
    if plain(found.group.options["momentum"]):
        buffer = found.state("momentum_buffer")
        if buffer is None:
            return None
        change = named("b", found.option("momentum") * buffer[found.at] + change)
    return theta[found.at] - found.option("lr") * change


def _adagrad(found: _Found, theta: Tensor, grad: Tensor) -> Expr | None:
    # s ← s + g²; θ ← θ − η/(1 + (t − 1)·decay)·g/(√s + ε)
    sums, step = found.state("sum"), found.state("step", after=True)
    if sums is None or step is None:
        return None
    maximize, decay = found.whether("maximize"), found.option("weight_decay")
    g, s = adagrad_sum([theta], [grad], [sums], decay, maximize, None)(0, found.at)
    t = named("t", step[()])
    rate = double(found.option("lr") / (1 + (t - 1) * found.option("lr_decay")))
    return theta[found.at] - rate * g / (sqrt(s) + found.option("eps"))


def _adamax(found: _Found, theta: Tensor, grad: Tensor) -> Expr | None:
    # m ← β₁·m + (1 − β₁)·g; u ← max(β₂·u, |g| + ε); θ ← θ − η·m̂/u
    old, norm, step = found.state("exp_avg"), found.state("exp_inf"), found.state("step", after=True)
    if old is None or norm is None or step is None:
        return None
    first, second = map(plain, found.group.options["betas"])
    beta1, beta2 = Number(first, "beta1"), Number(second, "beta2")
    g, t = _gradient(found, theta, grad), named("t", step[()])
    m = named("m", beta1 * old[found.at] + double(1 - beta1) * g)
    u = named("u", maximum(beta2 * norm[found.at], abs(g) + found.option("eps")))
    return theta[found.at] - found.option("lr") * named("m̂", m / double(1 - beta1**t)) / u


_RULES: dict[str, Callable[[_Found, Tensor, Tensor], Expr | None]] = {
    "Adam": _adam(decoupled=False),
    "AdamW": _adam(decoupled=True),
    "SGD": _sgd,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
    "Adamax": _adamax,
}
