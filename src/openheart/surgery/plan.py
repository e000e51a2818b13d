"""What is to be done to a program: numbers put in the place of others, calls moved, cut out and put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from openheart.recording import Call
from openheart.recording.graph import Edge

if TYPE_CHECKING:
    from openheart.surgery.running import Run

__all__ = ["Added", "Event", "Graft", "Later", "Plan", "Spot"]

Event = Callable[["Run"], None]
"""Something done while the program runs: it reads and writes its numbers, and notes calls of its own."""


@dataclass(frozen=True, slots=True)
class Spot:
    """Stands in the arguments of an added call for the value with this id."""

    id: int


@dataclass(slots=True, eq=False)
class Added:
    """A call that an edit puts into the program: `aten.where` where a number is set, what a swap runs.

    Attributes:
        like: the recorded call whose place in the network (phase, scope, source, step) it shares.
        outputs: the ids of the values that it makes.
        forward: what it is the backward call of, if any: an added call, or the id of a recorded one.
    """

    op: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[int, ...]
    slots: tuple[Any, ...]
    like: Call
    phase: Any = None
    forward: Added | int | None = None


class Later:
    """Calls that are known once the whole run has been seen: `expand` gives them."""

    def expand(self) -> Iterator[Added]:
        raise NotImplementedError


@dataclass(slots=True, eq=False)
class Graft:
    """A node that an edit puts into autograd's graph, before the one that took a value's gradient.

    Attributes:
        edge: where that gradient arrived.
        to: where the node hands gradients to.
        value: id of the value whose gradient arrives at the node from now on, if it is another's.
        before: ids of the values whose gradient arrives where `edge` is, as that value's did.
        turned: backward pass → the gradient that the node takes, and what it hands on.
        forward: the calls that the edit put into the forward pass.
        backward: backward pass → the calls that it put into the backward one.
    """

    edge: Edge
    to: list[Edge | None]
    value: int | None = None
    before: tuple[int, ...] = ()
    turned: dict[int, tuple[int, list[int | None]]] = field(default_factory=dict)
    forward: list[Added | Later] = field(default_factory=list)
    backward: dict[int, list[Added | Later]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Plan:
    """All that is to be done in one run.

    Attributes:
        next_id: the first id that no value has.
        leaves: id of a leaf → the tensor that takes its place.
        before, after: number of a line → events before or after it; line −1 is the beginning.
        renamed: id of a value → the id that the call which makes it gives to its output.
        moved: number of a line → id of a value that it reads → id of the value that it reads instead.
        constants: number of a line → arguments in the place of its own.
        removed: lines that are left out.
        names: other names for values: name → id.
        options: number of an optimizer's step → the options of its groups.
        mixed: number of a line that reads a value for two reasons → place → what to read there.
        instead: number of a line that is left out → the call that stands in its place.
        grafts: what the edits put into autograd's graph.
        put: id of a value as its call makes it → the id of what an edit puts in its place.
        alike: id of a value → id of another that has the same place in autograd's graph.
        again: number of an optimizer's step that is made once more → its calls, once they are known.
        carried: what an optimizer keeps from step to step that the recorded one does not.
    """

    next_id: int
    leaves: dict[int, torch.Tensor] = field(default_factory=dict)
    before: dict[int, list[Event]] = field(default_factory=dict)
    after: dict[int, list[Event]] = field(default_factory=dict)
    renamed: dict[int, int] = field(default_factory=dict)
    moved: dict[int, dict[int, int]] = field(default_factory=dict)
    constants: dict[int, tuple[list[Any], dict[str, Any]]] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    names: dict[str, int] = field(default_factory=dict)
    options: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    mixed: dict[int, dict[Any, int]] = field(default_factory=dict)
    instead: dict[int, Added] = field(default_factory=dict)
    grafts: list[Graft] = field(default_factory=list)
    put: dict[int, int] = field(default_factory=dict)
    alike: dict[int, int] = field(default_factory=dict)
    again: dict[int, Later | None] = field(default_factory=dict)
    carried: dict[Any, dict[tuple[int, int], dict[str, Any]]] = field(default_factory=dict)

    def fresh(self) -> int:
        """An id for a value that the recording does not have."""
        self.next_id += 1
        return self.next_id - 1

    def move(self, line: int, old: int, new: int) -> None:
        """Has a line read another value."""
        self.moved.setdefault(line, {})[old] = new

    @property
    def simple(self) -> bool:
        """Whether only leaves change: the program itself stays as it is."""
        return not (self.before or self.after or self.moved or self.constants or self.removed)
