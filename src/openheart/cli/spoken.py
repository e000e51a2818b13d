"""click's help pages in the reader's language, with options in groups and examples at the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from openheart.i18n import message

__all__ = ["Section", "SpokenCommand", "SpokenGroup", "argument", "option"]

Section = tuple[str, Sequence[click.Parameter]]


class SpokenCommand(click.Command):
    """A command whose help is written by `write_help`."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_help(self, ctx, formatter)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        return _help_option(super().get_help_option(ctx))

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        names = [p.make_metavar(ctx) for p in self.params if isinstance(p, click.Argument)]
        return [*names, message("cli.metavar.options")]


class SpokenGroup(click.Group):
    """The group whose help is written by `write_help`."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_help(self, ctx, formatter)

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        return _help_option(super().get_help_option(ctx))

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return [message("cli.metavar.command")]

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(self.commands)  # in the order in which one would meet them


def _help_option(found: click.Option | None) -> click.Option | None:
    if found is not None:
        found.help = message("cli.help.help")
    return found


def write_help(command: click.Command, ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Usage, what it does, options by section, commands, examples, exit codes."""
    formatter.write_usage(ctx.command_path, " ".join(command.collect_usage_pieces(ctx)), message("cli.usage"))
    for paragraph in (command.help or "").split("\n\n"):
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(paragraph)
    if isinstance(command, click.Group):
        with formatter.section(message("cli.heading.commands")):
            formatter.write_dl([(name, each.short_help or "") for name, each in command.commands.items()])
    grouped: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and isinstance(parameter, click.Option):
            grouped.setdefault(getattr(parameter, "section", "other"), []).append(record)
    for section in ("edits", "run", "training", "answer", "other"):
        rows = grouped.get(section)
        if rows:
            only = len(grouped) == 1
            with formatter.section(message("cli.heading.options" if only else f"cli.heading.{section}")):
                formatter.write_dl(rows)
    if command.epilog:
        with formatter.section(message("cli.heading.examples")):
            for line in command.epilog.splitlines():
                formatter.write(" " * formatter.current_indent + line + "\n")
    formatter.write_paragraph()
    formatter.write_text(message("cli.about.exit"))


def option(names: Iterable[str], section: str, help_key: str, **settings: Any) -> click.Option:
    """An option whose help is the sentence `help_key`, listed under `section`."""
    told = message(help_key)
    if settings.get("default") not in (None, False):
        told += f" [{settings['default']}]"
    made = click.Option(list(names), help=told, **settings)
    made.section = section  # type: ignore[attr-defined]
    return made


def argument(name: str, **settings: Any) -> click.Argument:
    """An argument, spoken of as the catalogue calls it."""
    return click.Argument([name], metavar=message(f"cli.metavar.{name}"), **settings)
