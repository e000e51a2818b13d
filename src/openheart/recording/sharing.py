"""Memory that PyTorch shares with NumPy or DLPack, where somebody else may write without an operator.

PyTorch marks such a storage: it can't be resized. The recorder keeps a copy of each that it meets, and looks
before a call reads it whether it still holds the same bytes. What has changed was written from outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from openheart.recording.log import is_plain
from openheart.recording.seat import unseen

__all__ = ["Shared"]

ROOM = 2**20  # storages of more bytes than this are not looked at before every call that reads them


class Shared:
    """The shared storages that a recorder has met; `unwatched`: there was one that is too large to watch."""

    __slots__ = ("bases", "unwatched")

    def __init__(self) -> None:
        self.bases: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # storage: all of it, its copy
        self.unwatched = False

    def meet(self, item: Any) -> None:
        """Asks tensors that are new whether they share their memory."""
        for tensor in _tensors((item,)):
            if is_plain(tensor) and not tensor.untyped_storage().resizable():
                self.watch(tensor)

    def watch(self, tensor: torch.Tensor) -> None:
        """Watches the memory of a tensor from now on."""
        storage = tensor.untyped_storage()
        if storage._cdata in self.bases or tensor.device.type != "cpu" or not storage.nbytes():
            return
        if storage.nbytes() > ROOM:
            self.unwatched = True
            return
        with unseen(), torch.no_grad():
            count = storage.nbytes() // tensor.itemsize
            base = torch.empty(0, dtype=tensor.dtype).set_(storage, 0, (count,), (1,))
            self.bases[storage._cdata] = (base, base.clone())

    def written(self, args: tuple[Any, ...]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Memory that these tensors lie in and somebody else has written: all of it, what it held before."""
        found = []
        for tensor in _tensors(args):
            key = tensor.untyped_storage()._cdata if is_plain(tensor) else 0
            if key in self.bases:
                base, copy = self.bases[key]
                with unseen(), torch.no_grad():
                    if not torch.equal(base.view(torch.uint8), copy.view(torch.uint8)):
                        self.bases[key] = (base, base.clone())
                        found.append((base, copy))
        return found

    def renew(self, args: tuple[Any, ...]) -> None:
        """An operator has written: what these tensors' memory holds now is known."""
        for tensor in _tensors(args):
            key = tensor.untyped_storage()._cdata if is_plain(tensor) else 0
            if key in self.bases:
                with unseen(), torch.no_grad():
                    self.bases[key][1].copy_(self.bases[key][0])


def _tensors(items: Any) -> Iterator[torch.Tensor]:
    for item in items:
        if isinstance(item, torch.Tensor):
            yield item
        elif type(item) is list or type(item) is tuple:
            yield from _tensors(item)
