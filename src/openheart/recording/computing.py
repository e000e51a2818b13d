"""Which operators do nothing but compute, so that they may be run for a stranger's recording.

It is told by what the dispatcher knows of an operator, not by a list of the bad ones: where it lives, what
it takes and what it gives. What reads a file takes its name and no tensor; what talks to a network, a stream
or a profiler takes an object or gives nothing; what a library registered may do anything.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import torch

from openheart.recording.operators import REREAD

__all__ = ["computes"]

_LIBRARIES = ("aten", "prims")
_PLAIN = {"TensorType", "IntType", "SymIntType", "FloatType", "SymFloatType", "NumberType", "BoolType",
          "SymBoolType", "DeviceObjType", "GeneratorType", "StringType"}  # fmt: skip
# They make tensors of memory that their arguments do not describe: another size or storage, raw offsets.
_MEMORY = re.compile(r"resize|storage|buffer|^set_|^_?nested|_nested_|^_?sparse_|_from_blob")


@lru_cache(maxsize=4096)
def computes(op: Any) -> bool:
    """Whether an operator only makes tensors from tensors, numbers and types.

    >>> import torch
    >>> computes(torch.ops.aten.addmm.default), computes(torch.ops.aten.from_file.default)
    (True, False)
    """
    if op is REREAD:
        return True
    if not isinstance(op, torch._ops.OpOverload) or op.namespace not in _LIBRARIES:
        return False
    schema = op._schema
    kinds = [_kind(argument.type) for argument in schema.arguments]
    takes_tensors = takes_words = gives_tensors = False
    for argument, kind in zip(schema.arguments, kinds, strict=True):
        # What is only written to, as an `out=` is, says nothing of what an operator computes from.
        takes_tensors |= kind == "TensorType" and not argument.is_out
        takes_words |= kind == "StringType"
        gives_tensors |= (
            kind == "TensorType" and argument.alias_info is not None and argument.alias_info.is_write
        )
    gives_tensors |= any(_kind(given.type) == "TensorType" for given in schema.returns)
    return (
        set(kinds) <= _PLAIN
        and (gives_tensors or (takes_tensors and bool(schema.returns)))
        and (takes_tensors or not takes_words)
        and _MEMORY.search(schema.name.partition("::")[2]) is None
    )


def _kind(kind: Any) -> str:
    """The kind of a schema's type, without the lists and options around it."""
    while kind.kind() in ("ListType", "OptionalType"):
        kind = kind.getElementType()
    return str(kind.kind())
