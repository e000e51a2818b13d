"""Rearrangements: elements of one or several inputs under other indices, and what fills the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from openheart.formula.expr import Expr, Leaf, Number, Operand, Ref, apply, both, where
from openheart.formula.functions import imag, maximum, minimum, real
from openheart.rules.registry import cast, rule, value_of
from openheart.rules.strides import Layout, inside, reshaped
from openheart.rules.views import dimension, replaced


@rule("flip")
def flip(self: Any, dims: Any, *, at: Any) -> Expr:
    # out[i] = self[n − 1 − i]
    places = list(at)
    for dim in dims:
        d = dimension(dim, self.ndim)
        places[d] = self.shape[d] - 1 - at[d]
    return Ref(self, tuple(places))


@rule("roll")
def roll(self: Any, shifts: Any, dims: Any, *, at: Any) -> Expr:
    # out[i] = self[(i − shift) mod n]; without dims the tensor is rolled as if it were flat
    if not dims:
        size = 1
        for n in self.shape:
            size *= n
        (flat,) = reshaped(at, self.shape, (size,))
        return Ref(self, tuple(_unraveled((flat - shifts[0]) % max(size, 1), self.shape)))
    places = list(at)
    for shift, dim in zip(shifts, dims, strict=True):
        d = dimension(dim, self.ndim)
        places[d] = (places[d] - shift) % self.shape[d] if shift % max(self.shape[d], 1) else places[d]
    return Ref(self, tuple(places))


def _unraveled(flat: Expr, shape: Sequence[int]) -> list[Expr]:
    """The indices of a row-major position."""
    found: list[Expr] = []
    for a in reversed(range(len(shape))):
        found.append(flat % shape[a] if a else flat)
        flat = flat // shape[a]
    return found[::-1]


@rule("rot90")
def rot90(self: Any, k: int, dims: Any, *, at: Any) -> Expr:
    # k quarter turns; one: out[i, j] = self[j, n − 1 − i]
    a, b = (dimension(d, self.ndim) for d in dims)
    i, j = at[a], at[b]
    last_a, last_b = self.shape[a] - 1, self.shape[b] - 1
    turned = [(i, j), (j, last_b - i), (last_a - i, last_b - j), (last_a - j, i)][k % 4]
    places = list(at)
    places[a], places[b] = turned
    return Ref(self, tuple(places))


@rule("repeat", "tile")
def repeat(self: Any, *, at: Any, result: Any) -> Expr:
    # out[i] = self[i mod n]
    last = list(zip(self.shape, result.shape[len(at) - self.ndim :], at[len(at) - self.ndim :], strict=True))
    return Ref(self, tuple(i if n == size else i % n if n > 1 else Number(0) for n, size, i in last))


@rule("view_as_real")
def view_as_real(self: Any, *, at: Any) -> Expr:
    # c = 0: the real part, c = 1: the imaginary one
    *rest, c = at
    return where(c == 0, real(self[rest]), imag(self[rest]))


@rule("view_as_complex")
def view_as_complex(self: Any, *, at: Any) -> Expr:
    return apply("complex", self[(*at, Number(0))], self[(*at, Number(1))])


# -- several inputs ----------------------------------------------------------------------------------


def choose(parts: Sequence[tuple[int, Expr]], i: Expr) -> Expr:
    """The part in whose range i lies; each part comes with where it ends.

    Few parts read as cases, one below the other; many are halved, so that no formula grows too deep.
    """
    if len(parts) == 1:
        return parts[0][1]
    half = 1 if len(parts) <= 32 else len(parts) // 2
    return where(i < parts[half - 1][0], choose(parts[:half], i), choose(parts[half:], i))


@rule("cat", "concat", "concatenate")
def cat(tensors: Any, dim: int, *, at: Any, result: Any) -> Expr:
    # out[i] = tensors₀[i] for i < n₀, tensors₁[i − n₀] for the next n₁, …
    d = dimension(dim, result.ndim)
    parts: list[tuple[int, Expr]] = []
    end = 0
    for tensor in tensors:
        if tensor.ndim != result.ndim or tensor.shape[d] == 0:
            continue  # PyTorch lets an empty tensor of any shape be concatenated
        element = Ref(tensor, replaced(at, d, at[d] - end))
        end += tensor.shape[d]
        parts.append((end, cast(element, result.kind, tensor.kind)))
    return choose(parts, at[d]) if parts else Number(0)


@rule("stack")
def stack(tensors: Any, dim: int, *, at: Any, result: Any) -> Expr:
    # out[n, …] = tensorsₙ[…]
    d = dimension(dim, result.ndim)
    rest = (*at[:d], *at[d + 1 :])
    parts = [(n + 1, cast(Ref(tensor, rest), result.kind, tensor.kind)) for n, tensor in enumerate(tensors)]
    return choose(parts, at[d])


# -- a part of one, and a constant -------------------------------------------------------------------


@rule("tril", "tril_")
def tril(self: Any, diagonal: int, *, at: Any) -> Expr:
    i, j = at[-2:]
    return where(j - i <= diagonal, self[at], Number(False) if self.kind == "bool" else 0)


@rule("triu", "triu_")
def triu(self: Any, diagonal: int, *, at: Any) -> Expr:
    i, j = at[-2:]
    return where(j - i >= diagonal, self[at], Number(False) if self.kind == "bool" else 0)


@rule("constant_pad_nd")
def constant_pad_nd(self: Any, pad: Any, value: Any, *, at: Any) -> Expr:
    # out[i] = self[i − before] where that exists, else the value; a negative pad cuts off
    places = list(at)
    held: Operand = True
    for d, before, after in padded_dimensions(pad, self.ndim):
        places[d] = at[d] - before
        if before > 0:
            held = both(held, at[d] >= before)
        if after > 0:
            held = both(held, at[d] < before + self.shape[d])
    fill = cast(value, self.kind, "float") if self.kind != "float" else value
    return where(held, Ref(self, tuple(places)), _plain(fill, self.kind))


def _plain(value: Any, kind: str) -> Any:
    """A fill value as the tensor's kind holds it."""
    held = value_of(value)
    if isinstance(held, (bool, int, float)) and kind in ("int", "bool"):
        return Number(int(held) if kind == "int" else bool(held))
    return value


