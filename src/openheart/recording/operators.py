"""The operator for what memory does by itself: a tensor is read after another view of it was written."""

from __future__ import annotations

import torch

__all__ = ["REREAD"]

_library = torch.library.Library("openheart", "FRAGMENT")
_library.define(
    "reread(Tensor? old, Tensor new, int[] size, int[] stride, int offset,"
    " int[] new_size, int[] new_stride, int new_offset) -> Tensor"
)


def _reread(
    old: torch.Tensor | None,
    new: torch.Tensor,
    size: list[int],
    stride: list[int],
    offset: int,
    new_size: list[int],
    new_stride: list[int],
    new_offset: int,
) -> torch.Tensor:
    """What a tensor holds after another view of its storage was written: `new` where they meet, else `old`.

    Sizes, strides and offsets are in elements, of `old` (and of the result) and of `new` in their common
    storage.
    """
    reach = 1 + max(
        offset + sum((extent - 1) * step for extent, step in zip(size, stride, strict=True)),
        new_offset + sum((extent - 1) * step for extent, step in zip(new_size, new_stride, strict=True)),
    )
    memory = new.new_empty(reach)
    if old is not None:
        memory.as_strided(size, stride, offset).copy_(old)
    memory.as_strided(new_size, new_stride, new_offset).copy_(new)
    return memory.as_strided(size, stride, offset).clone()


_library.impl("reread", _reread, "CompositeExplicitAutograd")

REREAD = torch.ops.openheart.reread.default
