"""Values of formulas, in float64, each with a bound on how far an honest computation may lie from it.

Every node becomes a pair of arrays over its own free indices: the value, and how far the same formula,
computed in the call's precision in any order of summation, may lie from it. A node is computed once and
shared, so a softmax's denominator costs one sum a row, however many elements ask for it.

Arrays have one axis for each unbound index variable of the whole formula, of size 1 where the node does
not depend on it; NumPy's broadcasting does the rest. Sums of products become matrix products
(`formula.contract`), sums over matches become scatters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openheart.formula import loops
from openheart.formula.contract import contract, factors_of
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
    Tensor,
    children,
    walk,
)
from openheart.formula.folds import FOLDS, Running, empty, folded, running_of, scattered
from openheart.formula.functions import ASIDE, COMPARISONS, COMPUTED_IN, FUNCTIONS, STEPS, ULPS, Array, Error
from openheart.formula.strided import strided
from openheart.formula.precision import DOUBLE_UNIT, FLOAT64, PRECISIONS, Precision, gamma

Binding = int | range
Fetch = Callable[[Tensor], Any]
LARGE = 1 << 14
"""From this many products on, a sum of products is a matrix product."""
COMPLEX = {"mul": math.sqrt(5.0), "div": 7.0, "pow": 4.0}
"""Rounding of a complex product, relative to it, in units (Brent, Percival, Zimmermann, *Error Bounds on Complex
Floating-Point Multiplication*, 2007). A quotient is a product with the conjugate, over the squared modulus (3),
in two divisions."""
TRUTHS = COMPARISONS | {"and", "or", "xor", "not", "bool", "where", "max", "min", "add", "mul"} | {
    "bitand", "bitor", "bitxor", "bitnot"
}
"""The functions that take truth values as they are; the others count them as 0 and 1."""
PEAK = 1 << 21
"""An evaluation is cut along its first index when an array of it would hold more elements than this."""


class NoLaw(Exception):
    """Raised when a formula reaches a leaf that no law makes (a random draw, unwritten memory)."""


@dataclass(slots=True)
class Evaluation:
    """One formula being evaluated: its index variables' axes, its tensors, and what is known so far."""

    fetch: Fetch
    precision: Precision
    bindings: Mapping[Index, Binding]
    axes: dict[Index, int] = field(default_factory=dict)
    memo: dict[int, tuple[Array, Error]] = field(default_factory=dict)
    definitions: dict[int, tuple[Array, Error]] = field(default_factory=dict)
    looped: bool = field(default_factory=loops.available)
    """Whether large pointwise parts and reductions run as compiled loops."""

    # -- nodes -------------------------------------------------------------------------------------

    def of(self, node: Expr) -> tuple[Array, Error]:
        """Value and error of a node; errors are None where the value is exact."""
        known = self.memo.get(id(node))
        if known is None:
            known = self.memo[id(node)] = self._compute(node)
        return known

    def _compute(self, node: Expr) -> tuple[Array, Error]:
        if isinstance(node, Number):
            return node.value, None
        if isinstance(node, Index):
            return self._index(node), None
        if isinstance(node, Ref):
            return self._ref(node)
        if isinstance(node, Apply):
            return self._apply(node)
        if isinstance(node, Named):
            return self.of(node.body)
        if isinstance(node, Reduce):
            return self._reduce(node)
        if isinstance(node, Leaf):
            raise NoLaw(node.kind)
        raise TypeError(f"not a formula: {node!r}")

    def _index(self, node: Index) -> Array:
        bound = self.bindings.get(node)
        if isinstance(bound, int):
            return bound
        span = range(node.extent) if bound is None else bound
        shape = [1] * len(self.axes)
        shape[self.axes[node]] = len(span)
        return np.arange(span.start, span.stop, dtype=np.int64).reshape(shape)

    # -- references --------------------------------------------------------------------------------

    def _ref(self, node: Ref) -> tuple[Array, Error]:
        if isinstance(node.tensor, Definition):
            value, error = self._defined(node.tensor)
            picked = self._pick(value, node.index)
            return picked, None if error is None else self._pick(error, node.index)
        raw = self.fetch(node.tensor)
        return _widen(self._pick(raw, node.index)), None

    def _pick(self, data: Array, index: Sequence[Expr]) -> Array:
        """Elements of `data` at the index expressions, laid over the evaluation's axes."""
        slices: list[Any] = []
        at_axis: list[int] = []
        for size, part in zip(data.shape, index, strict=True):
            if isinstance(part, Number):
                slices.append(min(max(int(part.value), 0), size - 1))  # type: ignore[arg-type]
            elif isinstance(part, Index):
                bound = self.bindings.get(part)
                if isinstance(bound, int):
                    slices.append(min(max(bound, 0), size - 1))
                    continue
                axis = self.axes[part]
                span = range(part.extent) if bound is None else bound
                if axis in at_axis or span.stop > size:
                    return self._gather(data, index)
                slices.append(slice(span.start, span.stop))
                at_axis.append(axis)
            else:
                return self._gather(data, index)
        picked = data[tuple(slices)]
        if not at_axis:
            return picked
        order = sorted(range(len(at_axis)), key=at_axis.__getitem__)
        if order != list(range(len(order))):
            picked = picked.transpose(order)
        shape = [1] * len(self.axes)
        for place, k in enumerate(order):
            shape[at_axis[k]] = picked.shape[place]
        return picked.reshape(shape)

    def _gather(self, data: Array, index: Sequence[Expr]) -> Array:
        view = strided(data, index, self.axes, self._span) if self.axes else None
        if view is not None:
            return view
        places = []
        for size, part in zip(data.shape, index, strict=True):
            place, _ = self.of(part)
            if np.ndim(place):
                # A place outside the tensor is only ever reached under a `where` that excludes it.
                places.append(np.clip(np.asarray(place, dtype=np.int64), 0, max(size - 1, 0)))
            else:
                places.append(min(max(int(place), 0), size - 1))
        if 0 in data.shape:
            shape = np.broadcast_shapes(*(np.shape(p) for p in places))
            return np.zeros(shape, dtype=data.dtype)
        return data[tuple(places)]

    def _span(self, i: Index) -> range | int:
        bound = self.bindings.get(i)
        return range(i.extent) if bound is None else bound

    def _defined(self, made: Definition) -> tuple[Array, Error]:
        known = self.definitions.get(id(made))
        if known is not None:
            return known
        if made.order == "any":
            result = evaluate(made.body, made.indices, self.fetch, self.precision, definitions=self.definitions)
            value, error = np.asarray(result[0]), np.asarray(result[1])
            known = value, error if np.any(error) else None  # integers that a law makes are indices: exact
        else:
            known = self._recur(made)
        self.definitions[id(made)] = known
        return known

    def _recur(self, made: Definition) -> tuple[Array, Error]:
        """Fill a recurrence in its order; each step sees the steps that are already there."""
        together = made.group or (made,)
        for member in together:
            self.definitions[id(member)] = np.zeros(member.shape), np.zeros(member.shape)
        order = range(made.shape[0])
        for t in order if made.order == "forward" else reversed(order):
            for member in together:
                first, *others = member.indices
                value, error = self.definitions[id(member)]
                value[t], error[t] = evaluate(
                    member.body, tuple(others), self.fetch, self.precision, {first: t}, definitions=self.definitions
                )
        return self.definitions[id(made)]

    # -- pointwise ---------------------------------------------------------------------------------

    def _operand(self, node: Expr) -> tuple[Array, Error]:
        """A node's value and error, where a double constant is rounded to the call's precision."""
        value, error = self.of(node)
        if type(value) is float and error is None and self.precision.unit > DOUBLE_UNIT:
            if math.isfinite(value) and abs(value) < self.precision.largest and not self.precision.holds(value):
                error = self.precision.unit * abs(value)
        return value, error

    def _apply(self, node: Apply) -> tuple[Array, Error]:
        name = node.function
        if name in COMPUTED_IN:
            return self._within(node.args[0], COMPUTED_IN[name])
        if name in ASIDE:
            return self._accumulated(node.args[0]) if name == "accumulated" else self._fast(name, node.args[0])
        if self.looped and self._size(node.free) >= loops.LOOPS:
            done = self._loop(node, node.free, ())
            if done is not None:
                return done
        if name == "where":
            return self._where(node)
        row = FUNCTIONS[name]
        pairs = [self.of(arg) for arg in node.args]
        # Constants are worked out in double; what depends on a place is not, even where the place is known.
        if not node.free and all(type(v) in (int, float, bool, complex) and e is None for v, e in pairs):
            with np.errstate(all="ignore"):
                return _plain(row.compute(*(v for v, _ in pairs))), None
        pairs = [self._operand(arg) for arg in node.args]
        values = [v for v, _ in pairs]
        errors = [e for _, e in pairs]
        with np.errstate(all="ignore"):
            if name not in TRUTHS:
                values = [v.astype(np.int64) if getattr(v, "dtype", None) == bool else v for v in values]
            value = row.compute(*values)
            if name == "float":
                return value, _plus(errors[0], _inexact(value, values[0], self.precision))
            if row.exact or (name in ("add", "sub", "mul", "pow") and _integers(values)):
                if all(e is None for e in errors):
                    return value, None
                return value, _exact_error(name, value, values, errors)
            return value, _settled(value, _rounded_error(name, value, values, errors, self.precision))

    def _fast(self, name: str, node: Expr) -> tuple[Array, Error]:
        """20 units in the last place are 40 roundings; those of the function itself are counted already."""
        value, error = self.of(node)
        own = 2.0**-13 if name == "cubic" else (40 - ULPS) * self.precision.unit
        return value, _plus(error, own * np.abs(value))

    def _accumulated(self, node: Expr) -> tuple[Array, Error]:
        """A number onto which a sum is added term by term: it may be rounded as often as there are terms."""
        value, error = self.of(node)
        if not (isinstance(node, Apply) and node.function == "add" and len(node.args) == 2):
            return value, error
        start, terms = node.args
        while not isinstance(terms, Reduce):
            if not isinstance(terms, (Named, Apply)):
                return value, error
            terms = terms.body if isinstance(terms, Named) else terms.args[-1]
        size = np.abs(self.of(start)[0])
        if error is None:
            return value, None
        return value, _settled(value, error + self.precision.unit * np.maximum(self._terms(terms) - 1, 0) * size)

    def _terms(self, node: Reduce) -> Array:
        """How many terms a sum has, at each place; for a large window no more than its whole size."""
        whole = math.prod(self._extent(k) for k in node.over)
        if node.where is None:
            return whole
        counted = Reduce("rank", node.over, Number(1), node.where)
        quick = _matches(counted, self.bindings) is not None or running_of(counted, self.bindings) is not None
        if not quick and self._size(node.where.free) > PEAK:
            return whole
        return self._reduce(counted)[0]

    def _within(self, node: Expr, inner: Precision) -> tuple[Array, Error]:
        """A part computed in a precision of its own, then rounded to the one around it where that is coarser."""
        outer, memo = self.precision, self.memo
        if outer is inner:
            return self.of(node)
        self.precision, self.memo = inner, {}
        try:
            value, error = self._operand(node)
        finally:
            self.precision, self.memo = outer, memo
        if outer.unit > inner.unit:
            size = np.abs(value)
            error = _plus(error, np.where(size == 0, 0.0, outer.unit * size + outer.tiny * outer.unit))
        return value, error

    def _where(self, node: Apply) -> tuple[Array, Error]:
        condition, doubt = self.of(node.args[0])
        if np.ndim(condition) == 0 and not np.any(doubt):
            return self.of(node.args[1] if condition else node.args[2])
        (a, ea), (b, eb) = self._operand(node.args[1]), self._operand(node.args[2])
        value = np.where(condition, a, b)
        error: Error = None
        if ea is not None or eb is not None:
            error = np.where(condition, 0.0 if ea is None else ea, 0.0 if eb is None else eb)
        if doubt is not None:
            with np.errstate(all="ignore"):
                spread = np.abs(np.asarray(a, dtype=np.float64) - b)
            error = _plus(error, np.where(doubt, np.where(np.isnan(spread), 0.0, spread), 0.0))
        return value, error

    # -- compiled loops ----------------------------------------------------------------------------

    def _size(self, indices: Iterable[Index]) -> int:
        return math.prod(self._extent(i) for i in indices)

    def writer(self) -> loops.Writer:
        """A writer of loops whose deeper reductions are this evaluation's."""
        return loops.Writer(self.fetch, self.of, self.axes, self.precision.unit > DOUBLE_UNIT)

    def spans(self, indices: Iterable[Index]) -> list[range]:
        found = []
        for i in indices:
            span = self._span(i)
            found.append(span if isinstance(span, range) else range(i.extent))
        return found

    def _reduced_by_loop(self, node: Reduce) -> tuple[Array, Error] | None:
        if not self.looped or node.kind not in ("sum", "mean", "max", "min"):
            return None
        if self._size(node.free | frozenset(node.over)) < loops.LOOPS:
            return None
        return self._loop(node, node.free, node.over)

    def _loop(self, node: Expr, free: frozenset[Index], over: Sequence[Index]) -> tuple[Array, Error] | None:
        """The node by a compiled loop over its free indices; None when it has no loop form."""
        if any(isinstance(self.bindings.get(i), int) for i in (*free, *over)) or any(
            isinstance(self.bindings.get(i), int) for part in walk(node) for i in part.free
        ):
            return None
        outer = sorted((i for i in free), key=self.axes.__getitem__)
        writer = self.writer()
        try:
            if isinstance(node, Reduce):
                source = loops.reduction_source(writer, node, outer)
            else:
                source = loops.pointwise_source(writer, node, outer)
        except loops.NotCompiled:
            return None
        size = self._size(outer)
        value, error = np.empty(size), np.empty(size)
        given = loops.arguments(writer, self.spans((*outer, *over)), self.precision.unit + DOUBLE_UNIT, self.precision.tiny)
        loops.compiled(source)(*given, value, error)
        shape = [1] * len(self.axes)
        for i in outer:
            shape[self.axes[i]] = self._extent(i)
        return value.reshape(shape), error.reshape(shape)

    # -- reductions --------------------------------------------------------------------------------

    def _reduce(self, node: Reduce) -> tuple[Array, Error]:
        if node.kind in FOLDS:
            matches = _matches(node, self.bindings)
            if matches is not None:
                return self._scatter(node, *matches)
            running = running_of(node, self.bindings)
            if running is not None:
                return self._running(node, running)
        if node.kind == "sum":
            return self._sum(node)
        done = self._reduced_by_loop(node)
        if done is not None:
            return done
        places = tuple(self.axes[k] for k in node.over)
        value, error = self._over(node.body, node.over)
        mask, _ = (None, None) if node.where is None else self._over(node.where, node.over)
        unit = self.precision.unit
        if node.kind == "mean":
            n = math.prod(k.extent for k in node.over)
            with np.errstate(all="ignore"):
                average = np.sum(value, axis=places, keepdims=True) / n
                spread = np.sum(np.abs(value), axis=places, keepdims=True) / n
            own = (gamma(n - 1, unit + DOUBLE_UNIT) + 2 * unit) * spread
            if error is not None:
                with np.errstate(all="ignore"):
                    own = own + np.sum(np.broadcast_to(error, value.shape), axis=places, keepdims=True) / n
            return average, own
        if node.kind == "product":
            if mask is not None:
                value = np.where(mask, value, 1)
            result = np.prod(value, axis=places, keepdims=True)
            if _integers([value]) and error is None:
                return result, None
            n = math.prod(k.extent for k in node.over)
            if mask is not None:
                n = int(np.max(np.sum(mask, axis=places), initial=0))
            wide = np.abs(value) + (0.0 if error is None else error)

            def fold(values: Array) -> Array:
                return np.prod(values, axis=places, keepdims=True)

            with np.errstate(all="ignore"):
                own = fold(wide) * (1 + gamma(n, unit + DOUBLE_UNIT)) - np.abs(result)
                return result, _settled(result, own + _underflow(wide, fold, n, self.precision))
        if node.kind in ("max", "min"):
            worst = -np.inf if node.kind == "max" else np.inf
            if mask is not None:
                worst = worst if np.asarray(value).dtype.kind == "f" else _extreme(value, node.kind)
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
            fold = np.any if node.kind == "any" else np.all
            return fold(value, axis=places, keepdims=True), None
        if node.kind == "rank":
            assert mask is not None
            return np.sum(mask, axis=places, keepdims=True), None
        return self._first_extreme(node.kind, value, mask, places), None

    def _first_extreme(self, kind: str, value: Array, mask: Array | None, places: tuple[int, ...]) -> Array:
        if mask is not None:
            value = np.where(mask, value, -np.inf if kind == "argmax" else np.inf)
        rank = value.ndim
        rest = [a for a in range(rank) if a not in places]
        flat = value.transpose(rest + list(places)).reshape([value.shape[a] for a in rest] + [-1])
        found = np.argmax(flat, axis=-1) if kind == "argmax" else np.argmin(flat, axis=-1)
        shape = [1 if a in places else value.shape[a] for a in range(rank)]
        return found.reshape(shape)

    def _over(self, node: Expr, over: Sequence[Index]) -> tuple[Array, Error]:
        """A node spread over the reduced axes, which it may not depend on."""
        value, error = self.of(node)
        shape = list(np.shape(value)) or [1] * len(self.axes)
        for k in over:
            shape[self.axes[k]] = self._extent(k)
        value = np.broadcast_to(value, shape)
        return value, None if error is None else np.broadcast_to(error, shape)

    def _extent(self, k: Index) -> int:
        bound = self.bindings.get(k)
        return k.extent if bound is None else 1 if isinstance(bound, int) else len(bound)

    def _sum(self, node: Reduce) -> tuple[Array, Error]:
        factors = factors_of(node.body)
        size = math.prod(self._extent(k) for k in node.body.free if k in self.axes)
        if len(factors) > 1 and size >= LARGE:
            pairs = [self._operand(f) for f in factors]
            mask = None if node.where is None else self.of(node.where)[0]
            if mask is not None and np.ndim(mask) == 0:
                mask = np.broadcast_to(mask, [1] * len(self.axes))
            done = contract(pairs, mask, [self.axes[k] for k in node.over], [self._extent(k) for k in node.over], self.precision)
            if done is not None:
                return done
        looped = self._reduced_by_loop(node)
        if looped is not None:
            return looped
        places = tuple(self.axes[k] for k in node.over)
        value, error = self._over(node.body, node.over)
        if node.where is not None:
            mask, doubt = self._over(node.where, node.over)
            if doubt is not None:
                error = _plus(error, np.where(doubt, np.abs(value), 0.0))
            value = np.where(mask, value, 0)
            error = None if error is None else np.where(mask, error, 0.0)
        result = np.sum(value, axis=places, keepdims=True)
        if error is None and _integers([value]):
            return result, None
        n = math.prod(self._extent(k) for k in node.over)
        if node.where is not None:
            n = int(np.max(np.sum(mask, axis=places), initial=1))
        with np.errstate(all="ignore"):
            own = gamma(n - 1, self.precision.unit + DOUBLE_UNIT) * np.sum(np.abs(value), axis=places, keepdims=True)
        if error is not None:
            own = own + np.sum(np.broadcast_to(error, value.shape), axis=places, keepdims=True)
        return result, _settled(result, own)

    def _scatter(self, node: Reduce, pairs: list[tuple[Index, Expr]], rest: Expr | None) -> tuple[Array, Error]:
        """Σ over matches, as one pass: each source element is added where its index says."""
        value, error = self._over(node.body, node.over)
        mask = None if rest is None else self._over(rest, node.over)[0]
        rank = len(self.axes)
        shape = [1] * rank
        targets = []
        for out, place in pairs:
            where, _ = self._over(place, node.over)
            targets.append((out, where))
        spread = np.broadcast_shapes(value.shape, *(w.shape for _, w in targets))
        kept = [a for a in range(rank) if a not in {self.axes[k] for k in node.over}]
        for a in kept:
            shape[a] = spread[a]
        valid = np.ones(spread, dtype=bool) if mask is None else np.broadcast_to(mask, spread).astype(bool)
        grid = np.ogrid[tuple(slice(0, n) for n in spread)]
        at: list[Array] = [np.broadcast_to(grid[a], spread) if a in kept else np.zeros(spread, dtype=np.int64) for a in range(rank)]
        for out, where in targets:
            axis = self.axes[out]
            bound = self.bindings.get(out)
            start = bound.start if isinstance(bound, range) else 0
            extent = self._extent(out)
            shape[axis] = extent
            shifted = np.broadcast_to(where, spread).astype(np.int64) - start
            valid &= (shifted >= 0) & (shifted < extent)
            at[axis] = shifted
        chosen = tuple(a[valid] for a in at)
        flat = np.ravel_multi_index(chosen, shape) if chosen and valid.any() else np.zeros(0, dtype=np.int64)
        size = math.prod(shape)

        def fold(kind: str, values: Array) -> Array:
            picked = np.broadcast_to(values, spread)[valid]
            return scattered(kind, picked, flat, size).reshape(shape)

        if np.iscomplexobj(value):
            result = fold("sum", value.real) + 1j * fold("sum", value.imag)
        else:
            result = fold(node.kind, value)
        if error is None and _integers([value]):
            return result if node.kind in ("any", "all") else result.astype(np.int64), None
        counts = np.bincount(flat, minlength=size).reshape(shape)
        return result, self._folded_error(node.kind, result, value, error, fold, counts)

    def _folded_error(
        self, kind: str, result: Array, value: Array, error: Error, fold: Callable[[str, Array], Array], counts: Array
    ) -> Error:
        """How far a fold may lie from the exact one; `counts` says how many terms each place has."""
        if kind in ("rank", "any", "all"):
            return None
        unit = self.precision.unit + DOUBLE_UNIT
        with np.errstate(all="ignore"):
            if kind == "product":
                wide = np.abs(value) + _zero(error)
                own = fold("product", wide) * (1 + _gammas(counts, unit)) - np.abs(result)
                lost = _underflow(wide, lambda v: fold("product", v), counts, self.precision)
                return _settled(result, own + lost)
            if kind in ("max", "min"):
                return None if error is None else np.where(counts > 0, fold("max", error), 0.0)
            own = _gammas(np.maximum(counts - 1, 0), unit) * fold("sum", np.abs(value))
            return _settled(result, own if error is None else own + fold("sum", error))

    def _running(self, node: Reduce, running: Running) -> tuple[Array, Error]:
        """A reduction over all k up to each i, as one cumulative pass along k."""
        value, error = self._over(node.body, node.over)
        held: Array = np.ones(value.shape, dtype=np.int64)
        if running.rest is not None:
            mask, doubt = self._over(running.rest, node.over)
            if doubt is not None:
                error = _plus(error, np.where(doubt, np.abs(value), 0.0))
            value = np.where(mask, value, empty(node.kind, value))
            error = None if error is None else np.where(mask, error, 0.0)
            held = np.broadcast_to(mask, value.shape).astype(np.int64)
        along, across = self.axes[running.k], self.axes[running.i]
        reach = running.reach(self._index(running.i).reshape(-1))

        def fold(kind: str, values: Array) -> Array:
            whole = folded(kind, np.broadcast_to(values, value.shape), along, running.backward)
            return np.take(whole, reach, axis=along).swapaxes(along, across)

        if node.kind == "rank":
            return fold("sum", held), None
        result = fold(node.kind, value)
        if error is None and _integers([value]):
            return result, None
        return result, self._folded_error(node.kind, result, value, error, fold, fold("sum", held))


