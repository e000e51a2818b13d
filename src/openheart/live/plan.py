"""What a live program holds: the calls of a recording as functions, what they read, what cannot move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from openheart.check import held
from openheart.errors import OpaqueError, RuleError
from openheart.formula.evaluate import gather
from openheart.formula.expr import Definition, Leaf, Ref, Tensor, walk
from openheart.formula.javascript import Function, NoJavaScript, function_of, identifier, literal
from openheart.live.constants import Constants, constants_of, escapes
from openheart.printers.notation import Mark, box, free, named, parts, script
from openheart.printers.parts import style_for
from openheart.printers.text import plain
from openheart.recording import Call, Recording, Value
from openheart.recording.values import values_in
from openheart.rules.registry import Law, law_of

__all__ = ["Made", "Plan", "Step", "matters", "plan_of", "readable"]


@dataclass(frozen=True, slots=True)
class Made:
    """One output of a call: the function that makes it and its arguments, or why it is kept as recorded."""

    value: Value
    function: str | None
    arguments: tuple[str, ...] = ()
    reads: tuple[int, ...] = ()
    options: tuple[int, ...] = ()
    frozen: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """The training step that a program repeats.

    Attributes:
        number: which step of the recording it is.
        carried: (found, left) ids: what the step finds takes the value that the step before left.
        dropped: the ids of calls that made what is carried: they made the first state there was.
        refused: why the step cannot be repeated; None where it can.
    """

    number: int
    carried: tuple[tuple[int, int], ...]
    dropped: frozenset[int]
    refused: str | None


@dataclass(slots=True)
class Plan:
    """A recording, ready to be written as a program."""

    recording: Recording
    bounds: bool
    functions: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The name and the law's text of each function, by its source."""
    calls: list[tuple[Call, list[Made]]] = field(default_factory=list)
    constants: Constants = field(default_factory=Constants)
    step: Step = field(default_factory=lambda: Step(0, (), frozenset(), "no optimizer's step was recorded"))
    terms: int = 0
    notes: list[str] = field(default_factory=list)

    def name_for(self, source: str, wish: str, text: str) -> str:
        if source not in self.functions:
            taken = {name for name, _ in self.functions.values()}
            base, n = f"law_{identifier(wish).rstrip('_')}", 1
            name = base
            while name in taken:
                n += 1
                name = f"{base}_{n}"
            self.functions[source] = (name, text)
        return self.functions[source][0]


def plan_of(recording: Recording, bounds: bool = False) -> Plan:
    """Turns each call of a recording into functions written from its laws."""
    plan = Plan(recording, bounds, constants=constants_of(recording))
    taken = list(_python_reads(recording, plan))
    for call in recording.calls:
        also = tuple(value.id for made, value, number in taken if made.id < call.id and _holds(call, number))
        if call.outputs:
            plan.calls.append((call, list(_outputs(plan, call, also))))
    plan.step = _step(plan)
    return plan


def _python_reads(recording: Recording, plan: Plan) -> Iterator[tuple[Call, Value, float]]:
    for call, value in escapes(recording):
        where = f" at {call.source}" if call.source else ""
        plan.notes.append(
            f"Python took the number {recording.name(value)} out of its tensor{where}: what it decided by it "
            f"stays as recorded"
        )
        if value.kept and not value.dtype.is_complex:
            yield call, value, float(value.data)


def _holds(call: Call, number: float) -> bool:
    """Whether a scalar argument of a call is exactly a number that Python took out of a tensor before."""
    return any(
        type(a) in (int, float) and a == number and a not in (0, 1, -1, 2) for a in call.arguments.values()
    )


def _outputs(plan: Plan, call: Call, also: tuple[int, ...]) -> Iterator[Made]:
    """The outputs of a call, each after those that its law reads."""
    waiting = [(n, _law(plan, call, n)) for n in range(len(call.outputs))]
    while waiting:
        left = {n for n, _ in waiting}
        ready = [(n, law) for n, law in waiting if not _own_reads(n, law) & (left - {n})]
        for n, law in ready or waiting:
            value = call.outputs[n]
            if not ready:
                yield _frozen(call, value, "its outputs are made from each other")
            elif also:
                yield _frozen(call, value, "Python gave it a number of the run", also)
            else:
                yield _made(plan, call, value, law)
        waiting = [pair for pair in waiting if pair not in ready] if ready else []


