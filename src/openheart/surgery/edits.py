"""The edits: what is to be changed, where, and how; as objects, and as JSON."""

# The edits are called what surgeons of networks call them, `set` among them.

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal

import torch

from openheart.errors import InterventionError
from openheart.writing import open_file, write_text

if TYPE_CHECKING:
    from openheart.recording import Recording

__all__ = [
    "Edit",
    "ablate",
    "add",
    "cut",
    "edits_from",
    "freeze",
    "patch",
    "read_edits",
    "scale",
    "set",
    "swap",
    "write_edits",
]

Kind = Literal["set", "scale", "add", "ablate", "call", "cut", "patch", "freeze", "swap"]
VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """One change of a run.

    Attributes:
        kind: what is done.
        address: where: a number, a slice, a whole value, a hyperparameter; a module or an operator for a
            swap; the source of a cut.
        value: what with: a number, a tensor, a function, the name or module of a swap.
        to: the destination of a cut.
        other: the recording, or its file, that a patch takes its numbers from; `value` is the address there.
    """

    kind: Kind
    address: str | None = None
    value: Any = None
    to: str | None = None
    other: Recording | str | None = None

    def at(self, address: str) -> Edit:
        """The same edit at an address, where it has none yet."""
        return self if self.address is not None else replace(self, address=address)

    def to_dict(self) -> dict[str, Any]:
        """The edit as JSON; numbers of a tensor as nested lists.

        Raises:
            InterventionError: it holds what a file cannot: a function, a module, a recording in memory.
        """
        kept: dict[str, Any] = {"edit": self.kind, "address": self.address}
        if self.kind == "call":
            raise InterventionError("error.edit.file.function", address=self.address)
        if self.kind == "swap" and not isinstance(self.value, str):
            raise InterventionError("error.edit.file.module", address=self.address)
        if self.kind == "patch":
            if not isinstance(self.other, str):
                raise InterventionError("error.edit.file.patch", address=self.address)
            kept["recording"] = self.other
        if self.to is not None:
            kept["to"] = self.to
        if self.value is not None:
            kept["value"] = _to_json(self.value)
        return kept

    def __repr__(self) -> str:
        parts = [repr(self.address)] if self.address is not None else []
        parts += [repr(item) for item in (self.to, self.value) if item is not None]
        return f"oh.{self.kind}({', '.join(parts)})"


def set(value: Any) -> Edit:  # noqa: A001
    """Puts a number, or a tensor of numbers, in the place of what is there: `{"0.out[:,2]": oh.set(1.5)}`.

    It is what `torch.where` would do: the gradient of what was there is zero, and a gradient of zeros is a
    gradient. An optimizer with weight decay or momentum makes its step with it, and skips a parameter that
    has none.
    """
    return Edit("set", value=value)


def scale(factor: float) -> Edit:
    """Multiplies what is there by a number; the gradient is multiplied as well."""
    return Edit("scale", value=factor)


def add(amount: Any) -> Edit:
    """Adds a number, or a tensor of numbers, to what is there."""
    return Edit("add", value=amount)


def ablate(how: Literal["zero", "mean"] = "zero") -> Edit:
    """Silences what is there: zeros in its place, or its mean over the first dimension (the samples).

    The mean is taken of the numbers as they would be without this edit, and no gradient flows through it.
    """
    if how not in ("zero", "mean"):
        raise InterventionError("error.edit.ablation", how=how)
    return Edit("ablate", value=how)


def freeze(address: str | None = None) -> Edit:
    """Keeps what is there as it was recorded, whatever else is edited; a parameter: no step changes it."""
    return Edit("freeze", address)


def cut(source: str, destination: str) -> Edit:
    """Cuts an edge: `destination` is computed as if `source` were zero, and nothing else sees a change.

    `oh.cut("0.out[:,2]", "1.out[:,0]")`. If several paths lead from one to the other, all of them are cut.
    """
    return Edit("cut", source, to=destination)


def patch(
    other: Recording | str | PathLike[str], address: str | None = None, source: str | None = None
) -> Edit:
    """Transplants what another recording (or its file) has at `address`, or at `source` there, to `address`.

    Activation patching: `oh.patch(rec_of_another_input, "encoder.1.out")`.
    """
    origin = fspath(other) if isinstance(other, (str, PathLike)) else other
    return Edit("patch", address, value=source, other=origin)


def swap(what: Any, by: Any = None) -> Edit:
    """Puts one function in the place of another.

    `oh.swap("relu", "tanh")` swaps every call of an activation, by its operator's name or its module's class;
    `oh.swap("1", torch.nn.Tanh())` a module, by its path; `{"1": oh.swap("tanh")}` says the same.
    What takes its place: the name of a function of `torch.nn.functional`, a module, or any function of one
    tensor that gives one of the same shape.
    """
    return Edit("swap", value=what) if by is None else Edit("swap", what, value=by)


