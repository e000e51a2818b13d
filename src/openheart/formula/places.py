"""Index expressions at one place, in plain Python: quicker than arrays where there is only one number."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from openheart.formula.evaluate import Fetch, evaluate
from openheart.formula.expr import Apply, Definition, Expr, Index, Named, Number, Ref
from openheart.formula.precision import FLOAT64

_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "neg": operator.neg,
    "abs": abs,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
    "and": lambda a, b: bool(a) and bool(b),
    "or": lambda a, b: bool(a) or bool(b),
    "not": operator.not_,
    "max": max,
    "min": min,
    "int": int,
}

Definitions = dict[int, tuple[Any, Any]]
"""The tensors that a law defines, each worked out once, by the definition's id."""


def place(node: Expr, env: Mapping[Index, int], fetch: Fetch, known: Definitions | None = None) -> int:
    """The integer that an index expression is, with each index variable as `env` says.

    What is no arithmetic of index variables and integer tensors (a position counted over a mask, the place
    of a largest number) is evaluated as any formula is; `known` keeps what the law defines on the way.
    """
    if isinstance(node, Number):
        return int(node.value.real)
    if isinstance(node, Index):
        return env[node]
    if isinstance(node, Named):
        return place(node.body, env, fetch, known)
    if isinstance(node, Ref) and not isinstance(node.tensor, Definition):
        if node.tensor.kind in ("int", "bool") and 0 not in node.tensor.shape:
            return fetch(node.tensor)[places(node, env, fetch, known)].item()
    elif isinstance(node, Apply):
        if node.function == "where":
            taken = node.args[1 if place(node.args[0], env, fetch, known) else 2]
            return place(taken, env, fetch, known)
        found = _OPERATORS.get(node.function)
        if found is not None:
            return found(*(place(arg, env, fetch, known) for arg in node.args))
    value, _ = evaluate(node, (), fetch, FLOAT64, env, known)
    return value.item() if hasattr(value, "item") else value


def places(
    node: Ref, env: Mapping[Index, int], fetch: Fetch, known: Definitions | None = None
) -> tuple[int, ...]:
    """The index of a reference at `env`, kept within the tensor's shape.

    A place outside is only ever reached under a condition that excludes it.
    """
    return tuple(
        int(min(max(place(part, env, fetch, known), 0), max(size - 1, 0)))
        for part, size in zip(node.index, node.tensor.shape, strict=True)
    )
