"""Linear regions: on how many pieces of a rectangle a piecewise linear network is one affine map.

A region is where no unit changes: a pattern of choices. Of a chain of affine layers and element-wise
pieces every region is found, cut line by line (Montúfar, Pascanu, Cho, Bengio, *On the Number of Linear
Regions of Deep Neural Networks*, 2014, for how many there can be); of other networks, the patterns that a
grid of points sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from openheart.check import fetcher
from openheart.errors import AddressError, InputError, OpenheartError
from openheart.loading.trouble import reason
from openheart.record import recording
from openheart.recording import Call, Recording, Value
from openheart.recording.values import values_in
from openheart.surgery.affine_flow import NotAffineError, Segment, choices_in, laid, segment_of
from openheart.surgery.affine_matrix import matrix_of
from openheart.surgery.affine_stack import _left_alone
from openheart.surgery.regions_cut import Layer, cut_rectangle

__all__ = ["Regions", "count_regions"]

FINEST = 400
"""A grid has no more points than this along each side."""
POINTS = 1 << 14
"""So many points are run at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """The linear regions of a network in a rectangle.

    Attributes:
        low, high: the rectangle's corners.
        count: how many regions there are; where `exact` is false, how many a grid has seen.
        exact: whether every region was found (up to float64's rounding).
        polygons: the corners of each region, float64 (corners, 2); empty where a grid was used.
        maps: for each polygon the network's affine map on it, W (out, 2) and b (out,).
        merged: how many pieces smaller than `least` were left with their neighbours.
        resolution: how many points the grid has along each side.
        labels: for each point of the grid the number of its pattern, (resolution, resolution), the second
            input along the first axis; None where every region was found.
    """

    low: tuple[float, float]
    high: tuple[float, float]
    count: int
    exact: bool
    polygons: tuple[Any, ...]
    maps: tuple[tuple[Any, Any], ...]
    merged: int
    least: float
    resolution: int
    labels: Any

    def to_svg(self, width: int = 520, lang: str | None = None) -> str:
        """The picture: each region in a colour of its own map, with axes."""
        from openheart.surgery.regions_picture import svg

        return svg(self, width, lang)

    def text(self, lang: str | None = None) -> str:
        """How many, and how they were counted."""
        from openheart.surgery.regions_picture import text

        return text(self, lang)

    def html(self, lang: str | None = None) -> str:
        """An HTML fragment that needs nothing else."""
        from openheart.surgery.regions_picture import html

        return html(self, lang)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        from openheart.surgery.regions_picture import to_dict

        return to_dict(self)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()


def count_regions(
    model: torch.nn.Module,
    low: float | Sequence[float] = -1.0,
    high: float | Sequence[float] = 1.0,
    resolution: int = 128,
) -> Regions:
    """Counts the linear regions of a network on two inputs, in the rectangle from `low` to `high`.

    **Arguments**: `low` and `high` are a number for each input, or one for both. `resolution` is that of
    the grid, for networks that are no chain of affine layers and element-wise pieces.

    **Raises** `InputError` for a network that does not take shape (n, 2), or a rectangle that is none;
    `NotAffineError` for one that is not piecewise linear.

    >>> import torch, openheart as oh
    >>> line = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.ones_(line.weight)
    >>> oh.count_regions(torch.nn.Sequential(line, torch.nn.ReLU()), -1, 1).count
    2
    """
    corners = _corners(low), _corners(high)
    if not all(a is not None for a in corners) or any(a >= b for a, b in zip(*corners, strict=True)):  # type: ignore[arg-type]
        raise InputError("regions.error.box", low=low, high=high)
    if not isinstance(resolution, int) or not 2 <= resolution <= FINEST:
        raise InputError("regions.error.resolution", most=FINEST, given=resolution)
    (a, b), (c, d) = corners  # type: ignore[misc]
    middle = np.array([[(a + c) / 2, (b + d) / 2]])
    segment = _ran(model, middle)
    layers = _layers(segment)
    if layers is not None:
        regions, merged, least = cut_rectangle((a, b), (c, d), layers)
        return Regions(
            (a, b),
            (c, d),
            len({region.pattern for region in regions}),
            True,
            tuple(region.polygon for region in regions),
            tuple((region.weight, region.bias) for region in regions),
            merged,
            least,
            resolution,
            None,
        )
    labels = _seen(model, (a, b), (c, d), resolution)
    return Regions((a, b), (c, d), int(labels.max()) + 1, False, (), (), 0, 0.0, resolution, labels)


