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

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np

from openheart.check import Verdict, check, fetcher, held
from openheart.formula.evaluate import evaluate
from openheart.formula.expr import (
    Apply,
    Definition,
    Expr,
    Index,
    Leaf,
    Named,
    Number,
    Reduce,
    Ref,
    Scalar,
    Tensor,
    walk,
)
from openheart.formula.functions import TRANSPARENT
from openheart.formula.instance import TERMS, Instance, Line, Slot, Terms
from openheart.formula.places import places
from openheart.recording import Call, Element, Value
from openheart.rules.registry import Law, law_of
from openheart.unfold import Unfolding, unfold

if TYPE_CHECKING:
    from openheart.recording import Recording

ExplanationKind = Literal[
    "computed", "parameter", "buffer", "input", "constant", "random", "uninitialized", "external", "opaque"
]
UNFOLDED = 24
"""At most this many explanations are unfolded under one."""


@dataclass(frozen=True, slots=True)
class Message:
    """A sentence of the catalogues: its key, and what to fill in."""

    key: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Term:
    """One contribution to a sum: its value, the recorded numbers it is made of, and its share of Σ|terms|.

    `product` says that it is their product (with constants), and no other function of them.
    """

    value: float
    factors: tuple[tuple[str | None, Scalar], ...]
    share: float
    product: bool = True


@dataclass(eq=False)
class Explanation:
    """How one recorded scalar was made.

    `value` is what PyTorch recorded; `computed` the law's value in float64 from the recorded inputs;
    `bound` how far an honest computation in the recorded precision may lie from it; `verdict` one of
    "exact" (the recorded number is the law's, correctly rounded), "within rounding", "disagrees" and
    "opaque" (no law: `computed` and `bound` are None). A number that nobody computed (a parameter, an
    input, a random draw) has `law` None and says so in `kind`.
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

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """The law at this address with its numbers; named parts first, the number itself last."""
        if self.law is None or self.call is None:
            return ()
        names = Names(self.recording, self.call)
        builder = Instance(fetcher(self.call), self.law.precision, names.element, frozenset(self.law.indices))
        instance = builder.of(self.law.expr, self._env)
        return (*builder.lines, Line(self.address, self.law.expr, instance, self.value))

    @property
    def _env(self) -> dict[Index, int]:
        assert self.law is not None
        return dict(zip(self.law.indices, self.at, strict=True))

    @cached_property
    def terms(self) -> Sequence[Term]:
        """The contributions to the number, largest first; each with the addresses of its factors."""
        if self.law is None or self.call is None:
            return ()
        return Contributions(self)

    @cached_property
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
    def steps(self) -> tuple[Explanation, ...]:
        """For a number that an optimizer made: the calls of the same step that lead to it, in their order."""
        return tuple(_steps(self))

    @cached_property
    def inputs(self) -> tuple[Explanation, ...]:
        """The explanations of the numbers that this one is made of, as deep as was asked for."""
        return tuple(_unfold(self))

    @cached_property
    def unfolding(self) -> Unfolding | None:
        """For an opaque number: PyTorch's own decomposition of its call; None where there is none."""
        return None if self.verdict != "opaque" or self.call is None else unfold(self.call)

    @cached_property
    def notes(self) -> tuple[Message, ...]:
        """What a teacher would add: sentences by catalogue key."""
        return tuple(_notes(self))

    def text(self, digits: int = 4, lang: str | None = None, width: int | None = None) -> str:
        """The explanation as plain text, `digits` decimals, in "es" or "en"."""
        from openheart.printers.explanation import text

        return text(self, digits=digits, lang=lang, width=width)

    def latex(self, digits: int = 4) -> str:
        """The law and its instance as LaTeX, ready for a display environment."""
        from openheart.printers.explanation import latex

        return latex(self, digits=digits)

    def mathml(self, digits: int = 4) -> str:
        """The law and its instance as MathML Core."""
        from openheart.printers.explanation import mathml

        return mathml(self, digits=digits)

    def html(self, digits: int = 4, lang: str | None = None) -> str:
        """An HTML fragment that needs nothing else."""
        from openheart.printers.html import explanation_html

        return explanation_html(self, digits=digits, lang=lang)

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
    done = check(call, output, at, law)
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


_LAWS: WeakKeyDictionary[Recording, dict[tuple[int, int], Law | None]] = WeakKeyDictionary()


def law_at(recording: Recording, call: Call, output: int) -> Law | None:
    """The law of a call's output, built once a recording."""
    laws = _LAWS.setdefault(recording, {})
    key = call.id, output
    if key not in laws:
        laws[key] = law_of(call, output)
    return laws[key]


