"""The facts of a run: values, the calls that made them, and the address of one scalar."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from openheart.errors import OpaqueError
from openheart.recording.storages import Geometry, Life

if TYPE_CHECKING:
    from openheart.recording.keeping import Recipe

__all__ = [
    "Call",
    "Element",
    "OptimizerGroup",
    "OptimizerStep",
    "Origin",
    "Phase",
    "Slot",
    "Value",
    "values_in",
]

Origin = Literal["parameter", "buffer", "input", "leaf", "constant", "call"]
Phase = Literal["forward", "loss", "backward", "optimizer"]
Slot = tuple[int | str, int | None]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Value:
    """One immutable snapshot of a tensor: what it held at one moment of the run.

    Attributes:
        id: its position in `Recording.values`.
        shape, dtype: those of the tensor.
        version: how many writes its storage had seen when this snapshot held.
        origin: `"call"` if a recorded call made it, else what it was when the recording first met it.
        geometry: where its elements lie in their storage (offset and strides, in elements).
    """

    id: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    version: int
    origin: Origin
    geometry: Geometry
    _life: Life | Recipe
    _tensor: torch.Tensor | None
    _cache: dict[str, Any] = field(default_factory=dict)

    @property
    def stride(self) -> tuple[int, ...]:
        """How many elements of the storage lie between neighbours along each dimension."""
        return self.geometry.stride

    @property
    def offset(self) -> int:
        """Where in its storage the first element lies, in elements."""
        return self.geometry.offset

    @property
    def kept(self) -> bool:
        """Whether the numbers are there to be read."""
        return self._life.keeps(self.geometry, self.version, self._tensor)

    @property
    def data(self) -> torch.Tensor:
        """The recorded numbers as a detached tensor; do not write to it.

        Raises:
            OpaqueError: the numbers were not kept, or were overwritten after the recording ended.
        """
        cache = self._cache
        data = cache.get("data")
        if data is None or not (cache["fixed"] or self._life.intact()):
            data = self._life.read(self.geometry, self.version, self._tensor)
            if not self._life.lasting:
                return data
            cache.pop("array", None)
            cache["fixed"] = self._life.fixed(self.geometry, self.version)
            # An alias with a version counter of its own: what is done to it (a planted error, say) is not
            # taken for a program that overwrites the recorded tensor.
            cache["data"] = data = data.data
        return data

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The recorded numbers as a numpy array (bfloat16 and float16 become float32; others are not copied).

        Raises:
            OpaqueError: as `data`, or numpy has no such tensor (meta, sparse, quantized).
        """
        data = self.data
        array = self._cache.get("array")
        if array is None:
            try:
                if self.dtype in _WIDENED:
                    data = _widened(data)
                array = data.resolve_conj().resolve_neg().cpu().numpy()
            except (RuntimeError, TypeError, NotImplementedError) as error:
                raise OpaqueError(
                    "error.value.array", id=self.id, dtype=self.dtype, shape=self.shape, reason=error
                ) from error
            if self._life.lasting:
                self._cache["array"] = array
        return array

    def __repr__(self) -> str:
        return f"Value({self.id}, {self.dtype}, shape={self.shape}, version={self.version}, {self.origin})"


def _widened(data: torch.Tensor) -> torch.Tensor:
    """In float32, bit for bit: some processors make a NaN that signals a quiet one as they widen it."""
    wide = data.float()
    if data.dtype is torch.float16 and bool(wide.isnan().any()):
        bits = data.contiguous().view(torch.int16).int()
        kept = (bits & 0x8000) << 16 | 0x7F800000 | (bits & 0x3FF) << 13
        wide = torch.where(wide.isnan(), kept.view(torch.float32), wide)
    return wide


_WIDENED = {torch.bfloat16, torch.float16} | {
    getattr(torch, name) for name in dir(torch) if name.startswith(("float8", "float4"))
}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Call:
    """One operator call of the run, with the values it read and made.

    Attributes:
        id: its position in `Recording.calls`.
        op: the overload that ran (`aten.addmm.default`); in a loaded recording an `UnknownOp` where this
            PyTorch has no such operator.
        name: its name without leading underscores (`addmm`, `foreach_add_`).
        args, kwargs: as called, each tensor replaced by its `Value`.
        outputs: the values it made or wrote.
        slots: for each output, where the call gives it: `(return number, None)`, `(return number, position)`
            in a returned list, `(argument name, None)` or `(argument name, position)` for what is written but
            not returned.
        phase: what the run was doing.
        scope, visit: the module it ran in (`""`: the root, or none) and which of that module's calls, from 0.
        source: `"file.py:123"`, the nearest line outside of PyTorch; None if there is none.
        forward_call: for a backward call, the id of the call whose gradient it computes, if known.
        step: the training step, from 0.
        foreign: it was read from a file: it is run again only where its operator does nothing but compute.
        own: it copies a gradient into a leaf because the recording holds that gradient: without the recording
            PyTorch may take it over instead.
    """

    id: int
    op: Any
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Value, ...]
    slots: tuple[Slot, ...]
    phase: Phase
    scope: str
    visit: int
    source: str | None
    forward_call: int | None
    step: int
    foreign: bool = False
    own: bool = False
    _cache: dict[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """Every argument by its name in the operator's schema, defaults filled in."""
        arguments: dict[str, Any] | None = self._cache.get("arguments")
        if arguments is None:
            arguments = _by_name(self.op, self.args, self.kwargs)
            self._cache["arguments"] = arguments
        return arguments

    def __repr__(self) -> str:
        where = f" in {self.scope}" if self.scope else ""
        return f"Call({self.id}, {self.op}, {self.phase}{where})"


def _by_name(op: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    schema = getattr(op, "_schema", None)
    if (
        schema is None
    ):  # a higher-order operator, or one this PyTorch does not have: positions are all we know
        return {str(position): argument for position, argument in enumerate(args)} | kwargs
    arguments = {}
    for position, parameter in enumerate(schema.arguments):
        name = parameter.name
        if position < len(args):
            arguments[name] = args[position]
        elif name in kwargs:
            arguments[name] = kwargs[name]
        else:
            arguments[name] = parameter.default_value
    return arguments


@dataclass(frozen=True, slots=True)
class Element:
    """The address of one scalar: `value[index]`."""

    value: Value
    index: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerGroup:
    """One group of parameters that an optimizer's step treats alike.

    Attributes:
        options: the hyperparameters as they stood when the step began (`lr`, `betas`, …); a tensor is its
            `Value`.
        names: what the model calls each parameter, None for one that is not the model's.
        parameters, gradients: the values that the step found; a gradient is None where there was none.
        states: for each parameter what the optimizer had kept of it (`exp_avg`, `step`), empty at first.
    """

    options: dict[str, Any]
    names: tuple[str | None, ...]
    parameters: tuple[Value, ...]
    gradients: tuple[Value | None, ...]
    states: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, eq=False)
class OptimizerStep:
    """One call of an optimizer's `step()`.

    Attributes:
        kind: its class, `"torch.optim.sgd.SGD"`.
        step: the training step, from 0.
        calls: the ids of the calls that it made.
        groups: its groups of parameters.
    """

    kind: str
    step: int
    calls: range
    groups: tuple[OptimizerGroup, ...]


def values_in(argument: Any) -> Iterator[Value]:
    """Every `Value` inside one argument of a call, in order."""
    if isinstance(argument, Value):
        yield argument
    elif isinstance(argument, (list, tuple)):
        for item in argument:
            yield from values_in(item)
    elif isinstance(argument, dict):
        for item in argument.values():
            yield from values_in(item)
