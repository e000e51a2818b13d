"""What there is to know about a recording as a whole, as where something ran another way in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from openheart.i18n import message

__all__ = ["Notice"]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to know about a recording; `key` and `details` say it in every language.

    >>> print(Notice("recording.notice.compiled").text("en").split(":")[0])
    what is compiled ran as it is written
    """

    key: str
    details: dict[str, Any] = field(default_factory=dict)

    def text(self, lang: str | None = None) -> str:
        """The notice as a sentence."""
        return message(self.key, lang=lang, **self.details)

    def __str__(self) -> str:
        return self.text()