def _corners(given: Any) -> tuple[float, float] | None:
    pair = (given, given) if isinstance(given, (int, float)) else tuple(given)
    if len(pair) != 2 or not all(math.isfinite(float(each)) for each in pair):
        return None
    return float(pair[0]), float(pair[1])


def _ran(model: torch.nn.Module, points: Any) -> Segment:
    """A recorded run on points (n, 2), from the input to the output."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    x = torch.from_numpy(points).to(dtype=like.dtype, device=like.device)
    with _left_alone(model), torch.no_grad():
        try:
            with recording(model) as rec:
                model(x)
        except OpenheartError:
            raise
        except Exception as error:
            raise InputError("regions.error.input", reason=reason(error)) from error
    try:
        source, target = rec.value("input"), rec.value("output")
    except AddressError as error:
        raise InputError("regions.error.input", reason=error) from error
    segment = segment_of(rec, source, target)
    if segment is None:
        raise InputError("local_map.error.follows", output="output", input="input")
    return segment


# A chain of layers ----------------------------------------------------------------------------------


def _layers(segment: Segment) -> list[Layer] | None:
    """The network as affine maps with element-wise pieces between; None where it is no such chain."""
    rec = segment.recording
    layers: list[Layer] = []
    start = segment.source
    for call in _pieces(segment):
        before = next(v for v in values_in((call.args, call.kwargs)) if v.id in segment.moving)
        after = call.outputs[0]
        if not _gate(segment, call, after):
            return None
        pieces = _piece(call, before)
        map_ = _map(rec, start, before)
        if pieces is None or map_ is None:
            return None
        layers.append(Layer(*map_, *pieces))
        start = after
    map_ = _map(rec, start, segment.target)
    if map_ is None:
        return None
    none = np.zeros((0, len(map_[1])))
    return [*layers, Layer(*map_, none, none, none)]


def _pieces(segment: Segment) -> list[Call]:
    return [call for call, _ in segment.calls if call.name.rstrip("_") in KNOTS]


def _gate(segment: Segment, gate: Call, after: Value) -> bool:
    """Whether all that follows goes through one call: nothing later reads what moved before it."""
    later = {after.id}
    for call, outputs in segment.calls:
        if call.id <= gate.id:
            continue
        read = [v.id for v in values_in((call.args, call.kwargs)) if v.id in segment.moving]
        if any(identity not in later for identity in read):
            return False
        later.update(call.outputs[n].id for n in outputs)
    return segment.target.id in later


def _map(rec: Recording, source: Value, target: Value) -> tuple[Any, Any] | None:
    """W and b from one value to another, of one sample; None where that is not affine."""
    if source is target:
        size = math.prod(source.shape)
        return np.eye(size), np.zeros(size)
    segment = segment_of(rec, source, target)
    if segment is None:
        return None
    try:
        (weight, _), (bias, _) = matrix_of(segment, source.shape, target.shape)
    except (NotAffineError, MemoryError):
        return None
    return weight, bias


def _piece(call: Call, before: Value) -> tuple[Any, Any, Any] | None:
    """Knots, slopes and offsets of an element-wise call, held against the recording; None where they fail."""
    shape = before.shape
    given = {
        name: (argument.array if isinstance(argument, Value) else argument)
        for name, argument in call.arguments.items()
    }
    made = KNOTS[call.name.rstrip("_")](given)
    if made is None or call.outputs[0].shape != shape:
        return None
    dtype = before.array.dtype

    def units(row: Any) -> Any:
        return np.broadcast_to(np.asarray(row).astype(dtype).astype(np.float64), shape).reshape(-1)

    knots, slopes, offsets = (np.stack([units(row) for row in rows]) for rows in made)
    u = before.array.astype(np.float64).reshape(-1)
    piece, each = (u > knots).sum(axis=0), np.arange(len(u))
    expected = slopes[piece, each] * u + offsets[piece, each]
    recorded = call.outputs[0].array.astype(np.float64).reshape(-1)
    near = np.abs(expected - recorded) <= 1e-6 * np.maximum(np.abs(expected), 1e-30)
    return (knots, slopes, offsets) if bool(np.all(near)) else None


def _clamp(low: Any, high: Any) -> Any:
    if low is None or high is None:
        edge = high if low is None else low
        return (
            [edge],
            ([1.0, 0.0] if low is None else [0.0, 1.0]),
            ([0.0, edge] if low is None else [edge, 0.0]),
        )
    return ([low, high], [0.0, 1.0, 0.0], [low, 0.0, high]) if np.all(low < high) else None


KNOTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "relu": lambda given: ([0.0], [0.0, 1.0], [0.0, 0.0]),
    "leaky_relu": lambda given: ([0.0], [given["negative_slope"], 1.0], [0.0, 0.0]),
    "prelu_kernel": lambda given: ([0.0], [given["weight"], 1.0], [0.0, 0.0]),
    "hardtanh": lambda given: _clamp(given["min_val"], given["max_val"]),
    "clamp": lambda given: _clamp(given["min"], given["max"]),
    "clamp_min": lambda given: _clamp(given["min"], None),
    "clamp_max": lambda given: _clamp(None, given["max"]),
    "abs": lambda given: ([0.0], [-1.0, 1.0], [0.0, 0.0]),
}
"""Knots, slopes and offsets of the pieces of element-wise operators."""


# A grid of points -----------------------------------------------------------------------------------


def _seen(
    model: torch.nn.Module, low: tuple[float, float], high: tuple[float, float], resolution: int
) -> Any:
    """The number of each point's pattern of choices, (resolution, resolution); row 0 is the lowest.

    **Raises** `NotAffineError` for a network that is not piecewise linear, or whose samples mix.
    """
    middles = (np.arange(resolution) + 0.5) / resolution
    across, up = (a + (b - a) * middles for a, b in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    patterns: list[bytes] = []
    for start in range(0, len(points), POINTS):
        part = points[start : start + POINTS]
        patterns += _patterns(_ran(model, part), len(part))
    numbers: dict[bytes, int] = {}
    labels = [numbers.setdefault(pattern, len(numbers)) for pattern in patterns]
    return np.array(labels).reshape(resolution, resolution)


def _patterns(segment: Segment, count: int) -> list[bytes]:
    """What was chosen for each of `count` samples."""
    states: list[Any] = []
    try:
        for choice in choices_in(segment):
            winner, at = choice.kink.winner, choice.law.indices
            if winner is not None:
                chosen = laid(winner, at, fetcher(choice.call), {})[0]
            else:
                indices = at if set(at).issuperset(choice.indices) else choice.indices
                chosen = laid(choice.kink.plain, indices, fetcher(choice.call), {})[0] > 0
            if not chosen.ndim or chosen.shape[0] != count:
                raise InputError("collapse.error.batch", input=(count, 2), output=chosen.shape)
            states.append(chosen.reshape(count, -1).astype(np.uint16))
    except NotAffineError as why:
        raise why.said("local_map.error.not_piecewise") from None
    if not states:
        return [b""] * count
    table = np.ascontiguousarray(np.concatenate(states, axis=1))
    return [row.tobytes() for row in table]
