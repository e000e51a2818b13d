"""Reductions over whole arrays: sums, extremes, scatters and running folds, each with its error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from openheart.formula.complex_rounding import PRODUCT
from openheart.formula.contract import contract, factors_of
from openheart.formula.expr import Expr, Index, Reduce
from openheart.formula.folds import FOLDS, Running, empty, folded, matches, running_of, scattered
from openheart.formula.functions import Array, Error
from openheart.formula.precision import DOUBLE_UNIT, gamma
from openheart.formula.rounding import gammas, integers, plus, settled, underflow, zero

if TYPE_CHECKING:
    from openheart.formula.evaluate import Evaluation


class NotSpaced(Exception):
    """Raised where numbers cannot be had at some places alone: what is next to them counts too."""


LARGE = 1 << 14
"""From this many products on, a sum of products is a matrix product."""


def reduce(state: Evaluation, node: Reduce) -> tuple[Array, Error]:
    """Value and error of a reduction, over the evaluation's axes."""
    if node.kind in FOLDS:
        found = matches(node, state.bindings)
        if found is not None:
            return scatter(state, node, *found)
        running = running_of(node, state.bindings)
        if running is not None:
            return run_along(state, node, running)
    if node.kind == "sum":
        return summed(state, node)
    done = state._reduced_by_loop(node)
    if done is not None:
        return done
    places = tuple(state.axes[k] for k in node.over)
    value, error = over(state, node.body, node.over)
    mask, doubt = (None, None) if node.where is None else over(state, node.where, node.over)
    unit = state.precision.unit
    if node.kind == "mean":
        n = math.prod(k.extent for k in node.over)
        with np.errstate(all="ignore"):
            average = np.sum(value, axis=places, keepdims=True) / n
            spread = np.sum(np.abs(value), axis=places, keepdims=True) / n
        own = (gamma(n - 1, unit + DOUBLE_UNIT) + 2 * unit) * spread
        if error is not None:
            with np.errstate(all="ignore"):
                own = own + np.sum(np.broadcast_to(error, value.shape), axis=places, keepdims=True) / n
        return average, settled(average, own)
    if node.kind == "product":
        if mask is not None:
            value = np.where(mask, value, 1)
            error = None if error is None else np.where(mask, error, 0.0)
        result = np.prod(value, axis=places, keepdims=True)
        if integers([value]) and error is None:
            return result, None
        n = terms_of(mask, places, math.prod(k.extent for k in node.over))
        wide = np.abs(value) + (0.0 if error is None else error)

        def multiplied(values: Array) -> Array:
            return np.prod(values, axis=places, keepdims=True)

        with np.errstate(all="ignore"):
            step = of_product(value, unit + DOUBLE_UNIT)
            own = multiplied(wide) * (1 + gammas(n, step)) - np.abs(result)
            return result, settled(result, own + underflow(wide, multiplied, n, state.precision))
    if node.kind in ("max", "min"):
        worst = -np.inf if node.kind == "max" else np.inf
        if mask is not None:
            worst = empty(node.kind, value)
            value = np.where(mask, value, worst)
            error = None if error is None else np.where(mask, error, 0.0)
        pick = np.max if node.kind == "max" else np.min
        if value.size == 0:  # the largest of nothing is −∞
            return np.full([1 if a in places else n for a, n in enumerate(value.shape)], worst), None
        result = pick(value, axis=places, keepdims=True)
        return result, None if error is None else np.max(
            np.broadcast_to(error, value.shape), axis=places, keepdims=True
        )
    if node.kind in ("any", "all"):
        truth = np.any if node.kind == "any" else np.all
        return truth(value, axis=places, keepdims=True), None
    if node.kind == "rank":
        assert mask is not None
        unsure = None if doubt is None else np.sum(doubt, axis=places, keepdims=True, dtype=np.float64)
        return np.sum(mask, axis=places, keepdims=True), unsure
    return first_extreme(node.kind, value, mask, places), None


def of_product(value: Array, unit: float) -> float:
    """How far one product may be off, relative to it."""
    return PRODUCT * unit if np.iscomplexobj(value) else unit


def terms_of(mask: Array, places: tuple[int, ...], size: int) -> Array:
    """How many terms a reduction has at each place."""
    return (
        np.asarray(size) if mask is None else np.count_nonzero(np.asarray(mask), axis=places, keepdims=True)
    )


