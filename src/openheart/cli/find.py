"""Explaining an address, and saying in the reader's language why one leads nowhere."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from openheart.errors import AddressError
from openheart.i18n import message

if TYPE_CHECKING:
    from openheart.explain import Explanation
    from openheart.recording import Recording

__all__ = ["explain_in"]


def explain_in(recording: Recording, address: str, depth: int = 1) -> Explanation:
    """The explanation of an address.

    **Raises** `AddressError` with the nearest address that exists, and the shape it stands in.
    """
    from openheart.explain import explain

    try:
        return explain(recording, address, depth)
    except AddressError as error:
        if error.key.startswith("error.grad."):
            raise
        raise AddressError(_told(recording, address, error.suggestion), error.suggestion) from error


def _told(recording: Recording, address: str, suggestion: str | None) -> str:
    name, bracket, inside = address.strip().partition("[")
    name = name.strip()
    inside = inside.rstrip().removesuffix("]").rstrip(", ")
    with contextlib.suppress(AddressError):
        shape = recording.value(name).shape
        words: dict[str, Any] = {"address": address, "name": name, "shape": shape, "suggestion": suggestion}
        if 0 in shape:
            return message("cli.error.address.empty", **words)
        parts = [part for part in inside.split(",") if part.strip()]
        if any(not part.strip().lstrip("-").isdigit() for part in parts):
            return message("cli.error.address.syntax", **words)
        if not bracket:
            return message("cli.error.address.whole", **words)
        if len(parts) != len(shape):
            return message("cli.error.address.dimensions", given=len(parts), wanted=len(shape), **words)
        return message("cli.error.address.index", **words)
    if suggestion is None:
        return message("cli.error.address.none", address=address)
    shape = recording.value(suggestion.partition("[")[0]).shape
    return message("cli.error.address.unknown", address=address, suggestion=suggestion, shape=shape)
