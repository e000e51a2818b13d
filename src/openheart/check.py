"""The check: a call's recorded numbers held against its law, computed in float64.

For each scalar: the law's value, a bound on how far an honest computation in the call's own precision may
lie from it, and the verdict, which is the first of these that holds:

- *exact*: the recorded number is the law's, correctly rounded. No bound is needed for that.
- *disagrees*: it lies farther from the law's number than the bound.
- *unbounded*: it lies within the bound, but that is infinite or larger than the number, bound > |recorded|.
  Not one of the number's digits is confirmed: `digits_left` < 0. So it is with what remains of a sum whose
  terms cancel (a bias's gradient in front of a batch norm), and with a zero that is not quite the law's. The
  measure is the number itself, not its tensor's largest or its terms: those say how well others are known. A
  truth value is unbounded where its comparison is closer than rounding can tell.
- *within rounding*: it lies within the bound, and the bound is no larger than the number.

A number that has no law is *opaque*; one that was not kept or cannot be read is *not checked*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from openheart.formula import loops
from openheart.formula.cutting import PEAK, cut
from openheart.formula.evaluate import NoLaw, evaluate, evaluate_all, gather, prepared, strained
from openheart.formula.expr import Binding, Index, Leaf, Ref, Tensor
from openheart.formula.precision import DOUBLE_UNIT, QUARTERS, Precision
from openheart.formula.reduce import NotSpaced
from openheart.recording import Call, Value, values_in
from openheart.rules.registry import Law, format_of, law_of

Verdict = Literal["exact", "within rounding", "disagrees", "opaque", "unbounded", "not checked"]
VERDICTS: tuple[Verdict, ...] = (
    "exact",
    "within rounding",
    "disagrees",
    "opaque",
    "unbounded",
    "not checked",
)


@dataclass(frozen=True, slots=True)
class Check:
    """One output of a call against its law; arrays of one shape, or scalars for one element.

    `computed` and `bound` are float64; `exact` says where the recorded number is the law's, correctly
    rounded to the recorded dtype; `agrees` where it lies within the bound; `unbounded` where it does so only
    because the bound is larger than the number.
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
        if not np.all(self.agrees):
            return "disagrees"
        return "unbounded" if np.any(self.unbounded) else "within rounding"

    @property
    def unbounded(self) -> Any:
        """Where a number agrees and is not exact, and its bound says nothing of it."""
        recorded = np.asarray(self.recorded)
        if recorded.dtype.kind == "b":  # a bound of 1 lets both truth values pass
            return self.agrees & ~np.asarray(self.exact)
        return self.agrees & ~np.asarray(self.exact) & ~(np.asarray(self.bound) <= np.abs(recorded))


