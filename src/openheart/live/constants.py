"""The numbers that an optimizer works out in Python: from a baked scalar back to its formula.

PyTorch's optimizers compute some scalars outside of the recorded calls: the step size lr / (1 − β₁ᵗ), the
decay 1 − lr·λ. A repeated step needs them anew. A formula takes a scalar's place only where it gives exactly
the recorded number, with the step count that the recording found.

Source of the formulas: the single-tensor and foreach functions of `torch.optim`, as they stand in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from openheart.formula.expr import Apply, Expr, Named, Number, Reduce
from openheart.recording import Call, OptimizerStep, Recording, Value
from openheart.recording.values import values_in

__all__ = ["Constants", "Option", "constants_of"]


@dataclass(frozen=True, slots=True)
class Option:
    """A hyperparameter of one group of parameters, as a program may set it."""

    name: str
    group: int
    value: float


@dataclass(frozen=True, slots=True)
class Formula:
    """A scalar as JavaScript: its source, the options it reads, the value that holds the step count, if any.

    The source reads the options as `o[0]` and the step count as `v[151][0]`.
    """

    source: str
    options: tuple[int, ...]
    time: int | None


@dataclass(frozen=True, slots=True)
class Owner:
    """Which parameter a value of an optimizer's step belongs to, and what it is to it."""

    group: int
    place: int
    role: str


@dataclass(slots=True)
class Constants:
    """What is known of the scalars of a recording's optimizer calls.

    Attributes:
        options: the hyperparameters that formulas use.
        formulas: the formula that a number in a law stands for, by the number's id.
        unexplained: for each call a sentence about a scalar that no formula gives, by the call's id.
        fixed: the names of options that could not be put back in their place everywhere.
    """

    options: list[Option] = field(default_factory=list)
    formulas: dict[int, Formula] = field(default_factory=dict)
    unexplained: dict[int, str] = field(default_factory=dict)
    fixed: set[str] = field(default_factory=set)
    _rows: dict[int, list[tuple[str, int | None, float, Formula]]] = field(default_factory=dict)
    _keep: list[Number] = field(default_factory=list)

    def put(self, call: Call, law: Expr, position: int | None) -> Expr:
        """The law of one output of a call (at `position` of a list), its scalars named as formulas."""
        for name, place, value, formula in self._rows.get(call.id, ()):
            if place is not None and place != position:
                continue
            changed = self._named(law, name, value, formula)
            if changed is law:
                self.fixed.update(self.options[n].name for n in formula.options)
                if formula.time is not None:
                    self.unexplained[call.id] = f"{call.name}'s scalar {value!r} left no trace in its law"
            law = changed
        return law

    def _named(self, node: Expr, name: str, value: float, formula: Formula) -> Expr:
        """The law with a number of its own for a scalar argument; the same law where there is none."""
        if isinstance(node, Number):
            rounding = _rounding(node, name, value)
            if rounding is None:
                return node
            number = Number(node.value, node.name or name)
            source = f"{rounding}({formula.source})" if rounding else formula.source
            self.formulas[id(number)] = Formula(source, formula.options, formula.time)
            self._keep.append(number)
            return number
        if isinstance(node, (Named, Reduce)):
            body = self._named(node.body, name, value, formula)
            if body is node.body:
                return node
            if isinstance(node, Named):
                return Named(node.name, body)
            return Reduce(node.kind, node.over, body, node.where)
        if isinstance(node, Apply):
            args = tuple(self._named(arg, name, value, formula) for arg in node.args)
            unchanged = all(a is b for a, b in zip(args, node.args, strict=True))
            return node if unchanged else Apply(node.function, args)
        return node


_ROUNDED = (
    ("", torch.float64),
    ("Math.fround", torch.float32),
    ("toBfloat16", torch.bfloat16),
    ("toFloat16", torch.float16),
)


def _rounding(node: Number, name: str, value: float) -> str | None:
    """By which rounding a number of a law is the scalar argument: "" for none; None where it is another."""
    if type(node.value) is not float or node.name not in (None, name):
        return None
    for rounding, dtype in _ROUNDED:
        if float(torch.tensor(value, dtype=dtype)) == node.value:
            return rounding
    return None


@dataclass(frozen=True, slots=True)
class Written:
    """Arithmetic of options and of the step count, as JavaScript."""

    text: str
    time: bool = False

    def _with(self, sign: str, other: Any, swap: bool = False) -> Written:
        text, time = (other.text, other.time) if isinstance(other, Written) else (repr(other), False)
        a, b = (text, self.text) if swap else (self.text, text)
        return Written(f"({a} {sign} {b})", self.time or time)

    def __neg__(self) -> Written:
        return Written(f"-{self.text}", self.time)

    def __sub__(self, other: Any) -> Written:
        return self._with("-", other)

    def __rsub__(self, other: Any) -> Written:
        return self._with("-", other, swap=True)

    def __radd__(self, other: Any) -> Written:
        return self._with("+", other, swap=True)

    def __mul__(self, other: Any) -> Written:
        return self._with("*", other)

    def __truediv__(self, other: Any) -> Written:
        return self._with("/", other)

    def __pow__(self, other: Any) -> Written:
        if isinstance(other, Written):
            return Written(f"wholePower({self.text}, {other.text})", self.time or other.time)
        return Written(f"Math.sqrt({self.text})", self.time)


