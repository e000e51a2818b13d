"""Runs a program again: only what follows from a plan."""

# What a run needs, PyTorch offers only under underscored names.

from __future__ import annotations

import cmath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from openheart.errors import InterventionError, OpaqueError
from openheart.i18n import message
from openheart.recording import Call, Origin, Recording, Value
from openheart.recording.memory import shape_of
from openheart.surgery.plan import Added, Later, Plan, Spot
from openheart.surgery.program import (
    Line,
    Program,
    below_autograd,
    is_weighted,
    redraws,
    repeats,
    run_line,
    where,
)

__all__ = ["Note", "Run"]


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know about a counterfactual; `key` and `details` say it in every language."""

    key: str
    details: dict[str, Any]

    def text(self, lang: str | None = None) -> str:
        return message(self.key, lang=lang, **self.details)

    def __str__(self) -> str:
        return self.text()


class Run:
    """One run of a program under a plan.

    Attributes:
        env: id of a value → its tensor, for all that is not as it was recorded.
        made: values that the recording does not have, by id, where something is known of them already.
        origins: where values come from that no call makes, by id.
        added: (line, whether after it, what it is) for the calls that the edits put in.
    """

    def __init__(
        self, recording: Recording, program: Program, plan: Plan, whole: bool, fresh_random: bool
    ) -> None:
        self.recording = recording
        self.program = program
        self.plan = plan
        self.whole = whole
        self.fresh_random = fresh_random
        self.env: dict[int, torch.Tensor] = dict(plan.leaves)
        self.made: dict[int, Value] = {}
        self.origins: dict[int, Origin] = {}
        self.added: dict[tuple[int, bool], list[Added | Later]] = {}
        self.notes: list[Note] = []
        self.place: tuple[int, bool] = (-1, True)
        self.below = below_autograd()

    # Running ------------------------------------------------------------------------------------------------

    def go(self) -> None:
        """Runs every line that follows from the plan."""
        with self.below:
            if self.plan.simple and not self.whole and not self.fresh_random:
                self._downstream()
            else:
                self._all()

    def _downstream(self) -> None:
        env, lines = self.env, self.program.lines
        start = min((self.program.first_use(identity) for identity in env), default=len(lines))
        dirty = set(env)
        for number in range(start, len(lines)):
            line = lines[number]
            if not line.reads.isdisjoint(dirty):
                self._again(line, None, None)
                dirty.update(line.outputs)

    def _all(self) -> None:
        plan, env = self.plan, self.env
        before, after, removed = plan.before, plan.after, plan.removed
        self._events(after, -1, True)
        lines = self.program.lines
        for number in range(self._start(), len(lines)):
            line = lines[number]
            if number in before:
                self._events(before, number, False)
            if number not in removed:
                moved = plan.moved.get(number)
                constants = plan.constants.get(number)
                reads = line.reads if moved is None else {moved.get(read, read) for read in line.reads}
                dirty = self.whole or constants is not None or not reads.isdisjoint(env)
                if dirty or (self.fresh_random and line.random):
                    self._again(line, constants, moved)
            if number in after:
                self._events(after, number, True)

    def _start(self) -> int:
        """The first line that may have something to do."""
        if self.whole or self.fresh_random:
            return 0
        plan = self.plan
        places = (
            number for places in (plan.before, plan.after, plan.moved, plan.constants) for number in places
        )
        reads = (self.program.first_use(identity) for identity in self.env)
        return min((number for number in (*places, *reads) if number >= 0), default=len(self.program.lines))

    def _events(self, events: dict[int, list[Any]], number: int, after: bool) -> None:
        for event in events.get(number, ()):
            self.place = (number, after)
            event(self)

    def _again(self, line: Line, constants: Any, moved: Any) -> None:
        call = line.call
        if line.random and not self.fresh_random and not redraws(line):
            if is_weighted(line) and not self.whole:
                self.notes.append(Note("surgery.note.draw_kept", {"call": where(call)}))
            return  # a draw is what it was
        if line.blank:
            return
        if line.barred and self.whole and line.outputs:
            self.notes.append(Note("surgery.note.barred", {"call": where(call)}))
        if line.barred or (line.fixed and not repeats(line)):
            self._refuse_fixed(line)
            return
        if not line.outputs:
            self._scalar(line, moved)
            return
        try:
            outputs = run_line(line, self.env, constants, moved)
        except OpaqueError:
            if self.whole:
                return  # its inputs were not kept, so nobody can run it; what it made stands
            raise
        except InterventionError:
            if self.whole and line.fixed:
                return  # it reads around its argument, where nothing was edited
            raise
        for value, tensor in zip(call.outputs, outputs, strict=True):
            if shape_of(tensor) != value.shape:
                raise InterventionError(
                    "error.edit.result.shape", call=where(call), after=shape_of(tensor), before=value.shape
                )
            self.env[self.plan.renamed.get(value.id, value.id)] = tensor

    def _refuse_fixed(self, line: Line) -> None:
        if not self.whole:
            raise InterventionError("error.edit.fixed", call=where(line.call))

    def _scalar(self, line: Line, moved: Any) -> None:
        """A number that Python was told: where it decides something, the run would have gone elsewhere."""
        if self.whole or not line.call.args:
            return
        try:
            before, after = line.result({}), line.result(self.env, moved)
        except (RuntimeError, OpaqueError, TypeError):
            return
        if not isinstance(before, (bool, int, float, complex)) or before == after:
            return
        if cmath.isnan(before) and cmath.isnan(after):
            return
        if any(line.call.id in step.calls for step in self.recording.optimizers):
            raise InterventionError(
                "error.option.asked", call=where(line.call), before=f"{before:.6g}", after=f"{after:.6g}"
            )
        if isinstance(before, (bool, int)):
            raise InterventionError("error.edit.path", call=where(line.call), after=after, before=before)
        self.notes.append(
            Note(
                "surgery.note.read",
                {"call": where(line.call), "before": f"{before:.6g}", "after": f"{after:.6g}"},
            )
        )

    # What events use ----------------------------------------------------------------------------------------

    @contextmanager
    def above(self) -> Iterator[None]:
        """Where autograd and modes see what runs, as they do outside of a run."""
        self.below.__exit__()
        try:
            yield
        finally:
            self.below.__enter__()

    def tensor(self, identity: int) -> torch.Tensor:
        """A value's tensor as it is in this run."""
        found = self.env.get(identity)
        return self.program.values[identity].data if found is None else found

    def put(self, identity: int, tensor: torch.Tensor, origin: Origin = "call") -> None:
        """Gives a value its tensor."""
        self.env[identity] = tensor
        if origin != "call":
            self.origins[identity] = origin

    def constant(self, tensor: torch.Tensor, name: str) -> Spot:
        """A tensor that an added call reads and no call makes; the first of its name has the name alone."""
        identity = self.plan.fresh()
        names = self.plan.names
        number = 1
        while (given := name if number == 1 else f"{name}_{number}") in names:
            number += 1
        names[given] = identity
        self.put(identity, tensor, "constant")
        return Spot(identity)

    def add(self, call: Added | Later) -> None:
        """Notes a call that was put in where the run stands."""
        self.added.setdefault(self.place, []).append(call)

    @contextmanager
    def noting(self, calls: list[Added | Later]) -> Iterator[None]:
        """Puts the calls that are noted meanwhile into a list of their own, too."""
        known = len(self.added.get(self.place, ()))
        yield
        calls += self.added.get(self.place, [])[known:]

    def call(
        self,
        op: Any,
        args: tuple[Any, ...],
        like: Call,
        output: int | None = None,
        phase: Any = None,
        forward: Added | int | None = None,
    ) -> tuple[int, Added]:
        """Runs an operator on values of this run, and notes the call; the id of its result."""
        result = op(*[self.tensor(item.id) if isinstance(item, Spot) else item for item in args])
        identity = self.plan.fresh() if output is None else output
        self.put(identity, result)
        name = op._schema.name.split("::")[-1].lstrip("_")
        added = Added(op, name, args, {}, (identity,), ((0, None),), like, phase, forward)
        self.add(added)
        return identity, added
