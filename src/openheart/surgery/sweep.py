"""Sweeps: what follows as one number, or one slice, takes many values; any output as a curve over them."""

# The parts of a recording know each other's insides.

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from openheart.errors import InterventionError
from openheart.recording import Element, Recording, Value
from openheart.recording.addresses import Part, find_part
from openheart.recording.soundness import sound
from openheart.surgery.batching import Work, run_variants
from openheart.surgery.edits import Edit, edits_from
from openheart.surgery.hyperparameters import option_of

__all__ = ["Sweep", "named_in", "sweep"]

FEW = 12
"""An output with more numbers than this is not watched number by number unless it is asked for."""


@dataclass(frozen=True, eq=False)
class Sweep:
    """What follows from n values of one number, or of one slice.

    Attributes:
        recording: the run that was changed.
        address: what was changed, as given.
        kind: how a value is applied: `"set"`, `"scale"`, `"add"`, or what another edit is called.
        values: the values, float64 (n,).
        curves: watched address → its numbers for each value, (n, *shape), in their own dtype.
        recorded: the address that was changed, and each watched one → what it holds in `recording`.
        origin: the value that changes nothing (the recorded number; 1 for a factor, 0 for an amount); None
            where there is no such one number.
        constant: the watched addresses that the change does not reach.
        work: how the runs were made, see `openheart.surgery.batching.Work`.
    """

    recording: Recording
    address: str
    kind: str
    values: torch.Tensor
    curves: dict[str, torch.Tensor]
    recorded: dict[str, torch.Tensor]
    origin: float | None
    constant: tuple[str, ...]
    work: Work
    _edits: tuple[Edit, ...]

    @property
    def batched(self) -> bool:
        """Whether the values were run together; a number may then differ by rounding from `at(i)`'s.

        Each call is within its law's bound; what follows may magnify that (Adam divides a gradient that is
        all rounding by its own size). `sweep(…, batched=False)` gives every number exactly.
        """
        return self.work.batched

    def at(self, i: int) -> Recording:
        """The counterfactual at value i: the recording with this one edit.

        Raises:
            IndexError: there are fewer values.
        """
        return self.recording.intervene(self._edits[i])

    def lines(self) -> dict[str, torch.Tensor]:
        """Every watched number by its own address: `output[0,2]` → (n,)."""
        return {
            name: numbers.reshape(len(self.values), -1)[:, place]
            for watched, numbers in self.curves.items()
            for place, name in enumerate(_each(self.recording, watched))
        }

    def text(self, digits: int = 4, lang: str | None = None, rows: int = 12) -> str:
        """The sweep as plain text: a table of at most `rows` values, and what there is to say."""
        from openheart.printers.sweep import sweep_text

        return sweep_text(self, digits=digits, lang=lang, rows=rows)

    def to_svg(self, digits: int = 4, lang: str | None = None, width: int = 720) -> str:
        """The curves as a picture that needs nothing else, in light and dark."""
        from openheart.printers.sweep_chart import sweep_svg

        return sweep_svg(self, digits=digits, lang=lang, width=width)

    def to_html(self, digits: int = 4, lang: str | None = None) -> str:
        """An HTML fragment that needs nothing else, in light and dark."""
        from openheart.printers.sweep import sweep_html

        return sweep_html(self, digits=digits, lang=lang)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; numbers that are not finite are the strings "nan", "inf" and "-inf"."""
        from openheart.printers.sweep import sweep_dict

        return sweep_dict(self)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.to_html()


@sound
def sweep(
    recording: Recording,
    address: str,
    values: Any,
    *,
    watch: Any = None,
    edit: Callable[[float], Any] | None = None,
    batched: bool = True,
) -> Sweep:
    """Runs the counterfactuals of many values of one number, and gives what is watched as curves.

    Args:
        recording: what ran.
        address: a number, a slice or a whole value: of a weight, a bias, the input, an activation, a
            gradient; or a hyperparameter of the step (`"lr"`).
        values: finite numbers, (n,).
        watch: an address (`"loss"`, `"output[0,2]"`, a slice), a `Value`, an `Element`, or a list of these.
            By default the last loss; without one, the output number by number if it has no more than twelve,
            else the first sample's last row.
        edit: what is done with a value: `oh.scale`, `oh.add`, a function that gives an edit; by default it is
            set.
        batched: run the values together, each downstream call once on all of them, where the laws allow it.
            With False every value is a run by itself, bit for bit what `intervene` gives.

    Raises:
        AddressError: nothing has one of the addresses.
        InterventionError: the values are no finite numbers, or one of them cannot be (see `intervene`).

    >>> import torch, openheart as oh
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.ones_(net.weight)
    >>> rec = oh.record(net, torch.tensor([[3.0, 4.0]]))
    >>> rec.sweep("weight[0,0]", [0, 1, 2], watch="output[0,0]").curves["output[0,0]"]
    tensor([ 4.,  7., 10.])
    """
    numbers = _numbers(values)
    target = _target(recording, address)
    edits = [_edit(address, number, edit, target) for number in numbers.tolist()]
    watched = _watched(recording, watch)
    batch = run_variants(
        recording, [(e,) for e in edits], [(_own_name(recording, p), p.value) for _, p in watched], batched
    )
    curves: dict[str, torch.Tensor] = {}
    recorded: dict[str, torch.Tensor] = {}
    old, origin = _found(recording, address, target, edits[0].kind)
    recorded[address] = old
    for (name, part), found in zip(watched, batch.numbers, strict=True):
        index = (slice(None), *part.index) if part.index is not None else ...
        curves[name] = found[index].clone()
        recorded[name] = part.value.data[part.index if part.index is not None else ...].clone()
    constant = tuple(name for (name, _), same in zip(watched, batch.constant, strict=True) if same)
    return Sweep(
        recording,
        address,
        edits[0].kind,
        numbers,
        curves,
        recorded,
        origin,
        constant,
        batch.work,
        tuple(edits),
    )


def _numbers(values: Any) -> torch.Tensor:
    try:
        if isinstance(values, (str, bytes)):
            raise TypeError
        items = values if isinstance(values, torch.Tensor) else torch.tensor([float(v) for v in values])
        if not isinstance(values, torch.Tensor):
            items = torch.tensor([float(v) for v in values], dtype=torch.float64)
        numbers = items.detach().to("cpu", torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InterventionError("error.sweep.values", kind=type(values).__name__) from error
    if numbers.dim() != 1 or not len(numbers):
        raise InterventionError("error.sweep.shape", shape=tuple(numbers.shape))
    odd = [number for number in numbers.tolist() if not math.isfinite(number)]
    if odd:
        raise InterventionError("error.sweep.finite", odd=odd[0])
    return numbers


def _target(recording: Recording, address: Any) -> Part | None:
    """What is swept; None for a hyperparameter."""
    if not isinstance(address, str):
        raise InterventionError("error.sweep.address", given=address)
    if option_of(recording, address) is not None:
        return None
    return find_part(recording._named, address)


def _edit(address: str, number: float, how: Callable[[float], Any] | None, target: Part | None) -> Edit:
    whole = target is not None and not (target.value.dtype.is_floating_point or target.value.dtype.is_complex)
    given: Any = int(number) if whole and number.is_integer() else number
    made = edits_from({address: given if how is None else how(given)})
    return made[0]


def _found(
    recording: Recording, address: str, target: Part | None, kind: str
) -> tuple[torch.Tensor, float | None]:
    """What is at the address, and the value that changes nothing."""
    if target is None:
        option = option_of(recording, address)
        assert option is not None
        old = recording.optimizers[option.steps[0]].groups[option.group or 0].options[option.name]
        old = old[option.place] if option.place is not None else old
        numbers = old.data if isinstance(old, Value) else torch.tensor(old, dtype=torch.float64)
    else:
        numbers = target.value.data[target.index if target.index is not None else ...].clone()
    if kind in ("scale", "add"):
        return numbers, 1.0 if kind == "scale" else 0.0
    alone = kind == "set" and numbers.numel() and not numbers.dtype.is_complex
    same = alone and bool((numbers == numbers.reshape(-1)[0]).all())
    return numbers, float(numbers.reshape(-1)[0]) if same else None


# What is watched --------------------------------------------------------------------------------------------


def _watched(recording: Recording, watch: Any) -> list[tuple[str, Part]]:
    items: Sequence[Any]
    if watch is None:
        items = _by_default(recording)
    elif isinstance(watch, (list, tuple)):
        items = watch
    else:
        items = [watch]
    if not items:
        raise InterventionError("error.sweep.nothing")
    found: dict[str, Part] = {}
    for item in items:
        name = named_in(recording, item)
        part = find_part(recording._named, name)
        if not part.value.kept:
            raise InterventionError("error.sweep.not_kept", name=name)
        found[name] = part
    return list(found.items())


def named_in(recording: Recording, item: Any) -> str:
    """The address of what is watched.

    Raises:
        InterventionError: it is no address, value or element.
    """
    if isinstance(item, Value):
        return recording.name(item)
    if isinstance(item, Element):
        return recording.address(item)
    if isinstance(item, str):
        return item
    raise InterventionError("error.sweep.watch", given=item)


def _by_default(recording: Recording) -> list[str]:
    names = recording._named.values
    losses = [name for name in names if name == "loss" or (name.startswith("@") and name.endswith(" loss"))]
    if losses:
        return [max(losses, key=lambda name: int(name[1:].split()[0]) if name.startswith("@") else 0)]
    output = names.get("output")
    if output is None:
        raise InterventionError("error.sweep.no_output")
    if 1 <= math.prod(output.shape) <= FEW:
        return _each(recording, "output")
    if len(output.shape) < 2:
        return ["output"]
    middle = ["-1"] * (len(output.shape) - 2)
    return [f"output[{','.join(['0', *middle, ':'])}]"]


def _each(recording: Recording, address: str) -> list[str]:
    """The addresses of the single numbers that an address means, in row-major order."""
    part = find_part(recording._named, address)
    if not part.value.shape:
        return [address]
    places = torch.arange(math.prod(part.value.shape)).reshape(part.value.shape)
    chosen = places[part.index if part.index is not None else ...].reshape(-1)
    columns = torch.unravel_index(chosen, part.value.shape)
    stem = address.split("[", maxsplit=1)[0].strip()
    return [f"{stem}[{','.join(map(str, at))}]" for at in zip(*(c.tolist() for c in columns), strict=True)]


def _own_name(recording: Recording, part: Part) -> str:
    """The name under which a plan knows a value."""
    if part.name in recording._named.values:
        return part.name
    step, _, rest = part.name.rpartition(" ")
    return f"{step} .{rest}".lstrip()
