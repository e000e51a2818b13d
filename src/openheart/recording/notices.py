"""What there is to know about a recording as a whole, as where something ran another way in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from openheart.i18n import message

__all__ = ["DETAILS", "Notice", "still_true"]

DETAILS: dict[str, tuple[str, ...]] = {
    "recording.notice.compiled": (),
    "recording.notice.copied": ("count",),
    "recording.notice.interleaved": ("count",),
    "recording.notice.kernels": (),
    "recording.notice.left_out": ("count",),
    "recording.notice.shared": (),
}
"""Every notice that there is, with what its details are called: whole numbers, all of them."""


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


def still_true(notices: Mapping[str, dict[str, Any]], calls: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """What holds of a run holds of one that is made from it; of copies, those that are still there."""
    kept = {key: dict(details) for key, details in notices.items()}
    if "recording.notice.copied" in kept:
        count = sum(call.own for call in calls)
        if count:
            kept["recording.notice.copied"] = {"count": count}
        else:
            del kept["recording.notice.copied"]
    return kept
