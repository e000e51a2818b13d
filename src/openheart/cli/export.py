"""`openheart export`: a run as a program in JavaScript, for a page without a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openheart.cli.commands import _answer, _json, _open, _record
from openheart.cli.complaints import Complaint
from openheart.cli.progress import waiting
from openheart.cli.suffixes import check_suffix
from openheart.i18n import message
from openheart.live import to_javascript

__all__ = ["export"]


def export(
    *, model: str, form: str, output: str | None, limit: int, bounds: bool, separate: bool, **options: Any
) -> int:
    """Writes the live program of a network and says what it can do."""
    check_suffix(output, "javascript")
    subject, steps = _open(model, options)
    if steps is None:
        steps = 1 if subject.can_train else 0
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(model.split(":", maxsplit=1)[0]).stem)
    path = Path(output).expanduser() if output is not None else Path(f"openheart-{name}.js")
    if not path.resolve().parent.is_dir():
        reason = message("cli.error.write.folder", folder=path.parent)
        raise Complaint("cli.error.write", file=path, reason=reason)
    ran = _record(subject, steps)
    try:
        with waiting("cli.progress.writing"):
            made = to_javascript(ran.recording, path, bounds=bounds, separate=separate, limit=limit)
    except OSError as error:
        raise Complaint("cli.error.write", file=path, reason=error.strerror or error) from error
    step = bool(ran.steps) and made.refused is None
    if form == "json":
        about = {
            "file": str(path.resolve()),
            "terms": made.terms,
            "step": step,
            "options": made.options,
            "frozen": made.frozen,
            "refused": made.refused,
            "notes": list(made.notes),
        }
        _answer(_json(about), None)
        return 0
    said = [message("cli.export.terms", count=made.terms)]
    if ran.steps:
        options_ = ", ".join(made.options)
        said.append(message("cli.export.step", options=options_) if step else message("cli.export.no_step"))
    frozen = [name for name, why in made.frozen.items() if why not in ("uninitialized", "empty")]
    if frozen:
        said.append(message("cli.export.frozen", count=len(frozen), first=frozen[0]))
    _answer("\n".join((message("cli.written", path=path.resolve()), *said)), None)
    return 0
