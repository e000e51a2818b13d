"""Explanations: how one recorded number was made, and whether it is what its law says.

>>> import openheart as oh
>>> from openheart.patients import patient
>>> hand = patient("hand")
>>> rec = oh.record(hand.build(), *hand.inputs())
>>> e = rec.explain("1.out[0,0]")
>>> e.value, e.computed, e.verdict
(8.0, 8.0, 'exact')
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from openheart.check import Verdict, check, digits_left, fetcher
from openheart.contributions import Contributions, Term, slots_of
from openheart.errors import OpaqueError
from openheart.formula.expr import (
    Apply,
    Index,
    Leaf,
    Named,
    Ref,
    Tensor,
    walk,
)
from openheart.formula.functions import TRANSPARENT
from openheart.formula.instance import Instance, Line, Slot
from openheart.hyperparameters import Owner, owner_of, said
from openheart.i18n import Message
from openheart.nonfinite import Cause, NonFinite, born, is_finite, spelled
from openheart.origins import Names, law_at, made_by, moves
from openheart.recording import Call, Element, Value
from openheart.recording.soundness import sound
from openheart.rules.registry import Law
from openheart.unfold import Unfolding, unfold
from openheart.update import Update, update_of
from openheart.wiring import wiring_of

if TYPE_CHECKING:
    from openheart.recording import Recording

ExplanationKind = Literal[
    "computed",
    "parameter",
    "buffer",
    "input",
    "leaf",
    "constant",
    "random",
    "uninitialized",
    "external",
    "opaque",
    "unreadable",
]
UNFOLDED = 24
"""At most this many explanations are unfolded under one."""


@dataclass(eq=False)
class Explanation:
    """How one recorded scalar was made.

    `value` is what PyTorch recorded; `computed` the law's value in float64 from the recorded inputs;
    `bound` how far an honest computation in the recorded precision may lie from it; `verdict` one of
    "exact" (the recorded number is the law's, correctly rounded), "within rounding", "disagrees",
    "unbounded" (within the bound, but that is larger than the number; see `digits_left`), "opaque" (no law)
    and "not checked" (what it was made of was not kept or cannot be read); in the last two `computed` and
    `bound` are None. A number that nobody computed (a parameter, an input, a random draw) has `law` None
    and says so in `kind`. A verdict speaks of correctness alone: `nonfinite` says of a NaN or an infinity,
    which may well be exact, how it came about.
    """

    recording: Recording
    element: Element
    address: str
    value: Any
    computed: Any
    bound: float | None
    verdict: Verdict
    kind: ExplanationKind
    call: Call | None
    output: int
    law: Law | None
    at: tuple[int, ...]
    depth: int = 1

    @property
    def operator(self) -> str:
        """The operator's name, `addmm`; empty for a number that nobody computed."""
        return "" if self.call is None else self.call.name

    @property
    def overload(self) -> str:
        return "" if self.call is None else str(self.call.op)

    @property
    def phase(self) -> str:
        return "" if self.call is None else self.call.phase

    @property
    def scope(self) -> str:
        return "" if self.call is None else self.call.scope

    @property
    def step(self) -> int:
        return 0 if self.call is None else self.call.step

    @property
    def source(self) -> str | None:
        return None if self.call is None else self.call.source

    @property
    def error(self) -> float | None:
        """|recorded − computed|, in float64."""
        return None if self.computed is None else float(abs(self.value - self.computed))

    @property
    def digits_left(self) -> float | None:
        """How many decimal digits of the number the bound confirms; None where it is 0, or there is none."""
        return digits_left(self.value, self.bound)

    @cached_property
    def nonfinite(self) -> NonFinite | None:
        """How a NaN or an infinity came about; None for a finite number."""
        if is_finite(self.value):
            return None
        if self.call is None or self.kind != "computed":
            cause: Cause = "unknown" if self.kind in ("opaque", "unreadable") else "given"
            return NonFinite(self.address, self.operator, spelled(self.value), cause)
        return born(self.recording, self.call, self.output, self.at, self.address)

    @cached_property
    @sound
    def lines(self) -> tuple[Line, ...]:
        """The law at this address with its numbers; named parts first, the number itself last."""
        if self.law is None or self.call is None:
            return ()
        names = Names(self.recording, self.call)
        builder = Instance(fetcher(self.call), self.law.precision, names.element, frozenset(self.law.indices))
        instance = builder.of(self.law.expr, self._env)
        lines = (*builder.lines, Line(self.address, self.law.expr, instance, self.value))
        if self.owner is None:
            return lines
        return tuple(replace(line, instance=said(line.instance, self.owner, self.call)) for line in lines)

    @cached_property
    def owner(self) -> Owner | None:
        """For a number that an optimizer made: its step, and the group and parameter that it was made for."""
        return (
            None
            if self.phase != "optimizer" or self.call is None
            else owner_of(self.recording, self.call, self.output)
        )

    @property
    def _env(self) -> dict[Index, int]:
        assert self.law is not None
        return dict(zip(self.law.indices, self.at, strict=True))

    @cached_property
    def update(self) -> Update | None:
        """For a parameter that an optimizer stepped in plain calls: the rule of its step as one formula."""
        return update_of(self)

    @cached_property
    def terms(self) -> Sequence[Term]:
        """The contributions to the number, largest first; each with the addresses of its factors."""
        if self.law is None or self.call is None:
            return ()
        return Contributions(self)

    @cached_property
    @sound
    def arguments(self) -> tuple[tuple[str, str], ...]:
        """What the law's symbols stand for: ("mat1", "0.out")."""
        if self.law is None or self.call is None:
            return ()
        names = Names(self.recording, self.call)
        seen: dict[tuple[str, int | None], tuple[str, str]] = {}
        for node in walk(self.law.expr, into_definitions=True):
            if isinstance(node, Ref) and isinstance(node.tensor, Tensor) and node.tensor.key not in seen:
                seen[node.tensor.key] = (node.tensor.name, names.tensor(node.tensor))
        return tuple(seen.values())

    @cached_property
    @sound
    def steps(self) -> tuple[Explanation, ...]:
        """For a number that an optimizer made: the calls of the same step that lead to it, in their order."""
        return tuple(_steps(self))

    @cached_property
    @sound
    def inputs(self) -> tuple[Explanation, ...]:
        """The explanations of the numbers that this one is made of, as deep as was asked for."""
        return tuple(_unfold(self))

    @cached_property
    def unfolding(self) -> Unfolding | None:
        """For an opaque number: PyTorch's own decomposition of its call; None where there is none."""
        return None if self.verdict != "opaque" or self.call is None else unfold(self.call)

    @cached_property
    @sound
    def notes(self) -> tuple[Message, ...]:
        """What a teacher would add: sentences by catalogue key."""
        return tuple(_notes(self))

    @sound
    def text(self, digits: int = 4, lang: str | None = None, width: int | None = None) -> str:
        """The explanation as plain text, `digits` decimals, in "es" or "en"."""
        from openheart.printers.explanation import text

        return text(self, digits=digits, lang=lang, width=width)

    @sound
    def latex(self, digits: int = 4) -> str:
        """The law and its instance as LaTeX, ready for a display environment."""
        from openheart.printers.explanation import latex

        return latex(self, digits=digits)

    @sound
    def mathml(self, digits: int = 4) -> str:
        """The law and its instance as MathML Core."""
        from openheart.printers.explanation import mathml

        return mathml(self, digits=digits)

    @sound
    def html(self, digits: int = 4, lang: str | None = None) -> str:
        """An HTML fragment that needs nothing else."""
        from openheart.printers.html import explanation_html

        return explanation_html(self, digits=digits, lang=lang)

    @sound
    def to_dict(self, digits: int = 4) -> dict[str, Any]:
        """Plain data, as `docs/explanation.schema.json` describes it."""
        from openheart.printers.json import explanation_dict

        return explanation_dict(self, digits=digits)

    def __rich__(self) -> Any:
        from openheart.printers.explanation import rich_explanation

        return rich_explanation(self)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()

    def _repr_latex_(self) -> str:
        return f"$$\n{self.latex()}\n$$"

    def _repr_mimebundle_(self, **_asked: Any) -> dict[str, Any]:
        return {
            "text/plain": self.text(),
            "text/html": self.html(),
            "text/latex": self._repr_latex_(),
            "application/vnd.openheart.explanation+json": self.to_dict(),
        }


@sound
def explain(recording: Recording, address: str | Element, depth: int = 1) -> Explanation:
    """Explain the scalar at `address`; with `depth` above 1, what it is made of too.

    **Raises** `AddressError` for an address that is not in the recording.
    """
    element = recording.element(address) if isinstance(address, str) else address
    shown = recording.address(element) if not isinstance(address, str) else _canonical(address)
    value = element.value.array[element.index].item()
    made = made_by(recording, element)
    if made is None:
        kind: ExplanationKind = element.value.origin if element.value.origin != "call" else "constant"
        return Explanation(
            recording, element, shown, value, value, 0.0, "exact", kind, None, 0, None, element.index, depth
        )
    call, output, at = made
    law = law_at(recording, call, output)
    if law is None:
        return Explanation(
            recording, element, shown, value, None, None, "opaque", "opaque", call, output, None, at, depth
        )
    leaf = law.expr
    if isinstance(leaf, Leaf):
        return Explanation(
            recording, element, shown, value, value, 0.0, "exact", leaf.kind, call, output, None, at, depth
        )
    try:
        done = check(call, output, at, law)
    except OpaqueError:  # what it is made of was not kept
        kind = "unreadable"
        return Explanation(
            recording, element, shown, value, None, None, "not checked", kind, call, output, None, at, depth
        )
    if done is None:  # the law reaches a random draw at this place
        return Explanation(
            recording, element, shown, value, value, 0.0, "exact", "random", call, output, None, at, depth
        )
    verdict = done.verdict()
    computed = done.computed.item() if isinstance(done.computed, np.generic) else done.computed
    return Explanation(
        recording,
        element,
        shown,
        value,
        computed,
        float(done.bound),
        verdict,
        "computed",
        call,
        output,
        law,
        at,
        depth,
    )


def _canonical(address: str) -> str:
    return address.strip().replace(" ,", ",").replace(", ", ",").replace("[]", "")


def _steps(explanation: Explanation) -> list[Explanation]:
    """The optimizer's own calls that lead to a number, in the order in which they ran.

    An update rule is one thing to a person, however many calls a kernel makes of it.
    """
    found: dict[str, Explanation] = {}
    todo = [explanation]
    while todo and explanation.phase == "optimizer" and len(found) < UNFOLDED:
        for address in _sources(todo.pop()):
            if address in found or address == explanation.address:
                continue
            inner = explain(explanation.recording, address)
            if inner.kind == "computed" and inner.phase == "optimizer" and inner.step == explanation.step:
                found[address] = inner
                todo.append(inner)
    return sorted(found.values(), key=lambda inner: inner.call.id if inner.call is not None else -1)


def _unfold(explanation: Explanation) -> Iterator[Explanation]:
    """Explanations of the numbers that made this one, the optimizer's own steps gone through."""
    if explanation.depth <= 1:
        return
    own = {step.address for step in explanation.steps} | {explanation.address}
    addresses = [a for node in (explanation, *explanation.steps) for a in _sources(node) if a not in own]
    for address in list(dict.fromkeys(addresses))[:UNFOLDED]:
        child = explain(explanation.recording, address, explanation.depth - 1)
        if child.kind == "computed" and _only_moved(child):  # cat, stack, a view: costs no depth
            child = explain(explanation.recording, address, explanation.depth)
        if child.kind == "computed":
            yield child


def _only_moved(explanation: Explanation) -> bool:
    """Whether a number is another recorded number, and nothing was done to it."""
    (*named, last) = explanation.lines
    moved = last.instance
    return not named and isinstance(moved, Slot) and moved.address is not None and moved.value == last.result


def _sources(explanation: Explanation) -> list[str]:
    """The addresses of the recorded numbers in an explanation's lines."""
    found = (s.address for line in explanation.lines for s in slots_of(line.instance))
    return list(dict.fromkeys(address for address in found if address is not None))


def _case(explanation: Explanation) -> Iterator[Message]:
    """Which condition decided, where a case of the law is a mere constant."""
    if explanation.law is None or explanation.call is None or slots_of(explanation.lines[-1].instance):
        return
    node = explanation.law.expr
    while isinstance(node, Named) or (isinstance(node, Apply) and node.function in TRANSPARENT):
        node = node.body if isinstance(node, Named) else node.args[0]
    if isinstance(node, Apply) and node.function == "where":
        names = Names(explanation.recording, explanation.call)
        builder = Instance(fetcher(explanation.call), explanation.law.precision, names.element)
        holds = bool(builder.value(node.args[0], explanation._env))
        condition = builder.of(node.args[0], explanation._env)
        if slots_of(condition):
            yield Message(f"note.case.{'holds' if holds else 'fails'}", {"condition": condition})


def _notes(explanation: Explanation) -> Iterator[Message]:
    call = explanation.call
    if explanation.kind in ("random", "uninitialized", "external", "opaque", "unreadable"):
        yield Message(f"note.{explanation.kind}", {"operator": explanation.operator})
    elif explanation.kind != "computed":
        yield Message("note.given", {"kind": explanation.kind})
    if explanation.kind == "opaque" and explanation.unfolding is not None:
        other = explanation.unfolding.outputs
        if (
            explanation.output < len(other)
            and explanation.at
            and other[explanation.output].ndim == len(explanation.at)
        ):
            steps = len(explanation.unfolding.recording.calls)
            number = other[explanation.output][explanation.at].item()
            yield Message("note.unfolded", {"value": number, "recorded": explanation.value, "steps": steps})
    if call is not None and explanation.at != explanation.element.index:
        source = explanation.recording.address(Element(call.outputs[explanation.output], explanation.at))
        made = call.outputs[explanation.output]
        by = ", ".join(moves(explanation.recording, explanation.element.value, made))
        params = {"address": explanation.address, "source": source, "operations": by}
        yield Message("note.moved", params)
    yield from _case(explanation)
    if explanation.verdict == "disagrees":
        yield Message("note.disagrees", {"operator": explanation.operator})
    if explanation.verdict == "unbounded":
        yield Message("note.unbounded")
    if explanation.nonfinite is not None:
        yield Message(*explanation.nonfinite.note)
    if call is None:
        return
    if call.phase == "backward" and call.name == "ones_like":
        yield Message("note.seed")
    elif call.phase == "backward":
        yield from _backward(explanation, call)
    if call.phase == "optimizer":
        yield Message("note.update", {"address": explanation.address, "operator": explanation.operator})
        yield from _hyperparameters(explanation, call)


def _backward(explanation: Explanation, call: Call) -> Iterator[Message]:
    """Whose gradient this is: one operator's step of the chain rule, or the sum of what several uses give."""
    recording = explanation.recording
    wiring = wiring_of(recording)
    summed = wiring.sums.get(call.id)
    if summed is not None:
        uses = [
            _use(recording, wiring.graph.nodes[giver].call) for giver in summed.givers if giver is not None
        ]
        shares = wiring.shares[(summed.backward, summed.edge)]
        key = "note.gradient.sum" if len(summed.givers) == len(shares) else "note.gradient.part"
        params = {"uses": ", ".join(uses), "count": len(summed.givers), "whole": len(shares)}
        yield Message(key, {"address": explanation.address, **params})
    elif wiring.is_own(call.id) and call.forward_call is not None:
        forward = recording.calls[call.forward_call]
        name = recording.name(forward.outputs[0]) if forward.outputs else forward.name
        yield Message(
            "note.chain_rule",
            {
                "address": explanation.address,
                "forward": forward.name,
                "where": name,
                "source": forward.source or "",
            },
        )


def _use(recording: Recording, call: int | None) -> str:
    """One use of a value: the operator that reads it, and what it makes of it."""
    if call is None:
        return "?"
    forward = recording.calls[call]
    return f"{forward.name} ({recording.name(forward.outputs[0])})" if forward.outputs else forward.name


def _hyperparameters(explanation: Explanation, call: Call) -> Iterator[Message]:
    """With which options the optimizer made this step: `lr = 0.1, betas = (0.9, 0.999)`."""
    for optimizer in explanation.recording.optimizers:
        if call.id in optimizer.calls:
            name, owner = optimizer.kind.rsplit(".", 1)[-1], explanation.owner
            for number, group in enumerate(optimizer.groups):
                options = {
                    option: _told(value)
                    for option, value in group.options.items()
                    if value is not None and not isinstance(value, bool) and option != "initial_lr"
                }
                if owner is not None and number != owner[1]:
                    continue
                several = f"{name} [{number}]" if len(optimizer.groups) > 1 else name
                yield Message("note.hyperparameters", {"optimizer": several, "options": options})


def _told(option: Any) -> Any:
    """An option as JSON has it."""
    if isinstance(option, Value):
        return option.array.item() if option.kept and option.shape == () else "…"
    if isinstance(option, (tuple, list)):
        return [_told(part) for part in option]
    return option if isinstance(option, (int, float, str)) else str(option)
