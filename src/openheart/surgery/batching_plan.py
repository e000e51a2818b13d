"""What n variants of one edit have in common: the steps that all take, and the numbers that differ."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from openheart.recording import Value
from openheart.surgery.plan import Added, Plan, Spot
from openheart.surgery.program import Line, Program, is_weighted, redraws, where
from openheart.surgery.running import Note

__all__ = [
    "NotBatchedError",
    "Op",
    "Outline",
    "Put",
    "Step",
    "Varying",
    "merged",
    "outline",
    "pruned",
    "varied",
]


class NotBatchedError(Exception):
    """These variants cannot be run together; each of them can be run by itself."""


@dataclass(frozen=True, slots=True)
class Varying:
    """One number a variant."""

    numbers: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Put:
    """A value is given numbers: one tensor for all variants, or one each."""

    id: int
    tensors: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class Op:
    """A call that an edit puts in; its arguments hold `Spot`s for values and `Varying` numbers."""

    op: Any
    args: tuple[Any, ...]
    output: int


Step = int | Put | Op
"""A recorded line, by its number, or something that an edit puts in."""


@dataclass(slots=True)
class Outline:
    """The steps that a plan leads to, in order.

    Attributes:
        steps: what is run.
        dirty: ids of the values that differ from the recorded ones.
        by_line: those of them that a recorded line makes.
        notes: what there is to know.
    """

    steps: list[Step] = field(default_factory=list)
    dirty: set[int] = field(default_factory=set)
    by_line: set[int] = field(default_factory=set)
    notes: list[Note] = field(default_factory=list)


def varied(program: Program, plans: Iterable[Plan]) -> set[int]:
    """The lines that some of the plans give other constants than the recorded ones."""
    return {
        number
        for plan in plans
        for number, (args, kwargs) in plan.constants.items()
        if args != list(program.lines[number].call.args) or kwargs != program.lines[number].call.kwargs
    }


def outline(program: Program, plan: Plan, constants: set[int]) -> Outline:
    """The steps of one plan, without running any of them; `constants` as `varied` gives them.

    Raises:
        NotBatchedError: it does what only a run by itself can do.
    """
    if plan.before or plan.removed:
        raise NotBatchedError
    found = Outline(dirty=set(plan.leaves))
    script = _Script(plan, found)
    script.events(-1)
    first = min((program.first_use(identity) for identity in plan.leaves), default=len(program.lines))
    start = min([first, *plan.after, *plan.moved, *constants])
    for number in range(max(start, 0), len(program.lines)):
        line = program.lines[number]
        reads = reads_of(line, plan)
        if (number in constants or not reads.isdisjoint(found.dirty)) and _runs(line, found):
            found.steps.append(number)
            made = {plan.renamed.get(identity, identity) for identity in line.outputs}
            found.dirty |= made
            found.by_line |= made
        script.events(number)
    return found


def reads_of(line: Line, plan: Plan) -> frozenset[int]:
    """The ids of the values that a line reads under a plan."""
    moved = plan.moved.get(line.call.id)
    return line.reads if moved is None else frozenset(moved.get(read, read) for read in line.reads)


def _runs(line: Line, found: Outline) -> bool:
    if line.random and not redraws(line):
        if is_weighted(line):
            found.notes.append(Note("surgery.note.draw_kept", {"call": where(line.call)}))
        return False
    if line.blank:
        return False
    if line.fixed:
        raise NotBatchedError  # by itself it says why it cannot be run again
    return True


def merged(plans: list[Plan], first: Outline) -> list[Step]:
    """The steps of n plans of one form, with what differs put side by side; `first` is of the first one.

    Raises:
        NotBatchedError: they are not of one form.
    """
    others = []
    for plan in plans:
        script = _Script(plan, Outline(by_line=first.by_line))
        for number in sorted(plan.after):
            script.events(number)
        others.append(script.found.steps)
        if plan.leaves.keys() != plans[0].leaves.keys():
            raise NotBatchedError
    if len({len(steps) for steps in others}) != 1:
        raise NotBatchedError
    events = iter(zip(*others, strict=True))
    return [step if isinstance(step, int) else _merge(next(events)) for step in first.steps]


def _merge(steps: tuple[Step, ...]) -> Step:
    one = steps[0]
    if isinstance(one, Put) and all(isinstance(step, Put) and step.id == one.id for step in steps):
        tensors = tuple(step.tensors[0] for step in steps if isinstance(step, Put))
        same = all(t is tensors[0] or _equal(t, tensors[0]) for t in tensors)
        return Put(one.id, tensors[:1] if same else tensors)
    if isinstance(one, Op) and all(
        isinstance(s, Op) and s.op is one.op and s.output == one.output and len(s.args) == len(one.args)
        for s in steps
    ):
        columns = zip(*(step.args for step in steps if isinstance(step, Op)), strict=True)
        return Op(one.op, tuple(_argument(column) for column in columns), one.output)
    raise NotBatchedError


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)


def _argument(column: tuple[Any, ...]) -> Any:
    if all(item == column[0] for item in column):
        return column[0]
    if all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in column):
        return Varying(column)
    raise NotBatchedError


class _Script:
    """Stands in for a run: takes down what the events of a plan would do."""

    def __init__(self, plan: Plan, found: Outline) -> None:
        self.plan = plan
        self.found = found
        self.env = found.by_line  # an event asks whether a line made a value in this run

    def events(self, number: int) -> None:
        for event in self.plan.after.get(number, ()):
            try:
                event(self)  # type: ignore[arg-type]
            except AttributeError as error:  # it asks for more than a script has
                raise NotBatchedError from error

    def noting(self, _calls: list[Any]) -> AbstractContextManager[None]:
        """What a run notes for the wiring of a recording: of variants run together none is made."""
        return nullcontext()

    def put(self, identity: int, tensor: torch.Tensor, *_origin: Any) -> None:
        self.found.steps.append(Put(identity, (tensor,)))
        self.found.dirty.add(identity)

    def constant(self, tensor: torch.Tensor, *_name: Any) -> Spot:
        identity = self.plan.fresh()
        self.put(identity, tensor)
        return Spot(identity)

    def call(
        self,
        op: Any,
        args: tuple[Any, ...],
        like: Any,
        output: int | None = None,
        phase: Any = None,
        forward: Any = None,
    ) -> tuple[int, Added]:
        identity = self.plan.fresh() if output is None else output
        self.found.steps.append(Op(op, args, identity))
        self.found.dirty.add(identity)
        return identity, Added(op, "", args, {}, (identity,), (), like, phase, forward)


def pruned(
    program: Program, plan: Plan, found: Outline, watched: Iterable[int]
) -> tuple[set[int], dict[int, int]]:
    """Which steps (by position) lead to what is watched, and after which step each value is let go.

    A line that tells Python a number is always among them: where it decides something, the run would have
    gone elsewhere.
    """
    needed = set(watched)
    kept: set[int] = set()
    last: dict[int, int] = {}
    for position in range(len(found.steps) - 1, -1, -1):
        step = found.steps[position]
        reads: Iterable[int]
        if isinstance(step, int):
            line = program.lines[step]
            makes = {plan.renamed.get(identity, identity) for identity in line.outputs}
            reads = reads_of(line, plan) & found.dirty
            wanted = not line.outputs or not makes.isdisjoint(needed)
        elif isinstance(step, Op):
            reads = [item.id for item in step.args if isinstance(item, Spot)]
            wanted = step.output in needed
        else:
            reads, wanted = (), step.id in needed
        if wanted:
            kept.add(position)
            needed.update(reads)
            for identity in reads:
                last.setdefault(identity, position)
    return kept, last


def peak_bytes(program: Program, plan: Plan, found: Outline, kept: set[int], last: dict[int, int]) -> int:
    """The most bytes that one variant's values take at any time."""

    def size(identity: int) -> int:
        value: Value | None = program.values[identity] if identity < len(program.values) else None
        return 0 if value is None else math.prod(value.shape) * value.dtype.itemsize

    live = most = sum(t.numel() * t.element_size() for t in plan.leaves.values())
    until: dict[int, list[int]] = {}
    for identity, position in last.items():
        until.setdefault(position, []).append(identity)
    for position, step in enumerate(found.steps):
        if position not in kept:
            continue
        if isinstance(step, int):
            live += sum(map(size, program.lines[step].outputs))
        elif isinstance(step, Op):
            live += size(step.output)
        else:
            live += step.tensors[0].numel() * step.tensors[0].element_size()
        most = max(most, live)
        live -= sum(map(size, until.get(position, ())))
    return most