def evaluate(
    node: Expr,
    indices: Sequence[Index],
    fetch: Fetch,
    precision: Precision,
    bindings: Mapping[Index, Binding] | None = None,
    definitions: dict[int, tuple[Array, Error]] | None = None,
) -> tuple[Array, Array]:
    """Value and rounding bound of a formula, over the indices that `bindings` does not fix to an integer.

    **Arguments**: `fetch` gives a symbolic tensor's numbers as a NumPy array; `precision` is that in
    which the recorded number was computed. `bindings` fixes an index to an integer, or to a range.

    **Returns** two float64 (int64, bool, complex128) arrays of one shape: the extents of the unbound
    indices, in order; plain scalars when all are bound.

    **Raises** `NoLaw` when the formula reaches a leaf that no law makes.
    """
    state = prepared(node, indices, fetch, precision, bindings, definitions)
    value, error = state.of(node)
    shape = [state._extent(i) for i in indices if not isinstance(state.bindings.get(i), int)]
    rank = len(state.axes)
    return _settle(value, shape, rank), _settle(0.0 if error is None else error, shape, rank)


def prepared(
    node: Expr,
    indices: Sequence[Index],
    fetch: Fetch,
    precision: Precision,
    bindings: Mapping[Index, Binding] | None = None,
    definitions: dict[int, tuple[Array, Error]] | None = None,
) -> Evaluation:
    """An evaluation of `node` with its axes laid, nothing computed yet."""
    bindings = {} if bindings is None else bindings
    axes = {i: a for a, i in enumerate(i for i in indices if not isinstance(bindings.get(i), int))}
    for k in _bound_inside(node):
        axes.setdefault(k, len(axes))
    return Evaluation(fetch, precision, bindings, axes, definitions={} if definitions is None else definitions)


