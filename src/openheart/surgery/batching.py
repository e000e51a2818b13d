"""Runs n variants of one edit together: each call once, on all of them stacked along a leading dimension.

A call is run on stacks by PyTorch's batching rules (those of `torch.func.vmap`), by its own broadcasting, or,
where neither gives it, once for each variant. Another shape may add up in another order, so a number may
differ by rounding from what a run by itself gives: one variant is run by itself as well, and each call whose
stacked numbers are not the same bit for bit is held against its law. A call that fails is run one by one.
"""

# What batching needs, PyTorch offers only under underscored names.

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from openheart.errors import OpaqueError, OpenheartError
from openheart.recording import Call, Recording, Value
from openheart.surgery.batching_folds import fold
from openheart.surgery.batching_held import as_call, difference, error_of, read_by
from openheart.surgery.batching_levels import Lens, as_recorded, functorch, level_of, no_fallback
from openheart.surgery.batching_plan import (
    NotBatchedError,
    Op,
    Outline,
    Put,
    Varying,
    merged,
    outline,
    peak_bytes,
    pruned,
    varied,
)
from openheart.surgery.edits import Edit
from openheart.surgery.operate import plan_of_edits
from openheart.surgery.plan import Plan, Spot
from openheart.surgery.program import Line, Program, below_autograd, program_of, run_line, same_bits
from openheart.surgery.running import Note, Run

__all__ = ["Batch", "Work", "run_variants"]

MEMORY = 256 * 2**20
"""Bytes that the stacked values of one chunk may take."""

# They look at memory or at single numbers, which a stack does not have.
_NEVER = {"as_strided", "as_strided_", "rrelu_with_noise", "rrelu_with_noise_"}


@dataclass(slots=True)
class Work:
    """How the variants were run.

    Attributes:
        batched: whether calls were run on stacks; else every variant was run by itself.
        calls: how many recorded calls lead from the edit to what is watched.
        runs: how often calls were run, in all.
        one_by_one: names of the calls that were run once for each variant, and how many there are of each.
        chunks: in how many parts the variants were run.
        held: the variant that was run by itself as well; None without batches.
        unequal: how many calls' stacked numbers of it were not the same bit for bit, and were held against
            their law.
        worst: the largest error ÷ bound that was found there.
        difference: the largest |stacked − by itself| over what is watched.
    """

    batched: bool = False
    calls: int = 0
    runs: int = 0
    one_by_one: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    held: int | None = None
    unequal: int = 0
    worst: float = 0.0
    difference: float = 0.0
    notes: list[Note] = field(default_factory=list)


@dataclass(slots=True)
class Batch:
    """What variants give: for each watched value its numbers (n, *shape), and how they were found.

    `constant` are the watched values that no edit reaches.
    """

    numbers: list[torch.Tensor]
    constant: tuple[bool, ...]
    work: Work


def run_variants(
    recording: Recording,
    variants: Sequence[tuple[Edit, ...]],
    watched: Sequence[tuple[str, Value]],
    batched: bool = True,
) -> Batch:
    """The watched values (name and recorded value) of n counterfactuals, one for each variant's edits.

    Raises:
        AddressError, InterventionError: as `intervene`.
    """
    program = program_of(recording)
    first = plan_of_edits(recording, program, variants[0])
    # What an optimizer's options lead to is known of each variant once its step was tried with them.
    tried = [plan_of_edits(recording, program, edits) for edits in variants] if first.options else []
    constants = varied(program, tried)
    ids = [first.names.get(name, value.id) for name, value in watched]
    work = Work()
    numbers = None
    if batched and len(variants) > 2:
        try:
            numbers = _together(recording, program, variants, ids, work, tried, constants)
        except NotBatchedError:
            work = Work()
    if numbers is None:
        numbers = _by_themselves(recording, program, variants, ids, work)
    reached = _reached(program, first, constants)
    return Batch(numbers, tuple(identity not in reached for identity in ids), work)


def _reached(program: Program, plan: Plan, constants: set[int]) -> set[int]:
    try:
        return outline(program, plan, constants).dirty
    except NotBatchedError:
        dirty = {*plan.leaves, *plan.renamed, *plan.names.values()}
        for number, line in enumerate(program.lines):
            if number in constants or not line.reads.isdisjoint(dirty) or number in plan.moved:
                dirty.update(line.outputs)
        return dirty


