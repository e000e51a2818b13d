"""What moved between two tensors of one shape: how many numbers, which one most, and how far altogether.

Numbers of one dtype are compared bit by bit (0 is not −0; any NaN is any other NaN), those of two dtypes as
float64. Sizes are float64: norms are √Σx², taken so that no square overflows. What has no size (a number that
became NaN, or was one) counts as the largest of all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch

__all__ = ["Difference", "Moved", "Number", "apart", "difference", "identical", "largest"]

Number: TypeAlias = "bool | int | float | complex"

PIECE = 1 << 20
"""So many numbers are widened to float64 at a time."""
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SAFE = 2.0**62


@dataclass(frozen=True, slots=True)
class Moved:
    """One number that moved: its row-major position, and what it was and is."""

    place: int
    before: Number
    after: Number

    @property
    def difference(self) -> Number:
        """After − before; of floats and complex numbers in double precision."""
        return apart(self.before, self.after)


@dataclass(frozen=True, slots=True)
class Difference:
    """What moved between two tensors.

    Attributes:
        count: how many numbers there are.
        moved: how many of them moved.
        became_nan, were_nan: how many of those are NaN after but not before, and the other way round.
        largest: the number that moved most, the first of several; None if none moved.
        norm: ‖after − before‖₂; NaN where one side is NaN, ∞ where a number became or was infinite.
        scale: ‖before‖₂ over the finite numbers of `before`.
    """

    count: int
    moved: int
    became_nan: int
    were_nan: int
    largest: Moved | None
    norm: float
    scale: float

    @property
    def relative(self) -> float:
        """‖after − before‖₂ / ‖before‖₂; ∞ where `before` is all zero, 0 where nothing moved by any size."""
        if self.norm == 0 or math.isnan(self.norm):
            return self.norm
        return self.norm / self.scale if self.scale else math.inf


@dataclass(frozen=True, slots=True)
class _Piece:
    """One stretch of both tensors: where it starts, its numbers, which of them moved, and how far."""

    start: int
    before: torch.Tensor
    after: torch.Tensor
    moved: torch.Tensor
    size: torch.Tensor
    """|after − before| in float64; NaN where exactly one of the two is NaN, 0 where nothing moved."""


def apart(before: Number, after: Number) -> Number:
    """After − before, of Python numbers.

    >>> apart(1.0, 1.5), apart(True, False), apart(2**60, 2**60 + 1)
    (0.5, -1, 1)
    """
    return after - before


def identical(before: torch.Tensor, after: torch.Tensor) -> bool:
    """Whether two tensors are the same dtype and shape and hold the same bits; reads no more than it must."""
    if before.dtype != after.dtype or before.shape != after.shape:
        return False
    return torch.equal(_bits(before), _bits(after).to(before.device))


def difference(before: torch.Tensor, after: torch.Tensor) -> Difference:
    """What moved between two tensors of one shape, in float64."""
    moved = became = were = 0
    norm = scale = 0.0
    top: tuple[float, Moved] | None = None
    for piece in _pieces(before, after):
        scale = math.hypot(scale, _norm(_finite(_wide(piece.before))))
        here = int(piece.moved.sum())
        if not here:
            continue
        moved += here
        became += int((_is_nan(piece.after) & piece.moved).sum())
        were += int((_is_nan(piece.before) & piece.moved).sum())
        norm = _together(norm, _norm(piece.size))
        rank = _rank(piece)
        best = float(rank.max())
        if top is None or best > top[0]:
            top = best, _moved(piece, int((rank == best).nonzero()[0]))
    return Difference(before.numel(), moved, became, were, top[1] if top else None, norm, scale)


def largest(before: torch.Tensor, after: torch.Tensor, top: int | None = 10) -> list[Moved]:
    """The numbers that moved, the largest |after − before| first, ties in row-major order; `top` of them."""
    found: list[tuple[float, Moved]] = []
    for piece in _pieces(before, after):
        rank = _rank(piece)
        order = torch.sort(rank, descending=True, stable=True).indices[: int(piece.moved.sum())]
        found += [(float(rank[place]), _moved(piece, place)) for place in order[:top].tolist()]
    found.sort(key=lambda item: -item[0])
    return [moved for _, moved in found[:top]]


def _pieces(before: torch.Tensor, after: torch.Tensor) -> Iterator[_Piece]:
    alike = before.dtype == after.dtype
    first, second = _flat(before), _flat(after)
    for start in range(0, before.numel(), PIECE):
        a, b = first[start : start + PIECE].cpu(), second[start : start + PIECE].cpu()
        nan = _is_nan(a), _is_nan(b)
        moved = _bits(a) != _bits(b) if alike else _wide(a) != _wide(b)
        if moved.ndim > 1:  # the two parts of a complex number
            moved = moved.any(-1)
        moved &= ~(nan[0] & nan[1])
        size = torch.where(moved, _apart(a, b), 0.0)
        size[size.isnan()] = math.inf  # parts of complex infinities
        size[moved & (nan[0] | nan[1])] = math.nan
        yield _Piece(start, a, b, moved, size)


def _rank(piece: _Piece) -> torch.Tensor:
    """Sizes that can be sorted: −1 where nothing moved, finite ones, ∞ as float64's largest, NaN as ∞."""
    finite = piece.size.clamp(max=torch.finfo(torch.float64).max)
    rank = torch.where(piece.size.isnan(), math.inf, finite)
    return torch.where(piece.moved, rank, -1.0)


def _moved(piece: _Piece, place: int) -> Moved:
    return Moved(piece.start + place, piece.before[place].item(), piece.after[place].item())


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.resolve_conj().resolve_neg().reshape(-1)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bits as whole numbers; a complex number's two parts along a last dimension."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_floating_point():
        return tensor
    return tensor.resolve_neg().view(_WHOLE[tensor.dtype.itemsize])


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def _is_nan(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:  # PyTorch's isnan has no float8
        tensor = tensor.float()
    return tensor.isnan()


def _apart(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """|after − before| in float64; of whole numbers the exact difference, rounded once."""
    made = (_wide(after) - _wide(before)).abs()
    if before.dtype == after.dtype == torch.int64:
        exact = (after - before).abs().to(torch.float64)
        made = torch.where(made < _SAFE, exact, made)
    return made


def _finite(numbers: torch.Tensor) -> torch.Tensor:
    size = numbers.abs()
    return size[size.isfinite()]


def _norm(sizes: torch.Tensor) -> float:
    """√Σx², each x divided by the largest first: no square overflows or vanishes."""
    if not sizes.numel():
        return 0.0
    most = float(sizes.max())  # NaN if any is
    if most == 0 or not math.isfinite(most):
        return most
    return most * float(torch.linalg.vector_norm(sizes / most))


def _together(one: float, other: float) -> float:
    """√(x² + y²); NaN wins over ∞ (`math.hypot` has it the other way round)."""
    return math.nan if math.isnan(one) or math.isnan(other) else math.hypot(one, other)