def gather(node: Ref, indices: Sequence[Index], fetch: Fetch) -> Array:
    """The elements that a reference reads over all of `indices`, in the tensor's own dtype."""
    assert isinstance(node.tensor, Tensor)
    state = prepared(node, indices, fetch, FLOAT64)
    picked = state._pick(fetch(node.tensor), node.index)
    return _settle(picked, [i.extent for i in indices], len(state.axes))


def _settle(value: Array, shape: list[int], rank: int) -> Array:
    value = np.asarray(value)
    if value.dtype == object:
        value = value.astype(np.float64)
    if value.ndim == rank and rank:
        value = value.reshape(value.shape[: len(shape)])
    return np.broadcast_to(value, shape) if shape else value.reshape(())[()]


def evaluate_all(
    node: Expr, indices: Sequence[Index], fetch: Fetch, precision: Precision, peak: int = PEAK
) -> tuple[Array, Array]:
    """`evaluate` over every index, cut along the first one when its arrays would grow too large."""
    known: dict[int, tuple[Array, Error]] = {}
    parts = cut(node, indices, peak)
    if len(parts) == 1:
        return evaluate(node, indices, fetch, precision, parts[0], known)
    done = [evaluate(node, indices, fetch, precision, part, known) for part in parts]
    axis = next(a for a, i in enumerate(indices) if i in parts[0])
    return (
        np.concatenate([v for v, _ in done], axis=axis),
        np.concatenate([e for _, e in done], axis=axis),
    )