def padded_dimensions(pad: Sequence[int], rank: int) -> list[tuple[int, int, int]]:
    """(dimension, before, after) for each padded dimension; `pad` begins with the last dimension."""
    pairs = [(rank - 1 - n // 2, pad[n], pad[n + 1]) for n in range(0, len(pad), 2)]
    return [p for p in sorted(pairs) if p[1:] != (0, 0)]


# -- padding that mirrors or repeats -----------------------------------------------------------------


def mirrored(i: Expr, before: int, size: int, after: int) -> Expr:
    """The place that reflection shows at i: n − 1 − |n − 1 − |i − before||."""
    place = i - before
    if before > 0:
        place = abs(place)
    return size - 1 - abs(size - 1 - place) if after > 0 else place


def clamped(i: Expr, before: int, size: int, after: int) -> Expr:
    """The place that replication shows at i: the nearest one that exists."""
    place = i - before
    if before > 0:
        place = maximum(place, 0)
    return minimum(place, size - 1) if after > 0 else place


Place = Callable[[Expr, int, int, int], Expr]


def _padded(self: Any, padding: Sequence[int], at: Sequence[Expr], place: Place) -> Expr:
    places = list(at)
    for d, before, after in padded_dimensions(padding, self.ndim):
        places[d] = place(at[d], before, self.shape[d], after)
    return Ref(self, tuple(places))


@rule("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def reflection_pad(self: Any, padding: Any, *, at: Any) -> Expr:
    return _padded(self, padding, at, mirrored)


@rule("replication_pad1d", "replication_pad2d", "replication_pad3d")
def replication_pad(self: Any, padding: Any, *, at: Any) -> Expr:
    return _padded(self, padding, at, clamped)


@rule("pixel_shuffle")
def pixel_shuffle(self: Any, upscale_factor: int, *, at: Any) -> Expr:
    # out[c, i, j] = self[c·r² + (i mod r)·r + (j mod r), i // r, j // r]
    *rest, c, i, j = at
    r = upscale_factor
    return Ref(self, (*rest, c * (r * r) + i % r * r + j % r, i // r, j // r))


@rule("pixel_unshuffle")
def pixel_unshuffle(self: Any, downscale_factor: int, *, at: Any) -> Expr:
    # out[c, i, j] = self[c // r², i·r + (c // r) mod r, j·r + c mod r]
    *rest, c, i, j = at
    r = downscale_factor
    return Ref(self, (*rest, c // (r * r), i * r + c // r % r, j * r + c % r))


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(self: Any, groups: int, *, at: Any) -> Expr:
    # channel c = k·G + g of the output is channel g·(C/G) + k of the input
    n, c, *rest = at
    return Ref(self, (n, c % groups * (self.shape[1] // groups) + c // groups, *rest))


# -- memory ------------------------------------------------------------------------------------------


@rule("openheart.reread.default")
def reread(
    old: Any,
    new: Any,
    size: Any,
    stride: Any,
    offset: int,
    new_size: Any,
    new_stride: Any,
    new_offset: int,
    *,
    at: Any,
) -> Expr:
    # what was written where this tensor shares memory with it, else what it held before
    held = Layout(tuple(size), tuple(stride), offset)
    found = inside(at, held, Layout(tuple(new_size), tuple(new_stride), new_offset))
    if found is None:
        return Leaf("external")
    place, written = found
    before = Leaf("uninitialized") if old is None else Ref(old, tuple(at))
    return where(written, Ref(new, place), before)