def made_by(recording: Recording, element: Element) -> tuple[Call, int, tuple[int, ...]] | None:
    """The call that computed a scalar, its output and the place there; None when no call did.

    A number that was only moved (transposed, reshaped, detached) is followed back to the call that
    computed it, unless it has a name of its own on the way.
    """
    value, index = element.value, element.index
    made = recording.maker(value)
    while made is not None:
        source = moved_from(recording, made[0], made[1], index)
        if source is None or has_own_name(recording, source.value):
            break
        further = recording.maker(source.value)
        if further is None:
            break
        made, index = further, source.index
    return None if made is None else (*made, index)


def moved_from(recording: Recording, call: Call, output: int, index: tuple[int, ...]) -> Element | None:
    """The element that an output element is a mere copy of; None when the call computed it."""
    law = law_at(recording, call, output)
    if law is None or not isinstance(law.expr, Ref) or isinstance(law.expr.tensor, Definition):
        return None
    source = held(call, law.expr.tensor)
    if source.dtype != call.outputs[output].dtype:
        return None
    return Element(source, places(law.expr, dict(zip(law.indices, index, strict=True)), fetcher(call)))


def has_own_name(recording: Recording, value: Value) -> bool:
    """Whether a value is a parameter, an input, a module's output, a gradient: not just a call's output."""
    return recording.has_own_name(value)


@dataclass(frozen=True, slots=True)
class Names:
    """Names for the numbers that a call reads, as a person would say them."""

    recording: Recording
    call: Call

    def element(self, tensor: Tensor, at: tuple[int, ...]) -> str:
        """The address of a tensor's element: of the number's origin, where it was only moved."""
        value, index = held(self.call, tensor), at
        while not has_own_name(self.recording, value):
            made = self.recording.maker(value)
            source = None if made is None else moved_from(self.recording, made[0], made[1], index)
            if source is None:
                break
            value, index = source.value, source.index
        return self.recording.address(Element(value, index))

    def tensor(self, tensor: Tensor) -> str:
        return self._described(held(self.call, tensor), 0)

    def _described(self, value: Value, deep: int) -> str:
        name = self.recording.name(value)
        made = self.recording.maker(value)
        source = None
        if not self.recording.has_own_name(value) and made is not None and deep < 6 and 0 not in value.shape:
            source = moved_from(self.recording, *made, (0,) * len(value.shape))
        if source is None or made is None:
            return name
        call, inner = made[0], self._described(source.value, deep + 1)
        if source.value.shape == value.shape and call.name not in ("flip", "roll", "index", "gather"):
            return inner
        if call.name == "t" or (call.name == "transpose" and len(value.shape) == 2):
            return inner[:-1] if inner.endswith("ᵀ") else f"{inner}ᵀ"
        return f"{call.name}({inner})"


class Contributions(Sequence[Term]):
    """The contributions to one number, sorted by size; a term's addresses are looked up when it is read."""

    def __init__(self, explanation: Explanation) -> None:
        assert explanation.law is not None
        assert explanation.call is not None
        self._names = Names(explanation.recording, explanation.call)
        self._fetch = fetcher(explanation.call)
        self._precision = explanation.law.precision
        self._parts: list[_Part] = []
        self._definitions: dict[int, tuple[Any, Any]] = {}
        values = []
        for sign, addend in _addends(explanation.law.expr, explanation._env, self._value):
            part = self._part(sign, addend, explanation._env)
            self._parts.append(part)
            values.append(part.values)
        flat = np.concatenate(values) if values else np.zeros(0)
        owner = np.repeat(np.arange(len(values)), [len(v) for v in values])
        starts = np.cumsum([0] + [len(v) for v in values])
        with np.errstate(all="ignore"):
            size = np.abs(flat)
            order = np.argsort(-np.where(np.isnan(size), np.inf, size), kind="stable")
            whole = float(np.sum(size))
        self._flat, self._owner, self._starts, self._order = flat, owner, starts, order
        self._whole = whole

    def _value(self, node: Expr, env: Mapping[Index, int]) -> Any:
        return evaluate(node, (), self._fetch, self._precision, env, self._definitions)[0]

    def _part(self, sign: int, addend: Expr, env: dict[Index, int]) -> _Part:
        scale, reduced = _scaled_sum(addend)
        if reduced is None:
            return _Part(np.atleast_1d(np.asarray(sign * self._value(addend, env))), None, addend, env, ())
        factor: Any = sign
        for s in scale:
            factor = factor * self._value(s, env)
        if reduced.kind == "mean":
            factor = factor / reduced_size(reduced)
        inner = frozenset(reduced.over)
        outer = {i: v for i, v in env.items() if i not in inner}
        sizes = tuple(k.extent for k in reduced.over)
        values, _ = evaluate(
            reduced.body, reduced.over, self._fetch, self._precision, outer, self._definitions
        )
        values = np.broadcast_to(values, sizes).reshape(-1)
        places_ = None
        if reduced.where is not None:
            holds, _ = evaluate(
                reduced.where, reduced.over, self._fetch, self._precision, outer, self._definitions
            )
            places_ = np.flatnonzero(np.broadcast_to(holds, sizes))
            values = values[places_]
        return _Part(np.asarray(factor * values), places_, reduced.body, outer, reduced.over)

    def __len__(self) -> int:
        return len(self._flat)

    def __iter__(self) -> Iterator[Term]:
        return (self[n] for n in range(len(self)))

    def __getitem__(self, n: Any) -> Any:
        if isinstance(n, slice):
            return [self[m] for m in range(*n.indices(len(self)))]
        if not -len(self) <= n < len(self):
            raise IndexError(f"there are {len(self)} terms, and term {n} was asked for")
        where = int(self._order[n])
        part = self._parts[int(self._owner[where])]
        inner = where - int(self._starts[self._owner[where]])
        env = dict(part.env)
        if part.over:
            flat = inner if part.places is None else int(part.places[inner])
            sizes = tuple(k.extent for k in part.over)
            env.update(zip(part.over, map(int, np.unravel_index(flat, sizes)), strict=True))
        builder = Instance(self._fetch, self._precision, self._names.element, terms=TERMS)
        made = builder.of(part.body, env)
        factors = tuple((s.address, s.value) for s in _slots(made))
        value = self._flat[where].item()
        share = abs(value) / self._whole if self._whole else 0.0
        return Term(value, factors, share, _is_product(made))


