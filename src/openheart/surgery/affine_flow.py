"""Affine forms carried through a recorded run, call by call, in float64.

Between a source and a target, every value that follows from the source is y = L·t + c: a column for each
direction t in which the source may move, and a constant. The law of each call, cut in two
(`surgery.affine`), gives the forms of its outputs from those of its inputs, each with a bound on what
float64's rounding did to it. The same walk, with intervals instead of forms, bounds what the run's own
rounding may have done (Higham, *Accuracy and Stability of Numerical Algorithms*, §3.1, running errors).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from openheart.check import fetcher, held
from openheart.errors import OpenheartError
from openheart.formula.cutting import cut
from openheart.formula.evaluate import Fetch, NoLaw, _settle, prepared
from openheart.formula.expr import Binding, Definition, Expr, Index, Ref, Tensor, walk
from openheart.formula.precision import FLOAT64, Precision
from openheart.i18n import Message
from openheart.origins import law_at
from openheart.recording import Call, Recording, Value
from openheart.recording.values import values_in
from openheart.rules.registry import Law, format_of
from openheart.surgery.affine import Cut, Kink, Refusal, rewrite

__all__ = [
    "LARGEST",
    "Choice",
    "Measured",
    "NotAffineError",
    "NotByRowError",
    "Segment",
    "choices_in",
    "laid",
    "segment_of",
    "spread",
    "substituted",
    "tensors_of",
    "tracked",
]

Array: TypeAlias = Any
Measured: TypeAlias = "tuple[Array, Array]"
"""Numbers, and how far each may lie from the exact one; float64 arrays of one shape."""
Key: TypeAlias = "tuple[str, int | None]"
LARGEST = 1 << 24
"""A form with more numbers than this is not laid out: 128 MiB in float64."""


class NotAffineError(OpenheartError):
    """A piece of a network is not affine (or not piecewise linear): which module and operator, and why.

    Attributes:
        module: the path of the module whose call it is; "" for the network itself.
        operator: the operator's name.
        reason: the word for it in the catalogues, `collapse.reason.…`.
    `params` holds what the sentence says: where, operator and reason.
    """

    def __init__(self, key: str, module: str, name: str, word: str, **params: Any) -> None:
        super().__init__(key, **params)
        self.module = module
        self.operator = name
        self.reason = word

    def __reduce__(self) -> tuple[Any, ...]:
        return _refusal, (self.key, self.module, self.operator, self.reason, self.params)

    def said(self, key: str) -> NotAffineError:
        """The same refusal in another sentence."""
        return _refusal(key, self.module, self.operator, self.reason, self.params)


def _refusal(key: str, module: str, name: str, word: str, params: Mapping[str, Any]) -> NotAffineError:
    return NotAffineError(key, module, name, word, **params)


@dataclass(frozen=True, slots=True)
class Segment:
    """The calls of a run that lead from one value to another.

    Attributes:
        calls: each call on the way, with the numbers of those of its outputs that matter.
        moving: the ids of the values on the way, source and target included.
    """

    recording: Recording
    source: Value
    target: Value
    calls: tuple[tuple[Call, tuple[int, ...]], ...]
    moving: frozenset[int]

    def outside(self) -> Iterator[tuple[Call, Value]]:
        """What the calls read besides: the values that do not follow from the source."""
        for call, _ in self.calls:
            for value in values_in((call.args, call.kwargs)):
                if value.id not in self.moving:
                    yield call, value


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A choice that a law makes by a moving number, ready to be measured."""

    call: Call
    output: int
    law: Law
    kink: Kink
    indices: tuple[Index, ...]
    column: Index
    definitions: Mapping[int, Measured]
    span: Mapping[Index, range]


def segment_of(recording: Recording, source: Value, target: Value) -> Segment | None:
    """The calls that lead from `source` to `target`; None when the target does not follow from it."""
    needed: dict[int, Call] = {}
    wanted: set[int] = {target.id}
    stack = [target]
    while stack:
        value = stack.pop()
        made = None if value.id == source.id else recording.maker(value)
        if made is None or made[0].id in needed:
            continue
        needed[made[0].id] = made[0]
        for read in values_in((made[0].args, made[0].kwargs)):
            if read.id not in wanted:
                wanted.add(read.id)
                stack.append(read)
    moving, calls = {source.id}, []
    for call in (needed[k] for k in sorted(needed)):
        if any(value.id in moving for value in values_in((call.args, call.kwargs))):
            outputs = tuple(n for n, value in enumerate(call.outputs) if value.id in wanted)
            calls.append((call, outputs))
            moving.update(call.outputs[n].id for n in outputs)
    if target.id not in moving:
        return None
    return Segment(recording, source, target, tuple(calls), frozenset(moving))


