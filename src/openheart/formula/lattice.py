"""Places of a tensor that are quick to look at together: a few, evenly spaced, along each dimension.

What is evaluated at such places is evaluated as whole arrays are, only smaller: no place is a call of its
own, and what neighbours share (a row's softmax, a channel's mean) is computed once for those looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random


def lattice(shape: Sequence[int], wanted: int, drawn: Random) -> list[range]:
    """For each dimension the places to look at, about as many along each, at least `wanted` in all.

    Spacing and offset are `drawn`, so that a pattern in the tensor is not missed each time.
    """
    counts = [1] * len(shape)
    left = min(wanted, math.prod(shape))
    order = sorted(range(len(shape)), key=shape.__getitem__)
    for n, axis in enumerate(order):
        share = _root(left, len(order) - n)
        counts[axis] = min(shape[axis], share)
        left = -(-left // counts[axis])
    return [_spaced(extent, count, drawn) for extent, count in zip(shape, counts, strict=True)]


def _root(number: int, degree: int) -> int:
    """The smallest whole number whose power is at least `number`."""
    root = max(1, round(number ** (1 / degree)))
    while root**degree < number:
        root += 1
    while root > 1 and (root - 1) ** degree >= number:
        root -= 1
    return root


def _spaced(extent: int, count: int, drawn: Random) -> range:
    widest = (extent - 1) // (count - 1) if count > 1 else 1
    step = drawn.randint((widest + 1) // 2, widest)
    start = drawn.randrange(extent - (count - 1) * step)
    return range(start, start + (count - 1) * step + 1, step)
