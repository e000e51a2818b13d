"""The command line: `openheart patients | explain | verify | show | demo`, in Spanish and English.

Exit codes: 0, also when the reader of a pipe has left; 1 when a number disagrees with its law; 2 when the
request cannot be met; 130 when it is interrupted. An error is one sentence on stderr; `--debug` shows where
it came from. PyTorch is imported once a command needs it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

from openheart.i18n import LANGUAGES, set_language

__all__ = ["main"]


_UNWRITABLE = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG, errno.EBADF)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits; `arguments` are the process's own unless given."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code."""
    from openheart.cli.app import build
    from openheart.cli.complaints import Complaint, complain, complaint_of

    _speak_utf8()
    wrong = _choose_language(arguments)
    debug = "--debug" in arguments
    try:
        if wrong is not None:
            raise Complaint("cli.error.lang", asked=wrong)
        code = _invoked(build(), arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`head`, `less`) has what it wanted; nobody is left to write to.
        _let_go()
        return 0
    except (Exception, SystemExit) as error:
        if debug:
            raise
        told: BaseException = error
        if isinstance(error, OSError) and error.filename is None and error.errno in _UNWRITABLE:
            _let_go()
            told = Complaint("cli.error.stdout", reason=error.strerror)
        with contextlib.suppress(OSError):
            complain(complaint_of(told))
        return 2


def _invoked(group: Any, arguments: list[str]) -> int:
    """Does what the arguments ask for. What `click` would make of an interrupt and of a pipe is not ours."""
    from click.exceptions import Exit

    if "_OPENHEART_COMPLETE" in os.environ:  # the shell asks, and click answers
        group.main(arguments, prog_name="openheart")
    try:
        with group.make_context("openheart", list(arguments)) as context:
            code = group.invoke(context)
    except Exit as done:
        return done.exit_code
    return code if isinstance(code, int) else 0


def _let_go() -> None:
    """Lets what is still in stdout's buffer go nowhere: Python would try to write it once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _choose_language(arguments: list[str]) -> str | None:
    """Speaks the language that `--lang` names, wherever it stands; the name, if there is no such language."""
    set_language(None)
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--lang":
            asked = value if equals else arguments[place + 1] if place + 1 < len(arguments) else ""
            if asked.lower().replace("-", "_").split("_")[0] not in LANGUAGES:
                return asked or name
            set_language(asked)
        if argument == "--":
            break
    return None


def _speak_utf8() -> None:
    """Σ, ∂ and ñ on a machine whose locale says ASCII: UTF-8, as every terminal of today reads it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
