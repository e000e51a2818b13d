"""The contributions to one number: the terms of the sum that its law is, and what each is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from openheart.check import fetcher
from openheart.formula.evaluate import evaluate
from openheart.formula.expr import Apply, Expr, Index, Named, Number, Reduce, Scalar
from openheart.formula.functions import TRANSPARENT
from openheart.formula.instance import TERMS, Instance, Slot, Terms
from openheart.origins import Names

if TYPE_CHECKING:
    from openheart.explain import Explanation


@dataclass(frozen=True, slots=True)
class Term:
    """One contribution to a sum: its value, the recorded numbers it is made of, and its share of Σ|terms|.

    `product` says that it is their product (with constants), and no other function of them.
    """

    value: float
    factors: tuple[tuple[str | None, Scalar], ...]
    share: float
    product: bool = True
    names: tuple[str | None, ...] = ()
    """What the law calls each of them where it has no address: `m̂`, a line of the explanation."""


class Contributions(Sequence[Term]):
    """The contributions to one number, sorted by size; a term's addresses are looked up when it is read."""

    def __init__(self, explanation: Explanation) -> None:
        assert explanation.law is not None
        assert explanation.call is not None
        self._names = Names(explanation.recording, explanation.call)
        self._fetch = fetcher(explanation.call)
        self._precision = explanation.law.precision
        self._outputs = frozenset(explanation.law.indices)
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
            alone = np.atleast_1d(np.asarray(sign * self._value(addend, env)))
            return _Part(alone, None, addend, env, (), ())
        factor: Any = sign
        for s in scale:
            factor = factor * self._value(s, env)
        if reduced.kind == "mean":
            factor = factor / (reduced_size(reduced) or math.nan)  # the mean of nothing
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
        return _Part(np.asarray(factor * values), places_, reduced.body, outer, reduced.over, tuple(scale))

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
        builder = Instance(self._fetch, self._precision, self._names.element, self._outputs, terms=TERMS)
        made = [builder.of(node, env) for node in (part.body, *part.scale)]
        slots = [s for node in made for s in slots_of(node)]
        factors = tuple((s.address, s.value) for s in slots)
        value = self._flat[where].item()
        share = abs(value) / self._whole if self._whole else 0.0
        return Term(value, factors, share, all(map(_is_product, made)), tuple(s.name for s in slots))


@dataclass(frozen=True, slots=True)
class _Part:
    """The contributions of one addend: their values and, for a sum, what it runs over."""

    values: Any
    places: Any
    body: Expr
    env: dict[Index, int]
    over: tuple[Index, ...]
    scale: tuple[Expr, ...]
    """What the whole sum is multiplied by."""


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


def slots_of(node: Expr) -> list[Slot]:
    """The recorded numbers in an instance, in reading order."""
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