def _own_reads(output: int, law: Law | str) -> set[int]:
    if isinstance(law, str):
        return set()
    found = set()
    for node in walk(law.expr, into_definitions=True):
        if isinstance(node, Ref) and isinstance(node.tensor, Tensor) and node.tensor.key[0] == "output":
            position = node.tensor.key[1]
            if position is not None and position != output:
                found.add(position)
    return found


def _law(plan: Plan, call: Call, output: int) -> Law | str:
    """The law of an output with its scalars as formulas, or why there is none."""
    try:
        law = law_of(call, output)
    except RuleError as error:
        return str(error)
    if law is None:
        return "opaque"
    changed = plan.constants.put(call, law.expr, call.slots[output][1])
    return law if changed is law.expr else Law(changed, law.indices, law.output, law.precision, law.rule)


def _frozen(call: Call, value: Value, why: str, also: tuple[int, ...] = ()) -> Made:
    reads = tuple(dict.fromkeys([v.id for v in values_in((call.args, call.kwargs))] + list(also)))
    return Made(value, None, (), reads, frozen=why)


def _made(plan: Plan, call: Call, value: Value, law: Law | str) -> Made:
    if isinstance(law, str):
        return _frozen(call, value, law)
    leaf = next((n for n in walk(law.expr, into_definitions=True) if isinstance(n, Leaf)), None)
    if leaf is not None:
        alone = law.expr is leaf
        return (
            Made(value, None, frozen=leaf.kind)
            if alone and leaf.kind != "external"
            else _frozen(call, value, leaf.kind)
        )
    if 0 in value.shape:
        return Made(value, None, frozen="empty")
    try:
        function = _copy(law, value, plan.bounds) or function_of(
            law.expr, law.indices, law.output, law.precision, plan.bounds
        )
    except NoJavaScript as reason:
        return _frozen(call, value, str(reason))
    plan.terms += function.terms
    name = plan.name_for(function.source, call.name, _text(law))
    ids = tuple(held(call, tensor).id for tensor in function.tensors)
    arrays = [f"v[{i}], e[{i}]" if plan.bounds else f"v[{i}]" for i in (value.id, *ids)]
    options: list[int] = []
    for number in function.scalars:
        formula = plan.constants.formulas.get(id(number))
        arrays.append(literal(number.value) if formula is None else formula.source)
        if formula is not None:
            options.extend(formula.options)
            ids += () if formula.time is None else (formula.time,)
    return Made(value, name, tuple(arrays), tuple(dict.fromkeys(ids)), tuple(dict.fromkeys(options)))


def _copy(law: Law, value: Value, bounds: bool) -> Function | None:
    """A law that moves every number to the same place, row by row, as one copy."""
    ref = law.expr
    if not isinstance(ref, Ref) or isinstance(ref.tensor, Definition) or ref.tensor.kind == "complex":
        return None
    if any(isinstance(node, Ref) for part in ref.index for node in walk(part)):
        return None
    if f"torch.{ref.tensor.dtype}" != str(value.dtype) or np.prod(ref.tensor.shape) != np.prod(value.shape):
        return None
    places = np.arange(int(np.prod(ref.tensor.shape)), dtype=np.int64).reshape(ref.tensor.shape)
    if not np.array_equal(gather(ref, law.indices, lambda tensor: places).reshape(-1), places.reshape(-1)):
        return None
    source = "(out, x) {\n  out.set(x);\n}"
    if bounds:
        source = "(out, outE, x, xE) {\n  out.set(x);\n  outE.set(xE);\n}"
    return Function(source, (ref.tensor,), (), 0)


def _text(law: Law) -> str:
    """The law as lines of mathematics: the whole, then its named parts."""
    style = replace(style_for(4, "en", flat=False), law=True)
    lines = [(law.output.name, law.indices, law.expr)]
    lines += [(part.name, tuple(free(part)), part.body) for part in parts(law.expr)]
    shown = (
        (script(named(name), tuple(Mark(i.name, "index") for i in at)), box(body, style))
        for name, at, body in lines
    )
    return "\n".join(f"{plain(left, style)} = {plain(right, style)}" for left, right in shown)


# -- the step that is repeated -----------------------------------------------------------------------


