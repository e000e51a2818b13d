"""Signs of life on stderr for what takes longer than a second; only on a terminal, gone when done."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from openheart.i18n import message

__all__ = ["counting", "waiting"]

PATIENCE = 1.0
"""Seconds of silence before anything is shown."""


@contextlib.contextmanager
def waiting(key: str, **params: str) -> Iterator[None]:
    """A spinner with the sentence `key`, once the block has run for a second."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    # It starts amid other people's code, whose stdout is aside at that moment: rich must leave it alone.
    status = Live(
        Spinner("dots", Text(message(key, **params))),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    timer = threading.Timer(PATIENCE, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()


@contextlib.contextmanager
def counting(key: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar that follows `report(done, total, operator)`, once the block has run for a second."""
    if not sys.stderr.isatty():
        yield lambda _done, _total, _operator: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
    task = progress.add_task("", total=None)
    began = time.monotonic()
    started = False

    def report(done: int, total: int, operator: str) -> None:
        nonlocal started
        if not started and time.monotonic() - began > PATIENCE:
            started = True
            progress.start()
        if started:
            progress.update(task, completed=done, total=total, description=message(key, operator=operator))

    try:
        yield report
    finally:
        if started:
            progress.stop()
