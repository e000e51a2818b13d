"""Which stack is meant: two modules of a network, an input for them, and the recorded calls between."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from openheart.errors import AddressError, InputError, OpenheartError
from openheart.loading.trouble import did_you_mean, reason
from openheart.record import recording
from openheart.recording import Call, Recording, Value
from openheart.recording.values import values_in
from openheart.surgery.affine import Refusal
from openheart.surgery.affine_flow import Segment, refused, segment_of

__all__ = ["DRAWN", "SEED", "Stack", "links", "segment_between", "stack_of"]

SEED = 28
"""What a sample is drawn from where none is given."""
DRAWN = 3
"""How many samples are drawn."""
WIDTH_OF = {
    torch.nn.Linear: "in_features",
    torch.nn.BatchNorm1d: "num_features",
    torch.nn.Bilinear: "in1_features",
}
PASSING = (torch.nn.Identity, torch.nn.Dropout, torch.nn.Flatten)


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Two modules of a network and how they are run: alone, one after the other, or with all the network.

    `seed` is that of a drawn input, None for a given one.
    """

    model: torch.nn.Module
    first: str
    last: str
    alone: tuple[torch.nn.Module, ...]
    inputs: tuple[torch.Tensor, ...]
    named: dict[str, torch.Tensor]
    seed: int | None

    def run(self, samples: int | None = None) -> Recording:
        """A recording of the run on the first `samples` samples, or on all; the network is left as it was."""
        given = (*self.inputs, *self.named.values())
        count = len(given[0]) if given and given[0].ndim > 1 else 0

        def some(t: torch.Tensor) -> torch.Tensor:
            return t[:samples] if samples is not None and t.ndim and len(t) == count else t

        inputs = tuple(map(some, self.inputs))
        named = {name: some(t) for name, t in self.named.items()}
        with _left_alone(self.model), torch.no_grad():
            try:
                with recording(self.model) as rec:
                    if not self.alone:
                        self.model(*inputs, **named)
                    else:
                        x = inputs[0]
                        for module in self.alone:
                            x = module(x)
                return rec
            except OpenheartError:
                raise
            except Exception as error:
                raise InputError("collapse.error.run", reason=reason(error)) from error