Rule = tuple[str, str, "str | None", "str | None", Callable[[Any, Any], Any]]

# kind, operator, role of what it works on, role of the next operand, formula of the options and of t
_DECAY: Rule = ("", "add", "gradient", "parameter", lambda o, t: o.weight_decay)
_RULES: tuple[Rule, ...] = (
    _DECAY,
    ("sgd", "add", "gradient", "momentum_buffer", lambda o, t: o.momentum),
    ("sgd", "add", "momentum_buffer", "gradient", lambda o, t: 1 - o.dampening),
    ("sgd", "add", "parameter", None, lambda o, t: -o.lr),
    ("sgd", "mul", "momentum_buffer", None, lambda o, t: o.momentum),
    ("adam", "mul", "parameter", None, lambda o, t: 1 - o.lr * o.weight_decay),
    ("adam", "lerp", "exp_avg", None, lambda o, t: 1 - o.beta1),
    ("adam", "mul", "exp_avg", None, lambda o, t: o.beta1),
    ("adam", "add", "exp_avg", "gradient", lambda o, t: 1 - o.beta1),
    ("adam", "mul", "exp_avg_sq", None, lambda o, t: o.beta2),
    ("adam", "addcmul", "exp_avg_sq", None, lambda o, t: 1 - o.beta2),
    ("adam", "div", None, None, lambda o, t: (1 - o.beta2**t) ** 0.5),
    ("adam", "mul", "exp_inf", None, lambda o, t: o.beta2),
    ("adam", "addcdiv", "parameter", None, lambda o, t: -(o.lr / (1 - o.beta1**t))),
    ("adam", "add", None, None, lambda o, t: o.eps),
    ("rmsprop", "mul", "square_avg", None, lambda o, t: o.alpha),
    ("rmsprop", "addcmul", "square_avg", None, lambda o, t: 1 - o.alpha),
    ("rmsprop", "lerp", "grad_avg", None, lambda o, t: 1 - o.alpha),
    ("rmsprop", "mul", "momentum_buffer", None, lambda o, t: o.momentum),
    ("rmsprop", "add", "parameter", None, lambda o, t: -o.lr),
    ("rmsprop", "addcdiv", "parameter", None, lambda o, t: -o.lr),
    ("rmsprop", "add", None, None, lambda o, t: o.eps),
    ("adagrad", "addcdiv", "parameter", None, lambda o, t: -(o.lr / (1 + (t - 1) * o.lr_decay))),
    ("adagrad", "add", None, None, lambda o, t: o.eps),
    ("adadelta", "mul", None, None, lambda o, t: o.rho),
    ("adadelta", "addcmul", None, None, lambda o, t: 1 - o.rho),
    ("adadelta", "add", "parameter", None, lambda o, t: -o.lr),
    ("adadelta", "add", None, None, lambda o, t: o.eps),
)


def constants_of(recording: Recording) -> Constants:
    """The formulas of the scalars in all of a recording's optimizer calls."""
    made = Constants()
    for step in recording.optimizers:
        _explain(made, recording, step)
    return made


def _explain(made: Constants, recording: Recording, step: OptimizerStep) -> None:
    owners = _owners(recording, step)
    counts = _counts(recording, step, owners)
    kind = step.kind.rsplit(".", 1)[-1].lower()
    for call in (recording.calls[c] for c in step.calls):
        for name, position, value in _scalars(call):
            owner = next(iter(_owned(call, owners, position)), None)
            found = _formula(made, kind, step, call, name, value, owner, owners, counts, position)
            if found is not None:
                made._rows.setdefault(call.id, []).append((name, position, value, found))
            elif value not in (0.0, 1.0, -1.0):
                made.unexplained[call.id] = (
                    f"{step.kind}: no formula gives the scalar {value!r} of {call.name} (call {call.id})"
                )


def _formula(
    made: Constants,
    kind: str,
    step: OptimizerStep,
    call: Call,
    name: str,
    value: float,
    owner: Owner | None,
    owners: dict[int, Owner],
    counts: dict[tuple[int, int], tuple[float, Value]],
    position: int | None,
) -> Formula | None:
    group = 0 if owner is None else owner.group
    options = _options(step, group)
    stem = call.name.replace("foreach_", "").rstrip("_")
    if call.name.startswith("fused"):
        if getattr(options, name, None) != value:
            return None
        number = _option(made, group, name, options)
        return Formula(f"o[{number}]", (number,), None)
    others = list(_owned(call, owners, position))
    second = others[1].role if len(others) > 1 else None
    t, source = counts.get((group, -1 if owner is None else owner.place), (None, None))
    for wanted, op, role, following, formula in _RULES:
        if not kind.startswith(wanted) and not (wanted == "adam" and "adam" in kind):
            continue
        if op != stem or (role is not None and (owner is None or owner.role != role)):
            continue
        if following is not None and following != second:
            continue
        used = _uses(formula, options)
        if used is None:
            continue
        names, timed = used
        if (timed and t is None) or formula(options, t) != value:
            continue
        numbers = {name: _option(made, group, name, options) for name in names}
        symbols = {name: Written(f"o[{number}]") for name, number in numbers.items()}
        time = source.id if timed and source is not None else None
        written = formula(SimpleNamespace(**symbols), Written(f"v[{time}][0]", time=True))
        return Formula(written.text, tuple(numbers.values()), time)
    return None


