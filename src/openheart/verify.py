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
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from openheart.check import Check, check, count, evaluated, held, only_shown
from openheart.errors import OpaqueError
from openheart.formula import loops
from openheart.formula.expr import Leaf, Ref, Tensor, walk
from openheart.formula.lattice import lattice
from openheart.i18n import message
from openheart.nonfinite import NonFinite, born, count_nonfinite, first_of
from openheart.origins import law_at
from openheart.progress import COMPILING, counting
from openheart.recording import Call, Element, values_in
from openheart.recording.notices import Notice
from openheart.recording.soundness import sound
from openheart.rules.registry import Law, format_of
from openheart.tally import (
    COUNTS,
    Disagreement,
    Listing,
    Place,
    Pool,
    Tally,
    Unbounded,
    Unchecked,
    Whose,
    Worst,
    add_checked,
    add_counted,
    disagreements,
    first_unbounded,
)
from openheart.wiring import WiringCheck, check_wiring

if TYPE_CHECKING:
    from openheart.recording import Recording

__all__ = ["Audit", "Disagreement", "Progress", "Tally", "Unbounded", "Unchecked", "Worst", "verify"]

Progress = Callable[[int, int, str], None]
"""Called with how many calls are done, how many there are, and the operator at hand, or "compiling"."""
SMALL = 1 << 12
"""A sampled audit judges outputs of fewer numbers than this together with others, even whole ones."""
POOL = 1 << 20
"""So many sampled numbers wait to be judged at once."""
LISTED = 50
"""So many disagreements are kept one by one, and the first of every output beyond; all are counted."""


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

    `wiring` says how the calls hang together: whether what each read is what another made, and whether every
    gradient is the sum of what its uses hand back.

    `notices` are the recording's: what there is to know about it that no count can say.
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
    wiring: WiringCheck = field(default_factory=WiringCheck)
    notices: tuple[Notice, ...] = ()

    @property
    def checked(self) -> int:
        """How many numbers were held against a law."""
        return self.exact + self.within + self.unbounded + self.disagree

    @property
    def ok(self) -> bool:
        """Whether there were numbers to check, every one was checked, and none disagrees, nor any wire.

        A number within a finite bound that is larger than itself was still held to its law as closely as
        rounding allows, and is counted in `unbounded`; an infinite bound is no check at all.
        """
        missed = self.disagree or self.opaque or self.not_checked or self.infinite
        return self.checked > 0 and not missed and self.wiring.ok

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


@sound
def verify(
    recording: Recording, sample: int | None = None, *, seed: int = 0, progress: Progress | bool | None = None
) -> Audit:
    """Check every scalar that the recorded calls made, or `sample` of them a tensor, drawn with `seed`.

    A sample always costs less than the whole. NaN and ∞ are counted among all numbers in either case.
    `progress` is called as the audit goes on; unless it is False, a terminal or a notebook shows a bar after
    a second, gone at the end. An audit that is interrupted leaves the recording as it was.

    **Raises** `ValueError` for a negative sample.
    """
    if sample is not None and sample < 0:
        raise ValueError(message("error.sample", sample=sample))
    run = _Run(recording, sample, Random(seed))  # noqa: S311 -- places, no secrets
    if progress is None or progress is True:
        shown: AbstractContextManager[Progress] = counting("cli.progress.verifying")
    else:
        shown = nullcontext(progress or (lambda _done, _total, _at_hand: None))
    calls = recording.calls
    with shown as report:
        for n, call in enumerate(calls):
            report(n, len(calls), call.name)
            with loops.telling(partial(report, n, len(calls), COMPILING)):
                run.call(call)
        report(len(calls), len(calls), "")
    return run.audit()


