"""The life of one storage: what it holds now, and how to go back to what it held before.

Values are held by reference. Only when a call is about to overwrite part of a storage is that part copied
aside (an undo). What a value held at version v is what the storage holds now, with the undos v, v+1, … taken
back.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from openheart.errors import OpaqueError
from openheart.recording.thrift import Again

__all__ = ["Geometry", "Life", "Undo", "geometry_of", "strided"]


class Geometry(NamedTuple):
    """Where a tensor's elements lie in their storage; two tensors with one geometry are the same numbers."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    bits: int = 0  # 1: lazily conjugated, 2: lazily negated

    def span(self) -> tuple[int, int]:
        """First byte and one past the last byte that any element touches."""
        if 0 in self.shape:
            return (0, 0)
        last = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        return self.offset * self.dtype.itemsize, (self.offset + last + 1) * self.dtype.itemsize


def geometry_of(tensor: torch.Tensor) -> Geometry:
    """The geometry of a strided tensor."""
    bits = (1 if tensor.is_conj() else 0) | (2 if tensor.is_neg() else 0)
    return Geometry(tensor.dtype, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), bits)


@dataclass(frozen=True, slots=True, eq=False)
class Undo:
    """What a region of a storage held just before it was overwritten.

    `held` is a copy, or how to make the numbers again; None: they were not kept, since nobody had written
    there yet, or since the memory was given back.
    """

    geometry: Geometry
    held: torch.Tensor | Again | None
    freed: bool = False

    @property
    def content(self) -> torch.Tensor | None:
        """The numbers."""
        return self.held.made() if isinstance(self.held, Again) else self.held


class Life:
    """One storage through the run; `undos[v]` takes it from version v + 1 back to version v."""

    __slots__ = ("undos", "watched")
    lasting = True  # what `read` returns may be held on to

    def __init__(self) -> None:
        self.undos: list[Undo] = []
        # Tensors on this storage and what their version counters said as the recording ended. One is not
        # enough: tensors that a kernel returns as views of one another need not share a counter.
        self.watched: list[tuple[torch.Tensor, int]] = []

    def keeps(self, geometry: Geometry, version: int, tensor: torch.Tensor | None) -> bool:
        """Whether `read` would find the numbers."""
        later = [undo for undo in self.undos[version:] if _meet(undo.geometry, geometry)]
        for undo in later:
            if undo.held is None:
                return False
            if undo.geometry == geometry or _holds(undo, geometry):
                return True
        return tensor is not None and self.intact() and _has_memory(tensor, geometry, later)

    def fixed(self, geometry: Geometry, version: int) -> bool:
        """Whether the numbers lie in an undo, where nobody can overwrite them any more."""
        return any(_meet(undo.geometry, geometry) for undo in self.undos[version:])

    def read(self, geometry: Geometry, version: int, tensor: torch.Tensor | None) -> torch.Tensor:
        """The numbers that `geometry` held at `version`; `tensor` is an alias of it in the living storage."""
        later = [undo for undo in self.undos[version:] if _meet(undo.geometry, geometry)]
        if 0 in geometry.shape:  # no number at all: none can be gone
            return torch.empty(geometry.shape, dtype=geometry.dtype)
        for reach, undo in enumerate(later):
            if undo.held is None:
                why = "error.value.freed" if undo.freed else "error.value.blank"
                raise OpaqueError(why, dtype=geometry.dtype, shape=geometry.shape)
            if undo.geometry == geometry and reach == 0:
                content = undo.content
                assert content is not None
                return content
            if _holds(undo, geometry):
                return self._rewind(geometry, undo, later[:reach])
        if tensor is None:
            raise OpaqueError("error.value.gone", dtype=geometry.dtype, shape=geometry.shape)
        if not self.intact():
            raise OpaqueError("error.value.overwritten", dtype=geometry.dtype, shape=geometry.shape)
        if not _has_memory(tensor, geometry, later):
            raise OpaqueError("error.value.freed", dtype=geometry.dtype, shape=geometry.shape)
        if not later:
            return tensor
        return self._rewind(geometry, tensor, later)

    def intact(self) -> bool:
        """Whether nobody has written to the living storage since the recording ended."""
        return all(tensor._version == version for tensor, version in self.watched)

    def _rewind(self, geometry: Geometry, start: Undo | torch.Tensor, undos: list[Undo]) -> torch.Tensor:
        """Copies the storage as `start` shows it and takes the undos back, the last one first."""
        if isinstance(start, Undo):
            content = start.content
            assert content is not None
            storage = content.untyped_storage()
            shift = start.geometry.span()[0] - int(content.storage_offset()) * content.itemsize
            device = content.device
        else:
            storage, shift, device = start.untyped_storage(), 0, start.device
        if undos:
            storage = storage.clone()
        for undo in reversed(undos):
            content = undo.content
            assert content is not None
            low, high = undo.geometry.span()
            if low < shift or high - shift > storage.nbytes():
                # This undo reaches outside of the copied part; what lies outside is not part of the value
                # asked for.
                _copy_inside(storage, shift, undo.geometry, content, device)
                continue
            strided(storage, undo.geometry, shift, device).copy_(content)
        return strided(storage, geometry, shift, device)


