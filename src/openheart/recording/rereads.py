"""The calls that nobody makes: a tensor holds other numbers once another view of its memory was written.

Where both views are of one type that is one call of `openheart.reread`. A complex tensor and a real view of
its parts, or a lazily conjugated one and its base, meet in the numbers that the memory really holds: then the
views between stand in the recording as the operators that PyTorch has for them.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from openheart.recording.operators import REREAD
from openheart.recording.storages import Geometry
from openheart.recording.values import Value

__all__ = ["reread"]

_aten = torch.ops.aten
Add = Callable[[Any, str, tuple[Any, ...], Value], None]


def reread(old: Value | None, new: Value, value: Value, values: list[Value], add: Add) -> None:
    """Adds what makes `value` of what its tensor held before and of what was written there.

    Args:
        old: what it held; None if nobody had looked.
        new: what was written.
        value: what it holds now.
        values: the recording's, to which the views between are added.
        add: adds a call: its operator, name, arguments and the value that it makes.
    """
    walk = _Walk(values, add)
    component = value.dtype.to_real() if value.dtype.is_complex else value.dtype
    written = walk.plain(new, component)
    before = None if old is None else walk.plain(old, component)
    steps = _steps(value.geometry)
    held = steps[-1] if steps else value.geometry
    target = walk.new(held, value) if steps else value
    place, wrote = target.geometry, written.geometry
    add(REREAD, "reread",
        (before, written, list(place.shape), list(place.stride), place.offset,
         list(wrote.shape), list(wrote.stride), wrote.offset), target)  # fmt: skip
    for number in range(len(steps) - 1, -1, -1):
        outer = value if number == 0 else walk.new(steps[number - 1], value)
        walk.up(target, outer)
        target = outer


def _steps(geometry: Geometry) -> list[Geometry]:
    """The geometries between a tensor's and that of the real numbers in its memory, outermost first."""
    steps = []
    if geometry.bits & 2:
        geometry = geometry._replace(bits=geometry.bits - 2)
        steps.append(geometry)
    if geometry.bits & 1:
        geometry = geometry._replace(bits=0)
        steps.append(geometry)
    if geometry.dtype.is_complex:
        steps.append(_parts(geometry))
    return steps


def _parts(geometry: Geometry) -> Geometry:
    """A complex tensor's real and imaginary parts, side by side in memory."""
    return Geometry(
        geometry.dtype.to_real(),
        (*geometry.shape, 2),
        (*[2 * step for step in geometry.stride], 1),
        2 * geometry.offset,
    )


class _Walk:
    """Views of values that the run has not taken, but the memory has them."""

    def __init__(self, values: list[Value], add: Add) -> None:
        self.values = values
        self.add = add

    def new(self, geometry: Geometry, like: Value) -> Value:
        """A value of this geometry in the memory of `like`, at the same moment."""
        tensor = like._tensor
        if tensor is not None:
            tensor = torch.empty(0, dtype=geometry.dtype, device=tensor.device).set_(
                tensor.untyped_storage(), geometry.offset, geometry.shape, geometry.stride
            )
            tensor = tensor.conj() if geometry.bits & 1 else tensor
        value = Value(
            id=len(self.values),
            shape=geometry.shape,
            dtype=geometry.dtype,
            version=like.version,
            origin="call",
            geometry=geometry,
            _life=like._life,
            _tensor=tensor,
        )
        self.values.append(value)
        return value

    def plain(self, value: Value, component: torch.dtype) -> Value:
        """A value as the real numbers of type `component` that the memory holds."""
        for geometry in _steps(value.geometry):
            inner = self.new(geometry, value)
            if value.geometry.bits > geometry.bits and value.geometry.bits & 2:
                self.add(_aten.neg.default, "neg", (value,), inner)
            elif value.geometry.bits & 1:
                self.add(_aten._conj_physical.default, "conj_physical", (value,), inner)
            else:
                self.add(_aten.view_as_real.default, "view_as_real", (value,), inner)
            value = inner
        if value.dtype != component and value.dtype.itemsize == component.itemsize:
            inner = self.new(value.geometry._replace(dtype=component), value)
            self.add(_aten.view.dtype, "view", (value, component), inner)
            value = inner
        return value

    def up(self, inner: Value, outer: Value) -> None:
        """Adds the view that leads from the numbers in memory back to the tensor."""
        if outer.geometry.bits & 2:
            self.add(_aten._neg_view.default, "neg_view", (inner,), outer)
        elif outer.geometry.bits & 1:
            self.add(_aten._conj.default, "conj", (inner,), outer)
        else:
            self.add(_aten.view_as_complex.default, "view_as_complex", (inner,), outer)
