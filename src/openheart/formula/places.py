"""Index expressions at one place, in plain Python: quicker than arrays where there is only one number."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from openheart.formula.evaluate import Fetch
from openheart.formula.expr import Apply, Definition, Expr, Index, Named, Number, Ref

_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "neg": operator.neg,
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


class NotAPlace(Exception):
    """Raised when an expression is no integer arithmetic over index variables and integer tensors."""


def place(node: Expr, env: Mapping[Index, int], fetch: Fetch) -> int:
    """The integer that an index expression is, with each index variable as `env` says.

    **Raises** `NotAPlace` when it holds anything but integer arithmetic.
    """
    if isinstance(node, Number):
        return int(node.value.real)
    if isinstance(node, Index):
        return env[node]
    if isinstance(node, Named):
        return place(node.body, env, fetch)
    if isinstance(node, Ref):
        if isinstance(node.tensor, Definition) or node.tensor.kind not in ("int", "bool"):
            raise NotAPlace
        return fetch(node.tensor)[places(node, env, fetch)].item()
    if isinstance(node, Apply):
        if node.function == "where":
            return place(node.args[1 if place(node.args[0], env, fetch) else 2], env, fetch)
        found = _OPERATORS.get(node.function)
        if found is not None:
            return found(*(place(arg, env, fetch) for arg in node.args))
    raise NotAPlace


def places(node: Ref, env: Mapping[Index, int], fetch: Fetch) -> tuple[int, ...]:
    """The index of a reference at `env`, kept within the tensor's shape.

    A place outside is only ever reached under a condition that excludes it.
    """
    return tuple(
        min(max(place(part, env, fetch), 0), max(size - 1, 0))
        for part, size in zip(node.index, node.tensor.shape, strict=True)
    )
