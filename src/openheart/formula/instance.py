"""A law at one address, with its numbers: the tree that the printers print.

Every reference becomes a `Slot`, which holds the recorded number and its address; every sum becomes its
terms, the largest first to be kept and the others gathered in one `Rest`. Named parts become lines of
their own, in the order in which one would compute them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from openheart.formula.evaluate import Fetch, evaluate
from openheart.formula.expr import (
    NO_INDICES,
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
)
from openheart.formula.functions import TRANSPARENT
from openheart.formula.places import places
from openheart.formula.precision import Precision

TERMS = 8
"""How many terms of a long sum are printed; the others are gathered in one."""


STEPS = 24
"""How many lines a recurrence may take; the steps before them are shown by their numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Slot(Expr):
    """A number with an address: recorded (`address`), or computed by the line called `name`."""

    value: Scalar
    address: str | None = None
    name: str | None = None
    free: frozenset[Index] = field(init=False, repr=False, default=NO_INDICES)


@dataclass(frozen=True, slots=True, eq=False)
class Rest(Expr):
    """The terms of a sum that are not printed one by one: how many, and their sum (or their largest)."""

    count: int
    value: Scalar
    free: frozenset[Index] = field(init=False, repr=False, default=NO_INDICES)


@dataclass(frozen=True, slots=True, eq=False)
class Terms(Expr):
    """A reduction written out: `items` in their order, then `rest`; `count` places were reduced in all."""

    kind: Literal["sum", "mean", "product", "max", "min", "argmax", "argmin", "any", "all", "rank"]
    items: tuple[Expr, ...]
    rest: Rest | None
    count: int
    free: frozenset[Index] = field(init=False, repr=False, default=NO_INDICES)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One printed line: `name = instance = result`; `general` is the law of the same line, in indices."""

    name: str | None
    general: Expr
    instance: Expr
    result: Scalar


@dataclass(slots=True)
class Instance:
    """Builds the lines of one law at one address."""

    fetch: Fetch
    precision: Precision
    address: Callable[[Tensor, tuple[int, ...]], str | None]
    outputs: frozenset[Index] = NO_INDICES
    """The output's own index variables: a part that varies along others says at which place it is."""
    terms: int = TERMS
    lines: list[Line] = field(default_factory=list)
    _begun: int = 0
    _named: dict[tuple[int, tuple[tuple[Index, int], ...]], Slot] = field(default_factory=dict)
    _definitions: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    def of(self, node: Expr, env: Mapping[Index, int]) -> Expr:
        """The node at the place `env`, with numbers for references."""
        if isinstance(node, (Number, Leaf, Slot, Terms)):
            return node
        if isinstance(node, Index):
            return Number(env[node])
        if isinstance(node, Ref):
            return self._slot(node, env)
        if isinstance(node, Named):
            return self._part(node, env)
        if isinstance(node, Reduce):
            return self._reduced(node, env)
        assert isinstance(node, Apply), node
        if node.function == "where":
            taken = node.args[1] if self.value(node.args[0], env) else node.args[2]
            return self.of(taken, env)
        if node.function in TRANSPARENT:
            return self.of(node.args[0], env)
        return Apply(node.function, tuple(self.of(arg, env) for arg in node.args))

    def value(self, node: Expr, env: Mapping[Index, int]) -> Scalar:
        """The node's float64 value at the place `env`."""
        made, _ = evaluate(node, (), self.fetch, self.precision, env, self._definitions)
        return made.item() if isinstance(made, (np.generic, np.ndarray)) else made

    def _slot(self, node: Ref, env: Mapping[Index, int]) -> Slot:
        at = places(node, env, self.fetch, self._definitions)
        if isinstance(node.tensor, Definition):
            return self._made(node.tensor, at)
        value = self.fetch(node.tensor)[at].item()
        return Slot(value, address=self.address(node.tensor, at))

    def _made(self, tensor: Definition, at: tuple[int, ...]) -> Slot:
        """An element of a tensor that the law defines: a line of its own, and the steps before it theirs."""
        name = f"{tensor.name}[{','.join(map(str, at))}]" if at else tensor.name
        env = dict(zip(tensor.indices, at, strict=True))
        key = id(tensor), tuple(env.items())
        known = self._named.get(key)
        if known is None:
            known = self._named[key] = Slot(self.value(tensor[at], {}), name=name)
            if len(self.lines) + self._begun < STEPS:
                self._begun += 1
                instance = self.of(tensor.body, env)
                self._begun -= 1
                self.lines.append(Line(name, tensor.body, instance, known.value))
        return known

    def _part(self, node: Named, env: Mapping[Index, int]) -> Slot:
        mine = tuple(sorted(((i, env[i]) for i in node.free if i in env), key=lambda pair: pair[0].name))
        known = self._named.get((id(node), mine))
        if known is None:
            inner = [str(v) for i, v in mine if i not in self.outputs]
            name = f"{node.name}[{','.join(inner)}]" if inner else node.name
            instance = self.of(node.body, env)
            value = self.value(node.body, env)
            self.lines.append(Line(name, node.body, instance, value))
            known = self._named[id(node), mine] = Slot(value, name=name)
        return known

    def _reduced(self, node: Reduce, env: Mapping[Index, int]) -> Expr:
        sizes = tuple(k.extent for k in node.over)
        inner = frozenset(node.over)
        outer = {i: v for i, v in env.items() if i not in inner}
        values, _ = evaluate(node.body, node.over, self.fetch, self.precision, outer, self._definitions)
        values = np.broadcast_to(values, sizes)
        if node.where is None:
            places = np.arange(values.size)
        else:
            holds, _ = evaluate(node.where, node.over, self.fetch, self.precision, outer, self._definitions)
            places = np.flatnonzero(np.broadcast_to(holds, sizes))
        flat = values.reshape(-1)[places]
        shown = np.arange(len(flat))
        if len(flat) > self.terms:
            shown = np.sort(_foremost(node.kind, flat, self.terms))
        items = []
        for s in shown:
            here = np.unravel_index(int(places[s]), sizes) if sizes else ()
            items.append(self.of(node.body, {**outer, **dict(zip(node.over, map(int, here), strict=True))}))
        rest = None
        if len(shown) < len(flat):
            others = np.delete(flat, shown)
            rest = Rest(len(others), _gathered(node.kind, others))
        return Terms(node.kind, tuple(items), rest, len(flat))


def _foremost(kind: str, values: Any, number: int) -> Any:
    """The places whose terms say most about the result."""
    with np.errstate(all="ignore"):
        if kind in ("max", "argmax"):
            weight = values
        elif kind in ("min", "argmin"):
            weight = -np.asarray(values, dtype=np.float64)  # truth values and the smallest integer too
        elif kind == "product":
            weight = np.abs(np.log(np.abs(values)))
        else:
            weight = np.abs(values)
    weight = np.where(np.isnan(np.asarray(weight, dtype=np.float64)), np.inf, weight)
    return np.argpartition(-weight, number - 1)[:number]


def _gathered(kind: str, others: Any) -> Scalar:
    folds: dict[str, Callable[[Any], Any]] = {
        "sum": np.sum,
        "mean": np.sum,
        "product": np.prod,
        "max": np.max,
        "argmax": np.max,
        "min": np.min,
        "argmin": np.min,
        "any": np.any,
        "all": np.all,
        "rank": lambda a: np.int64(a.size),
    }
    return folds[kind](others).item()
