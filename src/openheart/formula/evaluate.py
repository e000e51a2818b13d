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
from openheart.formula.cutting import PEAK, cut
from openheart.formula.expr import (
    Apply,
    Binding,
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
from openheart.formula.folds import matches, running_of
from openheart.formula.functions import (
    ASIDE,
    COMPARISONS,
    COMPUTED_IN,
    FUNCTIONS,
    INTEGERS,
    OF_BITS,
    ULPS,
    Array,
    Error,
)
from openheart.formula.precision import DOUBLE_UNIT, FLOAT16, FLOAT64, Precision
from openheart.formula.reduce import reduce
from openheart.formula.rounding import exact_error, inexact, integers, plus, rounded_error, settled, wide_type
from openheart.formula.strain import Strain, onto
from openheart.formula.strided import strided

Fetch = Callable[[Tensor], Any]
TRUTHS = (
    COMPARISONS
    | {"and", "or", "xor", "not", "bool", "where", "max", "min", "add", "mul"}
    | {"bitand", "bitor", "bitxor", "bitnot"}
)
"""The functions that take truth values as they are; the others count them as 0 and 1."""


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
    strain: Strain | None = None
    """Watches each node, where it is asked whether a number that is not finite had to be so."""

    # -- nodes -------------------------------------------------------------------------------------

    def of(self, node: Expr) -> tuple[Array, Error]:
        """Value and error of a node; errors are None where the value is exact."""
        known = self.memo.get(id(node))
        if known is None:
            known = self.memo[id(node)] = self._compute(node)
            if self.strain is not None:
                self.strain.seen(self, node, known[0])
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
            hidden = [k for k in node.over if isinstance(self.bindings.get(k), int)]
            return self._shadowed(node, hidden) if hidden else reduce(self, node)
        if isinstance(node, Leaf):
            raise NoLaw(node.kind)
        raise TypeError(f"not a formula: {node!r}")

    def _shadowed(self, node: Reduce, hidden: Sequence[Index]) -> tuple[Array, Error]:
        """A reduction over an index variable that is fixed outside: inside, it runs over its range again."""
        outer = {i: b for i, b in self.bindings.items() if all(i is not k for k in hidden)}
        free = sorted((i for i in node.free if i in self.axes), key=self.axes.__getitem__)
        value, error = evaluate(node, free, self.fetch, self.precision, outer, self.definitions)
        shape = [1] * len(self.axes)
        for i in free:
            shape[self.axes[i]] = self._extent(i)
        return np.reshape(value, shape), np.reshape(error, shape) if np.any(error) else None

    def _index(self, node: Index) -> Array:
        bound = self.bindings.get(node)
        if isinstance(bound, int):
            return bound
        span = range(node.extent) if bound is None else bound
        shape = [1] * len(self.axes)
        shape[self.axes[node]] = len(span)
        return np.arange(span.start, span.stop, span.step, dtype=np.int64).reshape(shape)

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
        if data.size == 0:  # read only in a branch that is not taken, or at no place at all
            return self._gather(data, index)
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
                slices.append(slice(span.start, span.stop, span.step))
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
        places: list[Any] = []
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
            result = evaluate(
                made.body, made.indices, self.fetch, self.precision, definitions=self.definitions
            )
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
                    member.body,
                    tuple(others),
                    self.fetch,
                    self.precision,
                    {first: t},
                    definitions=self.definitions,
                )
        return self.definitions[id(made)]

    # -- pointwise ---------------------------------------------------------------------------------

    def _operand(self, node: Expr) -> tuple[Array, Error]:
        """A node's value and error, where a double constant is rounded to the call's precision."""
        value, error = self.of(node)
        rounds = type(value) is float and error is None and self.precision.unit > DOUBLE_UNIT
        if rounds and abs(value) < self.precision.largest and not self.precision.holds(value):
            error = self.precision.unit * abs(value)
        return value, error

    def _apply(self, node: Apply) -> tuple[Array, Error]:
        name = node.function
        if name in COMPUTED_IN:
            return self._within(node.args[0], COMPUTED_IN[name])
        if name in ASIDE:
            if name in INTEGERS:
                return self._fitting(node.args[0], INTEGERS[name])
            return (
                self._accumulated(node.args[0]) if name == "accumulated" else self._fast(name, node.args[0])
            )
        if self.looped and self._size(node.free) >= loops.LOOPS:
            done = self._loop(node, node.free, ())
            if done is not None:
                return done
        if name == "where":
            return self._where(node)
        row = FUNCTIONS[name]
        read = node.args[0]
        if name in OF_BITS and isinstance(read, Ref) and isinstance(read.tensor, Tensor):
            return row.compute(self._pick(self.fetch(read.tensor), read.index)), None
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
                values = [v.astype(np.int64) if getattr(v, "dtype", None) == np.bool_ else v for v in values]
            value = row.compute(*values)
            if name == "float":
                return value, plus(errors[0], inexact(value, values[0], self.precision))
            if row.exact or (name in ("add", "sub", "mul", "pow") and integers(values)):
                if all(e is None for e in errors):
                    return value, None
                return value, exact_error(name, value, values, errors)
            error = settled(value, rounded_error(name, value, values, errors, self.precision))
            return self._overrun(value, error) if self.precision is FLOAT16 else (value, error)

    def _overrun(self, value: Array, error: Error) -> tuple[Array, Error]:
        """A step of a formula that is rounded to float16 as it is made: beyond its largest number, ∞."""
        most = self.precision.largest * (1 + self.precision.unit)
        size, around = np.abs(value), 0.0 if error is None else error
        if np.iscomplexobj(value) or not np.any(size + around > most):
            return value, error
        over = np.isfinite(value) & (size - around > most)
        unsure = np.isfinite(value) & ~over & (size + around > most)
        made = np.where(over, np.copysign(np.inf, value), value)
        return made, np.where(over, 0.0, np.where(unsure, np.inf, around))

    def _fast(self, name: str, node: Expr) -> tuple[Array, Error]:
        """20 units in the last place are 40 roundings; those of the function itself are counted already."""
        value, error = self.of(node)
        own = 2.0**-13 if name == "cubic" else (40 - ULPS) * self.precision.unit
        return value, settled(value, plus(error, own * np.abs(value)))

    def _fitting(self, node: Expr, limits: Any) -> tuple[Array, Error]:
        """A number cut to a whole one; in C one that does not fit into the type may become any number."""
        value, error = self.of(node)
        if not (isinstance(node, Apply) and node.function == "int"):
            return value, error
        (given, _) = self.of(node.args[0])
        with np.errstate(all="ignore"):
            whole = np.trunc(given)
            outside = ~((whole >= float(limits.min)) & (whole < float(limits.max) + 1))
        return value, plus(error, np.where(outside, np.inf, 0.0)) if np.any(outside) else error

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
        return value, settled(
            value, error + self.precision.unit * np.maximum(self._terms(terms) - 1, 0) * size
        )

    def _terms(self, node: Reduce) -> Array:
        """How many terms a sum has, at each place; for a large window no more than its whole size."""
        whole = math.prod(self._extent(k) for k in node.over)
        if node.where is None:
            return whole
        counted = Reduce("rank", node.over, Number(1), node.where)
        quick = matches(counted, self.bindings) is not None or running_of(counted, self.bindings) is not None
        if not quick and self._size(node.where.free) > PEAK:
            return whole
        return reduce(self, counted)[0]

    def _within(self, node: Expr, inner: Precision) -> tuple[Array, Error]:
        """A part computed in a precision of its own, then rounded to the outer one where that is coarser."""
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
            rounding = np.where(size == 0, 0.0, outer.unit * size + outer.tiny * outer.unit)
            error = settled(value, plus(error, rounding))
        return value, error

    def _where(self, node: Apply) -> tuple[Array, Error]:
        condition, doubt = self.of(node.args[0])
        if np.ndim(condition) == 0 and not np.any(doubt):
            return self.of(node.args[1] if condition else node.args[2])
        (a, ea), (b, eb) = (
            self._branch(arg, condition if n == 0 else ~np.asarray(condition, dtype=bool), doubt)
            for n, arg in enumerate(node.args[1:])
        )
        value = np.where(condition, a, b)
        error: Error = None
        if ea is not None or eb is not None:
            error = np.where(condition, 0.0 if ea is None else ea, 0.0 if eb is None else eb)
        if doubt is not None:
            with np.errstate(all="ignore"):
                spread = np.abs(np.asarray(a, dtype=wide_type(a, b)) - b)
            error = plus(error, np.where(doubt, np.where(np.isnan(spread), 0.0, spread), 0.0))
        return value, error

    def _branch(self, node: Expr, taken: Array, doubt: Error) -> tuple[Array, Error]:
        """One side of a choice. A side that no law makes is no obstacle where it is never taken."""
        try:
            return self._operand(node)
        except NoLaw:
            if np.any(taken) or np.any(doubt):
                raise
            return 0, None

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
        if any(span.step != 1 for span in self.spans((*free, *over))):
            return None
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
        except (loops.NotCompiled, NoLaw):
            return None
        size = self._size(outer)
        if not loops.worthwhile(source, self._size((*outer, *over))):
            return None
        value, error = np.empty(size), np.empty(size)
        given = loops.arguments(
            writer, self.spans((*outer, *over)), self.precision.unit + DOUBLE_UNIT, self.precision.tiny
        )
        loops.compiled(source)(*given, value, error)
        shape = [1] * len(self.axes)
        for i in outer:
            shape[self.axes[i]] = self._extent(i)
        return value.reshape(shape), error.reshape(shape)

    # -- reductions --------------------------------------------------------------------------------

    def _extent(self, k: Index) -> int:
        bound = self.bindings.get(k)
        return k.extent if bound is None else 1 if isinstance(bound, int) else len(bound)


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
    with np.errstate(all="ignore"):  # NaN and infinities are numbers like any other here
        value, error = state.of(node)
    shape = [state._extent(i) for i in indices if not isinstance(state.bindings.get(i), int)]
    rank = len(state.axes)
    return _settle(value, shape, rank), _settle(0.0 if error is None else error, shape, rank)


