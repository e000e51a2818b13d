"""What need not be held while recording, because it can be computed again from what is.

An optimizer's step written in PyTorch overwrites each large tensor several times (`mul_`, `addcmul_`,
`sqrt`, `add_`, `addcdiv_`), and to copy each version would cost more than the step. A version that an exact
elementwise call made from tensors that are themselves held, or can be computed again, is not copied: that
very call, run again on the same numbers, gives the same bits. For the same reason the step's own temporary
tensors are given back as soon as nobody else holds them, just as without us.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from typing import Any

import torch

from openheart.recording.log import is_plain

__all__ = ["AGAIN", "LARGE", "Thrift", "is_exact"]

LARGE = 2**16  # bytes; to copy fewer costs no more than to find out
DEEP = 16  # calls that have to run again for one version, one after the other
PATIENCE = 64  # calls after which a temporary tensor that somebody still holds is no longer watched
SPARE = 2**29  # bytes of temporary tensors' memory that are set aside for the copies of the same step

_DETACH = torch.ops.aten.detach.default

AGAIN: Any = object()  # stands in the log where a copy would be

# Each element is made by IEEE operations from the elements in the same place, in one order: no sums over
# elements, no vendor's approximations, nothing drawn at random.
_EXACT = {
    "abs", "add", "addcdiv", "addcmul", "clamp", "clamp_max", "clamp_min", "clone", "copy", "div", "fill",
    "full_like", "leaky_relu", "lerp", "masked_fill", "maximum", "minimum", "mul", "neg", "ones_like",
    "reciprocal", "relu", "rsub", "sign", "sqrt", "square", "sub", "threshold", "where", "zero", "zeros_like",
}  # fmt: skip
_EXACT_OPS: dict[int, tuple[Any, bool]] = {}  # by id; the operator stands here to stay alive


def _uses(tensor: Any) -> int:
    """How many hold a tensor in C++; many, where this PyTorch does not tell."""
    count = getattr(tensor, "_use_count", None)
    return 2 if count is None else int(count())


def is_exact(op: Any) -> bool:
    """Whether an operator makes or writes one tensor, element by element, always with the same bits."""
    known = _EXACT_OPS.get(id(op))
    if known is None:
        known = _EXACT_OPS[id(op)] = (op, _is_exact(op))
    return known[1]


def _is_exact(op: Any) -> bool:
    schema = getattr(op, "_schema", None)
    if schema is None or not schema.name.startswith("aten::") or len(schema.returns) != 1:
        return False
    written = [item for item in schema.arguments if item.alias_info is not None]
    in_place = [item.name for item in written] == ["self"] and written[0].alias_info.is_write
    name = schema.name.removeprefix("aten::")
    return (
        name.removesuffix("_") in _EXACT
        and str(schema.returns[0].type) == "Tensor"
        and name.endswith("_") == in_place
        and len(written) == in_place
    )


def _held(tensors: list[tuple[Any, Any]], place: int) -> tuple[int, int]:
    """Python's counts of who holds a tensor that stands in a list like this, and its storage."""
    _, tensor = tensors[place]
    storage = tensor.untyped_storage()
    return sys.getrefcount(tensor), sys.getrefcount(storage)


# What `_held` counts for a tensor that nobody but such a list holds.
_ALONE, _UNSEEN = _held([(0, torch.empty(0))], 0)
_COUNTS = getattr(sys, "_is_gil_enabled", lambda: True)()  # without the lock, counts are no news