def digits_left(number: Any, bound: float | None) -> float | None:
    """How many decimal digits of a number its bound confirms, log₁₀(|number| ÷ bound); ≤ 0: none.

    None where the bound is 0, that is, where all of them are.
    """
    if bound is None or bound == 0:
        return None
    size = float(abs(number))
    if size == 0 or not math.isfinite(bound):
        return -math.inf
    return math.log10(size / bound) if math.isfinite(size) else math.inf


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

    Opaque means: the rulebook has no law for it, or the law reaches a number that nobody computed (a random
    draw, uninitialised memory).
    """
    law = law_of(call, output) if law is None else law
    if law is None:
        return None
    value = call.outputs[output]
    if at is None:
        found = evaluated(call, output, law)
        if found is None or isinstance(found, Check):
            return found
        return spared(call, judge(law, *found, format_of(value.dtype)))
    bindings: Mapping[Index, Binding] = dict(zip(law.indices, at, strict=True))
    try:
        computed, bound = evaluate(law.expr, law.indices, fetcher(call), law.precision, bindings)
    except NoLaw:
        return None
    done = judge(law, value.array[at], computed, bound, format_of(value.dtype))
    return freed(done, np.asarray(may_turn(call, law, at))) if accused_in(done) else done


def evaluated(
    call: Call, output: int, law: Law, spans: Sequence[range] | None = None
) -> tuple[Any, Any, Any] | Check | None:
    """What was recorded of an output, its law's numbers and their bounds, yet to be judged.

    `spans` keeps it to some places along each dimension. Numbers that were only moved are judged already.
    None where the law reaches a number that nobody computed.
    """
    if isinstance(law.expr, Leaf):
        return None
    value = call.outputs[output]
    fetch = fetcher(call)
    recorded, kept = value.array, None
    peak: int | None = PEAK
    if spans is not None:
        kept = dict(zip(law.indices, spans, strict=True))
        recorded = recorded[tuple(slice(span.start, span.stop, span.step) for span in spans)]
        largest = max((math.prod(v.shape) for a in call.arguments.values() for v in values_in(a)), default=1)
        if recorded.size * largest <= PEAK:  # no array of the evaluation can be too large: nothing to cut
            peak = None
    if isinstance(law.expr, Ref) and isinstance(law.expr.tensor, Tensor):
        moved = gather(law.expr, law.indices, fetch, kept)
        if moved.dtype == recorded.dtype:
            return _moved(law, recorded, moved)
    try:
        if peak is None:
            return recorded, *evaluate(law.expr, law.indices, fetch, law.precision, kept)
        return recorded, *evaluate_all(law.expr, law.indices, fetch, law.precision, peak, kept)
    except NoLaw:
        return None
    except NotSpaced:
        computed, bound = evaluate_all(law.expr, law.indices, fetch, law.precision)
        at = tuple(slice(span.start, span.stop, span.step) for span in spans or ())
        return recorded, computed[at], bound[at]


def spared(call: Call, done: Check) -> Check:
    """The check of a whole output, where what rounding may turn is not said to disagree."""
    accused = accused_in(done)
    free = np.zeros(np.shape(accused), dtype=bool)
    for row in {tuple(map(int, place[:-1])) for place in np.argwhere(accused)}:
        free[row] = may_turn(call, done.law, row)
    return freed(done, accused & free)


def accused_in(done: Check) -> Any:
    """Where a number disagrees that is not finite, or should not be."""
    with np.errstate(all="ignore"):
        return ~np.asarray(done.agrees) & ~(np.isfinite(done.recorded) & np.isfinite(done.computed))


def may_turn(call: Call, law: Law, at: tuple[int, ...]) -> Any:
    """Whether an honest computation may be finite there or not, for all places that begin with `at`."""
    bindings: dict[Index, Binding] = dict(zip(law.indices, at, strict=False))
    return strained(law.expr, law.indices, fetcher(call), law.precision, bindings)


def freed(done: Check, free: Any) -> Check:
    """The check with infinite bounds where nothing can be said: a number there is within any bound."""
    if not np.any(free):
        return done
    return replace(done, bound=np.where(free, np.inf, done.bound)[()], agrees=(done.agrees | free)[()])


@dataclass(frozen=True, slots=True)
class Count:
    """What a compiled loop found of one output: how many scalars are exact, how many agree, the worst.

    `unbounded` of those that agree do so only because their bound is larger than they are, `infinite` of
    these because it is infinite; the first of them stands at `first`. `worst` is the largest error ÷ bound,
    at the row-major position `place`; `disagreeing` holds the positions of (the first of) the scalars that
    disagree.
    """

    exact: int
    agree: int
    unbounded: int
    infinite: int
    first: int
    worst: float
    place: int
    disagreeing: tuple[int, ...]


def count(call: Call, output: int, law: Law, rooms: int = 50, *, thrifty: bool = False) -> Count | None:
    """Hold a large output against its law in one compiled pass; None where no loop can do it.

    The numbers are those of `check`, counted instead of kept. With `thrifty` a loop that is not compiled yet
    is left to `check` as long as that is quicker.
    """
    value = call.outputs[output]
    recorded, target = value.array, format_of(value.dtype)
    fetch = fetcher(call)
    if only_shown(call, output, law):
        return Count(recorded.size, recorded.size, 0, 0, -1, 0.0, 0, ())
    if target is None or target.unit > law.precision.unit or recorded.dtype.kind != "f":
        return None
    if recorded.size < loops.LOOPS or not loops.available() or isinstance(law.expr, Ref):
        return None
    found = [0, 0, 0, 0]
    largest, position, first = 0.0, 0, -1
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
        if thrifty and not loops.worthwhile(source, part.size):
            return None
        places = np.empty(max(rooms - len(disagreeing), 0), dtype=np.int64)
        unit = law.precision.unit + DOUBLE_UNIT
        given = loops.arguments(writer, state.spans(law.indices), unit, law.precision.tiny)
        limits = (target.unit, target.tiny * target.unit, target.largest, places)
        *counts, vague, worst, place, bad = loops.compiled(source)(*given, *limits)
        found = [a + int(b) for a, b in zip(found, counts, strict=True)]
        if vague >= 0 and first < 0:
            first = whole(vague)
        if worst > largest:
            largest, position = float(worst), whole(place)
        disagreeing += [whole(int(p)) for p in places[:bad]]
    if any(not math.isfinite(recorded.flat[p]) for p in disagreeing):
        return None  # the arrays can say whether it had to be so
    exact, agree, unbounded, infinite = found
    return Count(exact, agree, unbounded, infinite, first, largest, position, tuple(disagreeing))


def only_shown(call: Call, output: int, law: Law) -> bool:
    """Whether an output is a view: the very numbers, in the very memory, that its law says it shows."""
    if not (isinstance(law.expr, Ref) and isinstance(law.expr.tensor, Tensor)):
        return False
    return _is(call.outputs[output].array, gather(law.expr, law.indices, fetcher(call)))


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
        # Within an infinite bound of a number, NaN is as good as any other.
        agrees = same | (np.abs(wide - computed) <= bound) | overflown | np.isposinf(bound)
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


OVERRUN = {"float8_e5m2": np.inf, "float8_e4m3fn": QUARTERS["float8_e4m3fn"].largest}
"""What a number becomes that is too large for a format of eight bits, where it is no NaN."""


def _quartered(computed: Any, target: Precision) -> Any:
    """The nearest numbers of eight bits, the even one of two; what overruns them as their format has it."""
    _, exponent = np.frexp(computed)
    step = np.maximum(2.0 ** (exponent - 1.0), target.tiny) * 2 * target.unit
    nearest = np.rint(computed / step) * step
    beyond = np.copysign(OVERRUN.get(target.name, np.nan), computed)
    return np.where(np.abs(nearest) > target.largest, beyond, nearest)[()]


def _rounded(computed: Any, target: Precision | None) -> Any:
    """float64 numbers rounded to the nearest of a narrower format, as float64."""
    computed = np.asarray(computed)
    if target is None or target.name == "float64" or computed.dtype.kind not in "fc":
        return computed[()]
    if target.name == "float32":
        narrow = np.complex64 if computed.dtype.kind == "c" else np.float32
        return computed.astype(narrow).astype(computed.dtype)[()]
    if target.name in QUARTERS:
        return _quartered(computed, target)
    if target.name == "float16":
        return computed.astype(np.float16).astype(np.float64)[()]
    bits = np.atleast_1d(computed).astype(np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    made = np.where(np.isfinite(computed), nearest.view(np.float32).reshape(computed.shape), computed)
    return made.astype(np.float64)[()]