def cut(node: Expr, indices: Sequence[Index], peak: int = PEAK) -> list[dict[Index, Binding]]:
    """Bindings that split an evaluation along one index, so that no array holds more than `peak` elements."""
    return _pieces(indices, _widest(node), peak)


def _pieces(indices: Sequence[Index], widest: list[frozenset[Index]], peak: int) -> list[dict[Index, Binding]]:
    def largest(cut: Index | None, pieces: int) -> float:
        return max(
            (math.prod(max(1, -(-i.extent // pieces)) if i is cut else i.extent for i in w) for w in widest),
            default=1,
        )

    whole = largest(None, 1)
    candidates = [i for i in indices if i.extent > 1]
    if whole <= peak or not candidates:
        return [{}]
    cut = min(candidates, key=lambda i: (largest(i, i.extent), -i.extent))
    pieces = min(cut.extent, math.ceil(whole / peak))
    step = -(-cut.extent // pieces)
    return [{cut: range(a, min(a + step, cut.extent))} for a in range(0, cut.extent, step)]


def _widest(node: Expr) -> list[frozenset[Index]]:
    """The index sets over which arrays will be made, sums of products counted by their factors."""
    found: list[frozenset[Index]] = []
    seen: set[int] = set()
    stack = [node]
    while stack:
        here = stack.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        found.append(here.free)
        if isinstance(here, Reduce) and here.kind == "sum":
            factors = factors_of(here.body)
            if len(factors) == 1:
                found.append(here.body.free)
            stack.extend(factors)
            if here.where is not None:
                stack.append(here.where)
        else:
            stack.extend(children(here))
    return found


def _bound_inside(node: Expr) -> list[Index]:
    """The index variables that reductions under `node` bind, in the order in which they are met."""
    found: list[Index] = []
    seen: set[int] = set()
    stack = [node]
    while stack:
        here = stack.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if isinstance(here, Reduce):
            found.extend(here.over)
        stack.extend(reversed(children(here)))
    return found


def _matches(
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


def _gammas(counts: Array, unit: float) -> Array:
    """γₙ as `gamma` gives it, place by place."""
    nu = counts * unit
    return np.where(nu < 0.5, nu / (1.0 - nu), nu)


def _widen(value: Array) -> Array:
    kind = value.dtype.kind
    if kind == "f":
        with np.errstate(invalid="ignore"):  # memory that nobody wrote may hold signalling NaNs
            return value.astype(np.float64)
    if kind == "c":
        return value.astype(np.complex128)
    if kind in "iu":
        return value.astype(np.int64)
    return value


def _plain(value: Array) -> Array:
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0 else value


def _integers(values: Sequence[Array]) -> bool:
    return all(np.asarray(v).dtype.kind in "iub" for v in values)


def _extreme(value: Array, kind: str) -> int:
    info = np.iinfo(np.int64)
    return int(info.min if kind == "max" else info.max)


def _settled(value: Array, error: Error) -> Error:
    """An infinite result is exact (−∞ from a mask); an error nobody can state is infinite."""
    if error is None or np.isfinite(np.max(error, initial=0.0)):
        return error
    return np.where(np.isfinite(value), np.where(np.isnan(error), np.inf, error), 0.0)


def _underflow(wide: Array, fold: Callable[[Array], Array], n: Array, precision: Precision) -> Array:
    """What a product may lose where a part of it falls below the smallest normal number."""
    most = n * precision.tiny * fold(np.maximum(wide, 1.0))
    return np.where(fold(np.minimum(wide, 1.0)) < precision.tiny, most, 0.0)


def _plus(a: Error, b: Error) -> Error:
    return b if a is None else a if b is None else a + b


def _zero(error: Error) -> Array:
    return 0.0 if error is None else error


def _inexact(value: Array, source: Array, precision: Precision) -> Error:
    """The rounding of whole numbers that the precision cannot hold."""
    if precision.unit <= DOUBLE_UNIT or not _integers([source]):
        return None
    size = np.abs(value)
    held = size * precision.unit < 0.5  # below 2ᵖ every whole number is there
    return None if np.all(held) else np.where(held, 0.0, precision.unit * size)


def _exact_error(name: str, value: Array, values: list[Array], errors: list[Error]) -> Error:
    """How errors pass through a function that adds none of its own."""
    if name in COMPARISONS:
        gap = np.abs(np.asarray(values[0], dtype=np.float64) - values[1])
        doubt = gap <= sum(_zero(e) for e in errors)
        return doubt if np.any(doubt) else None
    if name in ("and", "or", "xor", "not", "isnan", "isinf", "bool"):
        doubt = np.asarray(False)
        for e in errors:
            if e is not None:
                doubt = doubt | (np.asarray(e) != 0)
        return doubt if np.any(doubt) else None
    if name in STEPS and name != "floordiv":
        row = FUNCTIONS[name].compute
        high, low = row(values[0] + errors[0]), row(values[0] - errors[0])
        return np.maximum(np.abs(high - value), np.abs(low - value))
    if name == "floordiv":
        return np.ones_like(np.asarray(value, dtype=np.float64))
    if name == "mod":
        return _zero(errors[0]) + np.abs(value) * 0
    if name in ("max", "min"):
        return np.maximum(_zero(errors[0]), _zero(errors[1]))
    if name == "complex":
        return _zero(errors[0]) + _zero(errors[1])
    return sum((_zero(e) for e in errors), start=np.zeros(()))


def _rounded_error(
    name: str, value: Array, values: list[Array], errors: list[Error], precision: Precision
) -> Error:
    """How errors pass through a rounded function, plus the rounding of its own result."""
    unit, tiny = precision.unit + DOUBLE_UNIT, precision.tiny
    size = np.abs(value)
    if np.iscomplexobj(value):
        unit *= COMPLEX.get(name, 1.0)
    if name in ("add", "sub"):
        own = unit * size
        for e in errors:
            own = _plus(own, e)
        return own
    if name == "mul":
        own = unit * size + tiny
        (a, b), (ea, eb) = values, errors
        if ea is not None:
            own = own + np.abs(b) * ea
        if eb is not None:
            own = own + np.abs(a) * eb
        if ea is not None and eb is not None:
            own = own + ea * eb
        return own
    if name == "div":
        own = unit * size + tiny
        (_, b), (ea, eb) = values, errors
        if ea is None and eb is None:
            return own
        least = np.abs(b) - _zero(eb)
        spread = (_zero(ea) + size * _zero(eb)) / np.where(least > 0, least, 0.0)
        return own + np.where(np.isnan(spread), 0.0, spread)
    if name == "pow":
        return _power_error(size, values, errors, ULPS * unit, tiny)
    if name == "hypot":
        return _plus(_plus(ULPS * unit * size + tiny, errors[0]), errors[1])
    if name == "atan2":
        passed = sum(_zero(e) for e in errors)
        return ULPS * unit * size + tiny + np.where(passed == 0, 0.0, passed / np.hypot(*values))
    row, x = FUNCTIONS[name], values[-1]
    ulps = 2.0 if name == "sqrt" else row.ulps  # of MKL: within one unit in the last place (0.75 measured)
    own = (ulps * unit * size if row.own is None else row.own(x, size, unit)) + tiny
    error = errors[-1]
    if error is None:
        return own
    if row.slope is None:  # monotone between its poles: the ends of the interval are its extremes
        high, low = row.compute(*values[:-1], x + error), row.compute(*values[:-1], x - error)
        return own + np.maximum(np.abs(high - value), np.abs(low - value))
    passed = row.slope(x, error) * error
    if name == "sqrt":
        passed = np.minimum(np.where(np.isnan(passed), np.inf, passed), np.sqrt(error))
    return own + np.where(error == 0, 0.0, passed)


def _power_error(size: Array, values: list[Array], errors: list[Error], unit: float, tiny: float) -> Error:
    (a, b), (ea, eb) = values, errors
    own = unit * size + tiny
    if ea is not None:
        edge = np.where(np.asarray(b) >= 1, np.abs(a) + ea, np.maximum(np.abs(a) - ea, 0.0))
        passed = np.abs(b) * edge ** (np.asarray(b) - 1.0) * ea
        own = own + np.where(ea == 0, 0.0, passed)
    if eb is not None:
        own = own + size * np.abs(np.log(np.abs(a))) * eb
    return own