# Evaluating -----------------------------------------------------------------------------------------


def laid(
    node: Expr,
    indices: Sequence[Index],
    fetch: Fetch,
    definitions: Mapping[int, Measured],
    precision: Precision = FLOAT64,
    span: Mapping[Index, range] | None = None,
) -> Measured:
    """A formula over all of `indices`, piece by piece, where some of its tensors are given with an error.

    `span` keeps some of the indices to a range.
    """
    span = span or {}
    known: dict[int, Any] = {k: (v, e if np.any(e) else None) for k, (v, e) in definitions.items()}
    parts = cut(node, [i for i in indices if i not in span])
    done = [_piece(node, indices, fetch, precision, {**span, **part}, known) for part in parts]
    if len(done) == 1:
        return done[0]
    axis = next(a for a, i in enumerate(indices) if i in parts[0])
    return (
        np.concatenate([v for v, _ in done], axis=axis),
        np.concatenate([e for _, e in done], axis=axis),
    )


def _piece(
    node: Expr,
    indices: Sequence[Index],
    fetch: Fetch,
    precision: Precision,
    bindings: Mapping[Index, Binding],
    known: dict[int, Any],
) -> Measured:
    state = prepared(node, indices, fetch, precision, bindings, known)
    state.looped = False  # each of these formulas is met once: to compile it would cost more than it saves
    with np.errstate(all="ignore"):
        value, error = state.of(node)
    shape = [state._extent(i) for i in indices]
    rank = len(state.axes)
    value = np.asarray(_settle(value, shape, rank), dtype=np.float64)
    return value, np.asarray(_settle(0.0 if error is None else error, shape, rank), dtype=np.float64)


def _symbol(name: str, shape: Sequence[int]) -> Definition:
    return Definition(name, tuple(Index("abcdefgh"[n % 8], size) for n, size in enumerate(shape)))


def tensors_of(law: Law) -> dict[Key, Tensor]:
    """The tensors that a law reads, by their keys."""
    nodes = walk(law.expr, into_definitions=True)
    return {n.tensor.key: n.tensor for n in nodes if isinstance(n, Ref) and isinstance(n.tensor, Tensor)}


def _law(segment: Segment, call: Call, output: int) -> Law:
    law = law_at(segment.recording, call, output)
    if law is None:
        raise Refusal("law")
    if call.outputs[output].dtype.is_complex:
        raise Refusal("complex")
    return law


# The two walks --------------------------------------------------------------------------------------


def tracked(segment: Segment, start: Measured | None = None) -> dict[int, Measured]:
    """Every floating-point value on the way, computed in float64, and how far the recorded may lie from it.

    **Arguments**: `start` replaces the source's own numbers, which are taken as exact.

    **Raises** `NotAffineError` where the rulebook has no law for a call.
    """
    source = segment.source.array.astype(np.float64)
    known: dict[int, Measured] = {segment.source.id: start or (source, np.zeros(source.shape))}
    for call, output in _steps(segment):
        with _telling(segment, call):
            law, value = _law(segment, call, output), call.outputs[output]
            stored = format_of(value.dtype)
            if stored is None:
                continue
            expr, definitions = substituted(law.expr, call, tensors_of(law), known)
            if not definitions:  # it takes a shape only (empty_like), and is read as it was recorded
                continue
            size, error = laid(expr, law.indices, fetcher(call), definitions, law.precision)
            if stored.unit > law.precision.unit:
                error = error + stored.unit * np.abs(size) + stored.tiny * stored.unit
            elif isinstance(expr, Ref):
                pass  # moved, not computed
            else:  # a law without rounding of its own is rounded once, where it is stored
                bare = (error == 0) & (size != _stored(size, value))
                error = np.where(bare, stored.unit * np.abs(size) + stored.tiny * stored.unit, error)
            known[value.id] = size, error
    return known


