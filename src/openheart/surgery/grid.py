"""The patch grid: what each layer's activation at each position, taken from another run, does to a metric."""

# The parts of a recording know each other's insides.

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from openheart.errors import AddressError, InterventionError
from openheart.recording import Recording, Value
from openheart.recording.addresses import find_part
from openheart.recording.soundness import sound
from openheart.surgery.batching import Work, run_variants
from openheart.surgery.edits import Edit

__all__ = ["PatchGrid", "patch_grid"]

_BLOCK = re.compile(r"^(?P<list>(?:.*\.)?)(?P<number>\d+)\.out$")


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """What transplants of one slice of one layer's activation do to a metric.

    Attributes:
        recording: the run that is operated on.
        other: the run that the activations are taken from.
        metric: what is measured: an address, or the name of the function.
        layers: the addresses of the activations.
        positions: as many as the longest layer has; `labels` says what they are called.
        dimension: the dimension of the activations that the positions count.
        raw: the metric after each transplant, float64 (layers, positions); NaN where a layer has no such
            position.
        values: the recovery, (raw − baseline) / (target − baseline): 0 where a transplant does nothing, 1
            where it does all that the other input does.
        baseline, target: the metric of `recording` and of `other`.
        labels: what the positions are called.
        works: how the runs of each layer were made, see `openheart.surgery.batching.Work`.
    """

    recording: Recording
    other: Recording
    metric: str
    layers: tuple[str, ...]
    positions: int
    dimension: int
    raw: torch.Tensor
    values: torch.Tensor
    baseline: float
    target: float
    labels: tuple[str, ...]
    works: tuple[Work, ...]

    @property
    def batched(self) -> bool:
        """Whether positions were run together; a number may then differ by rounding from `at(…)`'s."""
        return any(work.batched for work in self.works)

    def address(self, layer: int | str, position: int) -> str:
        """What is transplanted in a cell: `blocks.0.out[:,3]`.

        Raises:
            AddressError: there is no such cell.
        """
        name = layer if isinstance(layer, str) else None
        if name is None and isinstance(layer, int) and -len(self.layers) <= layer < len(self.layers):
            name = self.layers[layer]
        if name is not None and name not in self.layers and f"{name}.out" in self.layers:
            name = f"{name}.out"
        if name is None or name not in self.layers:
            raise AddressError("error.grid.layer", layer=layer, known=", ".join(self.layers))
        size = self.recording.value(name).shape[self.dimension]
        if not -size <= position < size:
            raise AddressError("error.grid.position", name=name, size=size, dimension=self.dimension)
        return _slice(name, self.dimension, position % size)

    def at(self, layer: int | str, position: int) -> Recording:
        """The counterfactual of one cell: the recording with this one transplant."""
        address = self.address(layer, position)
        return self.recording.intervene(Edit("patch", address, other=self.other))

    def text(self, digits: int = 2, lang: str | None = None) -> str:
        """The grid as plain text: a row a layer, a column a position."""
        from openheart.printers.grid import grid_text

        return grid_text(self, digits=digits, lang=lang)

    def to_svg(self, digits: int = 2, lang: str | None = None) -> str:
        """The grid as a picture that needs nothing else, in light and dark."""
        from openheart.printers.grid import grid_svg

        return grid_svg(self, digits=digits, lang=lang)

    def to_html(self, digits: int = 2, lang: str | None = None) -> str:
        """An HTML fragment that needs nothing else, in light and dark."""
        from openheart.printers.grid import grid_html

        return grid_html(self, digits=digits, lang=lang)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; an absent cell is None, numbers that are not finite are strings."""
        from openheart.printers.grid import grid_dict

        return grid_dict(self)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.to_html()


@dataclass(frozen=True, slots=True)
class _Metric:
    """What is measured: a number of the run, a function of its output, or a function of a recording."""

    name: str
    watched: tuple[str, Value] | None
    of_numbers: Callable[[torch.Tensor], float] | None
    of_recording: Callable[[Recording], float]


@sound
def patch_grid(
    recording: Recording,
    other: Recording,
    *,
    metric: str | Callable[[Any], Any] | None = None,
    what: str = "",
    layers: Sequence[str] | None = None,
    positions: int = 1,
    labels: Sequence[str] = (),
    batched: bool = True,
) -> PatchGrid:
    """Transplants each position of each layer's activation from `other`, one at a time, and measures.

    Args:
        recording: the run that is operated on.
        other: a run of the same network on another input of the same shape.
        metric: the address of one number (`"loss"`, `"output[0,-1,5]"`), or a function of a `Recording` or of
            the model's output that gives one; by default the loss.
        what: a part of each block instead of its output: `"attention"` for `blocks.0.attention`, ….
        layers: addresses or paths of modules; by default the blocks of the longest list of modules whose
            outputs have one shape, else every module without modules of its own.
        positions: the dimension that counts positions: 1 for (batch, position, features) and for the units
            of (batch, units).
        labels: what the positions are called, the tokens for example.
        batched: run the positions of a layer together where the laws allow it.

    Raises:
        AddressError: nothing has one of the addresses.
        InterventionError: the two runs do not fit, or the metric is the same in both.
    """
    if not isinstance(other, Recording):
        raise InterventionError("error.grid.other", given=other)
    chosen = _layers(recording, what, layers)
    measured = _metric(recording, metric)
    baseline, target = measured.of_recording(recording), _on_other(measured, other)
    if not (math.isfinite(baseline) and math.isfinite(target)) or baseline == target:
        raise InterventionError(
            "error.grid.nothing", metric=measured.name, here=f"{baseline:.6g}", there=f"{target:.6g}"
        )
    sizes = [_size(recording, other, name, positions) for name in chosen]
    raw = torch.full((len(chosen), max(sizes)), math.nan, dtype=torch.float64)
    works = []
    for row, (name, size) in enumerate(zip(chosen, sizes, strict=True)):
        variants = [(Edit("patch", _slice(name, positions, at), other=other),) for at in range(size)]
        if measured.watched is None:
            found = [measured.of_recording(recording.intervene(list(edits))) for edits in variants]
            works.append(Work())
        else:
            batch = run_variants(recording, variants, [measured.watched], batched)
            assert measured.of_numbers is not None
            found = [measured.of_numbers(numbers) for numbers in batch.numbers[0]]
            works.append(batch.work)
        raw[row, :size] = torch.tensor(found, dtype=torch.float64)
    values = (raw - baseline) / (target - baseline)
    given = tuple(str(label) for label in labels)
    if given and len(given) != max(sizes):
        raise InterventionError("error.grid.labels", given=len(given), count=max(sizes))
    return PatchGrid(
        recording,
        other,
        measured.name,
        tuple(chosen),
        max(sizes),
        positions,
        raw,
        values,
        baseline,
        target,
        given or tuple(str(at) for at in range(max(sizes))),
        tuple(works),
    )


def _slice(name: str, dimension: int, position: int) -> str:
    return f"{name}[{':,' * dimension}{position}]"


def _size(recording: Recording, other: Recording, name: str, dimension: int) -> int:
    value, theirs = find_part(recording._named, name).value, find_part(other._named, name).value
    if value.shape != theirs.shape or value.dtype != theirs.dtype:
        raise InterventionError("error.grid.shapes", name=name, here=value.shape, there=theirs.shape)
    if not 0 <= dimension < len(value.shape) or not value.shape[dimension]:
        raise InterventionError("error.grid.no_positions", name=name, shape=value.shape, dimension=dimension)
    return value.shape[dimension]


# Layers -----------------------------------------------------------------------------------------------------


def _layers(recording: Recording, what: str, layers: Sequence[str] | None) -> list[str]:
    names = recording._named.values
    if layers is not None:
        if isinstance(layers, str) or not layers:
            raise InterventionError("error.grid.layers", given=layers)
        return [f"{name}.out" if f"{name}.out" in names else _known(recording, name) for name in layers]
    blocks = _blocks(recording)
    if what:
        parts = [f"{name[: -len('out')]}{what}.out" for name in blocks]
        known = [name for name in parts if name in names]
        if not known:
            raise AddressError("error.grid.part", part=what, blocks=", ".join(blocks) or "–")
        return known
    if blocks:
        return blocks
    found = _leaves(recording)
    if not found:
        raise InterventionError("error.grid.no_modules")
    return found


def _known(recording: Recording, name: str) -> str:
    find_part(recording._named, name)
    return name


def _blocks(recording: Recording) -> list[str]:
    """The outputs of the longest list of modules that hold modules themselves and keep one shape."""
    names = recording._named.values
    lists: dict[str, list[str]] = {}
    for name in names:
        match = _BLOCK.match(name)
        inner = f"{name[: -len('out')]}"
        if match and any(other.startswith(inner) and other.count(".") > name.count(".") for other in names):
            lists.setdefault(match["list"], []).append(name)
    best: list[str] = []
    for members in lists.values():
        outputs = [names[name] for name in members]
        if len({value.shape for value in outputs}) == 1 and len(members) > max(1, len(best)):
            best = sorted(members, key=lambda name: names[name].id)
    return best


def _leaves(recording: Recording) -> list[str]:
    """The outputs of the modules that hold no others, in the order of the run; views of another left out."""
    names = recording._named.values
    outs = [
        name
        for name, value in names.items()
        if name.endswith(".out")
        and name != ".out"
        and "/" not in name
        and ":" not in name
        and not name.startswith("@")
        and len(value.shape) > 1
        and value.dtype.is_floating_point
        and not _is_view(recording, value)
    ]
    leaves = []
    seen: set[int] = set()
    for name in sorted(outs, key=lambda name: names[name].id):
        inner = name[: -len("out")]
        holds = any(other != name and other.startswith(inner) for other in outs)
        if not holds and names[name].id not in seen:
            seen.add(names[name].id)
            leaves.append(name)
    return leaves


def _is_view(recording: Recording, value: Value) -> bool:
    """Whether a value only shows another's numbers (or is a leaf)."""
    made = recording.maker(value)
    schema = getattr(made[0].op, "_schema", None) if made is not None else None
    if schema is None or not schema.returns:
        return True
    alias = schema.returns[0].alias_info
    return alias is not None and not alias.is_write


