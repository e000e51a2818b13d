"""W and b of a recorded stack: its laws' linear parts, applied to the input's directions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from openheart.formula.precision import DOUBLE_UNIT, gamma
from openheart.surgery.affine import Refusal
from openheart.surgery.affine_flow import LARGEST, Measured, Segment, refused, spread

__all__ = ["applied", "applied_dense", "matrix_of", "offset_of"]

MOST = 1 << 26
"""A matrix is not laid out either where its columns, carried through the widest value, are more numbers."""


def matrix_of(
    segment: Segment, in_shape: tuple[int, ...], out_shape: tuple[int, ...]
) -> tuple[Measured, Measured]:
    """W (out, in) and b (out,) of a recorded single sample, each with its error.

    **Raises** `MemoryError` where the forms on the way would be too large.
    """
    columns, rows, shape = math.prod(in_shape), math.prod(out_shape), segment.source.shape
    widest = max([columns, *(math.prod(c.outputs[n].shape) for c, outputs in segment.calls for n in outputs)])
    if columns * widest > MOST:
        raise MemoryError(f"{columns} · {widest}")
    room = max(1, LARGEST // max(widest, 1))
    weight, error = np.empty((rows, columns)), np.empty((rows, columns))
    bias: Measured = np.empty(0), np.empty(0)
    for start in range(0, columns, room):
        stop = min(start + room, columns)
        linear = np.zeros((stop - start, columns))
        linear[np.arange(stop - start), np.arange(start, stop)] = 1.0
        (made, doubt), bias = spread(segment, linear.reshape(-1, *shape), np.zeros(shape))
        weight[:, start:stop], error[:, start:stop] = (a.reshape(-1, rows).T for a in (made, doubt))
    return (weight, error), (bias[0].reshape(-1), bias[1].reshape(-1))


def offset_of(segment: Segment, samples: Any, out_shape: tuple[int, ...]) -> Measured:
    """B alone, by a single column; where samples mix, it moves with the others."""
    moved = np.random.default_rng(0).normal(size=samples.shape)
    moved[0] = 0.0
    shape = segment.source.shape
    (made, _), (offset, doubt) = spread(segment, moved.reshape(1, *shape), np.zeros(shape))
    rows = math.prod(out_shape)
    if np.any(made.reshape(-1)[:rows]):
        raise refused(segment.recording, segment.calls[-1][0], Refusal("mixes"))
    return offset.reshape(-1)[:rows], doubt.reshape(-1)[:rows]


def applied(segment: Segment, batch: Any) -> Measured:
    """W·x + b for each sample, by the laws' linear parts and without W: (samples, out), with its error."""
    shape = segment.source.shape
    room = shape[0] if len(shape) > 1 else 1
    found: list[Measured] = []
    for start in range(0, len(batch), room):
        part = batch[start : start + room]
        full = np.zeros(shape)
        full.reshape(room, -1)[: len(part)] = part.reshape(len(part), -1)
        (made, error), (offset, doubt) = spread(segment, full[None], np.zeros(shape))
        value, bound = made[0] + offset, error[0] + doubt
        bound = bound + DOUBLE_UNIT * np.abs(value)
        found.append((value.reshape(room, -1)[: len(part)], bound.reshape(room, -1)[: len(part)]))
    return np.concatenate([v for v, _ in found]), np.concatenate([e for _, e in found])


def applied_dense(x: Any, weight: Measured, bias: Measured) -> Measured:
    """W·x + b, (samples, out), with its error: |x|·δW + δb, and γₙ₊₁·(|x||W| + |b|) for the sum itself."""
    (w, dw), (b, db) = weight, bias
    size = np.abs(x)
    own = gamma(w.shape[1] + 1, 2 * DOUBLE_UNIT) * (size @ np.abs(w).T + np.abs(b))
    return x @ w.T + b, size @ dw.T + db + own
