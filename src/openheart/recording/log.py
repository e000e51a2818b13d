"""What is written down while a run goes on: as little as can be, and nothing computed that can wait.

The log is one list of plain tuples, in the order of the run. A call is

    (op, args, kwargs, result, undos, aliases, sequence, node, caller, code, instruction)

    undos       (argument name, position, tensor, copy of what it held, Again or None), one a tensor written
    aliases     (tensor, alias with the geometry it had before) for each object that it reshaped
    sequence    the number that autograd will give to its next node: a call that made one has the one before
    node        the autograd node that was running, None outside of a backward pass
    caller      the code that made the call
    code, instruction    the nearest place outside of PyTorch

and the rest are marks, told apart by the string that comes first.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from openheart.recording.storages import Geometry, geometry_of
from openheart.recording.thrift import Again

__all__ = [
    "BEGIN",
    "ENGINE",
    "ENGINED",
    "ENTER",
    "EXIT",
    "FREED",
    "GAP",
    "GRAD",
    "POKED",
    "REBIND",
    "RETAIN",
    "STEP",
    "STEPPED",
    "Gap",
    "Log",
    "Stale",
    "is_plain",
    "stale_gradients",
    "tensors_in",
    "unwrapped",
]

ENTER = "enter"  # (ENTER, module path, args, kwargs)
EXIT = "exit"  # (EXIT, module path, result, whether it returned)
# (STEP, optimizer, [({option: its value}, [(parameter, gradient, state), …]), …], sequence)
STEP = "step"
STEPPED = "stepped"  # (STEPPED, optimizer, [(parameter, state name, state tensor), …])
# (REBIND, [(tensor, alias of what it was before), …]): somebody assigned to `tensor.data`, or swapped two
REBIND = "rebind"
POKED = "poked"  # (POKED, all of a storage, what it held before): written without PyTorch
FREED = "freed"  # (FREED, storage, bytes): `storage.resize_` has given memory back
GRAD = "grad"  # (GRAD, leaf, gradient or None): somebody assigned to `leaf.grad`
RETAIN = "retain"  # (RETAIN, tensor): `tensor.retain_grad()`
# (ENGINE, [(node or leaf, which of its gradients, gradient), …], whole, followed): autograd begins to run
# backward, from there; whole: wherever the graph leads; followed: the backward pass makes a graph of its own
ENGINE = "engine"
# (ENGINED, what `torch.autograd.grad` was asked the gradients of, what it returned, [(node or leaf, which of
# its gradients, gradient), …])
ENGINED = "engined"


class Stale(NamedTuple):
    """The gradient that a parameter had as the recording began; its memory is not kept alive for our sake.

    `storage` refers to it weakly, so that no other storage takes its address as long as this exists.
    """

    leaf: torch.Tensor
    storage: StorageWeakRef
    geometry: Geometry


# Only a flight recorder writes these two:
BEGIN = "begin"  # (BEGIN, step with its `number` and `sequence`): a step begins
GAP = "gap"  # (GAP, Gap): here stood steps that are not held


@dataclass(slots=True, eq=False)
class Gap:
    """What steps that are not held did to what earlier steps hold."""

    # storage → {geometry of what was written: what it held before the first write}
    undos: dict[int, dict[Geometry, torch.Tensor | Again | None]] = field(default_factory=dict)
    # id of a tensor object → (the object, alias with the geometry that it had before it was first reshaped)
    aliases: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    # id of a tensor object → the object: a write to it need not be noted again
    noted: dict[int, torch.Tensor] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Log:
    """Everything that was written down in one recording."""

    entries: list[tuple[Any, ...]] = field(default_factory=list)
    named: list[tuple[str, str, torch.Tensor]] = field(
        default_factory=list
    )  # origin, name, tensor, at the start
    named_later: list[tuple[str, str, torch.Tensor]] = field(default_factory=list)  # and at the end
    sequence: int = -1  # number of the newest autograd node when the recording began
    kept: list[tuple[torch.Tensor, torch.Tensor]] = field(
        default_factory=list
    )  # tensor, its copy made at the end
    # storages that an optimizer's step made and let go: up to which version their values are computed again
    computed: list[tuple[StorageWeakRef, int]] = field(default_factory=list)
    versions: list[tuple[torch.Tensor, int]] = field(
        default_factory=list
    )  # tensor, its version counter at the end
    stale: list[Stale] = field(default_factory=list)
    retained: list[tuple[torch.Tensor, torch.Tensor]] = field(
        default_factory=list
    )  # tensor that is no leaf, and the gradient that it has at the end
    has_model: bool = False
    notices: dict[str, dict[str, Any]] = field(default_factory=dict)  # what there is to know: key, details
    steps: int | None = None  # how many ran, of which a flight recorder holds some
    states: dict[int, tuple[Any, str, torch.Tensor]] = field(
        default_factory=dict
    )  # what an optimizer kept of a parameter, as its STEPPED told, by id: that entry may be gone


_is_wrapped = torch._C._functorch.is_functorch_wrapped_tensor
_is_batched = torch._C._functorch.is_legacy_batchedtensor  # `torch.autograd.grad` makes them, asked for many
_unwrap = torch._C._functorch.get_unwrapped


class _Types(dict[type, bool]):
    """Whether tensors of a type are ordinary memory; a subclass may take calls over, or be just a name."""

    def __missing__(self, kind: type) -> bool:
        takes_over = getattr(kind, "__torch_dispatch__", None) is not torch._C._disabled_torch_dispatch_impl
        plain = not takes_over and not issubclass(kind, (UninitializedParameter, UninitializedBuffer))
        self[kind] = plain
        return plain


_PLAIN = _Types()


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether a tensor's numbers lie in a storage of its own (no wrapper; not sparse, nested, symbolic)."""
    return (
        _PLAIN[type(tensor)]
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and not _is_wrapped(tensor)
        and not _is_batched(tensor)
        and not (tensor.is_meta and tensor._has_symbolic_sizes_strides)
    )


def unwrapped(tensor: torch.Tensor) -> torch.Tensor:
    """What lies in the wrappers that `torch.func` puts around a tensor; itself where there are none."""
    while _is_wrapped(tensor):
        tensor = _unwrap(tensor)
    return tensor


def stale_gradients(tensors: Iterable[torch.Tensor]) -> list[Stale]:
    """The gradients that these tensors have now."""
    return [
        Stale(tensor, StorageWeakRef(gradient.untyped_storage()), geometry_of(gradient))
        for tensor in tensors
        if tensor.is_leaf and (gradient := tensor.grad) is not None and is_plain(gradient)
    ]


def tensors_in(item: Any) -> Iterator[torch.Tensor]:
    """The tensors in what an operator or a module takes or gives, however deep they lie."""
    if isinstance(item, torch.Tensor):
        yield item
    elif isinstance(item, dict):
        for part in item.values():
            yield from tensors_in(part)
    elif isinstance(item, (tuple, list)):
        for part in item:
            yield from tensors_in(part)
    elif is_dataclass(item) and not isinstance(item, type):  # asks the type: a tracer's stand-in has any name
        for entry in fields(item):
            yield from tensors_in(getattr(item, entry.name, None))
