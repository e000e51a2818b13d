"""The audit: every scalar of a run held against its law.

>>> import openheart as oh
>>> from openheart.patients import patient
>>> seed = patient("seed")
>>> audit = oh.record(seed.build(), *seed.inputs()).verify()
>>> audit.ok, audit.disagree, audit.opaque
(True, 0, 0)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from openheart.check import Check, Count, check, count, digits_left, held
from openheart.errors import OpaqueError
from openheart.formula.expr import Leaf, Ref, Tensor, walk
from openheart.i18n import message
from openheart.nonfinite import NonFinite, born, count_nonfinite, first_of
from openheart.origins import law_at
from openheart.recording import Call, Element, Value, values_in
from openheart.rules.registry import Law

if TYPE_CHECKING:
    from openheart.recording import Recording

Progress = Callable[[int, int, str], None]
"""Called with how many calls are done, how many there are, and the operator at hand."""
COUNTS = (
    *("calls", "scalars", "exact", "within", "unbounded", "disagree"),
    *("opaque", "not_checked", "leaves", "nonfinite", "infinite"),
)
"""What a tally adds up."""
LISTED = 50
"""So many disagreements are kept one by one, and the first of every output beyond; all are counted."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A recorded scalar that is not what its law says."""

    address: str
    operator: str
    recorded: Any
    computed: Any
    bound: float


@dataclass(frozen=True, slots=True)
class Worst:
    """The scalar whose error is the largest part of its bound."""

    ratio: float
    address: str


@dataclass(frozen=True, slots=True)
class Unbounded:
    """A recorded scalar that agrees with its law only because its bound is larger than itself.

    `digits` is log₁₀(|recorded| ÷ bound), how many of its decimal digits are left: none, where it is ≤ 0.
    """

    address: str
    operator: str
    recorded: Any
    computed: Any
    bound: float
    digits: float


@dataclass(frozen=True, slots=True)
class Unchecked:
    """A tensor of the run that could not be held against its law, and why.

    `reason` is "output" (its own numbers were not kept), "input" (those that its call read were not), or
    "unreadable" (there is no array of them: sparse, quantized, on no device).
    """

    name: str
    operator: str
    scalars: int
    reason: Literal["output", "input", "unreadable"]


@dataclass(slots=True)
class Tally:
    """Counts for one operator, or for a whole run; all but `calls` count scalars.

    `nonfinite` counts across the verdicts: a NaN may be exact. So does `infinite`, the numbers among
    `unbounded` whose bound is infinite.
    """

    calls: int = 0
    scalars: int = 0
    exact: int = 0
    within: int = 0
    unbounded: int = 0
    disagree: int = 0
    opaque: int = 0
    not_checked: int = 0
    leaves: int = 0
    nonfinite: int = 0
    infinite: int = 0
    worst: float = 0.0


@dataclass(frozen=True)
class Audit:
    """The result of `Recording.verify()`.

    `scalars` counts the numbers that calls made, each under one verdict: `exact + within + unbounded +
    disagree + opaque + not_checked + leaves` of them. `unbounded` are numbers that agree only because their
    bound is larger than they are (see `openheart.check`), `not_checked` those that were not kept or cannot
    be read, `leaves` those that nobody computes (random draws, uninitialised memory). `worst` is the
    largest error ÷ bound, and where.

    `nonfinite` counts NaN and ∞ among the numbers, whatever their verdict, and `first_nonfinite` says where
    the first one was born. `ok` speaks of correctness alone: a NaN that its law makes too is correct, and
    leaves `ok` as it is. No surface calls such a run healthy: `healthy` is False for it.
    """

    scalars: int
    exact: int
    within: int
    disagree: int
    opaque: int
    leaves: int
    worst: Worst | None
    by_operator: dict[str, Tally]
    disagreements: tuple[Disagreement, ...]
    opaque_operators: tuple[str, ...]
    sampled: bool = field(default=False)
    unbounded: int = 0
    not_checked: int = 0
    nonfinite: int = 0
    infinite: int = 0
    first_nonfinite: NonFinite | None = None
    unbounded_at: tuple[Unbounded, ...] = ()
    unchecked: tuple[Unchecked, ...] = ()

    @property
    def checked(self) -> int:
        """How many numbers were held against a law."""
        return self.exact + self.within + self.unbounded + self.disagree

    @property
    def ok(self) -> bool:
        """Whether there were numbers to check, every one was checked, and none disagrees.

        A number within a finite bound that is larger than itself was still held to its law as closely as
        rounding allows, and is counted in `unbounded`; an infinite bound is no check at all.
        """
        missed = self.disagree or self.opaque or self.not_checked or self.infinite
        return self.checked > 0 and not missed

    @property
    def healthy(self) -> bool:
        """`ok`, and every number is finite and has a bound that says something of it."""
        return self.ok and not self.nonfinite and not self.unbounded

    def text(self, lang: str | None = None, width: int | None = None) -> str:
        """The audit as plain text."""
        from openheart.printers.audit import text

        return text(self, lang=lang, width=width)

    def html(self, lang: str | None = None) -> str:
        """An HTML fragment that needs nothing else."""
        from openheart.printers.audit import audit_html

        return audit_html(self, lang=lang)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        from openheart.printers.audit import audit_dict

        return audit_dict(self)

    def __rich__(self) -> Any:
        from openheart.printers.audit import rich_audit

        return rich_audit(self)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()


