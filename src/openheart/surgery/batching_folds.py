"""Calls on n stacked variants by the operator's own broadcasting, where vmap has no rule for it.

Each fold takes a line's arguments by name, a stacked tensor (n, *shape) in the place of each value that
differs, and gives the stacked outputs; None where it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from openheart.recording import Call, Value, values_in
from openheart.surgery.program import Line, Tensors

__all__ = ["fold"]

aten = torch.ops.aten
Taken = Callable[[Value], torch.Tensor]

# Element by element: every tensor has one shape, and a stack of them is as good as one.
_POINTWISE = {"copy_", "lift_fresh", "lerp_", "lerp", "addcmul_", "addcmul", "addcdiv_", "addcdiv"}
_LISTS = ("foreach_", "fused_adam", "fused_sgd", "fused_adagrad")
_REDUCING = ("foreach_norm", "foreach_max", "foreach_powsum")


class _Stacked:
    """The numbers of a line on stacks: what is not stacked, and has the shape of what is, is stacked too."""

    def __init__(self, env: Tensors, shape: tuple[int, ...] | None, n: int, blank: bool) -> None:
        self.env, self.shape, self.n, self.blank = env, shape, n, blank
        self.values: dict[int, Value] = {}

    def get(self, identity: int) -> torch.Tensor | None:
        found = self.env.get(identity)
        value = self.values.get(identity)
        if found is not None or value is None or (self.shape is not None and value.shape != self.shape):
            return found
        if self.blank and not value.kept:  # it is overwritten whole
            return torch.empty((self.n, *value.shape), dtype=value.dtype)
        return value.data.expand(self.n, *value.shape)

    def __contains__(self, identity: int) -> bool:
        return self.get(identity) is not None


def fold(line: Line, env: Tensors, moved: Any, n: int) -> list[torch.Tensor] | None:
    """The stacked outputs of a line, or None where there is no such way."""
    call = line.call
    if call.name in _POINTWISE:
        return _pointwise(line, env, moved, n)
    if call.name.startswith(_LISTS) and not call.name.startswith(_REDUCING):
        return _lists(line, env, moved, n)
    special = _FOLDS.get(call.name)
    if special is None:
        return None

    def taken(value: Value) -> torch.Tensor:
        """A value's numbers, (n, *shape)."""
        tensor = line.read(value, env, moved)
        stacked = (value.id if moved is None else moved.get(value.id, value.id)) in env
        return tensor if stacked else tensor.expand(n, *tensor.shape)

    return special(call, taken, lambda value: _is_stacked(value, env, moved), n)


def _is_stacked(value: Value | None, env: Tensors, moved: Any) -> bool:
    return value is not None and (value.id if moved is None else moved.get(value.id, value.id)) in env


def _pointwise(line: Line, env: Tensors, moved: Any, n: int) -> list[torch.Tensor] | None:
    values = list(values_in((line.call.args, line.call.kwargs)))
    shape = values[0].shape
    if any(value.shape != shape for value in values):
        return None
    return _on_stacks(line, env, moved, n, values, shape)


def _lists(line: Line, env: Tensors, moved: Any, n: int) -> list[torch.Tensor] | None:
    places = [*line.call.args, *line.call.kwargs.values()]
    if any(isinstance(item, Value) and _is_stacked(item, env, moved) for item in places):
        return None
    lists = [item for item in places if isinstance(item, (list, tuple)) and any(values_in(item))]
    for column in zip(*lists, strict=False):
        values = [item for item in column if isinstance(item, Value)]
        shapes = {value.shape for value in values if value.shape or _is_stacked(value, env, moved)}
        if len(shapes) > 1:
            return None
    values = [value for value in values_in(lists) if value.shape or _is_stacked(value, env, moved)]
    return _on_stacks(line, env, moved, n, values, None)


def _on_stacks(
    line: Line, env: Tensors, moved: Any, n: int, values: list[Value], shape: tuple[int, ...] | None
) -> list[torch.Tensor]:
    stacked = _Stacked(env, shape, n, line._overwrites)
    stacked.values = {(v.id if moved is None else moved.get(v.id, v.id)): v for v in values}
    outputs = line.run(stacked, None, moved)  # type: ignore[arg-type]
    return [
        made if made.dim() == len(value.shape) + 1 else made.expand(n, *made.shape)
        for made, value in zip(outputs, line.call.outputs, strict=True)
    ]


