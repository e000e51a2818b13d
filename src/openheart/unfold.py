"""Opaque calls, unfolded: PyTorch's own decomposition of one call, run from its recorded inputs.

A call without a law stays *opaque*: its number is recorded, and no law of ours states it. Where PyTorch
itself says how the operator is made of others, that recipe is run here from the recorded inputs and
recorded in turn, so that each of its numbers can be explained. Both results stand side by side; the
decomposition's may differ from the recorded one, since the kernel that ran was another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from openheart.record import recording as record_block
from openheart.recording import Call, Value
from openheart.recording.computing import computes

if TYPE_CHECKING:
    from openheart.recording import Recording


@dataclass(frozen=True, slots=True)
class Unfolding:
    """The decomposition of one call: its recording, and what it made of the call's outputs."""

    recording: Recording
    outputs: tuple[torch.Tensor, ...]


def unfold(call: Call) -> Unfolding | None:
    """Run PyTorch's decomposition of a recorded call; None where PyTorch has none, or it does not run.

    Drawn numbers cannot be drawn again: a call that draws at random has no unfolding.
    """
    recipe = _recipe(call.op)
    if call.foreign and not computes(call.op):
        return None
    if recipe is None or torch.Tag.nondeterministic_seeded in getattr(call.op, "tags", ()):
        return None

    def copied(part: Any) -> Any:
        return part.data.clone() if isinstance(part, Value) else part

    arguments = tree_map(copied, (call.args, call.kwargs), is_leaf=lambda part: isinstance(part, Value))
    try:
        with torch.no_grad(), record_block() as recorded:
            made = recipe(*arguments[0], **arguments[1])
    except Exception:  # noqa: BLE001 - a recipe may not support these arguments; the call then stays closed
        return None
    outputs = tuple(t for t in tree_flatten(made)[0] if isinstance(t, torch.Tensor))
    return Unfolding(recorded, outputs) if recorded.calls else None


def _recipe(op: Any) -> Any:
    if not isinstance(op, torch._ops.OpOverload):
        return None
    from torch._decomp import decomposition_table

    found = decomposition_table.get(op)
    if found is None and op._can_decompose():
        return op.decompose
    return found
