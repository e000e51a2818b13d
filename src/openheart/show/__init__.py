"""The page of a run: the network, its numbers, and the explanations behind them, with no script to run.

>>> import openheart as oh
>>> from openheart.show import to_html
>>> rec = oh.record(model, x)                 # doctest: +SKIP
>>> to_html(rec, "page.html")                 # doctest: +SKIP
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from openheart.i18n import language
from openheart.printers.page import page
from openheart.recording.soundness import sound
from openheart.show.document import document
from openheart.writing import write_text

if TYPE_CHECKING:
    from openheart.recording import Recording

__all__ = ["Shown", "page_of", "show", "to_html"]


@sound
def to_html(
    rec: Recording,
    path: str | os.PathLike[str],
    lang: str | None = None,
    *,
    title: str | None = None,
    story: str = "",
    labels: Sequence[str] = (),
    digits: int = 4,
) -> Path:
    """Writes the page of a run to `path` and returns it; `lang` is "es" or "en".

    `story` is a line under the title; `labels` say what the output's last dimension means. The file is
    written whole or not at all.

    **Raises** `OSError` where it cannot be written.
    """
    text = document(rec, language(lang), title=title, story=story, labels=tuple(labels), digits=digits)
    target = Path(path)
    write_text(target, text)
    return target


@dataclass(frozen=True, slots=True)
class Shown:
    """A page that has been written; a notebook shows it in place."""

    path: Path

    def _repr_html_(self) -> str:
        text = self.path.read_text(encoding="utf-8")
        style = "width:100%;height:42rem;border:0"
        return f'<iframe srcdoc="{escape(text, quote=True)}" style="{style}"></iframe>'

    def __repr__(self) -> str:
        return str(self.path)


def show(
    rec: Recording,
    path: str | os.PathLike[str] | None = None,
    lang: str | None = None,
    *,
    title: str | None = None,
) -> Shown:
    """Shows a run as a page: in place in a notebook, else as a file that any browser opens.

    Without `path` the page goes to a new file in the temporary folder.
    """
    if path is None:
        handle, name = tempfile.mkstemp(prefix="openheart-", suffix=".html")
        os.close(handle)
        path = name
    return Shown(to_html(rec, path, lang, title=title).resolve())


def page_of(fragment: str, title: str, lang: str | None = None) -> str:
    """A whole document around one fragment."""
    return page(title, [fragment], lang)
