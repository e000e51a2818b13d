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
    """What moved in one stretch of both tensors: where, from what to what, and how far.

    `places` are row-major positions in the whole; `size` is |after − before| in float64, NaN where just one
    of the two is NaN; `norm` is ‖before‖₂ of the stretch.
    """

    places: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    size: torch.Tensor
    norm: float


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
        scale = math.hypot(scale, piece.norm)
        if not len(piece.places):
            continue
        moved += len(piece.places)
        norm = _together(norm, _norm(piece.size))
        if math.isnan(norm):
            became += int(_is_nan(piece.after).sum())
            were += int(_is_nan(piece.before).sum())
        rank = _rank(piece.size)
        best = float(rank.max())
        if top is None or best > top[0]:
            top = best, _moved(piece, int((rank == best).nonzero()[0]))
    return Difference(before.numel(), moved, became, were, top[1] if top else None, norm, scale)


def largest(before: torch.Tensor, after: torch.Tensor, top: int | None = 10) -> list[Moved]:
    """The numbers that moved, the largest |after − before| first, ties in row-major order; `top` of them."""
    found: list[tuple[float, Moved]] = []
    for piece in _pieces(before, after):
        rank = _rank(piece.size)
        order = torch.sort(rank, descending=True, stable=True).indices[:top]
        found += [(float(rank[at]), _moved(piece, at)) for at in order.tolist()]
    found.sort(key=lambda item: -item[0])
    return [moved for _, moved in found[:top]]


def _pieces(before: torch.Tensor, after: torch.Tensor) -> Iterator[_Piece]:
    alike = before.dtype == after.dtype
    first, second = _flat(before), _flat(after)
    for start in range(0, before.numel(), PIECE):
        a, b = first[start : start + PIECE].cpu(), second[start : start + PIECE].cpu()
        norm = _norm_of(a)
        moved = _bits(a) != _bits(b) if alike else _wide(a) != _wide(b)
        if moved.ndim > 1:  # the two parts of a complex number
            moved = moved.any(-1)
        at = moved.nonzero()[:, 0]
        if len(at) < len(a):
            a, b = a[at], b[at]
        nan = _is_nan(a), _is_nan(b)
        if (nan[0] & nan[1]).any():  # NaN is NaN, whatever its bits
            kept = ~(nan[0] & nan[1])
            at, a, b, nan = at[kept], a[kept], b[kept], (nan[0][kept], nan[1][kept])
        size = _apart(a, b)
        size[size.isnan()] = math.inf  # parts of complex infinities
        size[nan[0] | nan[1]] = math.nan
        yield _Piece(at + start, a, b, size, norm)


def _rank(size: torch.Tensor) -> torch.Tensor:
    """Sizes that can be sorted: ∞ as float64's largest, NaN as ∞."""
    return size.clamp(max=torch.finfo(torch.float64).max).nan_to_num(nan=math.inf)


def _moved(piece: _Piece, at: int) -> Moved:
    return Moved(int(piece.places[at]), piece.before[at].item(), piece.after[at].item())


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


def _norm_of(numbers: torch.Tensor) -> float:
    """‖numbers‖₂ over the finite ones."""
    if numbers.dtype == torch.float32:  # no square of one overflows or vanishes in float64
        norm = float(torch.linalg.vector_norm(numbers, dtype=torch.float64))
        if math.isfinite(norm):
            return norm
    size = _wide(numbers).abs()
    return _norm(size[size.isfinite()])


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