def first_extreme(kind: str, value: Array, mask: Array | None, places: tuple[int, ...]) -> Array:
    """The row-major position of the first extreme element."""
    if mask is not None:
        value = np.where(mask, value, -np.inf if kind == "argmax" else np.inf)
    rank = value.ndim
    rest = [a for a in range(rank) if a not in places]
    flat = value.transpose(rest + list(places)).reshape(
        [value.shape[a] for a in rest] + [math.prod(value.shape[a] for a in places)]
    )
    if flat.shape[-1] == 0:  # of nothing there is no first: place 0, which nobody reads
        return np.zeros([1 if a in places else value.shape[a] for a in range(rank)], dtype=np.int64)
    found = np.argmax(flat, axis=-1) if kind == "argmax" else np.argmin(flat, axis=-1)
    shape = [1 if a in places else value.shape[a] for a in range(rank)]
    return found.reshape(shape)


def over(state: Evaluation, node: Expr, over: Sequence[Index]) -> tuple[Array, Error]:
    """A node spread over the reduced axes, which it may not depend on."""
    value, error = state._operand(node)
    shape = list(np.shape(value)) or [1] * len(state.axes)
    for k in over:
        shape[state.axes[k]] = state._extent(k)
    value = np.broadcast_to(value, shape)
    return value, None if error is None else np.broadcast_to(error, shape)


def summed(state: Evaluation, node: Reduce) -> tuple[Array, Error]:
    """A sum: as a matrix product where it is a large sum of products, as a compiled loop, or as arrays."""
    factors = factors_of(node.body)
    size = math.prod(state._extent(k) for k in node.body.free if k in state.axes)
    if len(factors) > 1 and size >= LARGE:
        pairs = [state._operand(f) for f in factors]
        mask: Array = None if node.where is None else state.of(node.where)[0]
        if mask is not None and np.ndim(mask) == 0:
            mask = np.broadcast_to(mask, [1] * len(state.axes))
        done = contract(
            pairs,
            mask,
            [state.axes[k] for k in node.over],
            [state._extent(k) for k in node.over],
            state.precision,
        )
        if done is not None:
            return done
    looped = state._reduced_by_loop(node)
    if looped is not None:
        return looped
    places = tuple(state.axes[k] for k in node.over)
    value, error = over(state, node.body, node.over)
    mask = None
    if node.where is not None:
        mask, doubt = over(state, node.where, node.over)
        unsure = None if doubt is None else np.where(doubt, np.abs(value), 0.0)
        value = np.where(mask, value, 0)
        error = plus(None if error is None else np.where(mask, error, 0.0), unsure)
    result = np.sum(value, axis=places, keepdims=True)
    if error is None and integers([value]):
        return result, None
    counts = terms_of(mask, places, math.prod(state._extent(k) for k in node.over))
    with np.errstate(all="ignore"):
        own = gammas(np.maximum(counts - 1, 0), state.precision.unit + DOUBLE_UNIT)
        own = own * np.sum(np.abs(value), axis=places, keepdims=True)
    if error is not None:
        own = own + np.sum(np.broadcast_to(error, value.shape), axis=places, keepdims=True)
    return result, settled(result, own)


def scatter(
    state: Evaluation, node: Reduce, pairs: list[tuple[Index, Expr]], rest: Expr | None
) -> tuple[Array, Error]:
    """Σ over matches, as one pass: each source element is added where its index says."""
    value, error = over(state, node.body, node.over)
    mask, doubtful = (None, None) if rest is None else over(state, rest, node.over)
    rank = len(state.axes)
    shape = [1] * rank
    targets = []
    doubts: list[tuple[Index, Array]] = []
    for out, place in pairs:
        where, doubt = over(state, place, node.over)
        targets.append((out, where))
        if doubt is not None and np.any(doubt):
            doubts.append((out, doubt))
    masks = () if mask is None else (mask.shape,)
    spread = np.broadcast_shapes(value.shape, *(w.shape for _, w in targets), *masks)
    kept = [a for a in range(rank) if a not in {state.axes[k] for k in node.over}]
    for a in kept:
        shape[a] = spread[a]
    possible = np.ones(spread, dtype=bool)
    grid = np.ogrid[tuple(slice(0, n) for n in spread)]
    at: list[Array] = [
        np.broadcast_to(grid[a], spread) if a in kept else np.zeros(spread, dtype=np.int64)
        for a in range(rank)
    ]
    for out, where in targets:
        axis = state.axes[out]
        bound = state.bindings.get(out)
        start, step = (bound.start, bound.step) if isinstance(bound, range) else (0, 1)
        extent = state._extent(out)
        shape[axis] = extent
        shifted = np.broadcast_to(where, spread).astype(np.int64) - start
        if step != 1:
            if doubts:
                raise NotSpaced
            possible &= shifted % step == 0
            shifted //= step
        possible &= (shifted >= 0) & (shifted < extent)
        at[axis] = shifted
    valid = possible if mask is None else possible & np.broadcast_to(mask, spread).astype(bool)
    flat = positions(at, valid, shape)
    size = math.prod(shape)

    def fold(kind: str, values: Array) -> Array:
        picked = np.broadcast_to(values, spread)[valid]
        return scattered(kind, picked, flat, size).reshape(shape)

    if np.iscomplexobj(value):
        result = fold("sum", value.real) + 1j * fold("sum", value.imag)
    else:
        result = fold(node.kind, value)
    unsure: Error = None
    if doubtful is not None and np.any(doubtful):
        maybe = possible & np.broadcast_to(doubtful, spread).astype(bool)
        weights = np.broadcast_to(np.abs(value), spread)[maybe]
        unsure = scattered("sum", weights, positions(at, maybe, shape), size).reshape(shape)
    for out, doubt in doubts:
        wide = np.broadcast_to(doubt, spread)
        unsure = plus(unsure, misplaced(np.abs(value), wide, at, valid, shape, state.axes[out]))
    if error is None and integers([value]):
        return result if node.kind in ("any", "all") else result.astype(np.int64), unsure
    counts = np.bincount(flat, minlength=size).reshape(shape)
    return result, plus(folded_error(state, node.kind, result, value, error, fold, counts), unsure)


