"""What an operator does to memory, found once per operator: which arguments it writes, if any.

The schema's alias information says what is written. Two things it does not say are in tables here: a few
kernels write to arguments that their schema does not declare, and some operators give memory that nobody has
written yet.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["PLANS", "Plan", "is_composite", "plan_of", "written_tensors"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What one operator does to memory.

    Attributes:
        op: the operator; keeps it alive, since `PLANS` knows it by its id.
        writes: position and name of each argument whose numbers it writes.
        reshapes: it changes the geometry of tensor objects (`transpose_`, an `out=` that is resized).
        only_reshapes: and writes no number.
        blank: what it returns is memory that nobody has written yet.
        overwrites: it writes every element of what it writes without reading it.
        composite: it has a kernel that only calls other operators, which runs where there is no other one.
        trains: position of the argument that must be true for the undeclared writes to happen.
    """

    op: Any
    writes: tuple[tuple[int, str], ...]
    reshapes: bool
    only_reshapes: bool
    blank: bool
    overwrites: bool
    composite: bool
    trains: int | None


# id of an operator → its Plan, or None for the great majority, which only read.
PLANS: dict[int, Plan | None] = {}
_ALIVE: list[Any] = []

_BLANK = {
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::empty_permuted",
    "aten::new_empty",
    "aten::new_empty_strided",
    "aten::_empty_affine_quantized",
    "aten::_empty_per_channel_affine_quantized",
}

_OVERWRITES = {
    "aten::copy_",
    "aten::fill_",
    "aten::zero_",
    "aten::normal_",
    "aten::uniform_",
    "aten::bernoulli_",
    "aten::random_",
    "aten::exponential_",
    "aten::geometric_",
    "aten::log_normal_",
    "aten::cauchy_",
    "aten::_foreach_zero_",
    "aten::_foreach_copy_",
}

# Kernels that write to arguments their schema does not mark: the running statistics of batch norm, and the
# scratch memory that oneDNN's and cuDNN's recurrent layers hand from the forward pass to the backward one.
_UNDECLARED: dict[str, tuple[tuple[str, ...], str | None]] = {
    "aten::native_batch_norm": (("running_mean", "running_var"), "training"),
    "aten::cudnn_batch_norm": (("running_mean", "running_var"), "training"),
    "aten::miopen_batch_norm": (("running_mean", "running_var"), "training"),
    "aten::batch_norm_update_stats": (("running_mean", "running_var"), None),
    "aten::batch_norm_gather_stats": (("running_mean", "running_var"), None),
    "aten::batch_norm_gather_stats_with_counts": (("running_mean", "running_var"), None),
    "aten::mkldnn_rnn_layer_backward": (("workspace",), None),
    "aten::_cudnn_rnn_backward": (("reserve",), None),
}


def plan_of(op: Any) -> Plan | None:
    """Finds and remembers what `op` does to memory; None if it only reads."""
    plan = _plan(op)
    _ALIVE.append(op)
    PLANS[id(op)] = plan
    return plan


def _plan(op: Any) -> Plan | None:
    schema = getattr(op, "_schema", None)
    if schema is None:
        return None
    name = schema.name
    positions = {argument.name: position for position, argument in enumerate(schema.arguments)}
    writes = [
        (positions[argument.name], argument.name)
        for argument in schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    trains = None
    if name in _UNDECLARED:
        names, condition = _UNDECLARED[name]
        writes += [
            (positions[argument], argument)
            for argument in names
            if (positions[argument], argument) not in writes
        ]
        trains = positions[condition] if condition else None
    only_reshapes = torch.Tag.inplace_view in getattr(op, "tags", ())
    to_out = any(argument.kwarg_only and argument.is_out for argument in schema.arguments)
    blank = name in _BLANK and not to_out
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(op.name(), "CompositeImplicitAutograd")
    if not (writes or blank or composite):
        return None
    return Plan(
        op=op,
        writes=() if only_reshapes else tuple(writes),
        reshapes=only_reshapes or to_out,
        only_reshapes=only_reshapes,
        blank=blank,
        overwrites=name in _OVERWRITES or to_out,
        composite=composite,
        trains=trains,
    )


def written_tensors(
    plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[str, int | None, torch.Tensor]]:
    """The tensors that this call writes: argument name, position in the list if it is one, tensor."""
    if plan.trains is not None and not (
        args[plan.trains] if plan.trains < len(args) else kwargs.get("training")
    ):
        return
    for position, name in plan.writes:
        if name == "grads" and kwargs.get("grad_scale") is None:
            continue  # fused optimizers write the gradients back only when they unscale them
        argument = args[position] if position < len(args) else kwargs.get(name)
        if isinstance(argument, torch.Tensor):
            yield name, None, argument
        elif isinstance(argument, (list, tuple)):
            for place, item in enumerate(argument):
                if isinstance(item, torch.Tensor):
                    yield name, place, item


def is_composite(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether what runs below autograd on these arguments is the kernel that only calls other operators."""
    keys = torch._C._dispatch_tls_local_include_set()
    for argument in (*args, *kwargs.values()):
        for item in argument if isinstance(argument, (list, tuple)) else (argument,):
            if isinstance(item, torch.Tensor):
                keys = keys | torch._C._dispatch_keys(item)
    place = (keys & _BELOW).highestPriorityTypeId()
    known = _RUNS_COMPOSITE.get((id(plan), place))
    if known is None:
        name = plan.op.name()
        own = (
            torch._C._dispatch_key_name(place),
            "CompositeExplicitAutograd",
            "CompositeExplicitAutogradNonFunctional",
        )
        nested = "NestedTensor" in own[0]  # has composite kernels of its own
        known = not nested and not any(
            torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in own
        )
        _RUNS_COMPOSITE[(id(plan), place)] = known
    return known


_RUNS_COMPOSITE: dict[tuple[int, Any], bool] = {}
_BELOW = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.BackendSelect)
