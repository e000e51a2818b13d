"""What an audit keeps of the checks it makes: counts under each verdict, and some numbers one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from openheart.check import Check, Count, accused_in, digits_left, freed, judge, may_turn
from openheart.formula.precision import Precision
from openheart.origins import law_at
from openheart.recording import Call, Element, Recording, Value
from openheart.rules.registry import Law

COUNTS = (
    *("calls", "scalars", "exact", "within", "unbounded", "disagree"),
    *("opaque", "not_checked", "leaves", "nonfinite", "infinite"),
)
"""What a tally adds up."""
Place = tuple[int, ...]


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


def add_counted(tally: Tally, counted: Count, size: int) -> None:
    """Add what a compiled loop found of an output."""
    tally.scalars += size
    tally.exact += counted.exact
    tally.within += counted.agree - counted.exact - counted.unbounded
    tally.unbounded += counted.unbounded
    tally.infinite += counted.infinite
    tally.disagree += size - counted.agree
    tally.worst = max(tally.worst, counted.worst)


def add_checked(tally: Tally, done: Check) -> tuple[float, Place] | None:
    """Add one check; the largest error ÷ bound, and where in it, when any bound is positive."""
    size = int(np.size(done.recorded))
    agrees = int(np.count_nonzero(done.agrees))
    exact = int(np.count_nonzero(done.exact))
    vague = int(np.count_nonzero(done.unbounded))
    tally.scalars += size
    tally.exact += exact
    tally.within += agrees - exact - vague
    tally.unbounded += vague
    tally.disagree += size - agrees
    bound = np.asarray(done.bound, dtype=np.float64)
    if vague:
        tally.infinite += int(np.count_nonzero(done.unbounded & ~np.isfinite(bound)))
    if not np.any(bound > 0):
        return None
    with np.errstate(all="ignore"):
        recorded = np.asarray(done.recorded)
        error = recorded != done.computed if recorded.dtype.kind == "b" else np.abs(recorded - done.computed)
        ratio = np.where((bound > 0) & np.isfinite(error), error / bound, 0.0)
    place = int(np.argmax(ratio))
    top = float(ratio.reshape(-1)[place])
    tally.worst = max(tally.worst, top)
    return top, tuple(map(int, np.unravel_index(place, ratio.shape)))


@dataclass(frozen=True, slots=True)
class Listing:
    """Numbers of one output, one by one; `where` gives the output's place of a place in its check."""

    recording: Recording
    call: Call
    value: Value
    where: Callable[[Place], Place]

    def whose(self, place: Place) -> tuple[Listing, Place]:
        """As `Whose`, for a check of this output alone."""
        return self, self.where(place)

    def may_turn(self, place: Place) -> bool:
        """Whether an honest computation may be finite at a place of the output, or not."""
        output = next(n for n, value in enumerate(self.call.outputs) if value is self.value)
        law = law_at(self.recording, self.call, output)
        return law is not None and bool(may_turn(self.call, law, place))

    def told(self, done: Check, at: Place, place: Place) -> tuple[str, str, Any, Any, float]:
        """The number at `at` of a check, which stands at `place` in the output."""
        shape = np.shape(done.recorded)
        recorded, computed, bound = (
            np.broadcast_to(part, shape)[at].item() for part in (done.recorded, done.computed, done.bound)
        )
        address = self.recording.address(Element(self.value, place))
        return address, self.call.name, recorded, computed, float(bound)


Whose = Callable[[Place], tuple[Listing, Place]]
"""Whose number stands at a place of a check, and where in its output."""


def disagreements(done: Check, whose: Whose, room: int) -> list[Disagreement]:
    """At most `room` of the numbers of a check that disagree."""
    if room <= 0:
        return []
    places = [tuple(map(int, p)) for p in np.argwhere(~np.asarray(done.agrees))[:room]]
    owners = map(whose, places)
    return [Disagreement(*own.told(done, at, place)) for at, (own, place) in zip(places, owners, strict=True)]


def first_unbounded(done: Check, whose: Whose) -> Unbounded:
    """The first number of a check that is unbounded."""
    at = tuple(map(int, np.argwhere(np.asarray(done.unbounded))[0]))
    listing, place = whose(at)
    told = listing.told(done, at, place)
    digits = digits_left(told[2], told[4])
    return Unbounded(*told, -math.inf if digits is None else digits)


@dataclass(slots=True)
class Pool:
    """Numbers of many outputs that wait to be judged together: judging a few at a time costs as much as many.

    All of a pool were computed in one precision and recorded in one format, by one operator.
    """

    law: Law
    target: Precision | None
    tally: Tally
    parts: list[tuple[Listing, Any, Any, Any]] = field(default_factory=list)
    size: int = 0

    def add(self, listing: Listing, recorded: Any, computed: Any, bound: Any) -> None:
        """Put one row of numbers in."""
        self.parts.append((listing, recorded, computed, bound))
        self.size += len(recorded)

    def judged(self) -> tuple[Check, Whose]:
        """The check of them all, and whose a position in it is."""
        recorded, computed, bound = (np.concatenate([part[k] for part in self.parts]) for k in (1, 2, 3))
        ends = np.cumsum([len(part[1]) for part in self.parts])

        def whose(place: Place) -> tuple[Listing, Place]:
            (position,) = place
            n = int(np.searchsorted(ends, position, side="right"))
            listing = self.parts[n][0]
            return listing, listing.where((position - (int(ends[n - 1]) if n else 0),))

        done = judge(self.law, recorded, computed, bound, self.target)
        free = np.zeros(len(recorded), dtype=bool)
        for (position,) in np.argwhere(accused_in(done)):
            listing, place = whose((int(position),))
            free[position] = listing.may_turn(place)
        return freed(done, free), whose
