"""What can go wrong in openheart.

    OpenheartError                  catch this one to catch them all
    ├── AddressError                no number has this address           (also a LookupError)
    ├── RecordingFileError          a saved recording is damaged, foreign or from a newer version
    ├── PatientError                a network could not be found or built
    ├── InputError                  an input does not fit the network    (also a ValueError)
    ├── RuleError                   a law is missing, doubled or wrong
    ├── InterventionError           an edit cannot be, or leads where nothing was recorded (also a ValueError)
    └── OpaqueError                 a number cannot be opened up: it was not kept, or no law makes it

Each message says what happened, where, and what to do next. It is data: a key of the catalogues and what
fills the sentence in, so that `str(error)` speaks the language that is set at that moment.

    >>> from openheart import set_language
    >>> set_language("es")
    >>> print(InterventionError("error.edit.cut.path", name="0.out", to="1.out"))
    nada lleva de '0.out' a '1.out' en la propagación hacia adelante
    >>> set_language(None)
"""

from __future__ import annotations

from typing import Any

from openheart.i18n import catalogue, language, message

__all__ = [
    "AddressError",
    "InputError",
    "InterventionError",
    "OpaqueError",
    "OpenheartError",
    "PatientError",
    "RecordingFileError",
    "RuleError",
]


class OpenheartError(Exception):
    """Something openheart was asked for cannot be done; the message says what to do instead.

    Attributes:
        key: the sentence's key in the catalogues.
        params: what fills the sentence in; an error among them is told in the same language.
    """

    def __init__(self, key: str, **params: Any) -> None:
        super().__init__(key)
        self.key = key
        self.params = params

    def __str__(self) -> str:
        if self.key not in catalogue(language()):
            return self.key
        return message(self.key, **self.params)


class AddressError(OpenheartError, LookupError):
    """No number has this address; `.suggestion` is the nearest address that has one, or None."""

    def __init__(self, key: str, suggestion: str | None = None, **params: Any) -> None:
        super().__init__(key, **params, suggestion=suggestion)
        self.suggestion = suggestion


class RecordingFileError(OpenheartError):
    """A saved recording cannot be read: damaged, cut short, not ours, or from a newer version."""


class PatientError(OpenheartError):
    """A network could not be found or built."""


class InputError(OpenheartError, ValueError):
    """An input does not fit the network it was given to."""


class InterventionError(OpenheartError, ValueError):
    """An edit of a recording cannot be made, or it leads to what was not recorded."""


class RuleError(OpenheartError):
    """A law of the rulebook is missing, registered twice, or does not fit its call."""


class OpaqueError(OpenheartError):
    """A number cannot be opened up: it was not kept, or nothing says how it is made."""
