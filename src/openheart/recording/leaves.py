"""What `.grad` of every leaf held, moment by moment: what arrived, what was made of it, what a step used.

A gradient arrives more than once (accumulation), is written in place (clipping, a scaler that takes its scale
back), assigned anew, or forgotten. The name `weight.grad` in a training step is what `weight.grad` held when
the optimizer's step that owns the weight had ended, or the write by hand that updated it had begun; where
nothing updates it, the last that it held in that step. What it held before is `weight.grad:1`,
`weight.grad:2`, …; what it held when the recording began `weight.grad:0`; what was made of it after the
update (zeros) `weight.grad.after`.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from openheart.recording.log import Stale, is_plain
from openheart.recording.values import Value

if TYPE_CHECKING:
    from openheart.recording.memory import Memory

__all__ = ["Gradient", "Leaves"]

_BLANK = {"new_empty_strided", "empty_strided", "empty_like"}  # memory for what is copied there next


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """Something that `.grad` of a leaf held.

    Attributes:
        step: the training step.
        owner: what the model calls the leaf; None for one that is not the model's.
        leaf: the leaf's first value.
        label: what follows `.grad` in its name: nothing, `:1`, `.after`.
        value: what was held.
    """

    step: int
    owner: str | None
    leaf: Value
    label: str
    value: Value


@dataclass(slots=True, eq=False)
class _Leaf:
    """One leaf: what its `.grad` is now (`tensor`, `value`), and what became of it in this training step."""

    variable: torch.Tensor
    tensor: torch.Tensor | None = None
    value: Value | None = None
    held: list[Value] = field(default_factory=list)  # new in this step, in order
    used: Value | None = None  # what it held when the leaf was updated in this step


class Leaves:
    """Every leaf that has been given a gradient so far, as the walk goes along."""

    def __init__(
        self, memory: Memory, names: dict[int, str], stale: Iterable[Stale], met: Callable[[Value], None]
    ) -> None:
        self.arrived: list[tuple[int, Value, Value]] = []  # step, leaf, what autograd left in its `.grad`
        self.found: list[Gradient] = []
        self._memory = memory
        self._names = names  # the model's, by the tensor object
        self._met = met  # is told of every value that is a gradient
        self._leaves: dict[int, _Leaf] = {}  # by the tensor object
        self._grads: dict[Hashable, list[_Leaf]] = {}  # storages that gradients lie in
        self._homes: dict[Hashable, list[_Leaf]] = {}  # storages that leaves lie in
        self._step = 0
        self._stale: dict[int, list[Stale]] = {}
        self.begin_step(0, stale)

    # What the walk tells ------------------------------------------------------------------------------------

    def began(self, tensor: torch.Tensor, value: Value) -> None:
        """A leaf was met in memory that no recorded call made: it may be a gradient from before."""
        for item in self._stale.get(tensor.untyped_storage()._cdata, ()) if self._stale else ():
            if item.geometry == value.geometry:
                leaf = self._leaf(item.leaf)
                if leaf.value is None and not leaf.held:
                    self._was(leaf, tensor, value)

    def begin_step(self, step: int, stale: Iterable[Stale]) -> None:
        """A step begins of which nothing before it may be held; `stale` are the gradients that it finds."""
        self._step = step
        self._stale = {}
        for item in stale:
            self._stale.setdefault(item.storage.cdata, []).append(item)

    def skip(self) -> None:
        """Steps went by that are not held: what `.grad` is now is not known."""
        for leaf in self._leaves.values():
            leaf.tensor = leaf.value = None

    def accumulated(
        self, step: int, variable: torch.Tensor, name: str, reads: list[Value], result: Any
    ) -> None:
        """A call of autograd's own that puts a gradient into a leaf."""
        if not isinstance(result, torch.Tensor) or name in _BLANK:
            return
        leaf = self._leaf(variable)
        if name.startswith("add") and reads and leaf.value is not reads[0]:
            self._was(leaf, result, reads[0])
        self._hold(leaf, result)
        assert leaf.value is not None
        self.arrived.append((step, self._memory.first(variable), leaf.value))

    def assigned(self, variable: torch.Tensor, gradient: torch.Tensor | None) -> None:
        """`variable.grad = gradient`."""
        leaf = self._leaves.get(id(variable))
        if gradient is None:
            if leaf is not None:
                leaf.tensor = leaf.value = None
        elif is_plain(variable) and variable.is_leaf:
            self._hold(leaf or self._leaf(variable), gradient)

    def written(self, lives: Iterable[Hashable], by_hand: bool) -> None:
        """Something wrote to these storages, `by_hand` where no optimizer's step is running."""
        for life in lives:
            for leaf in self._grads.get(life, ()):
                if leaf.tensor is not None and self._memory.story(leaf.tensor).life is life:
                    self._hold(leaf, leaf.tensor)
            for leaf in self._homes.get(life, ()) if by_hand else ():
                leaf.used = leaf.used or leaf.value

    @property
    def any(self) -> bool:
        """Whether any leaf was given a gradient, or asked for one."""
        return bool(self._leaves)

    def updates(self, life: Hashable) -> bool:
        """Whether a storage is that of a leaf that was given a gradient."""
        return life in self._homes

    def wanted(self, variable: torch.Tensor) -> None:
        """A gradient of a leaf was asked for (`torch.autograd.grad`), not put into it."""
        self._leaf(variable)

    def stepping(self, members: Iterable[tuple[torch.Tensor, torch.Tensor | None]]) -> None:
        """An optimizer is about to step, and these are the gradients that it finds."""
        for variable, gradient in members:
            if gradient is None:
                self.assigned(variable, None)
                continue
            leaf = self._leaf(variable)
            now = self._memory.read(gradient)
            if leaf.value is not now:
                if leaf.value is None and not leaf.held:
                    self._was(leaf, gradient, now)
                else:
                    self._hold(leaf, gradient)

    def stepped(self, variables: Iterable[torch.Tensor]) -> None:
        """An optimizer has stepped with these leaves."""
        for variable in variables:
            leaf = self._leaves.get(id(variable))
            if leaf is not None and leaf.value is not None:
                leaf.used = leaf.value

    def end_step(self, step: int) -> None:
        """Says what each leaf's `.grad` was in the training step that ends here."""
        for leaf in self._leaves.values():
            last = leaf.value or (leaf.held[-1] if leaf.held else None)
            main = leaf.used or last
            if main is not None:
                home, owner = self._memory.first(leaf.variable), self._names.get(id(leaf.variable))
                self.found.append(Gradient(step, owner, home, "", main))
                earlier = leaf.held[: leaf.held.index(main)] if main in leaf.held else []
                for number, value in enumerate(earlier, 1):
                    self.found.append(Gradient(step, owner, home, f":{number}", value))
                if leaf.value is not None and leaf.value is not main:
                    self.found.append(Gradient(step, owner, home, ".after", leaf.value))
            leaf.held = []
            leaf.used = None

    # --------------------------------------------------------------------------------------------------------

    def _leaf(self, variable: torch.Tensor) -> _Leaf:
        leaf = self._leaves.get(id(variable))
        if leaf is None:
            leaf = self._leaves[id(variable)] = _Leaf(variable)
            self._homes.setdefault(self._memory.story(variable).life, []).append(leaf)
        return leaf

    def _was(self, leaf: _Leaf, tensor: torch.Tensor, value: Value) -> None:
        """A gradient from before the recording."""
        home, owner = self._memory.first(leaf.variable), self._names.get(id(leaf.variable))
        self.found.append(Gradient(self._step, owner, home, ":0", value))
        self._know(leaf, tensor, value)

    def _hold(self, leaf: _Leaf, tensor: torch.Tensor) -> None:
        value = self._memory.read(tensor)
        if value is not leaf.value:
            leaf.held.append(value)
        self._know(leaf, tensor, value)

    def _know(self, leaf: _Leaf, tensor: torch.Tensor, value: Value) -> None:
        leaf.tensor, leaf.value = tensor, value
        self._met(value)
        members = self._grads.setdefault(self._memory.story(tensor).life, [])
        if leaf not in members:
            members.append(leaf)
