"""What need not be copied before it is overwritten, because it can be made again, bit for bit.

An optimizer's step written in PyTorch scales what it keeps and then adds to it (`mul_`, then `addcmul_`,
`add_`, `addcdiv_`): two writes, of which each would have the whole tensor copied first. What lies between the
two is not copied: it is the scaled copy of what lay before, and to scale is one IEEE multiplication in each
place, so that the same operator on the same numbers gives the same bits, in whatever order and by however
many threads. That holds for real floating numbers; all else is copied.

Only within an optimizer's step, where nobody else writes in between unseen.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from openheart.recording.seat import unseen

__all__ = ["Again", "Thrift"]

LARGE = 2**14  # bytes; to copy fewer costs no more than to find out

_SCALES = {torch.ops.aten.mul_.Tensor, torch.ops.aten._foreach_mul_.Scalar}
_REAL = (torch.float32, torch.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Again:
    """What a region of a storage held: what it held one write earlier, scaled."""

    op: Any
    before: torch.Tensor
    factor: float

    def made(self) -> torch.Tensor:
        """The numbers, made again by the very operator that made them."""
        with torch.no_grad(), unseen():
            tensor = self.before.clone()
            self.op([tensor] if self.op is torch.ops.aten._foreach_mul_.Scalar else tensor, self.factor)
        return tensor


class Thrift:
    """Follows what an optimizer's step scales; `running`: a step is running."""

    def __init__(self) -> None:
        self.running = 0
        # storage → the tensor that was scaled last, its version after that, and how to have it again
        self._scaled: dict[int, tuple[torch.Tensor, int, Again]] = {}

    def begin(self) -> None:
        self.running += 1

    def end(self) -> None:
        self.running = max(self.running - 1, 0)
        if not self.running:
            self._scaled.clear()

    def take(self, tensor: torch.Tensor) -> Again | None:
        """How to have again what a tensor holds, which is about to be written; None: it must be copied."""
        scaled = self._scaled.pop(tensor.untyped_storage()._cdata, None)
        if scaled is None or scaled[0] is not tensor or tensor._version != scaled[1]:
            return None
        return scaled[2]

    def note(self, op: Any, args: tuple[Any, ...], undos: list[Any]) -> None:
        """A call is about to write; `undos` are what was copied."""
        if op not in _SCALES or len(args) != 2 or type(args[1]) is not float:
            return
        for _, _, tensor, copy in undos:
            if (
                type(copy) is torch.Tensor
                and tensor.dtype in _REAL
                and copy.dtype is tensor.dtype
                and not (tensor.is_neg() or tensor.is_inference())
                and copy.numel() * copy.itemsize >= LARGE
            ):
                key = tensor.untyped_storage()._cdata
                self._scaled[key] = (tensor, tensor._version + 1, Again(op, copy, args[1]))
