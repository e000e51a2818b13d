"""Fourier transforms as sums of complex exponentials, along one dimension or several.

    X[m] = s · Σₙ x[n] · e^(∓2πi·m·n/N)      with s = 1, 1/√N or 1/N, and − forward, + back

The kernels are fast transforms: the same sum in another order, with fewer roundings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from openheart.formula.expr import Expr, Number, Operand, Ref, apply, index, total, where
from openheart.formula.functions import conj, cos, double, real, sin
from openheart.rules.registry import rule
from openheart.rules.views import dimension


def _factor(sizes: Sequence[int], normalization: int) -> float:
    """s: 1, 1/√N (by_root_n) or 1/N (by_n), over all transformed places."""
    count = math.prod(sizes)
    return (1.0, 1 / math.sqrt(count), 1 / count)[normalization]


def _wave(pairs: Sequence[tuple[Expr, Expr, int]], forward: bool) -> Expr:
    """e^(∓2πi Σ m·n/N), its angle reduced to one turn, as tables of such factors hold it."""
    turns: Operand = 0
    for m, n, size in pairs:
        turns = turns + (m * n) % size / size
    angle = double(2 * math.pi * turns)
    return apply("complex", cos(angle), -sin(angle) if forward else sin(angle))


@rule("_fft_r2c")
def transform_real(self: Any, dim: Any, normalization: int, *, at: Any) -> Expr:
    return _transformed(self, dim, normalization, True, at)


@rule("_fft_c2c")
def transform(self: Any, dim: Any, normalization: int, forward: bool, *, at: Any) -> Expr:
    return _transformed(self, dim, normalization, forward, at)


def _transformed(
    self: Any, dim: Sequence[int], normalization: int, forward: bool, at: Sequence[Expr]
) -> Expr:
    dims = [dimension(d, self.ndim) for d in dim]
    over = [index(f"n{a}" if len(dims) > 1 else "n", self.shape[d]) for a, d in enumerate(dims)]
    place: list[Expr] = list(at)
    for n, d in zip(over, dims, strict=True):
        place[d] = n
    wave = _wave([(at[d], n, self.shape[d]) for n, d in zip(over, dims, strict=True)], forward)
    sizes = [self.shape[d] for d in dims]
    return _factor(sizes, normalization) * total(over, Ref(self, tuple(place)) * wave)


@rule("_fft_c2r")
def transform_back(self: Any, dim: Any, normalization: int, last_dim_size: int, *, at: Any) -> Expr:
    # the input holds half of a spectrum that mirrors itself: X[N − m] is the conjugate of X[m]
    dims = [dimension(d, self.ndim) for d in dim]
    sizes = [self.shape[d] for d in dims[:-1]] + [last_dim_size]
    over = [index(f"n{a}" if len(dims) > 1 else "n", size) for a, size in enumerate(sizes)]
    place: list[Expr] = list(at)
    mirror: list[Expr] = list(at)
    for n, d, size in zip(over, dims, sizes, strict=True):
        place[d] = n
        mirror[d] = (size - n) % size
    held = over[-1] < self.shape[dims[-1]]
    spectrum = where(held, Ref(self, tuple(place)), conj(Ref(self, tuple(mirror))))
    wave = _wave([(at[d], n, size) for n, d, size in zip(over, dims, sizes, strict=True)], forward=False)
    return Number(_factor(sizes, normalization)) * total(over, real(spectrum * wave))
