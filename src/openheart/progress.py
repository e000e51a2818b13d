"""Signs of life of what takes longer than a second: on a terminal's stderr, or in a notebook's cell.

Nothing is shown elsewhere (a pipe, a file, a test), nothing before a second has gone by, and nothing is left
when the work is done, fails or is cancelled.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from html import escape
from typing import Any, Protocol

from openheart.i18n import message

__all__ = ["COMPILING", "PATIENCE", "Report", "counting", "quiet"]

Report = Callable[[int, int, str], None]
"""Called with how much is done, how much there is, and what is at hand."""
PATIENCE = 1.0
"""Seconds of silence before anything is shown."""
PACE = 0.2
"""Seconds between two signs in a notebook."""
COMPILING = "compiling"
"""What is at hand while a law is compiled, instead of an operator's name."""

_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


class Surface(Protocol):
    """Where progress is shown."""

    def show(self, done: int, total: int, said: str) -> None:
        """Show how far the work is."""

    def close(self) -> None:
        """Take away what was shown."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Show nothing inside: someone else does already."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


@contextlib.contextmanager
def counting(key: str) -> Iterator[Report]:
    """A bar that follows `report(done, total, at hand)`, once the block has run for a second.

    `key` is the sentence that it shows, with `operator` to fill in.
    """
    surface = None if _QUIET.get() else _surface()
    if surface is None:
        yield lambda _done, _total, _at_hand: None
        return
    began = time.monotonic()

    def report(done: int, whole: int, at_hand: str) -> None:
        compiling = at_hand == COMPILING  # takes a second by itself: it is said at once
        if compiling or time.monotonic() - began > PATIENCE:
            said = message("progress.compiling") if compiling else message(key, operator=at_hand)
            surface.show(done, whole, said)

    try:
        yield report
    finally:
        surface.close()


def _surface() -> Surface | None:
    notebook = sys.modules.get("IPython")
    shell = notebook.get_ipython() if notebook is not None and hasattr(notebook, "get_ipython") else None
    if shell is not None and hasattr(shell, "kernel"):
        return _Cell()
    return _Terminal() if sys.stderr is not None and sys.stderr.isatty() else None


class _Terminal:
    """A bar on stderr, redrawn in place."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None

    def show(self, done: int, total: int, said: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                *(TextColumn("{task.description}"), BarColumn()),
                *(MofNCompleteColumn(), TimeRemainingColumn()),
            )
            self._bar = Progress(
                *columns, console=Console(stderr=True), transient=True, redirect_stdout=False
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total, description=said)
        if said == message("progress.compiling"):
            self._bar.refresh()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


class _Cell:
    """A bar under a notebook's cell, put away when done."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._last = 0.0
        self._said = ""

    def show(self, done: int, total: int, said: str) -> None:
        now = time.monotonic()
        if self._handle is not None and now - self._last < PACE and done < total and said == self._said:
            return
        self._last, self._said = now, said
        bar = f'<progress value="{done}" max="{max(total, 1)}"></progress>'
        self._put(
            {"text/plain": f"{said} {done}/{total}", "text/html": f"{bar} {escape(said)} {done}/{total}"}
        )

    def close(self) -> None:
        if self._handle is not None:
            self._put({"text/plain": "", "text/html": ""})

    def _put(self, bundle: dict[str, str]) -> None:
        if self._handle is None:
            from IPython.display import display  # type: ignore[import-not-found,unused-ignore]

            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)