def _stored(size: Array, value: Value) -> Array:
    narrow = np.float32 if "float32" in str(value.dtype) else np.float64
    return size.astype(narrow).astype(np.float64)


def substituted(
    node: Expr, call: Call, tensors: Mapping[Key, Tensor], known: Mapping[int, Measured]
) -> tuple[Expr, dict[int, Measured]]:
    """A formula in which the tensors whose values are `known` are given with their errors."""
    given: dict[Key, Definition] = {}
    definitions: dict[int, Measured] = {}
    for key, tensor in tensors.items():
        value = held(call, tensor)
        if value.id in known:
            given[key] = _symbol(tensor.name, tensor.shape)
            definitions[id(given[key])] = known[value.id]

    def change(here: Expr) -> Expr | None:
        if isinstance(here, Ref) and isinstance(here.tensor, Tensor) and here.tensor.key in given:
            return Ref(given[here.tensor.key], tuple(rewrite(part, change) for part in here.index))
        return None

    return rewrite(node, change), definitions


def spread(
    segment: Segment,
    linear: Array,
    constant: Array,
    piecewise: bool = False,
    choices: Callable[[Choice], None] | None = None,
    row: int | None = None,
) -> tuple[Measured, Measured]:
    """The target's linear part, (columns, *shape), and its constant part, (*shape), each with its error.

    **Arguments**: `linear` and `constant` are the source's, in the same shapes. With `piecewise`, choices
    are taken as recorded, and `choices` is told of each. With `row`, the forms are those of one sample
    alone: every shape begins with 1 instead of the batch.

    **Raises** `NotAffineError` for a call that is not affine; `MemoryError` when a form would be larger
    than `LARGEST`; `NotByRowError` where, with `row`, a law does not read its samples one by one.
    """
    columns = linear.shape[0]
    known: dict[int, tuple[Measured, Measured]] = {
        segment.source.id: ((linear, np.zeros_like(linear)), (constant, np.zeros_like(constant)))
    }
    last = {v.id: call.id for call, _ in segment.calls for v in values_in((call.args, call.kwargs))}
    for call, output in _steps(segment):
        with _telling(segment, call):
            law, value = _law(segment, call, output), call.outputs[output]
            size = math.prod(value.shape if row is None else value.shape[1:])
            if columns * size > LARGEST:
                raise MemoryError(f"{columns} · {size}")
            column = Index("column", columns)
            moving: dict[Key, tuple[Definition, Definition]] = {}
            definitions: dict[int, Measured] = {}
            for key, tensor in tensors_of(law).items():
                form = known.get(held(call, tensor).id)
                if form is None and key[0] == "output" and key[1] is not None:
                    _stands(segment, call, key[1], known)
                if form is None:
                    continue
                shape = form[1][0].shape
                pair = _symbol(tensor.name, (columns, *shape)), _symbol(tensor.name, shape)
                moving[key] = pair
                definitions.update((id(d), f) for d, f in zip(pair, form, strict=True))
            if not moving:
                continue
            span: dict[Index, range] = {}
            if row is not None:
                _by_row(segment, law, value, moving)
                span = {law.indices[0]: range(row, row + 1)}
            parts = Cut(column, moving, piecewise, by_row=row is not None)
            first, second = _cut(parts, law)
            fetch = fetcher(call)
            if choices is not None:
                for kink in parts.kinks:
                    places = _ordered(law, kink)
                    choices(Choice(call, output, law, kink, places, column, definitions, span))
            if first is None:  # nothing of it moves: it is read as it was recorded
                continue
            known[value.id] = (
                laid(first, (column, *law.indices), fetch, definitions, span=span),
                laid(second, law.indices, fetch, definitions, span=span),
            )
        for read in values_in((call.args, call.kwargs)):
            if last[read.id] == call.id and output == max(_outputs(segment, call)):
                known.pop(read.id, None)
    found = known.get(segment.target.id)
    if found is not None:
        return found
    fixed = segment.target.array.astype(np.float64)
    fixed = fixed if row is None else fixed[row : row + 1]
    shape = fixed.shape
    return (np.zeros((columns, *shape)), np.zeros((columns, *shape))), (fixed, np.zeros(shape))


