"""What each command does. PyTorch is imported with this module."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from openheart.cli.complaints import Complaint, warn
from openheart.cli.find import explain_in
from openheart.cli.progress import waiting
from openheart.cli.suffixes import check_suffix
from openheart.errors import AddressError
from openheart.i18n import message, set_decimal_mark
from openheart.loading import Run, Subject, open_subject
from openheart.loading.scripts import line_that_works
from openheart.loading.subject import steps_for
from openheart.spelling import harmless
from openheart.writing import write_text

__all__ = ["completion", "demo", "explain", "patients", "show", "verify"]

LISTED = 60
"""At most this many addresses are listed as text."""


def explain(
    *, model: str, address: str | None, depth: int, digits: int, form: str, output: str | None, **options: Any
) -> int:
    """One number, explained; without an address, what there is to explain."""
    subject, steps = _open(model, options)
    if address is None:
        return _addresses(_record(subject, steps or 0), form, output)
    if options["steps"] is None:
        steps = max(steps or 0, _steps_needed(address, subject))
    ran = _record(subject, steps or 0)
    try:
        explanation = explain_in(ran.recording, address, depth)
    except AddressError:
        if steps or options["steps"] is not None or not subject.can_train:
            raise
        # An address of a training step that does not look like one: an optimizer's tensors have names too.
        ran = _record(subject, 1)
        explanation = explain_in(ran.recording, address, depth)
    if form == "json":
        _answer(_json(explanation.to_dict(digits=digits)), output)
    elif form == "latex":
        _answer(explanation.latex(digits=digits), output)
    elif form == "mathml":
        _answer(explanation.mathml(digits=digits), output)
    elif form == "html":
        from openheart.show import page_of

        title = f"{subject.name} · {explanation.address}"
        _answer(page_of(explanation.html(digits=digits), title), output)
    elif output is None and sys.stdout.isatty():
        _print(explanation, digits)
    else:
        _answer(explanation.text(digits=digits), output)
    return 1 if explanation.verdict == "disagrees" else 0


def verify(
    *, model: str, sample: int | None, strict: bool, form: str, output: str | None, **options: Any
) -> int:
    """Every number of a run, checked."""
    subject, steps = _open(model, options)
    ran = _record(subject, steps or 0)
    audit = ran.recording.verify(sample=sample)
    if form == "json":
        _answer(_json(audit.to_dict()), output)
    elif form == "html":
        from openheart.show import page_of

        _answer(page_of(audit.html(), subject.name), output)
    elif output is None and sys.stdout.isatty():
        _print(audit, 4)
    else:
        _answer(audit.text(), output)
    return 1 if audit.disagree or (strict and not audit.ok) else 0


def show(*, model: str, digits: int, output: str | None, **options: Any) -> int:
    """A page of the opened network."""
    check_suffix(output, "html")
    subject, steps = _open(model, options)
    if steps is None:
        steps = 1 if subject.can_train else 0
    from openheart.show import to_html

    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(model.split(":", maxsplit=1)[0]).stem)
    path = Path(output).expanduser() if output is not None else Path(f"openheart-{name}.html")
    if not path.resolve().parent.is_dir():
        reason = message("cli.error.write.folder", folder=path.parent)
        raise Complaint("cli.error.write", file=path, reason=reason)
    ran = _record(subject, steps)
    with waiting("cli.progress.writing"):
        try:
            to_html(
                ran.recording,
                path,
                title=subject.name,
                story=_story(subject),
                labels=subject.labels,
                digits=digits,
            )
        except OSError as error:
            raise Complaint("cli.error.write", file=path, reason=error.strerror or error) from error
    _answer(message("cli.written", path=path.resolve()), None)
    return 0


def demo(*, folder: str, no_pages: bool) -> int:
    """The guided tour."""
    from openheart.demo import demo as tour

    return tour(None if no_pages else Path(folder).expanduser())


def patients(*, form: str) -> int:
    """The built-in networks."""
    from openheart.i18n import language
    from openheart.patients import patients as everyone

    rows: list[dict[str, Any]] = []
    for each in everyone():
        network = each.build()
        optimizer = each.optimizer(network.parameters())
        rows.append(
            {
                "name": each.name,
                "story": dict(each.story),
                "parameters": sum(p.numel() for p in network.parameters()),
                "loss": type(each.loss()).__name__,
                "optimizer": type(optimizer).__name__,
            }
        )
    if form == "json":
        _answer(_json(rows), None)
        return 0
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(message("cli.patients.name"), style="bold", no_wrap=True)
    table.add_column(message("cli.patients.story"), ratio=1)
    table.add_column(message("cli.patients.parameters"), justify="right")
    for row in rows:
        table.add_row(row["name"], row["story"][language()], f"{row['parameters']:,}".replace(",", " "))
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(table)
    console.print(message("cli.patients.next"), style="dim", soft_wrap=True)
    return 0


def completion(*, shell: str) -> int:
    """The script that teaches a shell to complete."""
    from click.shell_completion import get_completion_class

    from openheart.cli.app import build

    kind = get_completion_class(shell)
    assert kind is not None
    _answer(kind(build(), {}, "openheart", "_OPENHEART_COMPLETE").source().rstrip(), None)
    return 0


# Steps that the commands share ---------------------------------------------------------------------


def _open(model: str, options: dict[str, Any]) -> tuple[Subject, int | None]:
    """The subject, and how many training steps were asked for; None: as many as needed."""
    set_decimal_mark("," if options.get("comma") else ".")
    mode = options["train"]
    say_what_runs(model)
    with waiting("cli.progress.opening", model=model):
        subject = open_subject(
            model,
            options["inputs"],
            target=options["target"],
            loss=options["loss"],
            optimizer=options["optimizer"],
            weights=options["weights"],
            dtype=options["dtype"],
            seed=options["seed"],
            mode=None if mode is None else "train" if mode else "eval",
            trust=options["trust"],
        )
    steps: int | None = options["steps"]
    if steps is None and any(options[name] is not None for name in ("loss", "target", "optimizer")):
        steps = 1  # who gives a loss wants the training step
    return subject, steps


def say_what_runs(model: str) -> None:
    """Says beforehand that a script will be run in full, where it does more than define a network."""
    found = line_that_works(model)
    if found is not None:
        warn(message("cli.warning.script", file=found[0], line=found[1]))


def _record(subject: Subject, steps: int) -> Run:
    with waiting("cli.progress.recording", model=subject.name):
        ran = subject.run(steps)
    for sentence in ran.warnings:
        warn(sentence)
    return ran


def _steps_needed(address: str, subject: Subject) -> int:
    steps = steps_for(address)
    if steps and ".after" in address and subject.optimizer is None and subject.loss is not None:
        raise Complaint("cli.error.no_optimizer_after", address=address)
    return steps


def _addresses(ran: Run, form: str, output: str | None) -> int:
    """What there is to explain in a run: every named tensor with its shape."""
    recording = ran.recording
    rows: list[tuple[str, tuple[int, ...], str]] = []
    for name in dict.fromkeys(recording.addresses()):
        value = recording.value(name)
        first = (
            ""
            if 0 in value.shape
            else name + (f"[{','.join('0' * len(value.shape))}]" if value.shape else "")
        )
        rows.append((name, value.shape, first))
    if form == "json":
        _answer(_json([{"address": a, "shape": s, "first": f} for a, s, f in rows]), output)
        return 0
    spoken = [
        row for row in rows if recording.has_own_name(recording.value(row[0])) or row[0].startswith("loss")
    ] or rows
    wide = max(len(name) for name, _, _ in spoken[:LISTED])
    lines = [message("cli.addresses.title", count=len(rows)), ""]
    lines += [f"  {name:<{wide}}  {shape}" for name, shape, _ in spoken[:LISTED]]
    if len(rows) > len(spoken[:LISTED]):
        lines.append("  " + message("cli.addresses.more", count=len(rows) - len(spoken[:LISTED])))
    sample = next((first for name, _, first in reversed(spoken) if name.endswith(".out")), spoken[-1][2])
    lines += [
        "",
        message("cli.addresses.next", model=sys.argv[2] if len(sys.argv) > 2 else "", address=sample),
    ]
    if not ran.steps:
        lines.append(message("cli.addresses.train"))
    _answer("\n".join(lines), output)
    return 0


def _story(subject: Subject) -> str:
    from openheart.i18n import language

    return subject.story.get(language(), "")


def _json(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, indent=2)


def _answer(text: str, output: str | None) -> None:
    if output is None:
        sys.stdout.write(harmless(text) + "\n")
        return
    path = Path(output).expanduser()
    try:
        write_text(path, text + "\n")
    except OSError as error:
        raise Complaint("cli.error.write", file=path, reason=error.strerror or error) from error
    sys.stdout.write(message("cli.written", path=path.resolve()) + "\n")


def _print(thing: Any, digits: int) -> None:
    """On a terminal: in colour, as wide as the terminal."""
    from rich.console import Console

    from openheart.cli.terminal import rich_of

    Console(highlight=False).print(rich_of(thing, digits))
