"""Where nothing can be said of a number that is not finite: an honest computation may go another way.

A bound says how far finite numbers may lie apart. It cannot say that a product which float64 holds is
infinite in float32, that a variance which is 0 here is 10⁻²⁰ there and its inverse finite, or which part of
a complex infinity becomes NaN. This is asked only of numbers that would else be said to disagree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from openheart.formula.expr import Apply, Expr, Reduce
from openheart.formula.functions import COMPARISONS, Array

if TYPE_CHECKING:
    from openheart.formula.evaluate import Evaluation

_TRUTHS = COMPARISONS | {"and", "or", "xor", "not", "isnan", "isinf", "bool"}


@dataclass(slots=True)
class Strain:
    """Watches an evaluation; `places` is true where a step of it may go another way in its precision."""

    places: Any = False

    def seen(self, state: Evaluation, node: Expr, value: Array) -> None:
        """Look at one node that has been evaluated."""
        with np.errstate(all="ignore"):
            if isinstance(node, Apply) and node.function not in _TRUTHS:
                self._mark(_step(state, node, value))
            elif isinstance(node, Reduce) and node.kind in ("sum", "mean", "product"):
                self._mark(_fold(state, node, value))

    def _mark(self, places: Any) -> None:
        self.places = self.places | np.asarray(places)


def _outside(state: Evaluation, value: Array) -> Any:
    """Where a finite number lies outside what the precision holds in full."""
    size = np.abs(value)
    low = (size > 0) & (size < state.precision.tiny)
    return (np.isfinite(size) & (size >= state.precision.largest)) | low


def _step(state: Evaluation, node: Apply, value: Array) -> Any:
    if np.asarray(value).dtype.kind not in "fc":
        return False
    pairs = [state.of(arg) for arg in node.args]
    if node.function == "where":
        _, doubt = pairs[0]
        sides = ~(np.isfinite(pairs[1][0]) & np.isfinite(pairs[2][0]))
        return False if doubt is None else np.asarray(doubt).astype(bool) & sides
    finite, certain, zero = np.asarray(True), np.asarray(True), np.asarray(False)
    for n, (part, error) in enumerate(pairs):
        finite = finite & np.isfinite(part)
        if error is not None:
            certain = certain & (np.asarray(error) == 0)
        if n and node.function == "div":
            zero = np.asarray(part) == 0
    born = ~np.isfinite(value) & finite
    overflown = born & np.isinf(value) & ~zero & (node.function not in ("log", "log2", "log10", "log1p"))
    unsettled = ~np.isfinite(value) & ~finite if np.iscomplexobj(value) else False
    return _outside(state, value) | overflown | (born & ~certain) | unsettled


def _fold(state: Evaluation, node: Reduce, value: Array) -> Any:
    """A sum may pass the largest number on its way to a small result, in another order or in this one."""
    terms, _ = state.of(node.body)
    if np.asarray(terms).dtype.kind not in "fc":
        return False
    axes = tuple(state.axes[k] for k in node.over if k in state.axes)
    size = np.where(np.isfinite(terms), np.abs(terms), 0.0)
    if node.kind == "product":
        size = np.maximum(size, 1.0)
    if np.ndim(size):
        kept = tuple(a for a in axes if size.shape[a] != 1)
        repeated = np.prod([state._extent(k) for k in node.over if size.shape[state.axes[k]] == 1])
        if node.kind == "product":
            whole = np.prod(size, axis=kept, keepdims=True) ** repeated
        else:
            whole = np.sum(size, axis=kept, keepdims=True) * repeated
    else:
        whole = size
    return (whole >= state.precision.largest) | _outside(state, value)


def onto(places: Any, kept: Sequence[int], shape: Sequence[int], rank: int) -> Any:
    """Marks over all axes of an evaluation, gathered over those that are not the output's."""
    marks = np.asarray(places)
    if marks.ndim == rank and rank:
        inner = tuple(a for a in range(rank) if a not in kept)
        marks = np.any(marks, axis=inner) if inner else marks
    return np.broadcast_to(marks, shape)