class NotByRowError(Exception):
    """Raised where a law does not read its samples one by one, each at its own place."""


def _by_row(segment: Segment, law: Law, value: Value, moving: Mapping[Key, object]) -> None:
    """Refuses a law whose element of sample n may read another sample: the first index has to be the same."""
    count = segment.source.shape[0]
    if not value.shape or value.shape[0] != count:
        raise NotByRowError
    for node in walk(law.expr, into_definitions=True):
        if not (isinstance(node, Ref) and isinstance(node.tensor, Tensor) and node.tensor.key in moving):
            continue
        if not node.index or node.index[0] is not law.indices[0]:
            raise NotByRowError


def _ordered(law: Law, kink: Kink) -> tuple[Index, ...]:
    """A choice's places: the law's own indices first, in their order."""
    own = tuple(i for i in law.indices if i in kink.indices)
    return own + tuple(sorted(kink.indices - frozenset(own), key=lambda i: i.name))


def _cut(parts: Cut, law: Law) -> tuple[Expr | None, Expr]:
    try:
        return parts.of(law.expr)
    except Refusal as refusal:
        if refusal.reason == "choice" and not parts.piecewise:  # a softmax is refused for its exponential
            Cut(parts.column, parts.moving, piecewise=True, by_row=parts.by_row).of(law.expr)
        raise


def _stands(segment: Segment, call: Call, output: int, known: Mapping[int, Any]) -> None:
    """Refuses a law that reads another output of its own call, where that one moves."""
    if any(held(call, tensor).id in known for tensor in tensors_of(_law(segment, call, output)).values()):
        raise Refusal("own")


def _steps(segment: Segment) -> Iterator[tuple[Call, int]]:
    for call, outputs in segment.calls:
        for output in outputs:
            yield call, output


def _outputs(segment: Segment, call: Call) -> tuple[int, ...]:
    return next(outputs for each, outputs in segment.calls if each is call)


# Saying why not -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _telling:  # noqa: N801  used like a verb: `with _telling(segment, call):`
    """Turns a refusal into an error that names the module and the operator."""

    segment: Segment
    call: Call

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        if isinstance(error, NoLaw):
            error = Refusal("leaf")
        if isinstance(error, Refusal):
            raise refused(self.segment.recording, self.call, error) from None


def refused(recording: Recording, call: Call, why: Refusal) -> NotAffineError:
    """The error for a call that is not affine."""
    module = _module(recording, call.scope)
    named = f"{call.scope} ({module})" if module and call.scope else module or call.scope
    where = Message("collapse.where.module", {"module": named}) if named else Message("collapse.where.none")
    reason = Message(f"collapse.reason.{why.reason}", {"function": why.function})
    key = "collapse.error.not_affine"
    if call.arguments.get("training") is True or (why.reason == "random" and "drop" in module.lower()):
        key += ".training"
    return NotAffineError(
        key, call.scope, call.name, why.reason, where=where, operator=call.name, reason=reason
    )


def _module(recording: Recording, path: str) -> str:
    if recording.model is None:
        return ""
    found = dict(recording.model.named_modules()).get(path)
    return "" if found is None else type(found).__name__


# Choices alone --------------------------------------------------------------------------------------


def choices_in(segment: Segment) -> Iterator[Choice]:
    """Every choice on the way, without the forms: for what was chosen, sample by sample.

    **Raises** `NotAffineError` for a call that is not piecewise linear.
    """
    moving = {segment.source.id}
    for call, output in _steps(segment):
        with _telling(segment, call):
            law, value = _law(segment, call, output), call.outputs[output]
            column = Index("column", 1)
            given: dict[Key, tuple[Definition, Definition]] = {}
            for key, tensor in tensors_of(law).items():
                if held(call, tensor).id in moving:
                    given[key] = _symbol(tensor.name, (1, *tensor.shape)), _symbol(tensor.name, tensor.shape)
                elif key[0] == "output" and key[1] is not None:
                    _stands(segment, call, key[1], dict.fromkeys(moving))
            if not given:
                continue
            parts = Cut(column, given, piecewise=True)
            linear, _ = parts.of(law.expr)
            if linear is not None:
                moving.add(value.id)
        for kink in parts.kinks:
            yield Choice(call, output, law, kink, _ordered(law, kink), column, {}, {})
