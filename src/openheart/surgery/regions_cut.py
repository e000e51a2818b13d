"""A rectangle cut into the linear regions of a chain of affine maps and element-wise pieces.

In each region the units of the next layer are affine in the two inputs, so each changes along a line; the
region, a convex polygon, is cut by those that cross it. Layer by layer this gives every region, and its map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from openheart.errors import InputError

__all__ = ["MOST", "Layer", "Region", "cut_rectangle"]

Polygon: TypeAlias = Any
"""The corners of a convex polygon, float64 (corners, 2), counterclockwise."""
MOST = 20_000
"""More regions than this are not counted."""
SLIVER = 1e-12
"""A piece with less than this share of the rectangle's area is left with its neighbour."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """An affine map, and what is done to each of its outputs: pieces s·u + t between knots.

    Attributes:
        weight, bias: float64 (units, in) and (units,).
        knots: float64 (knots, units), rising; empty after the last affine map.
        slopes, offsets: float64 (knots + 1, units): those of each piece.
    """

    weight: Any
    bias: Any
    knots: Any
    slopes: Any
    offsets: Any


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """One linear region: its corners, and the network's affine map on it, (out, 2) and (out,)."""

    polygon: Polygon
    weight: Any
    bias: Any
    pattern: bytes


def cut_rectangle(
    low: Sequence[float], high: Sequence[float], layers: Sequence[Layer]
) -> tuple[list[Region], int, float]:
    """The regions in a rectangle, how many slivers were left with a neighbour, and below which area.

    **Raises** `InputError` when there are more than `MOST`.
    """
    (a, b), (c, d) = low, high
    whole = np.array([[a, b], [c, b], [c, d], [a, d]], dtype=np.float64)
    least = SLIVER * (c - a) * (d - b)
    regions = [Region(whole, np.eye(2), np.zeros(2), b"")]
    merged = 0
    for layer in layers:
        made: list[Region] = []
        for region in regions:
            weight = layer.weight @ region.weight
            bias = layer.weight @ region.bias + layer.bias
            polygons, left = _cut_all(region.polygon, weight, bias, layer.knots, least)
            merged += left
            made += [_beyond(polygon, weight, bias, layer, region.pattern) for polygon in polygons]
            if len(made) > MOST:
                raise InputError("regions.error.many", most=MOST)
        regions = made
    return regions, merged, least


def _cut_all(polygon: Polygon, weight: Any, bias: Any, knots: Any, least: float) -> tuple[list[Polygon], int]:
    """A polygon cut along every line weight·x + bias = knot that crosses it."""
    found, merged = [polygon], 0
    if not len(knots):
        return found, merged
    heights = polygon @ weight.T + bias
    crossing = (heights.min(axis=0) < knots) & (heights.max(axis=0) > knots)
    for knot, unit in np.argwhere(crossing):
        line, level = weight[unit], bias[unit] - knots[knot, unit]
        pieces: list[Polygon] = []
        for each in found:
            halves = _halves(each, each @ line + level)
            kept = [half for half in halves if area(half) >= least]
            if len(kept) == 2:
                pieces += kept
            else:
                merged += len(halves) == 2 and len(kept) == 1 and min(map(area, halves)) > 0
                pieces.append(each)
        found = pieces
    return found, merged


def _halves(polygon: Polygon, height: Any) -> list[Polygon]:
    """The parts of a polygon below and above height 0; the polygon itself where no line crosses it."""
    if height.min() >= 0 or height.max() <= 0:
        return [polygon]
    sides: tuple[list[Any], list[Any]] = ([], [])
    count = len(polygon)
    for n in range(count):
        here, there = float(height[n]), float(height[(n + 1) % count])
        point = polygon[n]
        if here <= 0:
            sides[0].append(point)
        if here >= 0:
            sides[1].append(point)
        if here * there < 0:
            crossing = point + here / (here - there) * (polygon[(n + 1) % count] - point)
            sides[0].append(crossing)
            sides[1].append(crossing)
    return [np.array(side) for side in sides]


def area(polygon: Polygon) -> float:
    """The area of a polygon, by Gauss's formula."""
    if len(polygon) < 3:
        return 0.0
    x, y = (polygon - polygon[0]).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def inside_point(polygon: Polygon) -> Any:
    """The centroid of a polygon: a point of its inside."""
    x, y = (polygon - polygon[0]).T
    cross = x * np.roll(y, -1) - y * np.roll(x, -1)
    size = float(cross.sum())
    if not math.isfinite(size) or size == 0:
        return polygon.mean(axis=0)
    each = np.stack([(x + np.roll(x, -1)) * cross, (y + np.roll(y, -1)) * cross], axis=1)
    return polygon[0] + each.sum(axis=0) / (3 * size)


def _beyond(polygon: Polygon, weight: Any, bias: Any, layer: Layer, pattern: bytes) -> Region:
    """The region's map after the pieces that its units are on."""
    if not len(layer.knots):
        return Region(polygon, weight, bias, pattern)
    height = weight @ inside_point(polygon) + bias
    piece = (height > layer.knots).sum(axis=0)
    each = np.arange(len(piece))
    slope, offset = layer.slopes[piece, each], layer.offsets[piece, each]
    return Region(
        polygon, slope[:, None] * weight, slope * bias + offset, pattern + piece.astype(np.uint8).tobytes()
    )
