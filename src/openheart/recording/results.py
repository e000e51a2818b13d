"""What an operator calls its results: `values` and `indices`, `save_mean` and `save_invstd`.

Most say it in their schema. Some say it only where they are given memory to write to (`out=`), and a few say
it nowhere but in the operator of their gradient.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

__all__ = ["result_names"]

# As the arguments are called of `native_layer_norm_backward` and its like.
_UNSAID = {
    "aten::native_layer_norm": ("out", "mean", "rstd"),
    "aten::native_group_norm": ("out", "mean", "rstd"),
    "aten::_fused_rms_norm": ("out", "rstd"),
    "aten::native_dropout": ("out", "mask"),
    "aten::std_mean": ("std", "mean"),
    "aten::var_mean": ("var", "mean"),
    "aten::_unique2": ("out", "inverse", "counts"),
    "aten::unique_dim": ("out", "inverse", "counts"),
    "aten::unique_consecutive": ("out", "inverse", "counts"),
    "aten::_embedding_bag": ("out", "offset2bag", "bag_size", "maximum_indices"),
    "aten::_embedding_bag_forward_only": ("out", "offset2bag", "bag_size", "maximum_indices"),
    "aten::_weight_norm_interface": ("out", "norms"),
    "aten::_ctc_loss": ("out", "log_alpha"),
    "aten::_thnn_fused_lstm_cell": ("hidden", "cell", "workspace"),
    "aten::_thnn_fused_gru_cell": ("hidden", "workspace"),
}
_UNNAMED = re.compile(r"out\d*$")


@lru_cache(maxsize=4096)
def result_names(op: Any) -> tuple[str | None, ...]:
    """The name of each result, None for one without; nothing where there is only one result.

    >>> import torch
    >>> result_names(torch.ops.aten.native_batch_norm.default)
    ('out', 'save_mean', 'save_invstd')
    """
    schema = getattr(op, "_schema", None)
    if schema is None or len(schema.returns) < 2:
        return ()
    if schema.name in _UNSAID:
        return _UNSAID[schema.name]
    said = tuple(result.name for result in schema.returns)
    if not any(said):
        said = _written(op, len(said))
    # A name that some address gives to something else would be told apart by chance.
    return tuple(name if name and name not in ("in", "grad", "after", "before") else None for name in said)


def _written(op: Any, count: int) -> tuple[str | None, ...]:
    """The names of the arguments that the operator's `out=` form writes to."""
    packet = getattr(op, "overloadpacket", None)
    for overload in packet.overloads() if packet is not None else ():
        other: Any = getattr(packet, overload)
        names = [argument.name for argument in other._schema.arguments if argument.is_out]
        if len(names) == count and not any(_UNNAMED.match(name) for name in names[1:]):
            return tuple(names)
    return (None,) * count
