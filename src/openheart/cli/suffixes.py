"""What a file's name says of what is in it: `-o page.html` is a page, and no plain text goes into a PDF."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from openheart.cli.complaints import Complaint

__all__ = ["check_suffix", "form_of"]

FORMS = {
    ".html": "html",
    ".htm": "html",
    ".json": "json",
    ".tex": "latex",
    ".mathml": "mathml",
    ".mml": "mathml",
    ".txt": "text",
    ".js": "javascript",
    ".mjs": "javascript",
}
"""The form that a suffix promises."""
FOREIGN = frozenset(
    [
        ".svg",
        ".pdf",
        ".ps",
        ".eps",
        ".png",
        ".jpg",
        ".jpeg",
        ".gif",
        ".webp",
        ".bmp",
        ".tif",
        ".tiff",
        ".csv",
        ".tsv",
        ".xls",
        ".xlsx",
        ".doc",
        ".docx",
        ".odt",
        ".ppt",
        ".pptx",
        ".xml",
        ".yaml",
        ".yml",
        ".ipynb",
        ".py",
        ".css",
        ".zip",
        ".gz",
        ".oh",
        ".pt",
        ".pth",
        ".pt2",
        ".onnx",
        ".npy",
        ".npz",
        ".safetensors",
        ".pkl",
        ".mp4",
    ]
)
"""Suffixes that promise what no command writes."""


def form_of(options: dict[str, Any]) -> str:
    """The form that a command's answer is written in: the one asked for, else what `-o` promises.

    **Raises** `Complaint` where the file's name promises another one, or what this command does not write.
    """
    context = click.get_current_context()
    form: str = options["form"]
    output = options.get("output")
    chosen = context.get_parameter_source("form") is click.core.ParameterSource.COMMANDLINE
    (parameter,) = (each for each in context.command.params if each.name == "form")
    assert isinstance(parameter.type, click.Choice)
    offered = [str(each) for each in parameter.type.choices]
    promised = FORMS.get(Path(output).suffix.lower()) if output is not None else None
    if output is None or (promised is None and Path(output).suffix.lower() not in FOREIGN):
        return form
    if promised == form or (chosen and promised == "text"):
        return form
    if promised not in offered:
        raise _not_written(output, offered)
    if chosen:
        raise Complaint("cli.error.suffix.form", file=output, promised=promised, form=form)
    return str(promised)


def check_suffix(output: str | None, form: str) -> None:
    """Whether a file of this name may hold this one form, the only one that there is.

    **Raises** `Complaint` where its name promises another.
    """
    if output is None:
        return
    suffix = Path(output).suffix.lower()
    if suffix in FOREIGN or FORMS.get(suffix, form) != form:
        raise _not_written(output, [form])


def _not_written(output: str, offered: Sequence[str]) -> Complaint:
    known = [next(suffix for suffix, form in FORMS.items() if form == each) for each in offered]
    return Complaint("cli.error.suffix", file=output, suffix=Path(output).suffix, known=", ".join(known))
