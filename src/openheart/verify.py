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
from typing import TYPE_CHECKING, Any

import numpy as np

from openheart.check import Check, Count, check, count, held
from openheart.formula.expr import Leaf, Ref, Tensor, walk
from openheart.origins import law_at
from openheart.recording import Call, Element, values_in
from openheart.rules.registry import Law

if TYPE_CHECKING:
    from openheart.recording import Recording

Progress = Callable[[int, int, str], None]
"""Called with how many calls are done, how many there are, and the operator at hand."""
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


@dataclass(slots=True)
class Tally:
    """Counts for one operator, or for a whole run; all but `calls` count scalars."""

    calls: int = 0
    scalars: int = 0
    exact: int = 0
    within: int = 0
    disagree: int = 0
    opaque: int = 0
    leaves: int = 0
    worst: float = 0.0


@dataclass(frozen=True)
class Audit:
    """The result of `Recording.verify()`.

    `scalars` counts the numbers that calls made: `exact + within + disagree + opaque + leaves` of them.
    `leaves` are numbers that nobody computes (random draws, uninitialised memory). `worst` is the largest
    error ÷ bound, and where. `ok` says that every number was checked and none disagrees.
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

    @property
    def ok(self) -> bool:
        return self.disagree == 0 and self.opaque == 0

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
    tallies: dict[str, Tally] = {}
    found: list[Disagreement] = []
    worst: tuple[float, Element | None] = (0.0, None)
    generator = np.random.default_rng(seed)
    for n, call in enumerate(recording.calls):
        if progress is not None:
            progress(n, len(recording.calls), call.name)
        tally = tallies.setdefault(str(call.op).removesuffix(".default"), Tally())
        tally.calls += 1
        for output, value in enumerate(call.outputs):
            size = math.prod(value.shape)
            if not size or not value.kept:
                continue
            law = law_at(recording, call, output)
            if law is None or not _readable(call, law):
                tally.scalars += size
                tally.opaque += size
                continue
            if isinstance(law.expr, Leaf):
                tally.scalars += size
                tally.leaves += size
                continue
            known = len(found)

            def room(known: int = known) -> int:
                return max(LISTED, known + 1) - len(found)

            counted = count(call, output, law, room()) if sample is None else None
            if counted is not None:
                _add(tally, counted, size)
                if counted.worst > worst[0]:
                    worst = counted.worst, Element(value, _place(counted.place, value.shape))
                for p in counted.disagreeing:
                    place = _place(p, value.shape)
                    again = check(call, output, place, law)
                    if again is not None:
                        found.extend(_disagreements(recording, call, value, place, again, room()))
                continue
            for at, done in _checks(call, output, law, value.shape, sample, generator):
                top = _count(tally, done, size if at is None else 1)
                if top is not None and top[0] > worst[0]:
                    worst = top[0], Element(value, at if at is not None else top[1])
                if done is not None and not np.all(done.agrees):
                    found.extend(_disagreements(recording, call, value, at, done, room()))
    if progress is not None:
        progress(len(recording.calls), len(recording.calls), "")
    whole = Tally()
    for tally in tallies.values():
        for name in ("calls", "scalars", "exact", "within", "disagree", "opaque", "leaves"):
            setattr(whole, name, getattr(whole, name) + getattr(tally, name))
    element = worst[1]
    return Audit(
        whole.scalars,
        whole.exact,
        whole.within,
        whole.disagree,
        whole.opaque,
        whole.leaves,
        None if element is None else Worst(worst[0], recording.address(element)),
        dict(sorted(tallies.items(), key=lambda row: -row[1].scalars)),
        tuple(found),
        tuple(sorted(name for name, tally in tallies.items() if tally.opaque)),
        sample is not None,
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
    tally.within += counted.agree - counted.exact
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
    tally.within += agrees - exact
    tally.disagree += size - agrees
    bound = np.asarray(done.bound, dtype=np.float64)
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
