"""`openheart intervene`: what would have happened with these numbers changed, beside what happened."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from html import escape
from pathlib import Path
from typing import Any

from openheart.cli.commands import _answer, _json, _open, _record
from openheart.cli.complaints import Complaint
from openheart.cli.edits import check_addresses, edits_of, steps_of
from openheart.cli.progress import waiting
from openheart.cli.suffixes import check_suffix
from openheart.errors import AddressError, RecordingFileError
from openheart.i18n import message
from openheart.loading import Run, Subject
from openheart.recording import Recording
from openheart.surgery import Edit, compare, write_edits

__all__ = ["intervene"]


def intervene(
    *,
    model: str,
    digits: int,
    top: int | None,
    fresh_random: bool,
    form: str,
    output: str | None,
    html: str | None,
    save: str | None,
    save_edits: str | None,
    **options: Any,
) -> int:
    """Prints what the edits change."""
    with _spoken():
        edits = edits_of(options)
    check_suffix(html, "html")
    for file in (output, html, save, save_edits):
        _can_write(file)
    subject, steps = _open(model, options)
    with _spoken():
        before = _recorded(subject, edits, steps).recording
        with waiting("cli.progress.replaying"):
            after = before.intervene(list(edits), fresh_random=fresh_random)
        found = compare(before, after, top=top)
    notes = [note.text() for note in found.after.notes]
    if save_edits is not None:
        _written(save_edits, lambda path: write_edits(edits, path))
    if save is not None:
        _written(save, found.after.save)
    if html is not None or form == "html":
        from openheart.show import page_of

        page = page_of(
            found.to_html(digits=digits, top=top) + _notes(notes), f"{subject.name} · {_said(edits)}"
        )
        _answer(page, output if html is None else html)
    if form == "html":
        return 0
    if form == "json":
        answer = {"edits": [edit.to_dict() for edit in edits], "notes": notes, "comparison": found.to_dict()}
        _answer(_json(answer), output)
    elif output is None and sys.stdout.isatty():
        sys.stdout.write("\n\n".join((found.text(digits=digits, top=top, width=_columns()), *notes)) + "\n")
    else:
        _answer("\n\n".join((found.text(digits=digits, top=top), *notes)), output)
    return 0


def _recorded(subject: Subject, edits: tuple[Edit, ...], steps: int | None) -> Run:
    """The run that the edits are made in: with a training step where one of them needs it."""
    given = steps
    if steps is None:
        steps = steps_of(edits)
    ran = _record(subject, steps)
    try:
        check_addresses(ran.recording, edits)
    except AddressError:
        if steps or given is not None or not subject.can_train:
            raise
        # Of a training step, though it does not look like it: a hyperparameter, an optimizer's tensor.
        ran = _record(subject, 1)
        check_addresses(ran.recording, edits)
        return ran
    if not steps and given is None and subject.can_train and _freezes_a_parameter(ran.recording, edits):
        ran = _record(subject, 1)  # a parameter stands still in a forward pass anyway
    return ran


def _freezes_a_parameter(recording: Recording, edits: tuple[Edit, ...]) -> bool:
    names = (edit.address.partition("[")[0] for edit in edits if edit.kind == "freeze" and edit.address)
    return any(recording.value(name).origin == "parameter" for name in names)


@contextlib.contextmanager
def _spoken() -> Iterator[None]:
    """Says of which file it is where a recording cannot be read."""
    try:
        yield
    except RecordingFileError as error:
        raise Complaint("cli.error.edit.recording", reason=error) from error


def _written(file: str, write: Callable[[Path], None]) -> None:
    try:
        write(Path(file).expanduser())
    except (OSError, RecordingFileError) as error:
        raise Complaint("cli.error.write", file=file, reason=error) from error


def _can_write(file: str | None) -> None:
    """Whether a file's folder is there: told before the run, which may take long."""
    if file is not None and not Path(file).expanduser().resolve().parent.is_dir():
        reason = message("cli.error.write.folder", folder=Path(file).parent)
        raise Complaint("cli.error.write", file=file, reason=reason)


def _notes(notes: list[str]) -> str:
    return "".join(f"<p>{escape(note)}</p>" for note in notes)


def _said(edits: tuple[Edit, ...]) -> str:
    """The edits as a title: their addresses."""
    return ", ".join(dict.fromkeys(edit.address for edit in edits if edit.address is not None))


def _columns() -> int:
    return shutil.get_terminal_size().columns
