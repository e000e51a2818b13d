"""Signs of life on stderr for what takes longer than a second; only on a terminal, gone when done."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

from openheart.i18n import message
from openheart.progress import PATIENCE, quiet

__all__ = ["waiting"]


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
        with quiet():
            yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
