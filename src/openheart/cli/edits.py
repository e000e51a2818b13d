"""The edits that a command line says: `--set "0.weight[1,0]=2"`, `--cut "0.out[:,2] -> 1.out[:,0]"`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from openheart.cli.complaints import Complaint
from openheart.errors import AddressError
from openheart.i18n import message
from openheart.loading.subject import steps_for
from openheart.recording import Recording
from openheart.recording.addresses import find_part
from openheart.surgery import Edit, ablate, cut, patch, read_edits, swap
from openheart.surgery.hyperparameters import option_of

__all__ = ["addresses_of", "check_addresses", "edits_of", "steps_of"]

EXAMPLES = {
    "set": '--set "0.weight[1,0]=2"',
    "scale": '--scale "0.out[:,2]=0.5"',
    "add": '--add "0.bias=[1,0,-1]"',
    "ablate": '--ablate "0.out[:,2]=mean"',
    "freeze": '--freeze "0.weight"',
    "patch": '--patch "0.out=other.oh"',
    "swap": '--swap "relu=tanh"',
    "cut": '--cut "0.out[:,2] -> 1.out[:,0]"',
}
_ARROW = re.compile(r"\s*(?:->|→)\s*")


def edits_of(options: dict[str, Any]) -> tuple[Edit, ...]:
    """The edits of a command line, in the order in which they are made: the file's, then kind by kind.

    **Raises** `Complaint` for one that is not written as it should be, or where there is none.
    """
    found: list[Edit] = []
    if options["edits"] is not None:
        found += read_edits(_file(options["edits"]))
    for kind in EXAMPLES:
        found += [_edit(kind, text.strip()) for text in options[kind]]
    if not found:
        raise Complaint("cli.error.edit.none", example=EXAMPLES["set"])
    return tuple(found)


def _edit(kind: str, text: str) -> Edit:
    if kind == "cut":
        ends = _ARROW.split(text)
        if len(ends) != 2 or not all(ends):
            raise _malformed(kind, text)
        return cut(*ends)
    address, equals, value = (part.strip() for part in text.partition("="))
    if not address or bool(equals) != bool(value):
        raise _malformed(kind, text)
    if kind == "freeze":
        if equals:
            raise _malformed(kind, text)
        return Edit("freeze", address)
    if kind == "ablate":
        if value not in ("", "zero", "mean"):
            raise _malformed(kind, text)
        return ablate("mean" if value == "mean" else "zero").at(address)
    if not value:
        raise _malformed(kind, text)
    if kind == "swap":
        return swap(address, value)
    if kind == "patch":
        return patch(_file(value), address)
    return Edit(
        "set" if kind == "set" else "scale" if kind == "scale" else "add", address, _numbers(kind, value)
    )


def _malformed(kind: str, text: str) -> Complaint:
    return Complaint("cli.error.edit.form", option=f"--{kind}", given=text, example=EXAMPLES[kind])


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.exists():
        from openheart.loading.trouble import did_you_mean

        beside = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
        raise Complaint("cli.error.missing_file", file=name, near=did_you_mean(path.name, beside))
    if not path.is_file():
        raise Complaint("cli.error.not_a_file", file=name)
    return path


def _numbers(kind: str, text: str) -> Any:
    """A number, or a list of lists of them."""
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not _is_numbers(given) or (kind == "scale" and isinstance(given, list)):
        wanted = "number" if kind == "scale" else "numbers"
        raise Complaint(f"cli.error.edit.{wanted}", option=f"--{kind}", given=text, example=EXAMPLES[kind])
    return given


def _is_numbers(given: Any) -> bool:
    if isinstance(given, list):
        return all(_is_numbers(item) for item in given)
    return isinstance(given, (bool, int, float))


# What they need ---------------------------------------------------------------------------------------------


def addresses_of(edit: Edit) -> Iterable[str]:
    """The addresses that an edit names; a swap names a module or an operator, which is none."""
    if edit.kind != "swap" and edit.address is not None:
        yield edit.address
        if edit.to is not None:
            yield edit.to


def steps_of(edits: Iterable[Edit]) -> int:
    """How many training steps the edits' addresses need: 0 where a forward pass has them all."""
    return max((steps_for(address) for edit in edits for address in addresses_of(edit)), default=0)


def check_addresses(recording: Recording, edits: Iterable[Edit]) -> None:
    """Whether this run has what the edits name.

    **Raises** `AddressError`, told in the reader's language, with the nearest address that exists.
    """
    for edit in edits:
        for address in addresses_of(edit):
            try:
                if edit.kind != "cut" and option_of(recording, address) is not None:
                    continue
            except AddressError as error:
                raise AddressError("cli.error.edit.no_step", address=address) from error
            try:
                find_part(recording._named, address)
            except AddressError as error:
                if error.key.startswith("error.grad."):
                    raise
                raise AddressError(_told(recording, address), error.suggestion) from error


def _told(recording: Recording, address: str) -> str:
    name, _, inside = address.strip().partition("[")
    try:
        value = recording.value(name)
    except AddressError as error:
        if error.suggestion is None:
            return message("cli.error.address.none", address=address)
        near = error.suggestion
        shape = recording.value(near).shape
        return message("cli.error.address.unknown", address=address, suggestion=near, shape=shape)
    parts = [part.strip() for part in inside.rstrip("] ").split(",") if part.strip()]
    example = f"{name.strip()}[{','.join([':'] * (len(value.shape) - 1) + ['0'])}]" if value.shape else name
    words: dict[str, Any] = {
        "address": address,
        "name": name.strip(),
        "shape": value.shape,
        "suggestion": example,
    }
    if 0 in value.shape:
        return message("cli.error.address.empty", **words)
    if not all(re.fullmatch(r"\.\.\.|[-\d:\s]+", part) for part in parts) or not inside.rstrip().endswith(
        "]"
    ):
        return message("cli.error.edit.address.syntax", **words)
    if len([part for part in parts if part != "..."]) > len(value.shape):
        return message("cli.error.address.dimensions", given=len(parts), wanted=len(value.shape), **words)
    return message("cli.error.address.index", **words)