def _by_themselves(
    recording: Recording,
    program: Program,
    variants: Sequence[tuple[Edit, ...]],
    ids: list[int],
    work: Work,
) -> list[torch.Tensor]:
    """Each variant by a run of its own: bit for bit what `intervene` gives."""
    found: list[list[torch.Tensor]] = []
    for edits in variants:
        plan = plan_of_edits(recording, program, edits)
        run = _Counted(recording, program, plan, whole=False, fresh_random=False)
        run.go()
        work.runs += run.count
        work.calls = max(work.calls, run.count)
        for note in run.notes:
            if note not in work.notes:
                work.notes.append(note)
        found.append([run.tensor(identity).clone() for identity in ids])
    return [torch.stack(column) for column in zip(*found, strict=True)]


class _Counted(Run):
    """A run that counts its calls."""

    count = 0

    def _again(self, line: Line, constants: Any, moved: Any) -> None:
        self.count += 1
        super()._again(line, constants, moved)


def _together(
    recording: Recording,
    program: Program,
    variants: Sequence[tuple[Edit, ...]],
    ids: list[int],
    work: Work,
    tried: list[Plan],
    constants: set[int],
) -> list[torch.Tensor] | None:
    first = plan_of_edits(recording, program, variants[0])
    found = outline(program, first, constants)
    kept, last = pruned(program, first, found, ids)
    size = max(1, MEMORY // max(1, peak_bytes(program, first, found, kept, last)))
    if size < 3:
        return None
    work.batched = True
    work.notes = list(found.notes)
    work.calls = sum(isinstance(found.steps[position], int) for position in kept)
    work.held = min(len(variants) // 2, size - 1)
    refused: set[int] = set()
    parts: list[list[torch.Tensor]] = []
    for start in range(0, len(variants), size):
        chunk = variants[start : start + size]
        plans = tried[start : start + size] or [plan_of_edits(recording, program, e) for e in chunk]
        exact = _exact(recording, program, chunk[work.held]) if not parts else None
        stacks = _Stacks(recording, program, plans, found, exact, refused, work, constants)
        stacks.go(kept, last, set(ids))
        part = [stacks.numbers(identity) for identity in ids]
        if exact is not None:
            work.difference = max(
                difference(n[work.held], exact.tensor(i)) for n, i in zip(part, ids, strict=True)
            )
        parts.append(part)
        work.chunks += 1
    if len(parts) == 1:
        return parts[0]
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def _exact(recording: Recording, program: Program, edits: tuple[Edit, ...]) -> Run:
    run = Run(recording, program, plan_of_edits(recording, program, edits), whole=False, fresh_random=False)
    run.go()
    return run


class _Stacks:
    """The values of n variants, stacked: id of a value → (n, *shape)."""

    def __init__(
        self,
        recording: Recording,
        program: Program,
        plans: list[Plan],
        found: Outline,
        exact: Run | None,
        refused: set[int],
        work: Work,
        constants: set[int],
    ) -> None:
        self.recording = recording
        self.constants = constants
        self.program = program
        self.plans = plans
        self.n = len(plans)
        self.steps = merged(plans, found)
        self.exact = exact
        self.refused = refused
        self.work = work
        self.env: dict[int, torch.Tensor] = {
            identity: torch.stack([plan.leaves[identity] for plan in plans]) for identity in plans[0].leaves
        }

    def numbers(self, identity: int) -> torch.Tensor:
        """A value's numbers, (n, *shape)."""
        found = self.env.get(identity)
        if found is not None:
            return found.clone()
        value = self.program.values[identity]
        return value.data.expand(self.n, *value.shape).clone()

    def go(self, kept: set[int], last: dict[int, int], watched: set[int]) -> None:
        gone: dict[int, list[int]] = {}
        for identity, position in last.items():
            if identity not in watched:
                gone.setdefault(position, []).append(identity)
        with torch.no_grad(), below_autograd(), no_fallback():
            for position, step in enumerate(self.steps):
                if position not in kept:
                    continue
                if isinstance(step, Put):
                    self._put(step)
                elif isinstance(step, Op):
                    self._operation(step)
                else:
                    self._line(step)
                for identity in gone.get(position, ()):
                    self.env.pop(identity, None)

    def _put(self, step: Put) -> None:
        one = step.tensors[0]
        same = len(step.tensors) == 1
        self.env[step.id] = one.expand(self.n, *one.shape) if same else torch.stack(step.tensors)

    def _operation(self, step: Op) -> None:
        like = next(self._tensor(item.id) for item in step.args if isinstance(item, Spot))
        stacks = [
            torch.tensor(item.numbers, dtype=like.dtype)
            if isinstance(item, Varying)
            else self.env.get(item.id)
            if isinstance(item, Spot)
            else None
            for item in step.args
        ]
        with level_of(self.n) as level:
            args = [
                functorch._add_batch_dim(stack, 0, level) if stack is not None else self._plain(item)
                for item, stack in zip(step.args, stacks, strict=True)
            ]
            try:
                made = self._unwrapped(step.op(*args), level)
            except RuntimeError as error:
                raise NotBatchedError from error
        self.env[step.output] = made
        if self.exact is not None:
            held = self.work.held
            assert held is not None
            alone = [
                stack[held] if stack is not None else self._plain(item)
                for item, stack in zip(step.args, stacks, strict=True)
            ]
            if not same_bits(made[held], step.op(*alone)):
                raise NotBatchedError

    def _plain(self, item: Any) -> Any:
        return self._tensor(item.id) if isinstance(item, Spot) else item

    def _tensor(self, identity: int) -> torch.Tensor:
        found = self.env.get(identity)
        return self.program.values[identity].data if found is None else found

    # Lines --------------------------------------------------------------------------------------------------

    def _line(self, number: int) -> None:
        line = self.program.lines[number]
        plan = self.plans[0]
        moved = plan.moved.get(number)
        outputs = None
        if number not in self.constants and number not in self.refused and line.outputs:
            outputs = self._stacked(line, moved)
            if outputs is not None and not self._right(line, moved, outputs):
                outputs = None
        if outputs is None:
            self.refused.add(number)
            self.work.one_by_one[line.call.name] += 1
            self.work.runs += self.n
            outputs = self._one_by_one(line, number, moved)
        else:
            self.work.runs += 1
        for value, tensor in zip(line.call.outputs, outputs, strict=True):
            self.env[plan.renamed.get(value.id, value.id)] = tensor

    def _stacked(self, line: Line, moved: Any) -> list[torch.Tensor] | None:
        if line.call.name in _NEVER:
            return None
        try:
            outputs = fold(line, self.env, moved, self.n)
        except (RuntimeError, ValueError, IndexError, TypeError, OpaqueError):
            outputs = None
        for env in (self.env, None) if outputs is None else ():
            try:
                outputs = self._mapped(line, self._laid(line, moved) if env is None else env, moved)
                break
            except (OpenheartError, RuntimeError):
                continue
        if outputs is None or any(
            tuple(tensor.shape) != (self.n, *value.shape) or tensor.dtype != value.dtype
            for tensor, value in zip(outputs, line.call.outputs, strict=True)
        ):
            return None
        return outputs

    def _mapped(self, line: Line, env: dict[int, torch.Tensor], moved: Any) -> list[torch.Tensor]:
        """By PyTorch's batching rules."""
        with level_of(self.n) as level:
            outputs = run_line(line, Lens(line, env, moved, self.n, level), None, moved)  # type: ignore[arg-type]
            return [self._unwrapped(tensor, level) for tensor in outputs]

    def _unwrapped(self, tensor: torch.Tensor, level: int) -> torch.Tensor:
        if functorch.is_batchedtensor(tensor):
            stack: torch.Tensor = functorch._remove_batch_dim(tensor, level, self.n, 0)
            return stack
        return tensor.expand(self.n, *tensor.shape)

    def _laid(self, line: Line, moved: Any) -> dict[int, torch.Tensor]:
        """What a line reads, each variant laid out in memory as the recorded value was."""
        env = {}
        for value in read_by(line):
            identity = value.id if moved is None else moved.get(value.id, value.id)
            if identity in self.env:
                env[identity] = as_recorded(self.env[identity], value)
        return env

    def _one_by_one(self, line: Line, number: int, moved: Any) -> list[torch.Tensor]:
        env = self._laid(line, moved)
        made: list[list[torch.Tensor]] = []
        for k, plan in enumerate(self.plans):
            run = Run(self.recording, self.program, plan, whole=False, fresh_random=False)
            run.env = {identity: stack[k] for identity, stack in env.items()}
            run._again(line, plan.constants.get(number), moved)
            made.append([run.env[plan.renamed.get(i, i)] for i in line.outputs])
            self.work.notes += [note for note in run.notes if note not in self.work.notes]
        return [torch.stack(column) for column in zip(*made, strict=True)]

    # Holding them to account --------------------------------------------------------------------------------

    def _right(self, line: Line, moved: Any, outputs: list[torch.Tensor]) -> bool:
        """Whether the stacked numbers of one variant are those of a run by itself, or obey their law."""
        if self.exact is None:
            return True
        held = self.work.held
        assert held is not None
        renamed = self.plans[0].renamed
        call: Call | None = None
        for position, (value, tensor) in enumerate(zip(line.call.outputs, outputs, strict=True)):
            other = self.exact.tensor(renamed.get(value.id, value.id))
            if same_bits(tensor[held], other):
                continue
            call = as_call(line, self.env, moved, outputs, held) if call is None else call
            worst = error_of(call, position, tensor[held], other)
            if worst is None:
                return False
            self.work.worst = max(self.work.worst, worst)
        self.work.unequal += call is not None
        return True
