"""Two runs of one network side by side, number by number.

>>> import torch, openheart as oh
>>> model, x = torch.nn.Linear(2, 1), torch.ones(1, 2)
>>> before = oh.record(model, x)
>>> oh.compare(before, oh.record(model, x)).same
True
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, get_args

import torch

from openheart.errors import AddressError, InputError, OpaqueError
from openheart.formula.expr import Leaf
from openheart.i18n import Message
from openheart.nearest import nearest
from openheart.origins import law_at
from openheart.recording import Recording
from openheart.surgery.comparison import (
    Change,
    Comparison,
    Incomparable,
    Kind,
    LossChange,
    address,
    effect,
)
from openheart.surgery.differences import difference, identical
from openheart.surgery.pairing import paired

if TYPE_CHECKING:
    from openheart.recording import Value
    from openheart.recording.values import Phase

__all__ = ["compare"]

KINDS = get_args(Kind)
_STEP = re.compile(r"^@(\d+) ")
_LOSS = re.compile(r"^loss(_\d+)?$")
_OUTPUT = re.compile(r"^output(_\d+)?$")
_INPUT = re.compile(r"^(input|target)(_\d+)?$")


def compare(
    before: Recording,
    after: Recording,
    top: int | None = None,
    only: str | Iterable[str] | None = None,
) -> Comparison:
    """Compares two runs of one network: which values moved, by how much, in the order of their effect.

    Values are paired by name; what is merely numbered (`/tanh_1.out`), by how it came about. A value that
    both recordings share (an intervention leaves what is not downstream of it as it was) is the same without
    a look at its numbers; others are compared bit by bit where their dtypes agree, and as float64 where they
    do not.

    Args:
        before, after: two recordings: a run and its `intervene`, two runs of a model with other weights or
            other inputs, a run and one read from a file.
        top: how many changes are printed, the largest of each phase; 20 unless given. `.changed` has all.
        only: compare these values only: kinds (`"gradient"`) and patterns of names (`"0.*"`, `"*.grad"`).

    Raises:
        InputError: one of the two is not a recording.
        AddressError: a pattern of `only` fits no name; `.suggestion` is the nearest one.

    >>> import torch, openheart as oh
    >>> model, x = torch.nn.Linear(2, 1), torch.ones(1, 2)
    >>> found = oh.compare(oh.record(model, x), oh.record(model, 2 * x), only=["input", "weight"])
    >>> [(change.name, change.relative) for change in found.changed], found.unchanged
    ([('input', 1.0)], ('weight',))
    """
    for recording in (before, after):
        if not isinstance(recording, Recording):
            raise InputError("error.recording.wanted", verb="compare", kind=type(recording).__name__)
    twins, only_before, only_after = paired(before, after)
    kinds = _Kinds(before)
    positions = {name: position for position, name in enumerate(twins)}
    if only is not None:
        chosen = _chosen(
            (only,) if isinstance(only, str) else tuple(only),
            {name: kinds.of(name, pair[0]) for name, pair in twins.items()},
            (*only_before, *only_after),
        )
        twins = {name: pair for name, pair in twins.items() if name in chosen}
        only_before = [name for name in only_before if name in chosen]
        only_after = [name for name in only_after if name in chosen]
    changed: list[Change] = []
    unchanged: list[str] = []
    unread: list[str] = []
    incomparable: list[Incomparable] = []
    for name, (one, other) in twins.items():
        if one is other:
            unchanged.append(name)
            continue
        found = _compared(name, kinds, positions[name], one, other)
        if isinstance(found, Change):
            changed.append(found)
        elif isinstance(found, Incomparable):
            incomparable.append(found)
        else:
            (unchanged if found else unread).append(name)
    return Comparison(
        before,
        after,
        tuple(sorted(changed, key=effect)),
        tuple(unchanged),
        tuple(only_before),
        tuple(only_after),
        tuple(incomparable),
        tuple(unread),
        tuple(_losses(twins)),
        top,
        twins,
    )


def _chosen(patterns: tuple[str, ...], kinds: dict[str, Kind], alone: tuple[str, ...]) -> set[str]:
    chosen: set[str] = set()
    names = (*kinds, *alone)
    for pattern in patterns:
        found = {name for name, kind in kinds.items() if kind == pattern}
        found |= {name for name in names if name == pattern or fnmatchcase(name, pattern)}
        if not found and pattern not in KINDS:
            near = nearest(pattern, names)
            hint = "" if near is None else Message("error.hint", {"name": near})
            raise AddressError(
                "error.compare.only",
                near,
                name=pattern,
                hint=hint,
                kinds=", ".join(KINDS),
            )
        chosen |= found
    return chosen


class _Kinds:
    """What each value is to the run that it was recorded in."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        names = recording._named.values
        self.outputs = {value.id for name, value in names.items() if _OUTPUT.match(_bare(name))}
        self.states = {
            value.id
            for step in recording.optimizers
            for group in step.groups
            for state in group.states
            for value in state.values()
            if hasattr(value, "id")
        }
        self.buffers = {
            _bare(name)
            for name, value in names.items()
            if value.origin == "buffer" or (value.id in self.states and not name.endswith(".after"))
        }

    def of(self, name: str, value: Value) -> Kind:
        """What a value of this name is."""
        made, bare = self.recording.maker(value), _bare(name)
        if _LOSS.match(bare):
            return "loss"
        if bare.endswith(".grad") or (made is not None and made[0].phase == "backward"):
            return "gradient"
        if value.id in self.states or bare.removesuffix(".after") in self.buffers:
            return "state"
        if _INPUT.match(bare):
            return "input"
        if bare.endswith(".after") or (made is not None and made[0].phase == "optimizer"):
            return "update"
        if value.id in self.outputs:
            return "output"
        if value.origin == "parameter":
            return "parameter"
        return "input" if made is None else "activation"

    def when(self, kind: Kind, value: Value) -> tuple[Phase, int]:
        """In which phase and training step a value was made; what was given, when it was first read."""
        made = self.recording.maker(value)
        if made is not None and kind != "input":
            return made[0].phase, made[0].step
        first = next(iter(self.recording.users(value)), None)
        return (first.phase, first.step) if first is not None else ("forward", 0)

    def blank(self, value: Value) -> bool:
        """Whether a value is memory that nobody wrote to, or a fused kernel's workspace: no run's numbers."""
        made = self.recording.maker(value)
        if made is None or self.recording.has_own_name(value):
            return False
        law = law_at(self.recording, *made)
        if law is None or not isinstance(law.expr, Leaf):
            return False
        workspace = made[0].name.startswith("mkldnn_rnn_layer") and value.dtype == torch.uint8
        return workspace or law.expr.kind == "uninitialized"


