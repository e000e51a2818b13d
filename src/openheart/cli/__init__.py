"""The command line: `openheart patients | explain | verify | show | demo`, in Spanish and English.

Exit codes: 0; 1 when a number disagrees with its law; 2 when the request cannot be met. An error is one
sentence on stderr; `--debug` shows where it came from. PyTorch is imported once a command needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from openheart.i18n import LANGUAGES, set_language

__all__ = ["main"]


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
        code = build().main(arguments, prog_name="openheart", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (`head`, `less`) has what it wanted; nobody is left to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        complain(complaint_of(error))
        return 2


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