def _step(plan: Plan) -> Step:
    rec = plan.recording
    if not rec.optimizers:
        return plan.step
    number = max(step.step for step in rec.optimizers)
    names, prefix = rec._named.values, f"@{number} " if number else ""
    carried: dict[int, int] = {}
    missing: list[str] = []
    for name, left in names.items():
        bare = name.removeprefix(prefix)
        if not name.endswith(".after") or name.startswith("@") != bool(prefix) or bare.startswith("@"):
            continue
        if prefix and not name.startswith(prefix):
            continue
        found = names.get(name.removesuffix(".after"))
        made = None if found is None else rec.maker(found)
        if found is None or (found is left and made is not None and made[0].phase == "optimizer"):
            missing.append(name.removesuffix(".after"))
        elif found is not left:
            carried[found.id] = left.id
    made_by = {made.value.id: call for call, outputs in plan.calls for made in outputs}
    dropped = frozenset(made_by[i].id for i in carried if i in made_by and made_by[i].step == number)
    refused = _refusal(plan, number, carried, dropped, missing)
    return Step(number, tuple(carried.items()), dropped, refused)


def _refusal(
    plan: Plan, number: int, carried: dict[int, int], dropped: frozenset[int], missing: list[str]
) -> str | None:
    rec = plan.recording
    if missing:
        return (
            f"the recorded step is the first one, and makes {missing[0]} as no later step does; "
            f"record two steps, and the second is repeated"
        )
    optimizer = [call for step in rec.optimizers if step.step == number for call in step.calls]
    for made_by in optimizer:
        if made_by in plan.constants.unexplained:
            return plan.constants.unexplained[made_by]
    if len([step for step in rec.optimizers if step.step == number]) > 1 and plan.constants.options:
        plan.notes.append("several optimizers took the step: an option is set for all of them by its name")
    for call, outputs in plan.calls:
        for made in outputs:
            if call.id in dropped and made.value.id in carried and made.reads:
                return (
                    f"the recorded step is the first one, and makes {rec.name(made.value)} as no later step "
                    f"does; record two steps, and the second is repeated"
                )
    inside = {made.value.id for call, outputs in plan.calls if call.step == number for made in outputs}
    earlier = {made.value.id for call, outputs in plan.calls if call.step < number for made in outputs}
    for call, outputs in plan.calls:
        if call.step != number or call.id in dropped:
            continue
        for made in outputs:
            strange = [i for i in made.reads if i in earlier and i not in inside and i not in carried]
            if strange and not _constant(plan, strange[0], carried):
                one, other = rec.name(made.value), rec.name(rec.values[strange[0]])
                return (
                    f"{one} is made from {other}, which an earlier step left and no name says what takes its "
                    f"place (gradients that add up?)"
                )
    written = _written(plan, number, inside, carried)
    if written is not None:
        return written
    moving = set(carried)
    for call, outputs in plan.calls:
        if call.step != number or call.id in dropped:
            continue
        for made in outputs:
            if any(i in moving for i in made.reads):
                if made.frozen is not None and matters(plan, made.value.id):
                    where, why = rec.name(made.value), made.frozen
                    return f"{where} is kept as recorded ({why}), and a next step would change it"
                moving.add(made.value.id)
    return None


def _written(plan: Plan, number: int, inside: set[int], carried: dict[int, int]) -> str | None:
    """Whether the step writes into something that it found and that no name carries on."""
    rec = plan.recording
    for call, _ in plan.calls:
        if call.step != number or not hasattr(call.op, "_schema"):
            continue
        for argument in call.op._schema.arguments:
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            for value in values_in(call.arguments.get(argument.name)):
                if value.id not in inside and value.id not in carried:
                    return (
                        f"{call.name} writes into {rec.name(value)}, which an earlier step left, and nothing "
                        f"says what the next one finds there (gradients that add up? call zero_grad)"
                    )
    return None


def matters(plan: Plan, value: int) -> bool:
    """Whether anything that is computed reads a value."""
    return any(value in made.reads and made.frozen is None for _, outputs in plan.calls for made in outputs)


def _constant(plan: Plan, value: int, moving: dict[int, int]) -> bool:
    """Whether a value of an earlier step is made of things that no step changes."""
    made = {m.value.id: m for _, outputs in plan.calls for m in outputs}
    stack, rec = [value], plan.recording
    while stack:
        here = stack.pop()
        if here in moving or rec.values[here].origin in ("parameter", "buffer"):
            return False
        if here in made:
            stack.extend(made[here].reads)
    return True


def readable(value: Value) -> Any | None:
    """The recorded numbers of a value, if there are any to be read."""
    try:
        return value.array
    except OpaqueError:
        return None
