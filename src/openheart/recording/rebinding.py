"""What becomes of memory without an operator call: a tensor is given other memory, or memory is given back.

`tensor.data = other`, `torch.utils.swap_tensors`, `storage.resize_` and `tensor.numpy()` are Python, and
PyTorch's dispatcher is not told of them; so they are watched where Python passes, while a recording runs.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from openheart.recording.log import FREED, REBIND, is_plain
from openheart.recording.seat import is_taken_here, unseen

__all__ = ["watch_memory"]


def watch_memory(
    note: Callable[[tuple[Any, ...]], None], shared: Callable[[torch.Tensor], None]
) -> Callable[[], None]:
    """Has `note` told of each, as an entry of the log, in a thread that records; returns what ends it.

    `shared` is told of a tensor whose memory is given to NumPy or DLPack.
    """
    tensor: Any = torch.Tensor
    storage: Any = torch.UntypedStorage
    internals: Any = torch._C
    data, swap, resize = tensor.data, internals._swap_tensor_impl, storage.resize_
    swap_whole: Any = torch.utils.swap_tensors

    def put(self: torch.Tensor, other: torch.Tensor) -> None:
        before = _alias(self)
        data.__set__(self, other)
        if before is not None:
            note((REBIND, [(self, before)]))

    def swap_tensors(one: torch.Tensor, other: torch.Tensor) -> None:
        before = [(item, _alias(item)) for item in (one, other)]
        swap(one, other)
        if is_taken_here():
            note((REBIND, before))

    def swap_tensors_whole(one: torch.Tensor, other: torch.Tensor) -> Any:
        if not is_taken_here():
            return swap_whole(one, other)
        tensor._use_count = lambda _self: 1  # a recorded view counts as a reference, which nobody else has
        try:
            return swap_whole(one, other)
        finally:
            del tensor._use_count

    def resized(self: Any, size: int) -> Any:
        if is_taken_here() and size < self.nbytes():
            note((FREED, self._cdata, self.nbytes()))
        return resize(self, size)

    numpy, dlpack = tensor.numpy, tensor.__dlpack__
    tensor.numpy, tensor.__dlpack__ = _given(numpy, shared), _given(dlpack, shared)
    watched = property(data.__get__, put, data.__delete__, "The tensor's numbers, without autograd.")
    tensor.data, internals._swap_tensor_impl, storage.resize_ = watched, swap_tensors, resized
    torch.utils.swap_tensors = swap_tensors_whole

    def end() -> None:
        torch.utils.swap_tensors = swap_whole
        del tensor.numpy
        tensor.__dlpack__ = dlpack
        if vars(tensor).get("data") is watched:
            del tensor.data
        if internals._swap_tensor_impl is swap_tensors:
            internals._swap_tensor_impl = swap
        if vars(storage).get("resize_") is resized:
            del storage.resize_
            if storage.resize_ is not resize:
                storage.resize_ = resize

    return end


@functools.cache
def _given(give: Callable[..., Any], shared: Callable[[torch.Tensor], None]) -> Callable[..., Any]:
    def giving(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if is_taken_here() and is_plain(self):
            shared(self)
        return give(self, *args, **kwargs)

    return functools.wraps(give)(giving)


def _alias(tensor: torch.Tensor) -> torch.Tensor | None:
    """The memory that a tensor has now, where somebody records."""
    if not is_taken_here() or not is_plain(tensor):
        return None
    with unseen():
        return tensor.detach()
