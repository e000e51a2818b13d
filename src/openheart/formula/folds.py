"""Reductions that have a quick form: over matches, and over a running range.

The first is one scatter, the second one cumulative pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from openheart.formula.expr import Apply, Binding, Expr, Index, Reduce
from openheart.formula.functions import Array

FOLDS: dict[str, Any] = {
    "sum": np.add,
    "rank": np.add,
    "product": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "any": np.logical_or,
    "all": np.logical_and,
}
"""The kinds of reduction that combine two partial results into one."""
_EMPTY: dict[str, Any] = {"sum": 0, "rank": 0, "product": 1, "any": False, "all": True}


def empty(kind: str, like: Array) -> Any:
    """What a reduction over nothing gives; an integer's largest is the smallest integer there is."""
    if kind not in ("max", "min"):
        return _EMPTY[kind]
    if np.asarray(like).dtype.kind == "f":
        return -np.inf if kind == "max" else np.inf
    info = np.iinfo(np.int64)
    return int(info.min if kind == "max" else info.max)


def scattered(kind: str, values: Array, places: Array, size: int) -> Array:
    """Each value folded into the place it belongs to; `places` are positions below `size`."""
    if kind in ("sum", "rank"):
        # without places NumPy counts in whole numbers, whatever the weights are
        return np.bincount(places, weights=values, minlength=size).astype(np.float64, copy=False)
    if kind in ("max", "min") and np.asarray(values).dtype == np.bool_:
        values = np.asarray(values, dtype=np.int64)  # the largest of nothing is no truth value
    made = np.full(size, empty(kind, values), dtype=np.asarray(values).dtype)
    FOLDS[kind].at(made, places, values)
    return made


@dataclass(frozen=True, slots=True)
class Running:
    """A reduction over all k up to i (from i on, with `backward`); `rest` is what else is asked of k."""

    k: Index
    i: Index
    inclusive: bool
    backward: bool
    rest: Expr | None

    def reach(self, places: Array) -> Array:
        """How many k, counted from the end where the fold begins, the range has at each place of i."""
        ahead = places + 1 if self.inclusive != self.backward else places
        return np.clip(self.k.extent - ahead if self.backward else ahead, 0, self.k.extent)


def running_of(node: Reduce, bindings: Mapping[Index, int | range]) -> Running | None:
    """The running range that a reduction's condition describes: `k < i`, `k <= i`, `k > i` or `k >= i`."""
    if node.where is None or len(node.over) != 1 or node.kind not in FOLDS:
        return None
    (k,) = node.over
    found: Running | None = None
    rest: Expr | None = None
    stack = [node.where]
    while stack:
        part = stack.pop()
        if isinstance(part, Apply) and part.function == "and":
            stack.extend(part.args)
            continue
        here = _range_of(part, k) if found is None and isinstance(part, Apply) else None
        if here is not None and not isinstance(bindings.get(here.i), int):
            found = here
        else:
            rest = part if rest is None else rest & part
    if found is None or found.i in node.body.free or (rest is not None and found.i in rest.free):
        return None
    return Running(found.k, found.i, found.inclusive, found.backward, rest)


_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}


def _range_of(part: Apply, k: Index) -> Running | None:
    if part.function not in _MIRRORED:
        return None
    name, (a, b) = part.function, part.args
    if b is k:
        name, a, b = _MIRRORED[name], b, a
    if a is not k or b is k or not isinstance(b, Index):
        return None
    return Running(k, b, name in ("le", "ge"), name in ("gt", "ge"), None)


def folded(kind: str, values: Array, axis: int, backward: bool) -> Array:
    """The fold of the first n values along an axis, for n = 0, 1, … : one more entry than values."""
    if backward:
        values = np.flip(values, axis=axis)
    shape = list(values.shape)
    shape[axis] = 1
    first = np.full(shape, empty(kind, values), dtype=np.asarray(values).dtype)
    with np.errstate(all="ignore"):
        return np.concatenate([first, FOLDS[kind].accumulate(values, axis=axis)], axis=axis)


def matches(
    node: Reduce, bindings: Mapping[Index, Binding]
) -> tuple[list[tuple[Index, Expr]], Expr | None] | None:
    """The `place(j) == i` conditions of a sum over matches, i an output index that the body ignores."""
    if node.where is None:
        return None
    over = frozenset(node.over)
    pairs: list[tuple[Index, Expr]] = []
    rest: Expr | None = None
    taken: set[Index] = set()
    stack = [node.where]
    while stack:
        part = stack.pop()
        if isinstance(part, Apply) and part.function == "and":
            stack.extend(part.args)
            continue
        match = _match(part, over, node.body, bindings) if isinstance(part, Apply) else None
        if match is not None and match[0] not in taken:
            pairs.append(match)
            taken.add(match[0])
        else:
            rest = part if rest is None else rest & part
    if not pairs or (rest is not None and rest.free & taken):
        return None
    if any(place.free & taken for _, place in pairs):
        return None
    return pairs, rest


def _match(
    part: Apply, over: frozenset[Index], body: Expr, bindings: Mapping[Index, Binding]
) -> tuple[Index, Expr] | None:
    if part.function != "eq":
        return None
    for out, place in (part.args, part.args[::-1]):
        if (
            isinstance(out, Index)
            and out not in over
            and not isinstance(bindings.get(out), int)
            and out not in body.free
            and out not in place.free
            and place.free & over
        ):
            return out, place
    return None
