"""A sum of products as one matrix product.

The factors are arrays over the evaluation's axes, of size 1 where they do not depend on one. Axes that
two factors share and that are not summed are a batch; axes of one factor alone are rows or columns.
The bound comes from the same product of absolute values: γₙ·Σ|aᵢbᵢ| (Higham, §3.5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from openheart.formula.expr import Apply, Expr, Named
from openheart.formula.functions import Array, Error
from openheart.formula.precision import DOUBLE_UNIT, FLOAT32, Precision, gamma
from openheart.formula.rounding import settled

Pair = tuple[Array, Error]


def factors_of(node: Expr) -> list[Expr]:
    """The factors of a product, through names and signs; a single element when it is no product."""
    found: list[Expr] = []
    stack = [node]
    while stack:
        here = stack.pop()
        if isinstance(here, Apply) and here.function == "mul":
            stack.extend(reversed(here.args))
        elif isinstance(here, Named):
            stack.append(here.body)
        else:
            found.append(here)
    return found


def contract(
    factors: Sequence[Pair],
    mask: Array | None,
    over: Sequence[int],
    extents: Sequence[int],
    precision: Precision,
) -> Pair | None:
    """Σ over the axes `over` of the product of `factors`, with its error; None when none fits."""
    pairs = [(np.asarray(v), e) for v, e in factors]
    rank = max((v.ndim for v, _ in pairs), default=0)
    if rank == 0 or any(np.iscomplexobj(v) for v, _ in pairs):
        return None
    scalars = [p for p in pairs if p[0].ndim == 0]
    arrays = [p for p in pairs if p[0].ndim]
    outside = [p for p in arrays if all(p[0].shape[a] == 1 for a in over)]
    inside = [p for p in arrays if any(p[0].shape[a] != 1 for a in over)]
    if len(inside) < 2:
        return None
    unit = precision.unit + DOUBLE_UNIT
    if mask is not None:
        inside = _masked(inside, mask)
    while len(inside) > 2:
        inside = _merge_closest(inside)
    for axis, extent in zip(over, extents, strict=True):
        if all(v.shape[axis] == 1 for v, _ in inside) and extent != 1:
            return None
    n = _terms(mask, over, extents)
    (a, ea), (b, eb) = inside
    value = _product(a, b, over)
    weight = gamma(n + len(factors) - 1, unit)
    with np.errstate(all="ignore"):
        error = _sizes(a, b, over, n)
        error *= weight
        if ea is not None:
            error = error + _sizes(ea, b, over, n)
        if eb is not None:
            error = error + _sizes(a if ea is None else np.abs(a) + ea, eb, over, n)
    for v, e in (*outside, *scalars):
        spread = error * (np.abs(v) + (0.0 if e is None else e))
        if e is not None:
            spread = spread + np.abs(value) * e
        value = value * v
        error = spread + unit * np.abs(value)
    return value, settled(value, error + n * precision.tiny)


def _terms(mask: Array | None, over: Sequence[int], extents: Sequence[int]) -> int:
    """How many terms the longest of the sums has."""
    if mask is None:
        return math.prod(extents)
    counts = np.sum(mask, axis=tuple(over))
    return int(np.max(counts, initial=0)) * math.prod(
        n for axis, n in zip(over, extents, strict=True) if mask.shape[axis] == 1
    )


def _sizes(a: Array, b: Array, over: Sequence[int], n: int) -> Array:
    """Σ|a||b|, rounded up: in float32, which is twice as quick, where nothing can overflow there."""
    (small_a, top_a), (small_b, top_b) = _small(a), _small(b)
    if not (top_a * top_b * n < 1e30 and min(top_a, top_b) > 1e-12 and n < 1 << 20):
        return _product(np.abs(a), np.abs(b), over)
    made = _product(small_a, small_b, over).astype(np.float64)
    # The float32 sum of n positive terms may fall short by a factor 1 − (n + 2)·2⁻²⁴; products below the
    # smallest normal number may vanish.
    made *= 1.0 + (n + 4) * 2.0**-23
    made += n * FLOAT32.tiny
    return made


def _small(a: Array) -> tuple[Array, float]:
    """|a| in float32, and its largest element."""
    with np.errstate(over="ignore"):
        made = a.astype(np.float32)
    np.abs(made, out=made)
    return made, float(np.max(made, initial=0.0))


def _masked(inside: list[Pair], mask: Array) -> list[Pair]:
    """The mask laid on the factor that it enlarges least."""

    def enlarged(pair: Pair) -> int:
        return math.prod(np.broadcast_shapes(pair[0].shape, mask.shape))

    best = min(range(len(inside)), key=lambda k: enlarged(inside[k]))
    value, error = inside[best]
    done: Pair = (np.where(mask, value, 0.0), None if error is None else np.where(mask, error, 0.0))
    return [*inside[:best], done, *inside[best + 1 :]]


def _merge_closest(inside: list[Pair]) -> list[Pair]:
    pairs = [(p, q) for p in range(len(inside)) for q in range(p + 1, len(inside))]
    p, q = min(
        pairs, key=lambda pq: math.prod(np.broadcast_shapes(inside[pq[0]][0].shape, inside[pq[1]][0].shape))
    )
    (a, ea), (b, eb) = inside[p], inside[q]
    value = a * b
    error: Error = None
    if ea is not None or eb is not None:
        za, zb = 0.0 if ea is None else ea, 0.0 if eb is None else eb
        error = np.abs(a) * zb + np.abs(b) * za + za * zb
    rest = [pair for k, pair in enumerate(inside) if k not in (p, q)]
    return [*rest, (value, error)]


def _product(a: Array, b: Array, over: Sequence[int]) -> Array:
    """Σ over `over` of a·b, both of full rank, as numpy.matmul."""
    rank = max(a.ndim, b.ndim)
    for axis in over:  # an axis of one factor alone is summed before the product
        if a.shape[axis] != 1 and b.shape[axis] == 1:
            a = a.sum(axis=axis, keepdims=True)
        elif b.shape[axis] != 1 and a.shape[axis] == 1:
            b = b.sum(axis=axis, keepdims=True)
    summed = [x for x in over if a.shape[x] != 1]
    rest = [x for x in range(rank) if x not in over]
    batch = [x for x in rest if a.shape[x] != 1 and b.shape[x] != 1]
    rows = [x for x in rest if a.shape[x] != 1 and b.shape[x] == 1]
    columns = [x for x in rest if a.shape[x] == 1 and b.shape[x] != 1]
    if rows and columns and min(columns) < min(rows):  # the result then lies in the order of its axes
        a, b, rows, columns = b, a, columns, rows
    left = _laid(a, batch, rows, summed)
    right = _laid(b, batch, summed, columns)
    result = np.matmul(left, right)
    order = batch + rows + columns
    shape = [a.shape[x] for x in batch] + [a.shape[x] for x in rows] + [b.shape[x] for x in columns]
    result = result.reshape(shape + [1] * (rank - len(order)))
    places = order + [x for x in range(rank) if x not in order]
    return result.transpose(np.argsort(places))


def _laid(a: Array, batch: list[int], first: list[int], second: list[int]) -> Array:
    used = batch + first + second
    others = [x for x in range(a.ndim) if x not in used]
    moved = a.transpose(used + others)
    sizes = [math.prod(a.shape[x] for x in group) for group in (batch, first, second)]
    return moved.reshape(sizes)
