"""The arguments of calls as JSON, and back: numbers (also infinite ones), dtypes, devices, lists, values."""

# The parts of a recording know each other's insides.

from __future__ import annotations

import contextlib
import math
import re
from functools import lru_cache
from typing import Any

import torch

from openheart.recording.values import Value
from openheart.spelling import shown_whole

__all__ = ["Unknown", "UnknownOp", "decode", "encode", "find_op", "op_name"]


_OPERATOR = re.compile(r"\w+::\w+\.\w+", re.ASCII)


class Unknown:
    """Something that a call was given and a file cannot hold, such as a generator; only its text is left."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class UnknownOp:
    """An operator that this PyTorch does not have (another version, or an extension that is not imported)."""

    def __init__(self, full_name: str) -> None:
        self._full_name = full_name

    def name(self) -> str:
        """`namespace::operator.overload`."""
        return self._full_name

    def __repr__(self) -> str:
        return self._full_name


def op_name(op: Any) -> str:
    """`namespace::operator.overload` of an operator."""
    schema = getattr(op, "_schema", None)
    if schema is None:
        return op.name() if callable(getattr(op, "name", None)) else str(op)
    return f"{schema.name}.{schema.overload_name or 'default'}"


@lru_cache(maxsize=4096)
def find_op(full_name: str) -> Any:
    """The operator with this name, or an `UnknownOp`."""
    found: Any = None
    if _OPERATOR.fullmatch(full_name):  # nothing else that hangs on torch.ops: it can load libraries, too
        namespace, _, rest = full_name.partition("::")
        name, _, overload = rest.partition(".")
        with contextlib.suppress(AttributeError, RuntimeError, TypeError):
            found = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    return found if isinstance(found, torch._ops.OpOverload) else UnknownOp(shown_whole(full_name))


def encode(item: Any) -> Any:
    """One argument as JSON. Lists stay lists; what JSON does not have is an object with one key, its kind."""
    if item is None or isinstance(item, (bool, str)):
        return item
    if isinstance(item, Value):
        return {"value": item.id}
    if isinstance(item, (int, torch.SymInt)):
        return int(item)
    if isinstance(item, (float, torch.SymFloat)):
        number = float(item)
        return number if math.isfinite(number) else {"float": repr(number)}
    if isinstance(item, complex):
        return {"complex": [encode(item.real), encode(item.imag)]}
    if isinstance(item, list):
        return [encode(part) for part in item]
    if isinstance(item, tuple):
        return {"tuple": [encode(part) for part in item]}
    if isinstance(item, dict):
        return {"dict": [[encode(key), encode(part)] for key, part in item.items()]}
    if isinstance(item, torch.device):
        return {"device": str(item)}
    for kind in ("dtype", "layout", "memory_format"):
        if isinstance(item, getattr(torch, kind)):
            return {kind: str(item).removeprefix("torch.")}
    return {"unknown": repr(item)}


def decode(item: Any, values: list[Value]) -> Any:
    """The argument that `encode` made JSON of."""
    if isinstance(item, list):
        return [decode(part, values) for part in item]
    if not isinstance(item, dict):
        return item
    ((kind, inside),) = item.items()
    if kind == "value":
        return values[inside]
    if kind == "float":
        return float(inside)
    if kind == "complex":
        return complex(decode(inside[0], values), decode(inside[1], values))
    if kind == "tuple":
        return tuple(decode(part, values) for part in inside)
    if kind == "dict":
        return {_key(decode(key, values)): decode(part, values) for key, part in inside}
    if kind == "device":
        return torch.device(inside)
    if kind in ("dtype", "layout", "memory_format"):
        found = getattr(torch, inside)
        if not isinstance(found, getattr(torch, kind)):
            raise TypeError(f"{inside!r} is no {kind}")
        return found
    return Unknown(shown_whole(inside))


def _key(item: Any) -> Any:
    if not isinstance(item, (str, int, float, bool, tuple, type(None))):
        raise TypeError(f"{item!r} is no key")
    return item