def _has_memory(tensor: torch.Tensor, geometry: Geometry, later: list[Undo]) -> bool:
    """Whether the storage still has the memory that is asked for: reading on would end the program.

    An edited value, which nobody wrote to later, has a storage of its own, as large as it needs.
    """
    wanted = geometry if later else geometry_of(tensor)
    return wanted.span()[1] <= tensor.untyped_storage().nbytes()


def strided(storage: Any, geometry: Geometry, shift: int, device: torch.device) -> torch.Tensor:
    """A tensor of this geometry, in a storage that begins with byte `shift` of the one it describes."""
    empty = torch.empty(0, dtype=geometry.dtype, device=device)
    width = geometry.dtype.itemsize
    offset = (geometry.offset * width - shift) // width
    with torch.no_grad():
        tensor = empty.set_(storage, offset, geometry.shape, geometry.stride)
        if geometry.bits & 1:
            tensor = tensor.conj()
        if geometry.bits & 2:
            tensor = torch._neg_view(tensor)
    return tensor


def _copy_inside(
    storage: Any, shift: int, region: Geometry, content: torch.Tensor, device: torch.device
) -> None:
    """Takes back the part of an undo that lies inside a partial copy, byte by byte."""
    low, high = region.span()
    patch = torch.zeros(high - low, dtype=torch.uint8, device=device).untyped_storage()
    mask = torch.zeros(high - low, dtype=torch.uint8, device=device).untyped_storage()
    strided(patch, region, low, device).copy_(content)
    marked = torch.full_like(content, 1, dtype=torch.uint8)
    width = region.dtype.itemsize
    for byte in range(width):
        place = region._replace(
            dtype=torch.uint8,
            stride=tuple(step * width for step in region.stride),
            bits=0,
            offset=byte,
        )
        strided(mask, place, 0, device).copy_(marked)
    nbytes = storage.nbytes()
    start, stop = max(low, shift), min(high, shift + nbytes)
    whole = torch.empty(0, dtype=torch.uint8, device=device).set_(
        storage, start - shift, (stop - start,), (1,)
    )
    piece = torch.empty(0, dtype=torch.uint8, device=device).set_(patch, start - low, (stop - start,), (1,))
    chosen = torch.empty(0, dtype=torch.uint8, device=device).set_(mask, start - low, (stop - start,), (1,))
    whole.copy_(torch.where(chosen.bool(), piece, whole))


def _meet(one: Geometry, other: Geometry) -> bool:
    """Whether two regions of one storage may share a byte (by their spans: never wrongly no)."""
    low, high = one.span()
    start, stop = other.span()
    return low < stop and start < high


def _holds(undo: Undo, geometry: Geometry) -> bool:
    """Whether an undo's copy is a gapless piece of the storage that contains all of `geometry`."""
    content = undo.held.before if isinstance(undo.held, Again) else undo.held
    if content is None or undo.geometry.bits or (geometry.bits and undo.geometry.dtype != geometry.dtype):
        return False
    low, high = undo.geometry.span()
    start, stop = geometry.span()
    dense = content.numel() * content.dtype.itemsize == high - low
    same_layout = content.stride() == undo.geometry.stride
    aligned = low % geometry.dtype.itemsize == 0
    return dense and same_layout and aligned and low <= start and stop <= high
