"""The check: a call's recorded numbers held against its law, computed in float64.

For each scalar: the law's value, a bound on how far an honest computation in the call's own precision may
lie from it, and the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from openheart.formula import loops
from openheart.formula.cutting import cut
from openheart.formula.evaluate import NoLaw, evaluate, evaluate_all, gather, prepared
from openheart.formula.expr import Binding, Index, Ref, Tensor
from openheart.formula.precision import DOUBLE_UNIT, Precision
from openheart.rules.registry import Law, format_of, law_of

if TYPE_CHECKING:
    from openheart.recording import Call, Value

Verdict = Literal["exact", "within rounding", "disagrees", "opaque"]
VERDICTS: tuple[Verdict, ...] = ("exact", "within rounding", "disagrees", "opaque")


@dataclass(frozen=True, slots=True)
class Check:
    """One output of a call against its law; arrays of one shape, or scalars for one element.

    `computed` and `bound` are float64; `exact` says where the recorded number is the law's, correctly
    rounded to the recorded dtype; `agrees` where it lies within the bound.
    """

    law: Law
    recorded: Any
    computed: Any
    bound: Any
    exact: Any
    agrees: Any

    def verdict(self) -> Verdict:
        """The worst verdict over all elements."""
        if np.all(self.exact):
            return "exact"
        return "within rounding" if np.all(self.agrees) else "disagrees"


def held(call: Call, tensor: Tensor) -> Value:
    """The recorded value that a law's symbol stands for."""
    name, position = tensor.key
    if name == "output" and position is not None:  # an argument may be called "output" as well
        return call.outputs[position]
    argument = call.arguments[name]
    return argument if position is None else argument[position]


def fetcher(call: Call) -> Callable[[Tensor], Any]:
    """Gives a symbolic tensor's recorded numbers as a NumPy array."""

    def fetch(tensor: Tensor) -> Any:
        return held(call, tensor).array

    return fetch


def check(
    call: Call, output: int = 0, at: tuple[int, ...] | None = None, law: Law | None = None
) -> Check | None:
    """Check one output of a call, all of it or the element `at`; None when the call is opaque.

    Opaque means: the rulebook has no law for it, or the law reaches a number that nobody computed
    (a random draw, uninitialised memory).
    """
    law = law_of(call, output) if law is None else law
    if law is None:
        return None
    value = call.outputs[output]
    fetch = fetcher(call)
    if at is None and isinstance(law.expr, Ref) and isinstance(law.expr.tensor, Tensor):
        moved = gather(law.expr, law.indices, fetch)
        if moved.dtype == value.array.dtype:
            return _moved(law, value.array, moved)
    try:
        if at is None:
            computed, bound = evaluate_all(law.expr, law.indices, fetch, law.precision)
            recorded = value.array
        else:
            bindings: Mapping[Index, Binding] = dict(zip(law.indices, at, strict=True))
            computed, bound = evaluate(law.expr, law.indices, fetch, law.precision, bindings)
            recorded = value.array[at]
    except NoLaw:
        return None
    return judge(law, recorded, computed, bound, format_of(value.dtype))


@dataclass(frozen=True, slots=True)
class Count:
    """What a compiled loop found of one output: how many scalars are exact, how many agree, the worst.

    `worst` is the largest error ÷ bound, at the row-major position `place`; `disagreeing` holds the
    positions of (the first of) the scalars that disagree.
    """

    exact: int
    agree: int
    worst: float
    place: int
    disagreeing: tuple[int, ...]


def count(call: Call, output: int, law: Law, rooms: int = 50) -> Count | None:
    """Hold a large output against its law in one compiled pass; None where no loop can do it.

    The numbers are those of `check`, counted instead of kept.
    """
    value = call.outputs[output]
    recorded, target = value.array, format_of(value.dtype)
    fetch = fetcher(call)
    if isinstance(law.expr, Ref) and isinstance(law.expr.tensor, Tensor):
        moved = gather(law.expr, law.indices, fetch)
        return Count(recorded.size, recorded.size, 0.0, 0, ()) if _is(recorded, moved) else None
    if target is None or target.unit > law.precision.unit or recorded.dtype.kind != "f":
        return None
    if recorded.size < loops.LOOPS or not loops.available() or isinstance(law.expr, Ref):
        return None
    found = [0, 0, 0.0, 0]
    disagreeing: list[int] = []
    known: dict[int, tuple[Any, Any]] = {}
    for piece in cut(law.expr, law.indices):
        spans = [piece.get(i, range(i.extent)) for i in law.indices]
        part = recorded[tuple(slice(span.start, span.stop) for span in spans if isinstance(span, range))]

        def whole(place: int, part: Any = part, spans: Any = spans) -> int:
            """The position in the whole output of a position in this part."""
            at = np.unravel_index(place, part.shape)
            moved = [int(p) + span.start for p, span in zip(at, spans, strict=True)]
            return int(np.ravel_multi_index(moved, recorded.shape))

        state = prepared(law.expr, law.indices, fetch, law.precision, piece, known)
        writer = state.writer()
        try:
            source = loops.judge_source(writer, law.expr, law.indices, part)
        except (loops.NotCompiled, NoLaw):
            return None
        places = np.empty(max(rooms - len(disagreeing), 0), dtype=np.int64)
        unit = law.precision.unit + DOUBLE_UNIT
        given = loops.arguments(writer, state.spans(law.indices), unit, law.precision.tiny)
        limits = (target.unit, target.tiny * target.unit, target.largest, places)
        exact, agree, worst, place, bad = loops.compiled(source)(*given, *limits)
        found[0] += exact
        found[1] += agree
        if worst > found[2]:
            found[2], found[3] = worst, whole(place)
        disagreeing += [whole(int(p)) for p in places[:bad]]
    return Count(int(found[0]), int(found[1]), float(found[2]), int(found[3]), tuple(disagreeing))