@contextlib.contextmanager
def _left_alone(model: torch.nn.Module) -> Iterator[None]:
    """Buffers (the running means of a batch norm in training) and the random state are put back."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(SEED)
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, was in kept:
                    if not torch.equal(buffer, was):
                        buffer.copy_(was)


def stack_of(model: torch.nn.Module, first: str, last: str, given: Any) -> Stack:
    """The stack between two modules.

    **Raises** `AddressError` for a name that no module has; `InputError` when no input can be drawn.
    """
    modules = dict(model.named_modules())
    for name in (first, last):
        if name not in modules:
            near = did_you_mean(name, modules)
            known = ", ".join(path for path in modules if path) or "–"
            raise AddressError("collapse.error.module", name=name, near=near, known=known)
    row = _row(model, first, last)
    if given is not None:
        named: dict[str, torch.Tensor] = {}
        inputs = given if isinstance(given, tuple) else (given,)
        if inputs and isinstance(inputs[-1], dict):
            inputs, named = inputs[:-1], {name: torch.as_tensor(t) for name, t in inputs[-1].items()}
        if len(inputs) == 1 and isinstance(inputs[0], tuple):
            (inputs,) = inputs
        tensors = tuple(torch.as_tensor(each) for each in inputs)
        alone = row if isinstance(model, torch.nn.ModuleList) else ()
        return Stack(model, first, last, alone, tensors, named, None)
    begin = row or tuple(model.modules())
    x = _drawn(begin)
    return Stack(model, first, last, row, (x,), {}, SEED)


def _row(model: torch.nn.Module, first: str, last: str) -> tuple[torch.nn.Module, ...]:
    """The modules from first to last where they stand in one Sequential or ModuleList; else nothing."""
    above, _, one = first.rpartition(".")
    other, _, two = last.rpartition(".")
    parent = model.get_submodule(above) if above == other and first else None
    if not isinstance(parent, (torch.nn.Sequential, torch.nn.ModuleList)):
        return (model.get_submodule(first),) if first == last and first else ()
    names = [name for name, _ in parent.named_children()]
    here, there = names.index(one), names.index(two)
    if here > there:
        raise InputError("collapse.error.order", first=first, last=last)
    return tuple(parent)[here : there + 1]


def _drawn(modules: tuple[torch.nn.Module, ...]) -> torch.Tensor:
    """A batch for the first module that says how wide a sample is.

    **Raises** `InputError` where one comes before it that does not.
    """
    leaves = [leaf for module in modules for leaf in module.modules() if not any(leaf.children())]
    for leaf in leaves:
        width = next((getattr(leaf, name) for kind, name in WIDTH_OF.items() if isinstance(leaf, kind)), None)
        if width is not None:
            like = next((p for p in leaf.parameters() if p.is_floating_point()), torch.empty(0))
            generator = torch.Generator().manual_seed(SEED)
            drawn = torch.randn(DRAWN, width, generator=generator, dtype=torch.float64)
            return drawn.to(dtype=like.dtype, device=like.device)
        if not isinstance(leaf, PASSING):
            break
    named = str(leaf).splitlines()[0] if leaves else "–"
    raise InputError("collapse.error.input", module=named)


def segment_between(rec: Recording, first: str, last: str) -> Segment:
    """The recorded calls from what `first` takes to what `last` gives.

    **Raises** `InputError` where one does not follow from the other, or from more than it.
    """
    source, target = _value(rec, first, "in"), _value(rec, last, "out")
    for name, value in ((first, source), (last, target)):
        if not value.dtype.is_floating_point:
            raise InputError("collapse.error.float", name=name, dtype=str(value.dtype)[6:])
    segment = segment_of(rec, source, target)
    if segment is None:
        raise InputError("collapse.error.order", first=first, last=last)
    for call, _ in segment.calls:
        if draws(call):
            raise refused(rec, call, Refusal("random"))
    for call, value in segment.outside():
        found = _origin(rec, value)
        if found == "random":
            raise refused(rec, call, Refusal("random"))
        if found == "input":
            said = {"first": first, "last": last, "operator": call.name, "name": rec.name(value)}
            raise InputError("collapse.error.outside", **said)
    return segment


def _value(rec: Recording, path: str, side: str) -> Value:
    name = f"{path}.{side}"
    try:
        return rec.value(name)
    except AddressError:
        raise InputError("collapse.error.not_called", name=path) from None


def _origin(rec: Recording, value: Value) -> str:
    """What a value comes from in the end: "random", "input", or "" for what the network itself holds."""
    seen: set[int] = set()
    stack, found = [value], ""
    while stack:
        here = stack.pop()
        if here.id in seen:
            continue
        seen.add(here.id)
        made = rec.maker(here)
        if made is None:
            found = "input" if here.origin == "input" else found
            continue
        if draws(made[0]):
            return "random"
        stack.extend(values_in((made[0].args, made[0].kwargs)))
    return found


def draws(call: Call) -> bool:
    """Whether an operator draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(call.op, "tags", ())


def links(rec: Recording, segment: Segment) -> list[tuple[str, Value, Value]]:
    """The modules without children that lead one by one from the source to the target: path, in and out.

    Empty where the way is no chain of them (a residual sum, a functional call).
    """
    visits = [v for v in rec._read().visits if len(v.inputs) == 1 and len(v.outputs) == 1]
    paths = {v.path for v in visits}
    found: list[tuple[str, Value, Value]] = []
    at = segment.source
    while at is not segment.target:
        step = next(
            (
                (v.path, at, v.outputs[0][1])
                for v in visits
                if v.inputs[0][1] is at
                and not any(p.startswith(f"{v.path}." if v.path else "") and p != v.path for p in paths)
                and v.outputs[0][1] is not at
                and v.outputs[0][1].id in segment.moving
            ),
            None,
        )
        if step is None or len(found) > len(visits):
            return []
        found.append(step)
        at = step[2]
    return found
