"""How far an input can move before a piecewise linear network becomes another affine map.

Every choice hangs on a gap, which is affine in the input while no choice changes: g·x + c. Along feature j
it is crossed at −gap/gⱼ; the nearest point where it is 0 lies |gap| / ‖g‖ away.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openheart.check import fetcher, held
from openheart.formula.expr import Expr, Index, Ref
from openheart.formula.places import places
from openheart.formula.precision import DOUBLE_UNIT, gamma
from openheart.origins import Names
from openheart.recording import Element, Recording
from openheart.surgery.affine import Refusal
from openheart.surgery.affine_flow import LARGEST, Choice, Measured, laid, substituted, tensors_of

__all__ = ["Frontier"]

Place = tuple[int, int]
"""Which choice, and the position in it; (−1, 0) for none."""
NOWHERE: Place = (-1, 0)
LISTED = 100
"""At most this many units on the boundary are named."""


@dataclass(slots=True)
class Frontier:
    """The nearest boundaries, gathered choice by choice.

    Attributes:
        recording: the run.
        known: every value on the way in float64, with how far the recorded one may lie from it.
        point: the sample, (features,) float64.
        sample: the sample's place along the batch; None where there is no batch to choose from.
    """

    recording: Recording
    known: Mapping[int, Measured]
    point: Any
    sample: int | None
    batch: int = 1
    minus: Any = None
    plus: Any = None
    distance: float = float("inf")
    unit: str = ""
    active: dict[str, Any] = field(default_factory=dict)
    winners: dict[str, Any] = field(default_factory=dict)
    touching: list[str] = field(default_factory=list)
    _choices: list[Choice] = field(default_factory=list)
    _minus_at: Any = None
    _plus_at: Any = None

    @property
    def features(self) -> int:
        """How many numbers of the input move."""
        return len(self.point)

    def __post_init__(self) -> None:
        self.minus, self.plus = np.full(self.features, np.inf), np.full(self.features, np.inf)
        self._minus_at = np.full((self.features, 2), NOWHERE)
        self._plus_at = np.full((self.features, 2), NOWHERE)

    def note(self, choice: Choice) -> None:
        """Measures one choice.

        **Raises** `MemoryError` where its gaps are too many.
        """
        number = len(self._choices)
        self._choices.append(choice)
        fetch = fetcher(choice.call)
        indices, kink, span = choice.indices, choice.kink, choice.span
        size = math.prod(_extents(choice))
        if size * choice.column.extent > LARGEST:
            raise MemoryError(f"{choice.column.extent} · {size}")
        self._state(choice)
        gap, doubt, slope = self._gap(choice)
        counts = np.any(slope != 0, axis=0)
        if kink.inside is not None:
            counts &= laid(kink.inside, indices, fetch, {}, span=span)[0].reshape(-1) != 0
        taken = laid(kink.plain, indices, fetch, {}, span=span)[0].reshape(-1)
        # Where float64 itself cannot tell, or rounding has led the run to the other side, the distance is 0.
        gap = np.where((np.abs(gap) <= doubt) | ((gap > 0) != (taken > 0)), 0.0, gap)
        plain, definitions = substituted(kink.plain, choice.call, tensors_of(choice.law), self.known)
        _, spoiled = laid(plain, indices, fetch, definitions, choice.law.precision, span)
        on = counts & (np.abs(gap) <= spoiled.reshape(-1))
        self._along(number, np.where(counts, slope, 0.0), gap)
        with np.errstate(all="ignore"):
            far = np.where(counts, np.abs(gap) / np.sqrt(np.sum(slope**2, axis=0)), np.inf)
        if far.size:
            nearest = int(np.argmin(far))
            if far[nearest] < self.distance:
                self.distance = float(far[nearest])
                self.unit = self.named((number, nearest))
        for place in np.flatnonzero(on)[: LISTED - len(self.touching)]:
            name = self.named((number, int(place)))
            if name not in self.touching:
                self.touching.append(name)

    def _gap(self, choice: Choice) -> tuple[Any, Any, Any]:
        """The gaps g·x + c of a choice, how far float64 may be off, and the slopes g, (features, places).

        **Raises** `Refusal` where a gap moves with the other samples too.
        """
        fetch, kink, indices = fetcher(choice.call), choice.kink, choice.indices
        known, span = choice.definitions, choice.span
        made, error = laid(kink.linear, (choice.column, *indices), fetch, known, span=span)
        rest, doubt = laid(kink.constant, indices, fetch, known, span=span)
        made, error = (a.reshape(choice.column.extent, -1) for a in (made, error))
        others, made, error = made[self.features :], made[: self.features], error[: self.features]
        if np.any(np.any(others != 0, axis=0) & np.any(made != 0, axis=0)):
            raise Refusal("mixes")
        rest, doubt = rest.reshape(-1), doubt.reshape(-1)
        size = np.abs(self.point)
        doubt = doubt + size @ error
        doubt = doubt + gamma(self.features + 1, 2 * DOUBLE_UNIT) * (size @ np.abs(made) + np.abs(rest))
        return self.point @ made + rest, doubt, np.where(np.abs(made) <= error, 0.0, made)

    def _along(self, number: int, slope: Any, gap: Any) -> None:
        """The first crossing along each feature, both ways."""
        if not gap.size:
            return
        with np.errstate(all="ignore"):
            steps = np.where(slope != 0, -gap / slope, np.nan)
        each = np.arange(self.features)
        for way, best, at in ((1, self.plus, self._plus_at), (-1, self.minus, self._minus_at)):
            with np.errstate(invalid="ignore"):
                ahead = np.where(steps * way >= 0, steps * way, np.inf)
            nearest = np.argmin(ahead, axis=1)
            found = ahead[each, nearest]
            better = found < best
            best[better] = np.abs(found[better])
            at[better] = np.stack([np.full(self.features, number), nearest], axis=1)[better]

    def crossings(self, feature: int) -> tuple[str | None, str | None]:
        """Which unit changes first as a feature falls, and as it grows."""
        down, up = self._minus_at[feature], self._plus_at[feature]
        return (
            None if down[0] < 0 else self.named((int(down[0]), int(down[1]))),
            None if up[0] < 0 else self.named((int(up[0]), int(up[1]))),
        )

    def named(self, place: Place) -> str:
        """The address of the unit whose choice it is: what is compared, or the largest of many."""
        choice = self._choices[place[0]]
        at = np.unravel_index(place[1], _extents(choice)) if choice.indices else ()
        env: dict[Index, int] = dict(zip(choice.indices, map(int, at), strict=True))
        env |= {i: span.start for i, span in choice.span.items()}
        unit = choice.kink.unit
        if unit is not None and _within(unit, env):
            where = places(unit, env, fetcher(choice.call))
            return Names(self.recording, choice.call).element(unit.tensor, where)  # type: ignore[arg-type]
        own = tuple(env.get(i, 0) for i in choice.law.indices)
        return self.recording.address(Element(choice.call.outputs[choice.output], own))

    def _state(self, choice: Choice) -> None:
        """Notes the branch that was taken at each place: by recorded numbers."""
        fetch, kink = fetcher(choice.call), choice.kink
        if kink.winner is not None:
            name = self.recording.name(choice.call.outputs[choice.output])
            first = laid(kink.winner, choice.law.indices, fetch, {}, span=choice.span)[0]
            self.winners[name] = self._own(first.astype(np.int64), choice)
            return
        own = set(choice.law.indices)
        indices = choice.law.indices if own.issuperset(choice.indices) else choice.indices
        on = self._own(laid(kink.plain, indices, fetch, {}, span=choice.span)[0] > 0, choice)
        name = self._tensor_name(choice, kink.unit)
        before = self.active.get(name)
        if before is None or before.shape != on.shape:
            self.active[name] = on
        else:
            self.active[name] = before.astype(np.int64) + on

    def _tensor_name(self, choice: Choice, unit: Ref | None) -> str:
        if unit is None:
            return self.recording.name(choice.call.outputs[choice.output])
        value = held(choice.call, unit.tensor)  # type: ignore[arg-type]
        if self.recording.has_own_name(value):
            return self.recording.name(value)
        return Names(self.recording, choice.call).tensor(unit.tensor)  # type: ignore[arg-type]

    def _own(self, states: Any, choice: Choice) -> Any:
        """The sample's own states, where the batch comes first."""
        if choice.span:
            return states[0]
        if self.sample is not None and states.ndim and states.shape[0] == self.batch:
            return states[self.sample]
        return states


def _extents(choice: Choice) -> list[int]:
    """How many places a choice has along each of its indices."""
    return [len(choice.span[i]) if i in choice.span else i.extent for i in choice.indices]


def _within(unit: Ref, env: Mapping[Index, int]) -> bool:
    def free(node: Expr) -> bool:
        return all(i in env for i in node.free)

    return all(map(free, unit.index))
