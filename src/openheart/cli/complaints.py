"""Errors as one sentence on stderr, in the reader's language; click's own included."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from openheart.cli.completion import PATIENTS
from openheart.errors import OpenheartError
from openheart.i18n import catalogue, language, message
from openheart.nearest import nearest
from openheart.spelling import harmless

__all__ = ["Complaint", "complain", "complaint_of", "warn"]


SUFFIXES = (".py", ".pt2", ".onnx", ".pt", ".pth")
"""What a file with a network ends with."""


class Complaint(OpenheartError):
    """A sentence for the reader, ready to be shown."""


def complain(sentence: str) -> None:
    """Shows an error."""
    _say("cli.error", sentence, "bold red")


def warn(sentence: str) -> None:
    """Shows a warning."""
    _say("cli.warning", sentence, "bold yellow")


def _say(kind: str, sentence: str, style: str) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(Text.assemble(("openheart: ", "dim"), (f"{message(kind)}: ", style), harmless(sentence)))
    sys.stderr.flush()


def complaint_of(error: BaseException) -> str:
    """The sentence for an error."""
    if isinstance(error, click.ClickException):
        return _of_click(error)
    if isinstance(error, OpenheartError):
        return _of_ours(error)
    said = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
    return message("cli.error.unexpected", reason=reason)


def _of_ours(error: OpenheartError) -> str:
    """Its sentence; where the way out is another one on the command line, the sentence that says so."""
    there = f"{error.key}.cli"
    return message(there, **error.params) if there in catalogue(language()) else str(error)


def _of_click(error: click.ClickException) -> str:
    sentence = _sentence(error)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        sentence += "\n" + message("cli.help.hint", command=error.ctx.command_path)
    return sentence


def _sentence(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption):
        near = f" {message('cli.did_you_mean', name=error.possibilities[0])}" if error.possibilities else ""
        return message("cli.error.no_such_option", name=error.option_name, near=near)
    if isinstance(error, click.MissingParameter):
        return message("cli.error.missing_argument", name=_name(error))
    if isinstance(error, click.BadOptionUsage):
        takes_none = "does not take a value" in error.message
        key = "option_no_value" if takes_none else "option_value"
        return message(f"cli.error.{key}", name=error.option_name)
    if isinstance(error, click.BadParameter) and error.param is not None:
        return _bad_value(error)
    command = getattr(getattr(error, "ctx", None), "command", None)
    if isinstance(error, click.UsageError) and isinstance(command, click.Group):
        name = str(getattr(error, "command_name", "")) or error.message.partition("'")[2].rpartition("'")[0]
        close = _command_like(name, command)
        told = "" if close is None else f" {message('cli.did_you_mean', name=close)}"
        return message("cli.error.no_such_command", name=name, near=told, known=", ".join(command.commands))
    if isinstance(error, click.UsageError) and "extra argument" in error.message:
        return message("cli.error.extra_argument", given=error.message.partition("(")[2].rstrip(")"))
    return message("cli.error.usage", reason=error.format_message())


def _command_like(name: str, command: click.Group) -> str | None:
    """The command that was meant; of a network's name, the one that shows it."""
    near = nearest(name, command.commands)
    if near is None and (name in PATIENTS or ":" in name or Path(name).suffix in SUFFIXES):
        return f"openheart show {name}"
    return near


def _name(error: click.BadParameter) -> str:
    if error.param is None:
        return str(error.param_hint or "")
    if isinstance(error.param, click.Argument):
        return error.param.make_metavar(error.ctx) if error.ctx else (error.param.name or "")
    return error.param.opts[-1]


def _bad_value(error: click.BadParameter) -> str:
    assert error.param is not None
    kind: Any = error.param.type
    value = _given(error)
    if isinstance(kind, click.Choice):
        reason = message("cli.error.bad_value.choice", known=", ".join(kind.choices))
    elif isinstance(kind, click.IntRange) and value.lstrip("-").isdigit():
        key = "from" if kind.max is None else "range"
        reason = message(f"cli.error.bad_value.{key}", low=kind.min, high=kind.max)
    elif isinstance(kind, (click.IntRange, type(click.INT))):
        reason = message("cli.error.bad_value.number")
    else:
        reason = error.message
    return message("cli.error.bad_value", name=_name(error), value=value, reason=reason)


def _given(error: click.BadParameter) -> str:
    """The value that was refused: click writes it between quotes, or before `is not in the range`."""
    quoted = error.message.split("'")
    return quoted[1] if len(quoted) > 2 else error.message.split(" ")[0]