def verify(
    recording: Recording, sample: int | None = None, *, seed: int = 0, progress: Progress | None = None
) -> Audit:
    """Check every scalar that the recorded calls made, or `sample` of them a tensor, drawn with `seed`."""
    if sample is not None and sample < 0:
        raise ValueError(message("error.sample", sample=sample))
    run = _Run(recording, sample, np.random.default_rng(seed))
    for n, call in enumerate(recording.calls):
        if progress is not None:
            progress(n, len(recording.calls), call.name)
        run.call(call)
    if progress is not None:
        progress(len(recording.calls), len(recording.calls), "")
    return run.audit()


@dataclass(slots=True)
class _Run:
    """An audit on its way."""

    recording: Recording
    sample: int | None
    generator: Any
    tallies: dict[str, Tally] = field(default_factory=dict)
    found: list[Disagreement] = field(default_factory=list)
    vague: list[Unbounded] = field(default_factory=list)
    unchecked: list[Unchecked] = field(default_factory=list)
    worst: tuple[float, Element | None] = (0.0, None)
    first: NonFinite | None = None

    def call(self, call: Call) -> None:
        tally = self.tallies.setdefault(str(call.op).removesuffix(".default"), Tally())
        tally.calls += 1
        for output, value in enumerate(call.outputs):
            if 0 in value.shape:
                continue
            size = math.prod(value.shape)
            known = tally.scalars, tally.not_checked
            try:
                self._output(call, output, size, tally)
            except OpaqueError:
                tally.scalars, tally.not_checked = known
                self._skip(call, output, size, tally, "unreadable")

    def _skip(self, call: Call, output: int, size: int, tally: Tally, why: Any) -> None:
        tally.scalars += size
        tally.not_checked += size
        if len(self.unchecked) < LISTED:
            name = self.recording.name(call.outputs[output])
            self.unchecked.append(Unchecked(name, call.name, size, why))

    def _output(self, call: Call, output: int, size: int, tally: Tally) -> None:
        value = call.outputs[output]
        law = law_at(self.recording, call, output)
        blank = law is not None and isinstance(law.expr, Leaf) and law.expr.kind == "uninitialized"
        if not value.kept:
            if not blank:  # memory that was reserved and written by a later call holds no number to check
                self._skip(call, output, size, tally, "output")
            return
        if not blank:
            self._finite(call, output, value.array, tally)
        if law is None:
            tally.scalars += size
            tally.opaque += size
        elif isinstance(law.expr, Leaf):
            tally.scalars += size
            tally.leaves += size
        elif not _readable(call, law):
            self._skip(call, output, size, tally, "input")
        else:
            self._check(call, output, law, size, tally)

    def _finite(self, call: Call, output: int, array: Any, tally: Tally) -> None:
        strange = count_nonfinite(array)
        if strange:
            tally.nonfinite += strange
            if self.first is None:
                self.first = born(self.recording, call, output, first_of(array))

    def _check(self, call: Call, output: int, law: Law, size: int, tally: Tally) -> None:
        value, known = call.outputs[output], len(self.found)

        def room() -> int:
            return max(LISTED, known + 1) - len(self.found)

        counted = count(call, output, law, room()) if self.sample is None else None
        if counted is not None:
            _add(tally, counted, size)
            if counted.worst > self.worst[0]:
                self.worst = counted.worst, Element(value, _place(counted.place, value.shape))
            for p in counted.disagreeing:
                place = _place(p, value.shape)
                again = check(call, output, place, law)
                if again is not None:
                    self.found.extend(_disagreements(self.recording, call, value, place, again, room()))
            if counted.unbounded and len(self.vague) < LISTED:
                place = _place(counted.first, value.shape)
                self._vague(call, value, place, check(call, output, place, law))
            return
        for at, done in _checks(call, output, law, value.shape, self.sample, self.generator):
            top = _count(tally, done, size if at is None else 1)
            if top is not None and top[0] > self.worst[0]:
                self.worst = top[0], Element(value, at if at is not None else top[1])
            if done is not None and not np.all(done.agrees):
                self.found.extend(_disagreements(self.recording, call, value, at, done, room()))
            if done is not None and np.any(done.unbounded) and len(self.vague) < LISTED:
                self._vague(call, value, at, done)

    def _vague(self, call: Call, value: Value, at: tuple[int, ...] | None, done: Check | None) -> None:
        """Keep the first unbounded number of an output."""
        if done is None:
            return
        place = at if at is not None else tuple(map(int, np.argwhere(done.unbounded)[0]))
        recorded, computed, bound = (
            np.broadcast_to(part, np.shape(done.computed))[place if at is None else ()].item()
            for part in (done.recorded, done.computed, done.bound)
        )
        digits = digits_left(recorded, bound)
        address = self.recording.address(Element(value, place))
        left = -math.inf if digits is None else digits
        self.vague.append(Unbounded(address, call.name, recorded, computed, bound, left))

    def audit(self) -> Audit:
        whole = Tally()
        for tally in self.tallies.values():
            for name in COUNTS:
                setattr(whole, name, getattr(whole, name) + getattr(tally, name))
        element = self.worst[1]
        return Audit(
            whole.scalars,
            whole.exact,
            whole.within,
            whole.disagree,
            whole.opaque,
            whole.leaves,
            None if element is None else Worst(self.worst[0], self.recording.address(element)),
            dict(sorted(self.tallies.items(), key=lambda row: -row[1].scalars)),
            tuple(self.found),
            tuple(sorted(name for name, tally in self.tallies.items() if tally.opaque)),
            self.sample is not None,
            unbounded=whole.unbounded,
            not_checked=whole.not_checked,
            nonfinite=whole.nonfinite,
            infinite=whole.infinite,
            first_nonfinite=self.first,
            unbounded_at=tuple(self.vague),
            unchecked=tuple(self.unchecked),
        )