@dataclass(slots=True)
class _Run:
    """An audit on its way."""

    recording: Recording
    sample: int | None
    drawn: Random
    tallies: dict[str, Tally] = field(default_factory=dict)
    found: list[Disagreement] = field(default_factory=list)
    vague: list[Unbounded] = field(default_factory=list)
    unchecked: list[Unchecked] = field(default_factory=list)
    worst: tuple[float, Element | None] = (0.0, None)
    first: NonFinite | None = None
    pools: dict[Any, Pool] = field(default_factory=dict)

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

        if self.sample is not None and (self.sample < size or size < SMALL):
            self._sampled(call, output, law, min(size, self.sample), tally)
            return
        counted = count(call, output, law, room(), thrifty=True)
        if counted is None:
            done = check(call, output, None, law)
            self._keep(Listing(self.recording, call, value, _itself), done, size, tally, room())
            return
        add_counted(tally, counted, size)
        if counted.worst > self.worst[0]:
            self.worst = counted.worst, Element(value, _place(counted.place, value.shape))
        odd = list(counted.disagreeing)
        if counted.unbounded and len(self.vague) < LISTED:
            odd.append(counted.first)
        for position in odd:
            place = _place(position, value.shape)
            again = check(call, output, place, law)
            if again is not None:
                listing = Listing(self.recording, call, value, partial(_always, place))
                self._list(listing.whose, again, room())

    def _keep(self, listing: Listing, done: Check | None, size: int, tally: Tally, room: int) -> None:
        """Count a check, and keep what is odd about it; None: the law reaches a random draw."""
        if done is None:
            tally.scalars += size
            tally.leaves += size
            return
        self._settle(done, listing.whose, tally, room)

    def _settle(self, done: Check, whose: Whose, tally: Tally, room: int) -> None:
        top = add_checked(tally, done)
        if top is not None and top[0] > self.worst[0]:
            listing, place = whose(top[1])
            self.worst = top[0], Element(listing.value, place)
        self._list(whose, done, room)

    def _list(self, whose: Whose, done: Check, room: int) -> None:
        if not np.all(done.agrees):
            self.found.extend(disagreements(done, whose, room))
        if len(self.vague) < LISTED and np.any(done.unbounded):
            self.vague.append(first_unbounded(done, whose))

    def _sampled(self, call: Call, output: int, law: Law, wanted: int, tally: Tally) -> None:
        """Hold so many numbers of one output against its law, all of them at once."""
        if not wanted:
            return
        if only_shown(call, output, law):
            tally.scalars += wanted
            tally.exact += wanted
            return
        value = call.outputs[output]
        spans = lattice(value.shape, wanted, self.drawn)
        shape = tuple(map(len, spans))
        whole = math.prod(shape)
        chosen = None
        if whole > wanted:
            chosen = np.array(sorted(self.drawn.sample(range(whole), wanted)), dtype=np.int64)
        listing = Listing(self.recording, call, value, partial(_at, spans, shape, chosen))
        found = evaluated(call, output, law, spans)
        if found is None:
            tally.scalars += wanted
            tally.leaves += wanted
            return

        def picked(part: Any) -> Any:
            part = np.asarray(part)
            row = (part if part.shape == shape else np.broadcast_to(part, shape)).reshape(-1)
            return row if chosen is None else row[chosen]

        if isinstance(found, Check):
            parts = (found.recorded, found.computed, found.bound, found.exact, found.agrees)
            self._keep(listing, Check(law, *map(picked, parts)), wanted, tally, LISTED - len(self.found))
            return
        recorded, computed, bound = map(picked, found)
        target = format_of(value.dtype)
        key = id(tally), law.precision, target, recorded.dtype, computed.dtype
        pool = self.pools.get(key)
        if pool is None:
            pool = self.pools[key] = Pool(law, target, tally)
        pool.add(listing, recorded, computed, bound)
        if pool.size > POOL:
            self._judge(self.pools.pop(key))

    def _judge(self, pool: Pool) -> None:
        done, whose = pool.judged()
        self._settle(done, whose, pool.tally, max(LISTED - len(self.found), 1))

    def audit(self) -> Audit:
        for pool in self.pools.values():
            self._judge(pool)
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
            wiring=check_wiring(self.recording),
            notices=self.recording.notices,
        )


def _always(place: Place, _: Place) -> Place:
    return place


def _itself(place: Place) -> Place:
    return place


def _at(spans: Sequence[range], shape: Place, chosen: Any, place: Place) -> Place:
    """Where in an output the number at a position of its sample stands."""
    (position,) = place
    at = _place(position if chosen is None else int(chosen[position]), shape)
    return tuple(span[p] for span, p in zip(spans, at, strict=True))


def _readable(call: Call, law: Law) -> bool:
    """Whether the numbers that the law reads are in the recording; without them it can't be checked."""
    if all(value.kept for argument in call.arguments.values() for value in values_in(argument)):
        return True
    tensors = (node.tensor for node in walk(law.expr, into_definitions=True) if isinstance(node, Ref))
    return all(held(call, tensor).kept for tensor in tensors if isinstance(tensor, Tensor))


def _place(position: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(int, np.unravel_index(position, shape)))
