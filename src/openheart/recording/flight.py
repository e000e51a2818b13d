"""A flight recorder: of a long run only some training steps are held, and the log of the others is let go.

Steps are told apart while the run goes on, by the entries of the log, a few at a time, and as `phases` tells
them apart afterwards: a step begins with the first call that autograd follows, or call of a module, after an
update. Where a run does not train there are no updates: there each call of the model is a step, if nothing
waits for a backward pass.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from openheart.errors import InputError
from openheart.recording.log import (
    BEGIN,
    ENGINE,
    ENGINED,
    ENTER,
    EXIT,
    FREED,
    GAP,
    GRAD,
    POKED,
    REBIND,
    STEP,
    STEPPED,
    Gap,
    Log,
    Stale,
    is_plain,
    stale_gradients,
    tensors_in,
)
from openheart.recording.phases import MAKE_GRADS
from openheart.recording.storages import Geometry, geometry_of

__all__ = ["Flight", "check_steps"]

_AccumulateGrad = torch._C._functions.AccumulateGrad  # type: ignore[attr-defined]
LOOK = 256  # entries between two looks, where no module's call and no optimizer's step asks for one
SIAMESE = 4  # calls of a model that may come before the first backward pass of a run, and belong to it


def check_steps(last: int | None, every: int | None) -> None:
    """Raises `InputError` unless both are None or whole numbers from 1 on."""
    for name, given in (("last", last), ("every", every)):
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise InputError(f"error.record.{name}", given=repr(given))


@dataclass(slots=True, eq=False)
class _Step:
    """One step that the log still holds, from `start` on.

    `loose`: a backward pass may yet show that it is part of the step before.
    """

    number: int
    start: int
    sequence: int  # of the newest autograd node when it began
    stale: list[Stale]  # the gradients that it found
    loose: bool = False
    storages: set[int] | None = None  # that it speaks of; found when what comes after it is let go


class Flight:
    """Holds the last `last` steps, of every `every`-th one.

    `look` reads what was written since the last look.
    """

    def __init__(self, log: Log, last: int | None, every: int | None) -> None:
        self.log = log
        self.last = last
        self.every = every or 1
        self.number = 0
        self._entries = log.entries
        self._append = log.entries.append
        self._seen = 0
        self._due = LOOK
        self._steps: list[_Step] = []
        self._open: list[str] = []
        self._inner: list[str] = []  # marks that runs of autograd and of optimizers began with
        self._stepping = 0  # where the optimizer's step that runs stands in the log
        self._newest = 0
        self._trained = False
        self._own: list[torch.Tensor] = []  # what the model trains
        self._reset()

    def begin(self) -> None:
        """The recording has begun."""
        self._newest = self.log.sequence
        self._own = [item for _, _, item in self.log.named if item.requires_grad and item.is_leaf]
        self._mark(0)
        self._steps[0].stale = self.log.stale

    def add(self, entry: tuple[Any, ...]) -> None:
        """Writes an entry to the log."""
        self._append(entry)
        if len(entry) < 8 or len(self._entries) >= self._due:
            self.look()

    def end(self) -> None:
        """The recording has ended: lets go of what is not one of the chosen steps."""
        self.look()
        self._let_go(ended=True)
        self.log.steps = self.number + 1

    def look(self) -> None:
        """Finds where steps begin in what was written since the last look, and lets go of old ones."""
        entries = self._entries
        while self._seen < len(entries):
            entry = entries[self._seen]
            if len(entry) > 5:
                self._call(*entry[:9])
            elif entry[0] == ENTER:
                self._enter(entry[1])
            elif entry[0] == EXIT:
                self._exit(entry[2])
            elif entry[0] == STEP:
                self._newest = max(self._newest, entry[3] - 1)
                if STEP not in self._inner:
                    self._stepping = self._seen
                self._inner.append(STEP)
            elif entry[0] == STEPPED:
                self._leave()
                self._updated = True
                for parameter, name, tensor in entry[2]:
                    self.log.states[id(tensor)] = (parameter, name, tensor)
            elif entry[0] == ENGINE:
                self._inner.append(ENGINE)
            elif entry[0] == ENGINED:
                self._leave()
                self._leaves.update(_storage(tensor) for tensor in tensors_in(entry[1]))
                self._grads.update(_storage(tensor) for tensor in tensors_in(entry[2]))
            elif entry[0] == GRAD and entry[2] is not None:
                self._grads.add(_storage(entry[2]))
            elif entry[0] == REBIND:
                self._updated = self._updated or self._backward
            self._seen += 1
        self._due = len(entries) + LOOK

    def _leave(self) -> None:
        if self._inner:  # else it had begun before the recording
            self._inner.pop()

    # Where steps begin --------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._updated = False  # the parameters of this step have been updated
        self._backward = False  # a backward pass has run in it
        self._first: str | None = None  # the outermost module that was called first
        self._called = False  # and has returned
        self._waits = False  # what it returned may have a backward pass to come
        self._leaves: set[int] = set()  # storages of leaves that were given a gradient
        self._grads: set[int] = set()  # storages of gradients, and of what was made from them by hand

    def _call(
        self, _op: Any, args: Any, _kwargs: Any, result: Any, undos: Any, _aliases: Any,
        sequence: int, node: Any, caller: Any,
    ) -> None:  # fmt: skip
        fresh = sequence - 1 > self._newest
        backward = node is not None or caller is MAKE_GRADS
        if self._updated and not self._open and ENGINE not in self._inner:
            zeroes = caller is not None and caller.co_name == "zero_grad"
            if caller is MAKE_GRADS or (fresh and not zeroes) or (node is not None and not self._inner):
                self._begin()
        if fresh:
            self._newest = sequence - 1
        if backward:
            if not self._backward:
                self._backward = True
                if not self._trained:
                    self._trained = True
                    self._merge()
            if type(node) is _AccumulateGrad and type(result) is torch.Tensor:
                self._grads.add(_storage(result))
                self._leaves.add(_storage(node.variable))
        elif self._grads and not (fresh or self._open or STEP in self._inner):
            self._by_hand(args, result, undos)

    def _by_hand(self, args: Any, result: Any, undos: Any) -> None:
        """Follows what is made from gradients outside of an optimizer, down to the write to a leaf."""
        if not any(_storage(tensor) in self._grads for tensor in tensors_in(args)):
            return
        if any(_storage(item[2]) in self._leaves for item in undos or ()):
            self._updated = True
        else:
            self._grads.update(_storage(tensor) for tensor in tensors_in(result))

    def _enter(self, path: str) -> None:
        if not self._open and ENGINE not in self._inner:
            if self._updated:
                self._begin()
            elif self._called and path == self._first and not self._inner and self._is_over():
                self._begin(loose=self._waits)
            if self._first is None:
                self._first = path
        self._open.append(path)

    def _exit(self, result: Any) -> None:
        path = self._open.pop()
        if not self._open and path == self._first:
            self._called = True
            self._waits = self._waits or any(tensor.requires_grad for tensor in tensors_in(result))

    def _is_over(self) -> bool:
        """Whether a step without an update is over when the model is called again."""
        if self._backward:  # gradients are being accumulated, or were looked at and dropped
            return all(leaf.grad is None for leaf in self._own)
        return not (self._waits and self._trained)

    def _begin(self, loose: bool = False) -> None:
        self.number += 1
        self._reset()
        # A closure that an optimizer calls begins a step: that of the optimizer belongs to it.
        self._mark(self._stepping if self._inner else self._seen, loose)
        self._let_go()

    def _mark(self, position: int, loose: bool = False) -> None:
        stale = stale_gradients(self._own) if self._seen == len(self._entries) - 1 else []
        step = _Step(self.number, position, self._newest, stale, loose)
        self._steps.append(step)
        self._entries.insert(position, (BEGIN, step))
        self._stepping += 1
        self._seen += 1

    def _merge(self) -> None:
        """The first backward pass of the run: the calls of the model that wait for one belong together."""
        while len(self._steps) > 1 and self._steps[-1].loose:
            del self._entries[self._steps.pop().start]
            self._seen -= 1
            self.number -= 1

    # What is held -------------------------------------------------------------------------------------------

    def _let_go(self, ended: bool = False) -> None:
        past = self._steps if ended else self._steps[:-1]
        if self._steps[-1].loose and not ended:
            past = past[: 1 - SIAMESE] if len(past) >= SIAMESE else []
        chosen = [step for step in self._steps if step.number % self.every == 0]
        held = chosen if self.last is None else chosen[-self.last :]
        for step in [step for step in past if step not in held]:
            self._drop(step)

    def _drop(self, step: _Step) -> None:
        """Takes a step out of the log; what it overwrote of the steps before it stays."""
        place = self._steps.index(step)
        stop = self._steps[place + 1].start if place + 1 < len(self._steps) else len(self._entries)
        left: list[tuple[Any, ...]] = []
        if place:
            storages: set[int] = set()
            for earlier, later in pairwise(self._steps[: place + 1]):
                if earlier.storages is None:
                    earlier.storages = _storages(self._entries[earlier.start : later.start])
                storages |= earlier.storages
            last = self._entries[step.start - 1]
            gap = last[1] if last[0] == GAP else Gap()
            for entry in self._entries[step.start : stop]:
                _retain(gap, entry, storages)
            if last[0] != GAP:
                left = [(GAP, gap)]
        self._entries[step.start : stop] = left
        del self._steps[place]
        moved = stop - step.start - len(left)
        for later in self._steps[place:]:
            later.start -= moved
        self._stepping -= moved
        self._seen -= moved


def _retain(gap: Gap, entry: tuple[Any, ...], storages: set[int]) -> None:
    """Notes what an entry that is let go overwrote or reshaped of what earlier steps hold."""
    if entry[0] == GAP:
        for key in entry[1].undos.keys() & storages:
            for geometry, content in entry[1].undos[key].items():
                gap.undos.setdefault(key, {}).setdefault(geometry, content)
        for identity, pair in entry[1].aliases.items():
            gap.aliases.setdefault(identity, pair)
        return
    if entry[0] == POKED and _storage(entry[1]) in storages:
        gap.undos.setdefault(_storage(entry[1]), {}).setdefault(geometry_of(entry[1]), entry[2])
        return
    if entry[0] == FREED and entry[1] in storages:
        gap.undos.setdefault(entry[1], {}).setdefault(Geometry(torch.uint8, (entry[2],), (1,), 0), None)
        return
    aliases = (entry[5] if len(entry) > 5 else entry[1] if entry[0] == REBIND else None) or ()
    before = {id(tensor): alias for tensor, alias in aliases if alias is not None}
    for tensor, alias in aliases:
        gap.noted.pop(id(tensor), None)
        if alias is not None and _storage(alias) in storages:
            gap.aliases.setdefault(id(tensor), (tensor, alias))
    for _, _, tensor, content in (entry[4] if len(entry) > 5 else None) or ():
        if id(tensor) in gap.noted:
            continue
        place = before.get(id(tensor), tensor)
        key = _storage(place)
        if key in storages:
            gap.undos.setdefault(key, {}).setdefault(geometry_of(place), content)
            if place is tensor:
                gap.noted[id(tensor)] = tensor


def _storages(entries: list[tuple[Any, ...]]) -> set[int]:
    """The storages that these entries speak of."""
    found: set[int] = set()
    for entry in entries:
        for item in entry[1:4]:
            found.update(_storage(tensor) for tensor in tensors_in(item))
    return found


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata) if is_plain(tensor) else 0
