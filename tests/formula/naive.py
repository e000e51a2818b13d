"""Formulas worked out as a schoolchild would: one element at a time, one operation after the other.

With `single` every operation is rounded to float32 and the terms of a sum come in a random order, as some
kernel might do it: what `formula.evaluate` says the bound is must hold for that too.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from openheart.formula.expr import Apply, Expr, Index, Named, Number, Reduce, Ref, Tensor

Env = Mapping[Index, int]


def _extreme(better: Callable[[float, float], bool], values: list[float]) -> int:
    best = 0
    for place, value in enumerate(values):
        if better(value, values[best]):
            best = place
    return best


SMOOTH = {
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
    "sin": np.sin,
}
EXACT: dict[str, Callable[..., Any]] = {
    "neg": lambda a: -a,
    "abs": abs,
    "max": lambda a, b: max(a, b),
    "min": lambda a, b: min(a, b),
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "not": lambda a: not a,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
}


class Naive:
    """One way of working formulas out: `tensors` by name, in float64 or in `single` precision."""

    def __init__(self, tensors: Mapping[str, Any], single: bool = False, seed: int = 0) -> None:
        self.tensors = tensors
        self.single = single
        self.order = random.Random(seed)

    def of(self, node: Expr, env: Env) -> Any:
        if isinstance(node, Number):
            return self._round(node.value)
        if isinstance(node, Index):
            return env[node]
        if isinstance(node, Named):
            return self.of(node.body, env)
        if isinstance(node, Ref):
            assert isinstance(node.tensor, Tensor)
            place = tuple(self.of(part, env) for part in node.index)
            assert all(0 <= p < n for p, n in zip(place, node.tensor.shape, strict=True)), "read outside"
            return self._round(self.tensors[node.tensor.name][place].item())
        if isinstance(node, Apply):
            return self._apply(node, env)
        assert isinstance(node, Reduce), node
        return self._reduce(node, env)

    def _round(self, value: Any) -> Any:
        if not self.single or isinstance(value, (bool, int, np.bool_)):
            return value
        return np.float32(value)

    def _apply(self, node: Apply, env: Env) -> Any:
        if node.function == "where":
            return self.of(node.args[1] if self.of(node.args[0], env) else node.args[2], env)
        if self.single and _constant(node):  # a kernel's constants are worked out in double
            return np.float32(Naive(self.tensors).of(node, env))
        args = [self.of(arg, env) for arg in node.args]
        with np.errstate(all="ignore"):
            if node.function in EXACT:
                return EXACT[node.function](*args)
            if node.function in SMOOTH:
                return self._round(SMOOTH[node.function](args[0]).item())
            if self.single and not all(isinstance(a, (bool, int)) for a in args):
                args = [np.float32(a) for a in args]
            a, b = args
            if node.function == "div":
                return self._round(np.true_divide(a, b).item())
            made = {"add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b, "pow": lambda: a**b}
            return made[node.function]()

    def _reduce(self, node: Reduce, env: Env) -> Any:
        spans = [range(k.extent) for k in node.over]
        places = list(itertools.product(*spans))
        inner = [{**env, **dict(zip(node.over, place, strict=True))} for place in places]
        kept = [n for n, e in enumerate(inner) if node.where is None or self.of(node.where, e)]
        if node.kind == "rank":
            return len(kept)
        values = [self.of(node.body, inner[n]) for n in kept]
        if node.kind in ("argmax", "argmin"):
            better = (lambda a, b: a > b) if node.kind == "argmax" else (lambda a, b: a < b)
            return kept[_extreme(better, values)] if kept else 0
        if node.kind in ("any", "all"):
            return {"any": any, "all": all}[node.kind](values)
        if node.kind in ("max", "min"):
            return {"max": max, "min": min}[node.kind](
                values, default=-math.inf if node.kind == "max" else math.inf
            )
        if self.single:
            self.order.shuffle(values)
        made: Any = 1 if node.kind == "product" else 0
        for value in values:
            made = made * value if node.kind == "product" else made + value
        if node.kind == "mean":
            return self._round(made / len(places))
        return made


def _constant(node: Expr) -> bool:
    return isinstance(node, Number) or (isinstance(node, Apply) and all(_constant(a) for a in node.args))
