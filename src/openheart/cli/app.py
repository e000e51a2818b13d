"""The commands and their options, said in the reader's language; the work is done in `commands.py`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from openheart.cli.completion import complete_loss, complete_model, complete_optimizer
from openheart.cli.spoken import SpokenCommand, SpokenGroup, argument, option
from openheart.cli.suffixes import form_of
from openheart.i18n import LANGUAGES, message

__all__ = ["build"]

DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool")
SHELLS = ("bash", "zsh", "fish")


def build() -> click.Group:
    """The command line, in the language that is spoken now."""
    group = SpokenGroup(
        name="openheart",
        help=f"{message('cli.about')}\n\n{message('cli.about.model')}",
        epilog=message("cli.examples"),
        params=[_version(), *_common()],
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        invoke_without_command=True,
        callback=_welcome,
    )
    digits = option(
        ["--digits"], "answer", "cli.help.digits", type=click.IntRange(0, 17), default=4, metavar="N"
    )
    for command in (
        _command("demo", _demo_options()),
        _command("patients", [_formats("text", "json")]),
        _command(
            "explain",
            [
                _model(),
                argument("address", required=False),
                *_run(),
                *_training(),
                option(
                    ["--depth"], "answer", "cli.help.depth", type=click.IntRange(1), default=1, metavar="N"
                ),
                digits,
                _comma(),
                _formats("text", "latex", "mathml", "html", "json"),
                _output(),
            ],
            "cli.about.model",
            "cli.about.address",
        ),
        _command(
            "verify",
            [
                _model(),
                *_run(),
                *_training(),
                option(["--sample"], "answer", "cli.help.sample", type=click.IntRange(1), metavar="N"),
                option(["--strict"], "answer", "cli.help.strict", is_flag=True),
                _comma(),
                _formats("text", "html", "json"),
                _output(),
            ],
            "cli.about.model",
        ),
        _command(
            "collapse",
            [
                _model(),
                argument("first"),
                argument("last"),
                *_run(),
                digits,
                _comma(),
                _formats("text", "latex", "html", "json"),
                _output(),
            ],
            "cli.about.model",
        ),
        _command(
            "intervene",
            [
                _model(),
                *_edits(),
                *_run(),
                *_training(),
                *_counterfactual(),
                digits,
                _comma(),
                _formats("text", "json", "html"),
                _output(),
            ],
            "cli.about.model",
            "cli.about.intervene.edits",
        ),
        _command(
            "export",
            [_model(), *_run(), *_training(), *_program(), _formats("text", "json")],
            "cli.about.model",
        ),
        _command("show", [_model(), *_run(), *_training(), _page(), digits, _comma()], "cli.about.model"),
        _command(
            "completion", [click.Argument(["shell"], type=click.Choice(SHELLS), metavar="|".join(SHELLS))]
        ),
    ):
        group.add_command(command)
    return group


def _command(name: str, options: list[click.Parameter], *paragraphs: str) -> click.Command:
    about = message(f"cli.about.{name}")
    return SpokenCommand(
        name=name,
        help="\n\n".join((about, *(message(key) for key in paragraphs))),
        short_help=about,
        epilog=message(f"cli.examples.{name}"),
        params=[*options, *_common()],
        callback=_work(name),
    )


def _work(name: str) -> Callable[..., Any]:
    def call(**options: Any) -> Any:
        if "form" in options and name != "export":  # there it is the form of what is said, not of the program
            options["form"] = form_of(options)
        # Imported here, so that --help and Tab never wait for PyTorch.
        room = {"collapse": "collapsing", "intervene": "intervene", "export": "export"}.get(name, "commands")
        return getattr(import_module(f"openheart.cli.{room}"), name)(**options)

    return call


def _welcome() -> int:
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return 0


# Options -------------------------------------------------------------------------------------------


def _common() -> list[click.Parameter]:
    # Both are read before click sees anything: the language decides how click speaks.
    return [
        option(["--lang"], "other", "cli.help.lang", type=click.Choice(LANGUAGES), expose_value=False),
        option(["--debug"], "other", "cli.help.debug", is_flag=True, expose_value=False),
    ]


def _version() -> click.Option:
    def show(context: click.Context, _parameter: click.Parameter, asked: bool) -> None:
        if asked and not context.resilient_parsing:
            from importlib.metadata import version

            click.echo(f"openheart {version('openheart')}")
            context.exit()

    return option(
        ["--version"],
        "other",
        "cli.help.version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
    )


def _model() -> click.Argument:
    return argument("model", shell_complete=complete_model)


def _run() -> list[click.Parameter]:
    file = {"metavar": message("cli.metavar.file")}
    return [
        option(
            ["--input", "-i", "inputs"],
            "run",
            "cli.help.input",
            multiple=True,
            metavar=message("cli.metavar.input"),
        ),
        option(
            ["--dtype"],
            "run",
            "cli.help.dtype",
            type=click.Choice(DTYPES),
            metavar=message("cli.metavar.name"),
        ),
        option(["--weights"], "run", "cli.help.weights", **file),
        option(["--train/--eval", "train"], "run", "cli.help.train", default=None),
        option(["--seed"], "run", "cli.help.seed", type=int, metavar="N"),
        option(["--trust"], "run", "cli.help.trust", is_flag=True),
    ]


def _training() -> list[click.Parameter]:
    name = {"metavar": message("cli.metavar.name")}
    return [
        option(["--loss"], "training", "cli.help.loss", shell_complete=complete_loss, **name),
        option(["--target"], "training", "cli.help.target", metavar=message("cli.metavar.target")),
        option(["--optimizer"], "training", "cli.help.optimizer", shell_complete=complete_optimizer, **name),
        option(["--steps"], "training", "cli.help.steps", type=click.IntRange(0, 10_000), metavar="N"),
    ]


def _edits() -> list[click.Parameter]:
    kinds = ("set", "scale", "add", "ablate", "freeze", "patch", "swap", "cut")
    edit = {"multiple": True, "metavar": message("cli.metavar.edit")}
    file = message("cli.metavar.file")
    return [
        *(option([f"--{kind}"], "edits", f"cli.help.{kind}", **edit) for kind in kinds),
        option(["--edits"], "edits", "cli.help.edits", metavar=file),
        option(["--save-edits"], "edits", "cli.help.save_edits", metavar=file),
        option(["--fresh-random"], "edits", "cli.help.fresh_random", is_flag=True),
    ]


def _counterfactual() -> list[click.Parameter]:
    file = message("cli.metavar.file")
    return [
        option(["--top"], "answer", "cli.help.top", type=click.IntRange(1), metavar="N"),
        option(["--save"], "answer", "cli.help.save", metavar=file),
        option(["--html"], "answer", "cli.help.html", metavar=file),
    ]


def _program() -> list[click.Parameter]:
    return [
        option(["--output", "-o"], "answer", "cli.help.program", metavar=message("cli.metavar.file")),
        option(["--limit"], "answer", "cli.help.limit", type=click.IntRange(1), default=200_000, metavar="N"),
        option(["--bounds"], "answer", "cli.help.bounds", is_flag=True),
        option(["--separate"], "answer", "cli.help.separate", is_flag=True),
    ]


def _formats(*names: str) -> click.Option:
    return option(
        ["--format", "form"], "answer", "cli.help.format", type=click.Choice(names), default=names[0]
    )


def _comma() -> click.Option:
    return option(["--comma"], "answer", "cli.help.comma", is_flag=True)


def _output() -> click.Option:
    return option(["--output", "-o"], "answer", "cli.help.output", metavar=message("cli.metavar.file"))


def _page() -> click.Option:
    return option(["--output", "-o"], "answer", "cli.help.page", metavar=message("cli.metavar.file"))


def _demo_options() -> list[click.Parameter]:
    folder = message("cli.metavar.folder")
    return [
        option(["--folder"], "answer", "cli.help.folder", default=".", metavar=folder),
        option(["--no-pages"], "answer", "cli.help.no_pages", is_flag=True),
    ]