# Operator by operator ---------------------------------------------------------------------------------------


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    """(n, B, …) as (n·B, …)."""
    return tensor.flatten(0, 1)


def _attention(call: Call, taken: Taken, is_stacked: Any, n: int) -> list[torch.Tensor] | None:
    """(n, B, H, L, E) as (n·B, H, L, E): every sample is computed by itself."""
    given = dict(call.arguments)
    if is_stacked(given.get("attn_mask")):
        return None
    mask = given.get("attn_mask")
    if isinstance(mask, Value):
        if len(mask.shape) == 4 and mask.shape[0] != 1:
            return None
        given["attn_mask"] = mask.data
    names = [
        name for name, item in given.items() if isinstance(item, Value) and item.shape and name != "attn_mask"
    ]
    batch = given["query"].shape[0]
    if any(len(given[name].shape) < 3 or given[name].shape[0] != batch for name in names):
        return None
    for name in names:
        given[name] = _rows(taken(given[name]))
    parameters = call.op._schema.arguments
    args = [given[p.name] for p in parameters if not p.kwarg_only]
    made = call.op(*args, **{p.name: given[p.name] for p in parameters if p.kwarg_only})
    return [tensor.unflatten(0, (n, batch)) for tensor in made]


def _nll_forward(call: Call, taken: Taken, is_stacked: Any, n: int) -> list[torch.Tensor] | None:
    """The loss of each row, and their (weighted) mean or sum, variant by variant."""
    given = call.arguments
    target, weight = given["target"], given["weight"]
    if is_stacked(target) or is_stacked(weight) or len(given["self"].shape) != 2:
        return None
    rows, targets = _rows(taken(given["self"])), target.data.repeat(n)
    weights = None if weight is None else weight.data
    losses, _ = aten.nll_loss_forward.default(rows, targets, weights, 0, given["ignore_index"])
    losses = losses.unflatten(0, (n, -1))
    total = call.outputs[1].data.expand(n)  # of the targets alone
    if given["reduction"] == 0:
        return [losses, total]
    summed = losses.sum(1)
    return [summed / total if given["reduction"] == 1 else summed, total]


def _nll_backward(call: Call, taken: Taken, is_stacked: Any, n: int) -> list[torch.Tensor] | None:
    given = call.arguments
    target, weight = given["target"], given["weight"]
    if is_stacked(target) or is_stacked(weight) or len(given["self"].shape) != 2:
        return None
    rows, targets = _rows(taken(given["self"])), target.data.repeat(n)
    weights = None if weight is None else weight.data
    gradient, total = taken(given["grad_output"]), taken(given["total_weight"])
    if given["reduction"]:
        gradient = (gradient / total if given["reduction"] == 1 else gradient)[:, None].expand(
            n, target.shape[0]
        )
    made = aten.nll_loss_backward.default(
        gradient.reshape(-1), rows, targets, weights, 0, given["ignore_index"], total[0]
    )
    return [made.unflatten(0, (n, -1))]


def _mse_backward(call: Call, taken: Taken, _is_stacked: Any, n: int) -> list[torch.Tensor] | None:
    given = call.arguments
    value, target = given["self"], given["target"]
    if value.shape != target.shape:
        return None
    x, t = taken(value), taken(target)
    gradient = taken(given["grad_output"])
    if given["reduction"]:
        gradient = gradient / (x[0].numel() if given["reduction"] == 1 else 1)
        gradient = gradient.reshape(n, *[1] * (x.dim() - 1)).expand_as(x)
    return [aten.mse_loss_backward.default(gradient, x, t, 0)]


_FOLDS: dict[str, Callable[[Call, Taken, Any, int], list[torch.Tensor] | None]] = {
    "scaled_dot_product_flash_attention_for_cpu": _attention,
    "scaled_dot_product_flash_attention_for_cpu_backward": _attention,
    "nll_loss_forward": _nll_forward,
    "nll_loss_backward": _nll_backward,
    "mse_loss_backward": _mse_backward,
}