Given = Mapping[str, Any] | Edit | Iterable[Any]


def edits_from(given: Any) -> tuple[Edit, ...]:
    """What a caller wrote as edits: a dict by address, one edit, or a list of both.

    Raises:
        InterventionError: it is none of these.
    """
    if given is None:
        return ()
    if isinstance(given, Edit):
        if given.address is None:
            raise InterventionError("error.edit.no_address", edit=given)
        return (given,)
    if isinstance(given, Mapping):
        return tuple(_edit(address, item) for address, item in given.items())
    if isinstance(given, (list, tuple)):
        return tuple(edit for item in given for edit in edits_from(item))
    raise InterventionError("error.edit.form", kind=type(given).__name__)


def _edit(address: Any, item: Any) -> Edit:
    if not isinstance(address, str):
        raise InterventionError("error.edit.address", address=address)
    if isinstance(item, Edit):
        if item.address is not None and item.address != address:
            raise InterventionError("error.edit.own_address", edit=item, address=address)
        return item.at(address)
    if isinstance(item, torch.nn.Module):
        return Edit("swap", address, value=item)
    if callable(item) and not isinstance(item, torch.Tensor):
        return Edit("call", address, value=item)
    return Edit("set", address, value=item)


# As JSON ----------------------------------------------------------------------------------------------------


def write_edits(edits: Any, path: str | PathLike[str]) -> None:
    """Writes edits to a JSON file that `read_edits` and `openheart intervene --edits` read.

    Raises:
        OSError: it cannot be written; an old file is then as it was.
    """
    document = {"openheart": "edits", "version": VERSION, "edits": [e.to_dict() for e in edits_from(edits)]}
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def read_edits(path: str | PathLike[str]) -> tuple[Edit, ...]:
    """Reads the edits that `write_edits` wrote.

    Raises:
        InterventionError: the file is missing or is not one of edits.
    """
    try:
        with open_file(path) as file:
            document = json.loads(file.read())
    except OSError as error:
        raise InterventionError("error.edit.file", file=fspath(path), reason=error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise InterventionError("error.edit.file.json", file=fspath(path), reason=error) from error
    listed = document.get("edits") if isinstance(document, dict) else None
    if not isinstance(document, dict) or document.get("openheart") != "edits" or not isinstance(listed, list):
        raise InterventionError("error.edit.file.none", file=fspath(path))
    version = document.get("version", 0)
    if type(version) is not int or version > VERSION:
        raise InterventionError("error.edit.file.newer", file=fspath(path))
    return tuple(_from_dict(item, fspath(path)) for item in listed)


_KINDS: dict[str, Callable[[dict[str, Any]], Edit]] = {
    "set": lambda d: Edit("set", d["address"], value=_from_json(d["value"])),
    "scale": lambda d: Edit("scale", d["address"], value=_from_json(d["value"])),
    "add": lambda d: Edit("add", d["address"], value=_from_json(d["value"])),
    "ablate": lambda d: ablate(d.get("value", "zero")).at(d["address"]),
    "freeze": lambda d: Edit("freeze", d["address"]),
    "cut": lambda d: cut(d["address"], d["to"]),
    "patch": lambda d: patch(d["recording"], d["address"], d.get("value")),
    "swap": lambda d: swap(d["address"], d["value"]),
}


def _from_dict(item: Any, path: str) -> Edit:
    kind = item.get("edit") if isinstance(item, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InterventionError("error.edit.file.kind", file=path, kind=kind, known=", ".join(_KINDS))
    try:
        edit = _KINDS[kind](item)
    except KeyError as error:
        raise InterventionError("error.edit.file.lacks", file=path, edit=item, what=error.args[0]) from error
    except (AttributeError, ArithmeticError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InterventionError):
            raise
        raise InterventionError("error.edit.file.edit", file=path, edit=item, reason=error) from error
    if not isinstance(edit.address, str):
        raise InterventionError("error.edit.file.address", file=path, edit=item)
    return edit


def _to_json(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return {"tensor": _finite(value.tolist()), "dtype": str(value.dtype).removeprefix("torch.")}
    return _finite(value)


def _finite(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict) and "float" in value:
        return float(value["float"])
    if isinstance(value, dict) and "tensor" in value:
        return torch.tensor(_from_json(value["tensor"]), dtype=getattr(torch, value.get("dtype", "float32")))
    return value