def strained(
    node: Expr,
    indices: Sequence[Index],
    fetch: Fetch,
    precision: Precision,
    bindings: Mapping[Index, Binding],
) -> Array:
    """Where an honest computation of the formula may overflow, underflow or turn at a rounding on its way.

    The places are those of `evaluate`, over the indices that `bindings` does not fix to an integer.
    """
    state = prepared(node, indices, fetch, precision, bindings)
    state.looped, state.strain = False, Strain()
    with np.errstate(all="ignore"):
        state.of(node)
    marks = state.strain.places
    for value, _ in state.definitions.values():
        size = np.abs(value) if value.dtype.kind in "fc" else np.zeros(())
        marks = marks | np.any(~(size < precision.largest))
    kept = [i for i in indices if not isinstance(bindings.get(i), int)]
    return onto(marks, [state.axes[i] for i in kept], [state._extent(i) for i in kept], len(state.axes))


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
    return Evaluation(
        fetch, precision, bindings, axes, definitions={} if definitions is None else definitions
    )


def gather(
    node: Ref, indices: Sequence[Index], fetch: Fetch, bindings: Mapping[Index, Binding] | None = None
) -> Array:
    """The elements that a reference reads over all of `indices`, in the tensor's own dtype."""
    assert isinstance(node.tensor, Tensor)
    state = prepared(node, indices, fetch, FLOAT64, bindings)
    picked = state._pick(fetch(node.tensor), node.index)
    return _settle(picked, [state._extent(i) for i in indices], len(state.axes))


def _settle(value: Array, shape: list[int], rank: int) -> Array:
    value = np.asarray(value)
    if value.dtype == object:
        value = value.astype(np.float64)
    if value.ndim == rank and rank:
        value = value.reshape(value.shape[: len(shape)])
    return np.broadcast_to(value, shape) if shape else value.reshape(())[()]


def evaluate_all(
    node: Expr,
    indices: Sequence[Index],
    fetch: Fetch,
    precision: Precision,
    peak: int = PEAK,
    spans: Mapping[Index, range] | None = None,
) -> tuple[Array, Array]:
    """`evaluate` over every index, cut along one of them when its arrays would grow too large.

    `spans` keeps index variables to a range of their places, which may leave some out.
    """
    known: dict[int, tuple[Array, Error]] = {}
    parts = cut(node, indices, peak, spans)
    if len(parts) == 1:
        return evaluate(node, indices, fetch, precision, parts[0], known)
    done = [evaluate(node, indices, fetch, precision, part, known) for part in parts]
    axis = next(a for a, i in enumerate(indices) if parts[0].get(i) != parts[1].get(i))
    return (
        np.concatenate([v for v, _ in done], axis=axis),
        np.concatenate([e for _, e in done], axis=axis),
    )


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