@dataclass(frozen=True, slots=True)
class _Part:
    """The contributions of one addend: their values and, for a sum, what it runs over."""

    values: Any
    places: Any
    body: Expr
    env: dict[Index, int]
    over: tuple[Index, ...]


def _addends(node: Expr, env: Mapping[Index, int], value: Any) -> list[tuple[int, Expr]]:
    """The signed addends of a sum, through names and through the branch that was taken."""
    found: list[tuple[int, Expr]] = []
    stack: list[tuple[int, Expr]] = [(1, node)]
    while stack:
        sign, here = stack.pop()
        if isinstance(here, Named):
            stack.append((sign, here.body))
        elif isinstance(here, Apply) and here.function in ("add", "sub"):
            stack.append((sign if here.function == "add" else -sign, here.args[1]))
            stack.append((sign, here.args[0]))
        elif isinstance(here, Apply) and here.function in TRANSPARENT:
            stack.append((sign, here.args[0]))
        elif isinstance(here, Apply) and here.function == "neg":
            stack.append((-sign, here.args[0]))
        elif isinstance(here, Apply) and here.function == "where":
            stack.append((sign, here.args[1] if value(here.args[0], env) else here.args[2]))
        else:
            found.append((sign, here))
    return found


def _scaled_sum(node: Expr) -> tuple[list[Expr], Reduce | None]:
    """The factors and the one sum of a product `c · Σ body`; no sum when the node is of another form."""
    scale: list[Expr] = []
    found: Reduce | None = None
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, Named):
            stack.append(here.body)
        elif isinstance(here, Apply) and here.function in TRANSPARENT:
            stack.append(here.args[0])
        elif isinstance(here, Apply) and here.function == "mul":
            stack.extend(here.args)
        elif isinstance(here, Reduce) and here.kind in ("sum", "mean") and found is None:
            found = here
        else:
            scale.append(here)
    return scale, found


def _is_product(node: Expr) -> bool:
    if isinstance(node, Apply):
        return node.function in ("mul", "neg") and all(map(_is_product, node.args))
    return isinstance(node, (Slot, Number))


def reduced_size(node: Reduce) -> int:
    """Over how many places a reduction runs."""
    return math.prod(k.extent for k in node.over)


def _slots(node: Expr) -> list[Slot]:
    found: list[Slot] = []
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, Slot):
            found.append(here)
        elif isinstance(here, Apply):
            stack.extend(reversed(here.args))
        elif isinstance(here, Terms):
            stack.extend(reversed(here.items))
    return found


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
        if child.kind == "computed":
            yield child


def _sources(explanation: Explanation) -> list[str]:
    """The addresses of the recorded numbers in an explanation's lines."""
    found = (s.address for line in explanation.lines for s in _slots(line.instance))
    return list(dict.fromkeys(address for address in found if address is not None))


def _notes(explanation: Explanation) -> Iterator[Message]:
    call = explanation.call
    if explanation.kind in ("random", "uninitialized", "external", "opaque"):
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
    if explanation.verdict == "disagrees":
        yield Message("note.disagrees", {"operator": explanation.operator})
    if call is None:
        return
    if call.phase == "backward" and call.forward_call is not None:
        forward = explanation.recording.calls[call.forward_call]
        name = explanation.recording.name(forward.outputs[0]) if forward.outputs else forward.name
        yield Message(
            "note.chain_rule",
            {
                "address": explanation.address,
                "forward": forward.name,
                "where": name,
                "source": forward.source or "",
            },
        )
    if call.phase == "optimizer":
        yield Message("note.update", {"address": explanation.address, "operator": explanation.operator})
