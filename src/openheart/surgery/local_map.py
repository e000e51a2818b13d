"""The one affine map, y = W·x + b, that a piecewise linear network is at an input, and how far it holds.

With each choice (of a ReLU, a leaky ReLU, a max pooling, a clamp …) taken as it was recorded, every law on
the way is affine. The map is the network on the whole region around the input where no choice changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from openheart.errors import AddressError, InputError
from openheart.i18n import Message
from openheart.recording import Element, Recording, Value
from openheart.recording.soundness import sound
from openheart.surgery.affine import Refusal
from openheart.surgery.affine_flow import (
    LARGEST,
    Measured,
    NotAffineError,
    NotByRowError,
    Segment,
    refused,
    segment_of,
    spread,
    tracked,
)
from openheart.surgery.affine_frontier import Frontier
from openheart.surgery.affine_matrix import applied_dense
from openheart.surgery.affine_print import Held
from openheart.surgery.collapse import Verdict

__all__ = ["Boundary", "LocalMap", "Nearest", "local_map"]


@dataclass(frozen=True, slots=True)
class Boundary:
    """How far one number of the input can move alone before the map changes.

    Attributes:
        address: of the input's number.
        value: what it is.
        minus, plus: how far it can fall and grow, computed in float64; infinite where no unit ever changes.
            0 where float64 cannot tell, or the run's rounding has led a unit to the other side.
        minus_unit, plus_unit: the address of the unit that changes there; None where none does.
    """

    address: str
    value: float
    minus: float
    plus: float
    minus_unit: str | None
    plus_unit: str | None


@dataclass(frozen=True, slots=True)
class Nearest:
    """The nearest point at which the map changes: its Euclidean distance, and the unit that does."""

    distance: float
    unit: str


@dataclass(frozen=True, slots=True, eq=False)
class LocalMap:
    """The affine map that a network is at one sample.

    Attributes:
        sample: which sample of the recorded batch.
        source, target: the names of the input and of the output.
        in_shape, out_shape: the shapes of one sample, before they are flattened to columns and rows.
        weight, bias: W (out, in) and b (out,), float64.
        weight_bound, bias_bound: how far each of them may lie from the exact one, by float64's rounding.
        input: x, float64 (in,).
        output: what the network gave, float64 (out,).
        composed: W·x + b, float64 (out,).
        bounds: how far output and composed may lie apart by rounding alone, float64 (out,).
        exact: where the output is W·x + b, correctly rounded to its dtype.
        active: by the name of what is compared, which units are on (bool); of units with more than two
            pieces, on which piece they are, from 0 (int64).
        winners: by the name of the output, the position in its window of each largest (int64).
        boundaries: for each number of the input, how far it can move alone.
        nearest: the nearest boundary; None where no unit ever changes.
        on_boundary: units so near their boundary that the run's rounding, within its bound, could have put
            them on the other side.
    """

    sample: int
    source: str
    target: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    weight: torch.Tensor
    bias: torch.Tensor
    weight_bound: torch.Tensor
    bias_bound: torch.Tensor
    input: torch.Tensor
    output: torch.Tensor
    composed: torch.Tensor
    bounds: torch.Tensor
    exact: torch.Tensor
    active: dict[str, torch.Tensor]
    winners: dict[str, torch.Tensor]
    boundaries: tuple[Boundary, ...]
    nearest: Nearest | None
    on_boundary: tuple[str, ...]
    _addresses: tuple[str, ...]

    @property
    def bound(self) -> float:
        """The largest of the bounds."""
        return float(self.bounds.max()) if self.bounds.numel() else 0.0

    @property
    def difference(self) -> torch.Tensor:
        """|output − composed|, (out,)."""
        return (self.output - self.composed).abs()

    @property
    def verdict(self) -> Verdict:
        """The worst of all outputs."""
        if bool(self.exact.all()):
            return "exact"
        agrees = self.exact | (self.difference <= self.bounds)
        return "within rounding" if bool(agrees.all()) else "disagrees"

    def apply(self, x: Any) -> torch.Tensor:
        """W·x + b in float64 for (…, *in_shape): what the network gives where no choice changes."""
        given = torch.as_tensor(x).detach().to(torch.float64)
        lead = given.shape[: given.ndim - len(self.in_shape)]
        return (given.reshape(*lead, -1) @ self.weight.T + self.bias).reshape(*lead, *self.out_shape)

    def rows(self, most: int | None = None) -> list[Held]:
        """Each output number beside W·x + b, at most `most`."""
        count = len(self._addresses) if most is None else min(most, len(self._addresses))
        return [
            Held(
                self._addresses[n],
                float(self.output[n]),
                float(self.composed[n]),
                float(self.bounds[n]),
                bool(self.exact[n]),
            )
            for n in range(count)
        ]

    def text(self, digits: int = 4, lang: str | None = None) -> str:
        """The map, its units and its boundaries as plain text."""
        from openheart.surgery.local_map_print import text

        return text(self, digits, lang)

    def html(self, digits: int = 4, lang: str | None = None) -> str:
        """An HTML fragment that needs nothing else."""
        from openheart.surgery.local_map_print import html

        return html(self, digits, lang)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        from openheart.surgery.local_map_print import to_dict

        return to_dict(self)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()


@sound
def local_map(
    recording: Recording,
    sample: int = 0,
    *,
    input: str = "input",  # noqa: A002
    output: str | None = None,
    upto: str | None = None,
) -> LocalMap:
    """The affine map that the recorded network is at one sample, and how far it holds.

    **Arguments**: `sample` counts along the first dimension; of an input with one dimension there is one
    sample. `input` is the address of the tensor that moves; everything else that the run read stays. The
    map ends at the network's output, at the address `output`, or at what the module `upto` gives.

    **Raises** `NotAffineError` for a piece that is not piecewise linear (a sigmoid, a softmax), and where
    samples of the batch mix; `InputError` for a sample or address that is not there.

    >>> import torch, openheart as oh
    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch...>
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
    >>> here = oh.record(net, torch.tensor([[4.0, 5.0]])).local_map()
    >>> here.verdict in ("exact", "within rounding"), tuple(here.weight.shape)
    (True, (1, 2))
    """
    if output is not None and upto is not None:
        raise InputError("local_map.error.both")
    source = _value(recording, input, "input")
    end = output if output is not None else "output" if upto is None else f"{upto}.out"
    target = _value(recording, end, "output")
    for value in (source, target):
        if not value.dtype.is_floating_point:
            said = {"name": recording.name(value), "dtype": str(value.dtype)[6:]}
            raise InputError("local_map.error.float", **said)
    segment = segment_of(recording, source, target)
    if segment is None:
        raise InputError("local_map.error.follows", output=end, input=input)
    return _mapped(segment, *_sample(segment, sample))


def _value(recording: Recording, address: str, side: str) -> Value:
    try:
        return recording.value(address)
    except AddressError as error:
        said = Message(f"local_map.error.{side}", {"name": address})
        raise InputError("error.because", said=said, reason=error) from None


def _sample(segment: Segment, sample: int) -> tuple[int, int]:
    """The sample's place from 0, and how many there are.

    **Raises** `InputError` where there is no such sample, or the output has another number of them.
    """
    source, target = segment.source.shape, segment.target.shape
    count = source[0] if len(source) > 1 else 1
    if not -count <= sample < count:
        raise InputError("local_map.error.sample", sample=sample, count=count)
    if count > 1 and (not target or target[0] != count):
        raise InputError("collapse.error.batch", input=source, output=target)
    return sample % count, count


def _mapped(segment: Segment, sample: int, count: int) -> LocalMap:
    source, target = segment.source, segment.target
    batched = len(source.shape) > 1
    in_shape = source.shape[1:] if batched else source.shape
    out_shape = target.shape[1:] if batched and target.shape and target.shape[0] == count else target.shape
    columns, rows = math.prod(in_shape), math.prod(out_shape)
    x = source.array.astype(np.float64).reshape(count, columns)[sample].copy()
    try:
        known = tracked(segment)
        try:
            frontier = Frontier(segment.recording, known, x, sample if batched else None, count)
            weight, bias = _alone(segment, sample, columns, rows, frontier)
        except NotByRowError:
            frontier = Frontier(segment.recording, known, x, sample if batched else None, count)
            weight, bias = _among(segment, sample, columns, rows, frontier)
    except MemoryError as error_:
        raise InputError("local_map.error.large", count=str(error_), limit=LARGEST) from None
    except NotAffineError as why:
        raise why.said("local_map.error.not_piecewise") from None
    return _found(segment, sample, in_shape, out_shape, x, weight, bias, frontier)


def _alone(
    segment: Segment, sample: int, columns: int, rows: int, frontier: Frontier
) -> tuple[Measured, Measured]:
    """W and b of one sample of a batch whose samples are read one by one.

    **Raises** `NotByRowError` where they are not.
    """
    shape = segment.source.shape
    if len(shape) < 2:
        raise NotByRowError
    shape = (1, *shape[1:])
    linear = np.eye(columns).reshape(columns, *shape)
    (made, error), (offset, doubt) = spread(segment, linear, np.zeros(shape), True, frontier.note, sample)
    weight = made.reshape(columns, rows).T, error.reshape(columns, rows).T
    return weight, (offset.reshape(rows), doubt.reshape(rows))


def _among(
    segment: Segment, sample: int, columns: int, rows: int, frontier: Frontier
) -> tuple[Measured, Measured]:
    """W and b of one sample among the others, which move at random in one more column.

    **Raises** `NotAffineError` where the sample's output follows that column: samples mix.
    """
    shape = segment.source.shape
    count = shape[0] if len(shape) > 1 else 1
    linear = np.zeros((columns + (count > 1), count, columns))
    linear[np.arange(columns), sample, np.arange(columns)] = 1.0
    if count > 1:
        linear[columns] = np.random.default_rng(0).normal(size=(count, columns))
        linear[columns, sample] = 0.0
    constant = segment.source.array.astype(np.float64).reshape(count, columns).copy()
    constant[sample] = 0.0
    (made, error), (offset, doubt) = spread(
        segment, linear.reshape(-1, *shape), constant.reshape(shape), True, frontier.note
    )
    made, error = (a.reshape(len(linear), count, rows)[:, sample] for a in (made, error))
    if count > 1 and np.any(made[columns]):
        raise refused(segment.recording, segment.calls[-1][0], Refusal("mixes"))
    weight = made[:columns].T, error[:columns].T
    return weight, (offset.reshape(count, rows)[sample], doubt.reshape(count, rows)[sample])


def _found(
    segment: Segment,
    sample: int,
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    x: Any,
    weight: Measured,
    bias: Measured,
    frontier: Frontier,
) -> LocalMap:
    recording, source, target = segment.recording, segment.source, segment.target
    rows = math.prod(out_shape)
    composed, error = (a[0] for a in applied_dense(x[None], weight, bias))
    _, spoiled = frontier.known[target.id]
    data = target.data.detach().cpu().reshape(-1, rows)[sample if target.shape != out_shape else 0]
    made = torch.from_numpy(np.array(composed))

    def addresses(value: Value, shape: tuple[int, ...]) -> list[str]:
        lead = (sample,) if value.shape != shape else ()
        return [
            recording.address(
                Element(value, (*lead, *map(int, np.unravel_index(n, shape))) if shape else lead)
            )
            for n in range(math.prod(shape))
        ]

    boundaries = [
        Boundary(
            address, float(x[n]), float(frontier.minus[n]), float(frontier.plus[n]), *frontier.crossings(n)
        )
        for n, address in enumerate(addresses(source, in_shape))
    ]
    nearest = Nearest(frontier.distance, frontier.unit) if math.isfinite(frontier.distance) else None
    spoiled = spoiled.reshape(-1, rows)[sample if target.shape != out_shape else 0]
    return LocalMap(
        sample,
        recording.name(source),
        recording.name(target),
        in_shape,
        out_shape,
        _tensor(weight[0]),
        _tensor(bias[0]),
        _tensor(weight[1]),
        _tensor(bias[1]),
        _tensor(x),
        data.to(torch.float64),
        made,
        _tensor(error + spoiled),
        made.to(data.dtype) == data,
        {name: torch.from_numpy(np.array(states)) for name, states in frontier.active.items()},
        {name: torch.from_numpy(np.array(states)) for name, states in frontier.winners.items()},
        tuple(boundaries),
        nearest,
        tuple(frontier.touching),
        tuple(addresses(target, out_shape)),
    )


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64))