def _uses(formula: Callable[[Any, Any], Any], options: SimpleNamespace) -> tuple[set[str], bool] | None:
    """Which options a formula reads, and whether it reads t; None where the optimizer lacks an option."""
    read: set[str] = set()

    class Watch:
        def __getattr__(self, name: str) -> Written:
            read.add(name)
            getattr(options, name)
            return Written(name)

    try:
        made = formula(Watch(), Written("t", time=True))
    except AttributeError:
        return None
    return read, made.time


def _options(step: OptimizerStep, group: int) -> SimpleNamespace:
    given = step.groups[group].options
    found = {k: v for k, v in given.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    for name, item in given.items():
        if isinstance(item, Value) and item.shape == ():
            found[name] = float(item.data)
    betas = given.get("betas")
    if isinstance(betas, (list, tuple)) and len(betas) == 2 and not any(isinstance(b, Value) for b in betas):
        found["beta1"], found["beta2"] = betas
    return SimpleNamespace(**found)


def _option(made: Constants, group: int, name: str, options: SimpleNamespace) -> int:
    """The position of an option of a group; of a schedule, the last step's value counts."""
    option = Option(name, group, float(getattr(options, name)))
    for number, known in enumerate(made.options):
        if (known.name, known.group) == (name, group):
            made.options[number] = option
            return number
    made.options.append(option)
    return len(made.options) - 1


def _scalars(call: Call) -> Iterator[tuple[str, int | None, float]]:
    """(argument, position in a list, value) for each floating-point scalar of a call."""
    for name, argument in call.arguments.items():
        items = list(enumerate(argument)) if isinstance(argument, (list, tuple)) else [(None, argument)]
        for position, item in items:
            if type(item) is float:
                yield name, position, item


def _owned(call: Call, owners: dict[int, Owner], position: int | None) -> Iterator[Owner]:
    """The owners of a call's operands, in order; of those at one position, for lists."""
    for argument in call.arguments.values():
        if isinstance(argument, (list, tuple)):
            chosen = argument if position is None else argument[position : position + 1]
            argument = next(iter(chosen), None)
        if isinstance(argument, Value) and argument.id in owners:
            yield owners[argument.id]


def _owners(recording: Recording, step: OptimizerStep) -> dict[int, Owner]:
    """To which parameter each value of the step belongs: found so, or made from what does."""
    owners: dict[int, Owner] = {}
    names = recording._named.values
    for g, group in enumerate(step.groups):
        for p, (value, gradient, state) in enumerate(
            zip(group.parameters, group.gradients, group.states, strict=True)
        ):
            owners[value.id] = Owner(g, p, "parameter")
            if gradient is not None:
                owners[gradient.id] = Owner(g, p, "gradient")
            for key, item in state.items():
                if isinstance(item, Value):
                    owners[item.id] = Owner(g, p, key)
            prefix = f"@{step.step} " if step.step else ""
            stem = f"{prefix}{group.names[p]}."
            for name, item in names.items():  # a state that the step makes itself
                if name.startswith(stem) and not name.endswith((".after", ".grad")):
                    owners.setdefault(item.id, Owner(g, p, name[len(stem) :]))
    for call in (recording.calls[c] for c in step.calls):
        for output, (_, position) in zip(call.outputs, call.slots, strict=True):
            owner = next(iter(_owned(call, owners, position)), None)
            if owner is not None and output.id not in owners:
                owners[output.id] = owner
    return owners


def _counts(
    recording: Recording, step: OptimizerStep, owners: dict[int, Owner]
) -> dict[tuple[int, int], tuple[float, Value]]:
    """How many steps each parameter has taken, this one included, and the value that holds the number."""
    counts: dict[tuple[int, int], tuple[float, Value]] = {}
    for call in (recording.calls[c] for c in step.calls):
        if call.name.replace("foreach_", "").rstrip("_") != "add":
            continue
        for output in call.outputs:
            owner = owners.get(output.id)
            if owner is not None and owner.role == "step" and output.kept:
                counts[owner.group, owner.place] = (float(output.data), output)
    return counts


def escapes(recording: Recording) -> Iterator[tuple[Call, Value]]:
    """The calls by which Python took a number out of a tensor, outside of an optimizer's step."""
    for call in recording.calls:
        if call.name == "local_scalar_dense" and call.phase != "optimizer":
            yield call, next(iter(values_in(call.args)))
