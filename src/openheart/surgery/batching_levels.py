"""Stacked tensors as PyTorch's batched ones: a level of batching, and a line's inputs at it."""

# What batching needs, PyTorch offers only under underscored names.

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from openheart.recording import Value
from openheart.surgery.program import Line

__all__ = ["Lens", "as_recorded", "functorch", "level_of", "no_fallback"]

functorch: Any = torch._C._functorch


def as_recorded(stack: torch.Tensor, value: Value) -> torch.Tensor:
    """The same numbers (n, *shape), each variant laid out in memory as the recorded value was."""
    if stack.dim() != len(value.shape) + 1 or stack.stride()[1:] == value.stride or 0 in value.shape:
        return stack
    if any(step == 0 and size > 1 for step, size in zip(value.stride, value.shape, strict=True)):
        return stack  # an expanded one: its numbers need not be the same any more
    reach = 1 + sum((size - 1) * step for size, step in zip(value.shape, value.stride, strict=True))
    made = torch.empty_strided(stack.shape, (reach, *value.stride), dtype=stack.dtype, device=stack.device)
    return made.copy_(stack)


class Lens:
    """A line's stacked inputs as PyTorch's batched tensors; what it writes to is stacked as well."""

    def __init__(self, line: Line, env: dict[int, torch.Tensor], moved: Any, n: int, level: int) -> None:
        self.line, self.env, self.n, self.level = line, env, n, level
        written: dict[int, Value] = {}
        for _, value, copied in line._tensors:
            if copied:
                written[value.id if moved is None else moved.get(value.id, value.id)] = value
        self.written = written

    def get(self, identity: int) -> torch.Tensor | None:
        stack = self.env.get(identity)
        if stack is None:
            value = self.written.get(identity)
            if value is None:
                return None
            if not value.kept:
                if not self.line._overwrites:
                    return None
                stack = torch.empty((self.n, *value.shape), dtype=value.dtype)
            else:
                stack = value.data.expand(self.n, *value.shape)
        wrapped: torch.Tensor = functorch._add_batch_dim(stack, 0, self.level)
        return wrapped

    def __contains__(self, identity: int) -> bool:
        return self.get(identity) is not None


@contextmanager
def level_of(n: int) -> Iterator[int]:
    """A level of batching; tensors wrapped at it mean nothing outside."""
    level = functorch._vmap_increment_nesting(n, "error")
    try:
        yield level
    finally:
        functorch._vmap_decrement_nesting()


@contextmanager
def no_fallback() -> Iterator[None]:
    """Where an operator without a batching rule raises instead of being looped over with a warning."""
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_enabled(before)
