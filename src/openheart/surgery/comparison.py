"""What two runs of one network have in common, what moved between them, and by how much."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from openheart.check import check
from openheart.errors import AddressError, OpaqueError
from openheart.formula.expr import Reduce, Ref, Tensor, walk
from openheart.origins import law_at
from openheart.surgery.differences import Moved, Number, largest

if TYPE_CHECKING:
    from openheart.recording import Recording, Value
    from openheart.recording.values import Phase
    from openheart.surgery.predictions import Predictions

Kind = Literal["parameter", "activation", "gradient", "update", "output", "loss", "input", "state"]
Reason = Literal["shape", "before_not_kept", "after_not_kept", "unreadable"]

WORK = 2_000_000
"""A value whose law takes more multiplications is not held against its rounding bounds."""
SMALL = 0.01
"""Nor is one that changed by a larger part of itself: rounding does not do that."""


@dataclass(frozen=True, slots=True)
class Change:
    """One value that moved.

    Attributes:
        name: its canonical name, `0.out`.
        kind: what it is to the run; `gradient` is all of the backward pass, `update` all that the optimizer
            makes but its `state` (and the model's buffers), `input` all that nobody computed but parameters.
        phase, step: when it was made; for what no call made, when it was first read.
        position: its position in the run.
        shape: the shape that both have.
        dtypes: the dtype before and after, the same unless the runs differ in it (`"float32"`).
        moved, unmoved: how many of its numbers moved, and how many are the same bit for bit.
        became_nan, were_nan: how many of those that moved are NaN after only, and before only.
        largest: the address of the number that moved most, `0.out[0,2]`; None if only the dtype differs.
        before, after, difference: that number, and after − before; each None with it.
        norm: ‖after − before‖₂ over the whole value; NaN where a number became NaN or was one.
        relative: the effect, ‖after − before‖₂ / ‖before‖₂ (infinite numbers of `before` left out).
    """

    name: str
    kind: Kind
    phase: Phase
    step: int
    position: int
    shape: tuple[int, ...]
    dtypes: tuple[str, str]
    moved: int
    unmoved: int
    became_nan: int
    were_nan: int
    largest: str | None
    before: Number | None
    after: Number | None
    difference: Number | None
    norm: float
    relative: float

    @property
    def nan(self) -> bool:
        """Whether a number became NaN or was one: a change without a size, the largest of all."""
        return bool(self.became_nan or self.were_nan)


@dataclass(frozen=True, slots=True)
class ElementChange:
    """One number that moved: its address, what it was, what it is, and after − before."""

    address: str
    before: Number
    after: Number
    difference: Number


@dataclass(frozen=True, slots=True)
class Incomparable:
    """Two values of one name that cannot be compared, and why.

    `reason` is "shape" (`before` and `after` are the two shapes), "before_not_kept" or "after_not_kept" (one
    of the recordings has the numbers, the other has not), or "unreadable" (PyTorch cannot compare them; what
    it said is in `after`).
    """

    name: str
    kind: Kind
    reason: Reason
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class LossChange:
    """The loss of one training step in both runs; `difference` is after − before."""

    address: str
    before: float
    after: float
    difference: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `openheart.compare` found. Its lists are over names, `0.out`; see `Change` for the numbers.

    Attributes:
        before, after: the two recordings.
        changed: every value that moved, the largest effect first. The effect is the relative change
            ‖after − before‖₂ / ‖before‖₂ (∞ where `before` is all zero), ties in the order of the run; a
            value with a number that became NaN, or was one, comes before all others.
        unchanged: the names of the values that are the same bit for bit (any NaN is any other NaN).
        only_before, only_after: the names that only one of the runs has.
        incomparable: values of one name that cannot be compared, with the reason.
        unread: the names of values that hold nobody's numbers: kept in neither run, or uninitialised memory.
        losses: the loss of every training step that both have.
        top: how many changes are printed unless told otherwise.
    """

    before: Recording
    after: Recording
    changed: tuple[Change, ...]
    unchanged: tuple[str, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    incomparable: tuple[Incomparable, ...]
    unread: tuple[str, ...]
    losses: tuple[LossChange, ...]
    top: int | None = None
    _twins: Mapping[str, tuple[Value, Value]] = field(default_factory=dict, repr=False)
    _rounding: dict[str, int | None] = field(default_factory=dict, repr=False)

    @property
    def same(self) -> bool:
        """Whether both runs have the same values, and every number is the same bit for bit."""
        return not (self.changed or self.only_before or self.only_after or self.incomparable)

    @property
    def loss(self) -> LossChange | None:
        """The loss of the last training step; None where the runs have none in common."""
        return self.losses[-1] if self.losses else None

    @cached_property
    def predictions(self) -> Predictions | None:
        """The classes that the output speaks for; None where it has none: see `Predictions`."""
        from openheart.surgery.predictions import predictions

        return predictions(self.before, self.after)

    def elements(self, name: str, top: int | None = 10) -> list[ElementChange]:
        """The `top` numbers of one value that moved, the largest |difference| first (NaN before all).

        Raises:
            AddressError: no value that both runs have is called so.
            OpaqueError: its numbers cannot be compared.
        """
        known, pair = self._pair(name)
        if pair[0] is pair[1]:
            return []
        for one in self.incomparable:
            if one.name == known:
                raise OpaqueError(
                    "error.compare.not", name=name, reason=one.reason, before=one.before, after=one.after
                )
        shape = pair[0].shape
        return [
            ElementChange(address(known, shape, m), m.before, m.after, m.difference)
            for m in largest(pair[0].data, pair[1].data, top)
        ]

    def twin(self, name: str) -> str:
        """What the second run calls the value that this one is compared with; often the same.

        Raises:
            AddressError: no value that both runs have is called so.
        """
        return self.after.name(self._pair(name)[1][1])

    def within_rounding(self, name: str) -> int | None:
        """How many of a value's moved numbers moved by no more than the bounds of its two calls allow.

        Each run's number lies within the bound of its law's (see `check.check`); a difference up to the sum
        of both bounds can come from rounding in that one call, so it is no sign that anything else moved.
        None where that says nothing: a value that no law computes, that only copies others, that changed by
        more than a hundredth of itself, or whose law is too long to be worked out for the question.

        Raises:
            AddressError: no value that both runs have is called so.
        """
        known, pair = self._pair(name)
        if known not in self._rounding:
            self._rounding[known] = self._within(known, pair)
        return self._rounding[known]

    def copies(self, name: str) -> bool:
        """Whether a value only moves numbers of another one: a view of it, a copy.

        Raises:
            AddressError: no value that both runs have is called so.
        """
        value = self._pair(name)[1][0]
        made = self.before.maker(value)
        if made is None or self.before.has_own_name(value):
            return False
        law = law_at(self.before, *made)
        return law is not None and isinstance(law.expr, Ref) and isinstance(law.expr.tensor, Tensor)

    def _pair(self, name: str) -> tuple[str, tuple[Value, Value]]:
        known = self.before.name(self.before.value(name))
        pair = self._twins.get(known)
        if pair is None:
            raise AddressError("error.compare.first", name=name)
        return known, pair

    def _within(self, name: str, pair: tuple[Value, Value]) -> int | None:
        change = next((each for each in self.changed if each.name == name), None)
        if change is None or change.nan or not 0 < change.relative <= SMALL:
            return None
        bounds = []
        for recording, value in zip((self.before, self.after), pair, strict=True):
            bound = _bound(recording, value)
            if bound is None:
                return None
            bounds.append(bound)
        before, after = (value.array for value in pair)
        moved = np.abs(_wide(after) - _wide(before))
        with np.errstate(all="ignore"):
            return int(np.count_nonzero((moved > 0) & (moved <= bounds[0] + bounds[1])))

    def text(
        self, digits: int = 4, lang: str | None = None, top: int | None = None, width: int | None = None
    ) -> str:
        """The comparison as plain text, grouped by phase in the order of the run.

        `top` changes are listed, the largest of each phase in turn; 20 unless given here or to `compare`.
        """
        from openheart.printers.comparison import text

        return text(self, digits=digits, lang=lang, top=top, width=width)

    def to_html(self, digits: int = 4, lang: str | None = None, top: int | None = None) -> str:
        """An HTML fragment that needs nothing else, in light and dark."""
        from openheart.printers.comparison_html import comparison_html

        return comparison_html(self, digits=digits, lang=lang, top=top)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as `docs/comparison.schema.json` describes it."""
        from openheart.printers.comparison import comparison_dict

        return comparison_dict(self)

    def __rich__(self) -> Any:
        from openheart.printers.comparison import rich_comparison

        return rich_comparison(self)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.to_html()

    def _repr_mimebundle_(self, **_asked: Any) -> dict[str, Any]:
        return {
            "text/plain": self.text(),
            "text/html": self.to_html(),
            "application/vnd.openheart.comparison+json": self.to_dict(),
        }


def address(name: str, shape: tuple[int, ...], moved: Moved) -> str:
    """The address of a number that moved, in a value of this name and shape."""
    index = np.unravel_index(moved.place, shape) if shape else ()
    return f"{name}[{','.join(map(str, map(int, index)))}]" if shape else name


def effect(change: Change) -> tuple[float, int]:
    """Sorts changes by their effect: NaN first, then the larger relative change, then the earlier one."""
    size = math.inf if change.nan else min(change.relative, np.finfo(np.float64).max)
    return -size, change.position


def _bound(recording: Recording, value: Value) -> Any:
    """How far rounding alone can put each number of a value; None where no law says, or it is too long."""
    made = recording.maker(value)
    law = law_at(recording, *made) if made is not None else None
    if made is None or law is None or isinstance(law.expr, Ref):
        return None
    sums = [math.prod(i.extent for i in node.over) for node in walk(law.expr) if isinstance(node, Reduce)]
    if math.prod(value.shape) * max(sums, default=1) > WORK:
        return None
    try:
        done = check(*made, law=law)
    except OpaqueError:  # what the call read was not kept
        return None
    return None if done is None or done.verdict() == "disagrees" else np.broadcast_to(done.bound, value.shape)


def _wide(array: Any) -> Any:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