# What is measured -------------------------------------------------------------------------------------------


def _metric(recording: Recording, metric: Any) -> _Metric:
    names = recording._named.values
    if metric is None:
        if "loss" not in names:
            raise InterventionError("error.grid.no_loss")
        metric = "loss"
    if isinstance(metric, str):
        return _of_address(recording, metric)
    if not callable(metric):
        raise InterventionError("error.grid.metric.kind", given=metric)
    name = getattr(metric, "__name__", type(metric).__name__)
    try:
        _number(metric(recording), name)
    except (TypeError, AttributeError, InterventionError):
        output = names.get("output")
        if output is None or not isinstance(recording.output, torch.Tensor):
            raise
        watched = "output" if "output" in names else recording.name(output)
        return _Metric(
            name,
            (watched, output),
            lambda numbers: _number(metric(numbers), name),
            lambda rec: _number(metric(rec.output), name),
        )
    return _Metric(name, None, None, lambda rec: _number(metric(rec), name))


def _of_address(recording: Recording, address: str) -> _Metric:
    part = find_part(recording._named, address)
    if math.prod(part.shape) != 1:
        raise InterventionError("error.grid.metric.shape", address=address, shape=part.shape)
    index = part.index if part.index is not None else ...
    return _Metric(
        address,
        (part.name, part.value),
        lambda numbers: float(numbers[index]),
        lambda rec: float(find_part(rec._named, address).value.data[index]),
    )


def _number(given: Any, name: str) -> float:
    if isinstance(given, torch.Tensor) and given.numel() == 1:
        return float(given.detach())
    if isinstance(given, (int, float)):
        return float(given)
    raise InterventionError("error.grid.metric.gives", metric=name, kind=type(given).__name__)


def _on_other(measured: _Metric, other: Recording) -> float:
    try:
        return measured.of_recording(other)
    except (AddressError, IndexError) as error:
        raise InterventionError("error.grid.metric.other", metric=measured.name, reason=error) from error