def positions(at: Sequence[Array], valid: Array, shape: Sequence[int]) -> Array:
    """The row-major position of every place that is valid."""
    if not valid.any():
        return np.zeros(0, dtype=np.int64)
    return np.ravel_multi_index(tuple(a[valid] for a in at), shape)


def misplaced(
    size: Array, doubt: Array, at: Sequence[Array], valid: Array, shape: Sequence[int], axis: int
) -> Array:
    """What elements may add to a sum, or take from it, whose place along `axis` is known only to `doubt`."""
    weights, total = np.broadcast_to(size, valid.shape), math.prod(shape)
    made = np.zeros(total)
    for shift in range(-math.ceil(np.max(doubt)), math.ceil(np.max(doubt)) + 1):
        moved = list(at)
        moved[axis] = at[axis] + shift
        here = valid & (doubt > 0) & (doubt >= abs(shift)) & (moved[axis] >= 0) & (moved[axis] < shape[axis])
        made += np.bincount(positions(moved, here, shape), weights=weights[here], minlength=total)
    return made.reshape(shape)


def folded_error(
    state: Evaluation,
    kind: str,
    result: Array,
    value: Array,
    error: Error,
    fold: Callable[[str, Array], Array],
    counts: Array,
) -> Error:
    """How far a fold may lie from the exact one; `counts` says how many terms each place has."""
    if kind in ("rank", "any", "all"):
        return None
    unit = state.precision.unit + DOUBLE_UNIT
    with np.errstate(all="ignore"):
        if kind == "product":
            wide = np.abs(value) + zero(error)
            own = fold("product", wide) * (1 + gammas(counts, of_product(value, unit))) - np.abs(result)
            lost = underflow(wide, lambda v: fold("product", v), counts, state.precision)
            return settled(result, own + lost)
        if kind in ("max", "min"):
            return None if error is None else np.where(counts > 0, fold("max", error), 0.0)
        own = gammas(np.maximum(counts - 1, 0), unit) * fold("sum", np.abs(value))
        return settled(result, own if error is None else own + fold("sum", error))


def run_along(state: Evaluation, node: Reduce, running: Running) -> tuple[Array, Error]:
    """A reduction over all k up to each i, as one cumulative pass along k."""
    value, error = over(state, node.body, node.over)
    held: Array = np.ones(value.shape, dtype=np.int64)
    if running.rest is not None:
        mask, doubt = over(state, running.rest, node.over)
        if doubt is not None:
            error = plus(error, np.where(doubt, np.abs(value), 0.0))
        value = np.where(mask, value, empty(node.kind, value))
        error = None if error is None else np.where(mask, error, 0.0)
        held = np.broadcast_to(mask, value.shape).astype(np.int64)
    along, across = state.axes[running.k], state.axes[running.i]
    reach = running.reach(state._index(running.i).reshape(-1))

    def fold(kind: str, values: Array) -> Array:
        whole = folded(kind, np.broadcast_to(values, value.shape), along, running.backward)
        return np.take(whole, reach, axis=along).swapaxes(along, across)

    if node.kind == "rank":
        return fold("sum", held), None
    result = fold(node.kind, value)
    if error is None and integers([value]):
        return result, None
    return result, folded_error(state, node.kind, result, value, error, fold, fold("sum", held))
