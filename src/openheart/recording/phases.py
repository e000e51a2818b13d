"""What the run was doing at each call: forward, loss, backward or optimizer, and in which training step."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from typing import Any

import torch

from openheart.recording.values import Call, Phase, Value

__all__ = ["MAKE_GRADS", "Phases"]

MAKE_GRADS = torch.autograd._make_grads.__code__


class Phases:
    """Where the walk through the run stands.

    A training step ends with the optimizer's step (or with a write by hand to a tensor that has a gradient),
    and the next one begins with the next call of the model, of autograd, or that autograd follows: reading
    `loss.item()` after the step still belongs to it. `marked`: where steps begin stands in the log.
    """

    def __init__(self, has_model: bool, marked: bool = False) -> None:
        self.has_model = has_model
        self.marked = marked
        self.step = 0
        self.inner: list[str] = []  # runs of autograd and steps of optimizers, one inside of the other
        self.updated = False  # the parameters of this step have been updated
        self.modelled = False  # the model has run in this step
        self.is_seed = False  # the last call made the gradient that a backward pass starts with
        self.grads: set[int] = set()  # ids of values that are gradients of leaves, or made from them by hand

    def of_call(self, caller: Any, node: Any, inside: bool, fresh: bool, reads: list[Value]) -> Phase:
        """The phase of a call; `fresh`: autograd follows it, `inside`: a module of the model is running."""
        self.is_seed = caller is MAKE_GRADS
        if self.is_seed:
            return "backward"
        if self.inner and self.inner[-1] == "optimizer" and not (fresh or inside):
            return (
                "optimizer"  # also in a backward pass: a hook of a leaf may step once its gradient is there
            )
        if node is not None:
            return "backward"
        if inside:
            return "forward"
        if self.optimizing and not fresh:
            return "optimizer"
        if caller is not None and caller.co_name == "zero_grad":
            return "optimizer"
        if not fresh and any(value.id in self.grads for value in reads):
            return "optimizer"
        return "loss" if self.has_model and self.modelled else "forward"

    def begins_step(self, phase: Phase, fresh: bool) -> bool:
        """Whether this call is the first of a new training step."""
        return self.may_end() and phase != "optimizer" and (fresh or phase == "backward")

    def may_end(self) -> bool:
        """Whether the next step may begin; none does inside of a backward pass."""
        return self.updated and not self.marked and "backward" not in self.inner

    @property
    def optimizing(self) -> bool:
        """Whether an optimizer's step is running."""
        return "optimizer" in self.inner

    def leave(self) -> None:
        """The innermost run of autograd, or step of an optimizer, has ended."""
        if self.inner:  # else it had begun before the recording
            self.inner.pop()

    def gradient(self, value: Value) -> None:
        """Notes that a value is a gradient of a leaf."""
        self.grads.add(value.id)

    def next_step(self, number: int | None = None) -> None:
        self.step = self.step + 1 if number is None else number
        self.updated = self.modelled = False
        self.grads.clear()

    def after_call(self, call: Call, reads: list[Value], updates: bool) -> None:
        """Follows what is made from gradients by hand; `updates`: it wrote to a leaf with a gradient."""
        if call.phase != "optimizer" or self.optimizing:
            return
        if updates:
            self.updated = True
        elif any(value.id in self.grads for value in reads):
            self.grads.update(value.id for value in call.outputs)
