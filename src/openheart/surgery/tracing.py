"""Runs a function of tensors inside a run, forward and backward, and notes each call that it makes."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from openheart.errors import InterventionError
from openheart.recording import Call, Value
from openheart.recording.build import Facts, build
from openheart.recording.seat import aside
from openheart.surgery.edits import Edit
from openheart.surgery.plan import Added, Later, Spot
from openheart.surgery.running import Run

__all__ = ["Traced", "applied", "renumbered"]


def applied(edit: Edit, given: Any) -> Any:
    """What the function of an edit makes of its argument.

    Raises:
        InterventionError: it raises an error of its own.
    """
    try:
        return edit.value(given)
    except Exception as error:
        if isinstance(error, RuntimeError) and _WRITES in str(error):
            raise
        raise InterventionError(
            "error.edit.function", address=edit.address, kind=type(error).__name__, reason=error
        ) from error


_WRITES = "a leaf Variable that requires grad"


class Traced:
    """A function of some values of a run, with its gradient by autograd; its calls become the run's.

    Args:
        function: takes the tensors of `inputs`, gives one tensor.
        inputs: ids of the values that it takes.
        like: the recorded call whose place in the network its calls share.
        output: the id that its result has.
    """

    def __init__(
        self, function: Callable[..., torch.Tensor], inputs: Sequence[int], like: Call, output: int
    ) -> None:
        self.function = function
        self.inputs = list(inputs)
        self.like = like
        self.output = output
        self.leaves: list[torch.Tensor] = []
        self.others: list[
            tuple[torch.Tensor, int]
        ] = []  # leaves that the function has of its own, and their ids
        self.result: torch.Tensor | None = None
        self.known: list[tuple[torch.Tensor, int, bool]] = []  # tensor, its id, whether nobody made it
        self.run: Run | None = None
        self._calls: list[tuple[bool, Added]] | None = None

    def forward(self, run: Run) -> torch.Tensor:
        """Runs the function where the run stands; its result is the value `output`."""
        from openheart.record import Recorder

        self.run = run
        taken = [run.tensor(identity) for identity in self.inputs]
        with run.above():
            # A copy, so that a function that writes to its argument changes nothing that was recorded.
            self.leaves = [tensor.detach().clone() for tensor in taken]
            values = run.program.values
            for identity, leaf in zip(self.inputs, self.leaves, strict=True):
                if identity < len(values) and values[identity].origin == "buffer":
                    continue  # batch normalisation refuses to be asked for its statistics' gradient
                if leaf.dtype.is_floating_point or leaf.dtype.is_complex:
                    leaf.requires_grad_(True)
            result = self._recorded(Recorder, copied=False)
            self.result = result
        self.known = [(leaf, i, True) for leaf, i in zip(self.leaves, self.inputs, strict=True)]
        self.known += [(leaf, identity, True) for leaf, identity in self.others]
        self.known.append((result, self.output, False))
        for leaf, identity in self.others:
            run.put(identity, leaf.detach(), "parameter")
        run.put(self.output, result.detach())
        run.add(_Half(self, backward=False))
        return result.detach()

    def _recorded(self, recorder: Any, copied: bool) -> torch.Tensor:
        self.recorder = recorder()
        try:
            with torch.enable_grad(), self.recorder:
                self.sequence = self.recorder.log.sequence
                result = self.function(*([leaf.clone() for leaf in self.leaves] if copied else self.leaves))
                if any(result is leaf for leaf in self.leaves):
                    result = result.clone()
                elif any(len(entry) > 5 and entry[4] for entry in self.recorder.log.entries):
                    result = result.view_as(result)  # read it, so that what was written to its views is seen
        except RuntimeError as error:
            if copied or _WRITES not in str(error):
                raise
            return self._recorded(recorder, copied=True)  # it writes to its arguments
        return result

    def backward(
        self, run: Run, gradient: int, outputs: Sequence[int | None], others: Sequence[int] = ()
    ) -> None:
        """The gradients of its inputs and of `self.others`, from the gradient of its result.

        `outputs` and `others` are the ids that these gradients have; None for one that nobody asks for.
        """
        assert self.result is not None
        given = run.tensor(gradient)
        wanted = [*self.leaves, *(leaf for leaf, _ in self.others)]
        outputs = [*outputs, *others]
        sources = [
            leaf
            for leaf, output in zip(wanted, outputs, strict=True)
            if output is not None and leaf.requires_grad
        ]
        found: Sequence[torch.Tensor | None] = [None] * len(sources)
        if self.result.requires_grad and sources:
            with run.above():
                given = given.detach().clone()
                with self.recorder:
                    found = torch.autograd.grad(
                        self.result, sources, given.to(self.result.dtype), allow_unused=True
                    )
                self.recorder.log.sequence = self.sequence
        self.known.append((given, gradient, True))
        by_leaf = {id(leaf): item for leaf, item in zip(sources, found, strict=True)}
        for leaf, output in zip(wanted, outputs, strict=True):
            item = by_leaf.get(id(leaf))
            if output is not None:
                if item is not None and item.data_ptr() == given.data_ptr() and item.shape == given.shape:
                    # It is handed on as it is: a value of its own needs a call that makes it.
                    run.call(torch.ops.aten.clone.default, (Spot(gradient),), self.like, output, "backward")
                    continue
                if item is None:
                    item = torch.zeros_like(leaf).detach()
                run.put(output, item.detach())
                self.known.append((item, output, False))
        run.add(_Half(self, backward=True))

    def calls(self) -> list[tuple[bool, Added]]:
        """Every call, and whether it is of the backward pass; ids are those of the run."""
        if self._calls is None:
            assert self.run is not None
            with torch.no_grad(), aside():
                facts = build(self.recorder.log)
            self._calls = renumbered(facts, self.known, self.run, self.like)
        return self._calls


class _Half(Later):
    def __init__(self, traced: Traced, backward: bool) -> None:
        self.traced = traced
        self.backward = backward

    def expand(self) -> Iterator[Added]:
        for backward, call in self.traced.calls():
            if backward is self.backward:
                yield call


def renumbered(
    facts: Facts, known: list[tuple[torch.Tensor, int, bool]], run: Run, like: Call
) -> list[tuple[bool, Added]]:
    """The calls of a recording inside of a run, and whether each is of the backward pass.

    `known` are tensors and their ids in the run; True: the id is of what the tensor held at first.
    """
    ids: dict[int, int] = {}
    for tensor, identity, first in known:
        # What a tensor held at first, or in the end.
        for value in facts.values if first else reversed(facts.values):
            if value.id not in ids and _is(value, tensor):
                ids[value.id] = identity
                break
    for value in facts.values:
        if value.id not in ids:
            ids[value.id] = run.plan.fresh()
            run.made[ids[value.id]] = value
    found: list[tuple[bool, Added]] = []
    for call in facts.calls:
        backward = call.phase == "backward"
        added = Added(
            call.op,
            call.name,
            _spotted(call.args, ids),
            _spotted(call.kwargs, ids),
            tuple(ids[value.id] for value in call.outputs),
            call.slots,
            like,
            "backward" if backward else like.phase,
            None if call.forward_call is None else found[call.forward_call][1],
        )
        found.append((backward, added))
    return found


def _is(value: Value, tensor: torch.Tensor) -> bool:
    held = value._tensor
    return (
        held is not None
        and held.data_ptr() == tensor.data_ptr()
        and held.shape == tensor.shape
        and held.stride() == tensor.stride()
        and held.dtype == tensor.dtype
    )


def _spotted(item: Any, ids: dict[int, int]) -> Any:
    if isinstance(item, Value):
        return Spot(ids[item.id])
    if isinstance(item, list):
        return [_spotted(part, ids) for part in item]
    if isinstance(item, tuple):
        return tuple([_spotted(part, ids) for part in item])
    if isinstance(item, dict):
        return {key: _spotted(part, ids) for key, part in item.items()}
    return item