class Thrift:
    """Decides while a run goes on what is held; `entries` is the log, of calls and marks.

    Each storage that was written has a fate: the tensor and version that the last write left, and how many
    calls would have to run again for it; None if it cannot be computed again.

    Memory that no page was ever touched of is what copying costs most: so the copies of an optimizer's step
    are put where its temporary tensors were.
    """

    def __init__(self, entries: list[tuple[Any, ...]]) -> None:
        self.large = LARGE
        self.gone: set[int] = set()  # storages whose memory was given back
        self._entries = entries
        self._fates: dict[int, tuple[torch.Tensor, int, int] | None] = {}
        self._made: dict[int, int] = {}  # id of a result → position of the call that returned it
        self._read = 0  # so many entries are in `_made`
        self._loose: list[tuple[int, torch.Tensor]] = []
        self._spare: list[tuple[torch.UntypedStorage, int]] = []  # and how many bytes of it are in use

    def spares(self, tensor: torch.Tensor, key: int) -> bool:
        """Whether what `tensor` holds can be computed again; `key` is its storage."""
        if tensor.is_inference():
            return False
        fate = self._fate(tensor, key)
        return fate is not None and fate[0] is tensor and fate[1] == tensor._version and fate[2] <= DEEP

    def will_write(self, op: Any, tensor: torch.Tensor, key: int, args: Any, kwargs: Any) -> None:
        """Notes what the next call will leave in a storage."""
        depth = None
        if is_exact(op) and not tensor.is_inference():
            depth = self._depth(tensor, args, kwargs)
        self._fates[key] = None if depth is None else (tensor, tensor._version + 1, depth)

    def forget(self, tensor: torch.Tensor) -> None:
        """Notes that a storage was changed in a way that cannot be followed."""
        if is_plain(tensor):
            self._fates[tensor.untyped_storage()._cdata] = None

    def _fate(self, tensor: torch.Tensor, key: int) -> tuple[torch.Tensor, int, int] | None:
        if key in self._fates:
            return self._fates[key]
        entries = self._entries
        for position in range(self._read, len(entries)):
            entry = entries[position]
            if len(entry) > 5 and entry[4] is None and isinstance(entry[3], torch.Tensor):
                self._made.setdefault(id(entry[3]), position)
        self._read = len(entries)
        fate = None
        place = self._made.get(id(tensor))
        while place is not None and entries[place][0] is _DETACH:  # what `torch.zeros_like` returns
            place = self._made.get(id(entries[place][1][0]))
        if place is not None and is_exact(entries[place][0]):
            depth = self._depth(tensor, entries[place][1], entries[place][2])
            if depth is not None:
                fate = (tensor, 0, depth)
        self._fates[key] = fate
        return fate

    def _depth(self, made: torch.Tensor, args: Any, kwargs: Any) -> int | None:
        """How many calls have to run again, one after the other, to make `made` of these arguments."""
        depth = 0
        for tensor in _tensors(args, kwargs):
            if not is_plain(tensor) or tensor.device != made.device or tensor.is_inference():
                return None
            key = tensor.untyped_storage()._cdata
            if tensor.numel() * tensor.itemsize >= self.large:
                fate = self._fate(tensor, key)
                if fate is not None:
                    depth = max(depth, fate[2])
        return depth + 1 if _is_dense(made) else None

    def copy(self, tensor: torch.Tensor) -> torch.Tensor:
        """A copy of a tensor."""
        size = tensor.numel() * tensor.itemsize
        if self._spare and size >= self.large and _is_dense(tensor):
            for place, (storage, used) in enumerate(self._spare):
                if used + size <= storage.nbytes() and storage.device == tensor.device:
                    copy = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
                    copy.set_(storage, used // tensor.itemsize, tensor.shape, tensor.stride())
                    used += -(-size // 64) * 64
                    if used + self.large > storage.nbytes():
                        del self._spare[place]
                    else:
                        self._spare[place] = (storage, used)
                    return copy.copy_(tensor.detach())
        return tensor.clone()

    # Temporary tensors --------------------------------------------------------------------------------------

    def temporary(self, op: Any, result: Any) -> None:
        """Looks after what a call of an optimizer has just returned; it is the next to be logged."""
        if (
            type(result) is not torch.Tensor
            or not _COUNTS
            or result.requires_grad
            or result.device.type not in ("cpu", "cuda")
            or not is_plain(result)
            or result.numel() * result.itemsize < self.large
            or not is_exact(op)
        ):
            return
        self._loose = [item for place, item in enumerate(self._loose) if not self._give_back(place)]
        self._loose.append((len(self._entries), result))

    def tidy(self) -> None:
        """Gives back what can be given back; the optimizer's step has ended."""
        self._loose = [item for place, item in enumerate(self._loose) if not self._give_back(place)]
        for storage, used in self._spare:
            if 2 * used < storage.nbytes():
                storage.resize_(used)
        self._spare.clear()

    def _give_back(self, place: int) -> bool:
        """Frees a temporary tensor's memory if only the log holds it; True if it need not be watched."""
        since = self._loose[place][0]
        if len(self._entries) - since > PATIENCE:
            return True
        held, seen = _held(self._loose, place)
        tensor = self._loose[place][1]
        if seen > _UNSEEN or _uses(tensor) > 1:
            return False
        storage = tensor.untyped_storage()
        key = storage._cdata
        fate = self._fates.get(key)
        known = _appearances(tensor, self._entries[since:]) + (fate is not None and fate[0] is tensor)
        if held > _ALONE + known:
            return False
        if weakref.getweakrefcount(tensor) or tensor._is_view():
            return True
        if torch._C._storage_Use_Count(key) > 2:  # its tensor and `storage`
            return False
        if self.spares(tensor, key):
            self.gone.add(key)
            if sum(spare.nbytes() - used for spare, used in self._spare) + storage.nbytes() <= SPARE:
                self._spare.append((storage, 0))
            else:
                storage.resize_(0)
        return True


def _appearances(tensor: torch.Tensor, entries: list[tuple[Any, ...]]) -> int:
    """How often a tensor stands in these calls: each time, Python counts one."""
    count = 0
    for entry in entries:
        if len(entry) > 5:
            _, args, kwargs, result, undos, aliases = entry[:6]
            count += result is tensor
            count += sum(item is tensor for item in _tensors(args, kwargs))
            count += sum(item[2] is tensor for item in undos or ())
            count += sum(item[0] is tensor for item in aliases or ())
    return count


def _tensors(args: Any, kwargs: Any) -> Iterator[torch.Tensor]:
    for item in (*args, *kwargs.values()) if kwargs else args:
        if isinstance(item, torch.Tensor):
            yield item
        elif isinstance(item, (list, tuple)):
            yield from (part for part in item if isinstance(part, torch.Tensor))


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor's elements fill their piece of memory, so that a copy of it has the same strides."""
    if tensor.is_contiguous():
        return True
    size = 1
    for step, extent in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if extent != 1:
            if step != size:
                return False
            size *= extent
    return True