def _bare(name: str) -> str:
    return _STEP.sub("", name)


def _compared(
    name: str, kinds: _Kinds, position: int, one: Value, other: Value
) -> Change | Incomparable | bool | None:
    """What moved; True if nothing did, None where neither run holds numbers that anybody made."""
    if not one.kept and not other.kept:
        return None
    kind = kinds.of(name, one)
    if one.shape != other.shape:
        return Incomparable(name, kind, "shape", _size(one), _size(other))
    if not (one.kept and other.kept):
        return Incomparable(
            name, kind, "after_not_kept" if one.kept else "before_not_kept", _size(one), _size(other)
        )
    try:
        before, after = one.data, other.data
        if identical(before, after):
            return True
        found = difference(before, after)
    except (OpaqueError, RuntimeError, TypeError, NotImplementedError, KeyError) as error:
        return Incomparable(name, kind, "unreadable", _size(one), str(error).strip().splitlines()[0])
    if not found.moved and one.dtype == other.dtype:
        return True
    if kinds.blank(one):
        return None
    phase, step = kinds.when(kind, one)
    top = found.largest
    return Change(
        name=name,
        kind=kind,
        phase=phase,
        step=step,
        position=position,
        shape=one.shape,
        dtypes=(_dtype(one.dtype), _dtype(other.dtype)),
        moved=found.moved,
        unmoved=found.count - found.moved,
        became_nan=found.became_nan,
        were_nan=found.were_nan,
        largest=address(name, one.shape, top) if top is not None else None,
        before=top.before if top is not None else None,
        after=top.after if top is not None else None,
        difference=top.difference if top is not None else None,
        norm=found.norm,
        relative=found.relative,
    )


def _size(value: Value) -> str:
    return "×".join(map(str, value.shape)) or "1"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _losses(twins: dict[str, tuple[Value, Value]]) -> Iterable[LossChange]:
    for name, (one, other) in twins.items():
        if not re.fullmatch("loss", _bare(name)) or one.shape != () or other.shape != ():
            continue
        if one.dtype.is_floating_point and other.dtype.is_floating_point and one.kept and other.kept:
            before, after = one.data.item(), other.data.item()
            yield LossChange(name, before, after, after - before)