def _checks(
    call: Call, output: int, law: Any, shape: tuple[int, ...], sample: int | None, generator: Any
) -> list[tuple[tuple[int, ...] | None, Check | None]]:
    size = math.prod(shape)
    if sample is None or sample >= size:
        return [(None, check(call, output, None, law))]
    drawn = (
        generator.choice(size, sample, replace=False)
        if size < 1 << 16
        else generator.integers(0, size, sample)
    )
    places = [tuple(map(int, np.unravel_index(int(p), shape))) for p in drawn]
    return [(at, check(call, output, at, law)) for at in places]


def _readable(call: Call, law: Law) -> bool:
    """Whether the numbers that the law reads are in the recording; without them it can't be checked."""
    if all(value.kept for argument in call.arguments.values() for value in values_in(argument)):
        return True
    tensors = (node.tensor for node in walk(law.expr, into_definitions=True) if isinstance(node, Ref))
    return all(held(call, tensor).kept for tensor in tensors if isinstance(tensor, Tensor))


def _place(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(int, np.unravel_index(position, shape)))


def _add(tally: Tally, counted: Count, size: int) -> None:
    tally.scalars += size
    tally.exact += counted.exact
    tally.within += counted.agree - counted.exact - counted.unbounded
    tally.unbounded += counted.unbounded
    tally.infinite += counted.infinite
    tally.disagree += size - counted.agree
    tally.worst = max(tally.worst, counted.worst)


def _count(tally: Tally, done: Check | None, size: int) -> tuple[float, tuple[int, ...]] | None:
    """Add one check to the tally; the largest error ÷ bound, and where, when any bound is positive."""
    tally.scalars += size
    if done is None:
        tally.leaves += size
        return None
    agrees = int(np.count_nonzero(done.agrees))
    exact = int(np.count_nonzero(done.exact))
    tally.exact += exact
    vague = int(np.count_nonzero(done.unbounded))
    tally.within += agrees - exact - vague
    tally.unbounded += vague
    tally.disagree += size - agrees
    bound = np.asarray(done.bound, dtype=np.float64)
    if vague:
        tally.infinite += int(np.count_nonzero(done.unbounded & ~np.isfinite(bound)))
    if not np.any(bound > 0):
        return None
    with np.errstate(all="ignore"):
        error = np.abs(np.asarray(done.recorded) - done.computed)
        ratio = np.where((bound > 0) & np.isfinite(error), error / bound, 0.0)
    place = int(np.argmax(ratio))
    top = float(ratio.reshape(-1)[place])
    tally.worst = max(tally.worst, top)
    return top, tuple(map(int, np.unravel_index(place, ratio.shape)))


def _disagreements(
    recording: Recording, call: Call, value: Any, at: tuple[int, ...] | None, done: Check, room: int
) -> list[Disagreement]:
    if room <= 0:
        return []
    if at is not None:
        places = [at]
    else:
        places = [tuple(map(int, p)) for p in np.argwhere(~np.asarray(done.agrees))[:room]]

    def pick(array: Any, place: tuple[int, ...]) -> Any:
        return np.asarray(array)[place].item() if at is None else np.asarray(array).item()

    return [
        Disagreement(
            recording.address(Element(value, place)),
            call.name,
            pick(done.recorded, place),
            pick(done.computed, place),
            float(pick(np.broadcast_to(done.bound, np.shape(done.computed)), place)),
        )
        for place in places
    ]