def _is(one: Any, other: Any) -> bool:
    """Whether two arrays are the same numbers in the same memory, as a view and what it shows are."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    steps = zip(one.shape, one.strides, other.strides, strict=True)
    return one.__array_interface__["data"][0] == other.__array_interface__["data"][0] and all(
        size == 1 or a == b for size, a, b in steps
    )


def _moved(law: Law, recorded: Any, moved: Any) -> Check:
    """Numbers that were only moved are compared as they are, without widening them."""
    same = recorded == moved
    if recorded.dtype.kind in "fc":
        same = same | (np.isnan(recorded) & np.isnan(moved))
    return Check(law, recorded, moved, 0.0, same, same)


def judge(law: Law, recorded: Any, computed: Any, bound: Any, target: Precision | None) -> Check:
    """Hold recorded numbers against computed ones, the last rounding to `target` included in the bound."""
    wide = _wide(recorded)
    if target is None and wide.dtype.kind in "iu" and np.asarray(computed).dtype.kind == "i":
        computed = np.asarray(computed).astype(wide.dtype)[()]  # whole numbers wrap around
    with np.errstate(all="ignore"):
        rounded = _rounded(computed, target)
        same = (wide == rounded) | (_isnan(wide) & _isnan(rounded))
        if target is None:  # whole numbers beyond 2⁵³ look equal as float64
            near = (np.asarray(bound) > 0) & (np.abs(_float(wide) - _float(computed)) <= bound)
            return Check(law, wide, computed, bound, same, same | near)
        if not np.all(np.isfinite(computed)):  # an infinite result is exact: ∞ lies within ∞ of every number
            bound = np.where(np.isfinite(computed), bound, 0.0)
        size = np.abs(computed)
        representable = (computed == rounded) | _isnan(computed)
        if target.unit > law.precision.unit:
            bound = np.where(
                (bound == 0) & representable, 0.0, bound + target.unit * size + target.tiny * target.unit
            )
        else:
            bound = np.where(
                (bound == 0) & ~representable, target.unit * size + target.tiny * target.unit, bound
            )
        # A finite number too large for the dtype is recorded as an infinity of its sign.
        overflown = (
            np.isinf(wide) & (size + bound >= target.largest) & ~(np.real(wide) * np.real(computed) < 0)
        )
        agrees = same | (np.abs(wide - computed) <= bound) | overflown
    return Check(law, wide, computed, bound[()] if isinstance(bound, np.ndarray) else bound, same, agrees)


def _wide(recorded: Any) -> Any:
    recorded = np.asarray(recorded)
    if recorded.dtype.kind == "f":
        with np.errstate(invalid="ignore"):  # memory that nobody wrote may hold signalling NaNs
            return recorded.astype(np.float64)[()]
    return recorded.astype(np.complex128)[()] if recorded.dtype.kind == "c" else recorded[()]


def _float(a: Any) -> Any:
    return np.asarray(a).astype(np.float64)


def _isnan(a: Any) -> Any:
    return np.isnan(a) if np.asarray(a).dtype.kind in "fc" else np.zeros(np.shape(a), dtype=bool)


def _rounded(computed: Any, target: Precision | None) -> Any:
    """float64 numbers rounded to the nearest of a narrower format, as float64."""
    computed = np.asarray(computed)
    if target is None or target.name == "float64" or computed.dtype.kind not in "fc":
        return computed[()]
    if target.name == "float32":
        narrow = np.complex64 if computed.dtype.kind == "c" else np.float32
        return computed.astype(narrow).astype(computed.dtype)[()]
    if target.name == "float16":
        return computed.astype(np.float16).astype(np.float64)[()]
    bits = np.atleast_1d(computed).astype(np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    made = np.where(np.isfinite(computed), nearest.view(np.float32).reshape(computed.shape), computed)
    return made.astype(np.float64)[()]
