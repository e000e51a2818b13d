"""`openheart demo`: a network of thirteen parameters, neuron by neuron, and then a handwritten digit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.cells import cell_len
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from openheart.demo.pictures import columns_of, picture_beside
from openheart.i18n import decimal_mark, language, message
from openheart.loading.inputs import Inputs
from openheart.loading.subject import Subject, patient_subject
from openheart.patients import patient
from openheart.printers.audit import MARKS, summary
from openheart.printers.digits import shown
from openheart.printers.layout import SHADES, paragraph
from openheart.printers.parts import numbers, style_for, tone, verdict
from openheart.printers.text import Piece, pieces, wrap
from openheart.record import recording
from openheart.recording import Recording

__all__ = ["demo"]

WIDTH = 100
MISREAD = 77
"""Which held-out digit is shown: one that the network gets wrong, so that there is something to learn."""


def demo(folder: Path | None, console: Console | None = None) -> int:
    """Shows the tour and writes its two pages into `folder`, if any; returns 1 if a number disagrees."""
    if console is None:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    tour = _Tour(console)
    console.print()
    console.print(Text("openheart", "bold"), Text(message("demo.title"), "dim"))
    pages = [tour.small_network(folder), tour.digit(folder)]
    written = [path for path in pages if path is not None]
    tour.heading("demo.end")
    if written:
        tour.say("demo.pages")
        for path in written:
            console.print(Text(f"  {path}", "cyan"), soft_wrap=True)
    tour.say("demo.next")
    for command in message("demo.commands").splitlines():
        console.print(Text(f"  {command}", "cyan"), soft_wrap=True)
    return 1 if tour.disagreements else 0


class _Tour:
    """The console and what has been found on the way."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = min(console.width, WIDTH)
        self.part = 0
        self.disagreements = 0

    # The two halves ---------------------------------------------------------------------------------

    def small_network(self, folder: Path | None) -> Path | None:
        """The tutorial's network: forward, loss, gradient, step, audit."""
        subject = patient_subject("seed")
        self.heading("demo.small.heading")
        self.console.print(Text(subject.story[language()], "italic"), soft_wrap=True)
        rec = self.waiting("cli.progress.recording", lambda: subject.run(1).recording, model="seed")
        self.console.print()
        self.console.print(columns_of(rec, ("input", "0.out", "1.out")))
        self.say("demo.small.hidden")
        for n in range(3):
            self.line(rec, f"0.out[0,{n}]", message("demo.neuron", n=n + 1))
        self.say("demo.small.output")
        self.console.print(rec.explain("1.out[0,0]"))
        self.say("demo.small.loss")
        self.line(rec, "loss")
        self.say("demo.small.gradient")
        for address in ("1.out.grad[0,0]", "0.out.grad[0,1]", "0.weight.grad[1,0]"):
            self.line(rec, address)
        self.say("demo.small.step")
        self.line(rec, "0.weight.after[1,0]")
        self.audit(rec)
        return self.page(rec, folder, subject)

    def digit(self, folder: Path | None) -> Path | None:
        """One real digit: seen, read, and learned from."""
        chosen = patient("digits-cnn")
        held_out = chosen.data("test")
        assert held_out is not None
        image, target = (tensor[MISREAD : MISREAD + 1] for tensor in held_out)
        self.heading("demo.digit.heading")
        self.console.print(Text(chosen.story[language()], "italic"), soft_wrap=True)
        self.say("demo.digit.sees")

        rec = self.waiting(
            "cli.progress.recording", lambda: reading(chosen.build(), image), model="digits-cnn"
        )
        softmax, probabilities = softmax_of(rec)
        self.console.print(picture_beside(image[0, 0], probabilities, chosen.labels))
        winner = int(probabilities.argmax())
        true = int(target[0])
        self.say("demo.digit.reads", digit=chosen.labels[winner], true=chosen.labels[true])
        channel, row, column = brightest(rec, "conv1.out")
        here = f"[0,{channel},{row},{column}]"
        self.say("demo.digit.conv", channel=channel)
        self.line(rec, f"conv1.out{here}")
        self.say("demo.digit.norm")
        self.line(rec, f"norm1.out{here}")
        self.say("demo.digit.pool")
        self.line(rec, f"pool1.out[0,{channel},{row // 2},{column // 2}]")
        self.say("demo.digit.softmax")
        self.line(rec, f"{softmax}[0,{winner}]")
        self.audit(rec)

        self.say("demo.digit.learns")
        subject = Subject(
            name=chosen.name,
            build=chosen.build,
            inputs=Inputs((image,)),
            target=target,
            loss=chosen.loss(),
            optimizer=chosen.optimizer,
            story=chosen.story,
            seed=chosen.seed,
            labels=chosen.labels,
            fixed_dtype=True,
        )
        ran = self.waiting("cli.progress.recording", lambda: subject.run(1), model="digits-cnn")
        rec = ran.recording
        self.line(rec, "loss")
        weight = strongest(rec, "conv1.weight.grad")
        self.say("demo.digit.gradient")
        self.line(rec, f"conv1.weight.grad{weight}")
        self.say("demo.digit.step")
        self.steps(rec, f"conv1.weight.after{weight}")
        _, later = softmax_of(reading(ran.model, image))
        before, after = (shown(p[true].item(), 4).text(decimal_mark()) for p in (probabilities, later))
        self.say("demo.digit.after", true=chosen.labels[true], before=before, after=after)
        self.audit(rec)
        return self.page(rec, folder, subject)

    # What is said -----------------------------------------------------------------------------------

    def heading(self, key: str) -> None:
        self.console.print()
        self.console.print(Rule(Text(message(key), "bold"), align="left", style="dim"), width=self.width)

    def say(self, key: str, **params: Any) -> None:
        self.console.print()
        for line in paragraph(Text.from_markup(message(key, **params)), self.width):
            self.console.print(line)

    def line(self, rec: Recording, address: str, label: str = "") -> None:
        """A number's lines, with its verdict's mark; its name stands in front when there is a label."""
        self.explained(rec.explain(address), label)

    def steps(self, rec: Recording, address: str) -> None:
        """An optimizer's update: the kernels' steps first, then the number itself."""
        explanation = rec.explain(address)
        for inner in reversed(explanation.inputs):
            self.explained(inner)
        self.explained(explanation)

    def explained(self, explanation: Any, label: str = "") -> None:
        self.disagreements += explanation.verdict == "disagrees"
        style = style_for(4, None, flat=True)
        word, mark, _ = verdict(explanation, style.lang)
        shade = SHADES[tone(explanation)]
        margin = "  " + (label + "  " if label else "")
        equations = numbers(explanation, style)
        if not equations:
            value = shown(explanation.value, style.digits).text(style.decimal)
            plain = Text.assemble(
                margin, (explanation.address, "cyan"), " = ", (value, "bold"), "  ", (f"{mark} {word}", shade)
            )
            self.console.print(plain)
            return
        lines: list[Text] = []
        for n, equation in enumerate(equations):
            begun = margin if n == 0 else " " * len(margin)
            run = list(pieces(equation.row, style))
            for m, wrapped in enumerate(wrap(run, self.width - len(margin) - 4)):
                body = Text.assemble(*(_painted(piece) for piece in wrapped))
                lines.append(Text.assemble(begun if m == 0 else " " * (len(margin) + 4), body))
        verdict_of = Text(f"{mark} {word}", shade)
        gap = self.width - cell_len(lines[-1].plain) - cell_len(verdict_of.plain)
        if gap >= 2:
            lines[-1] = Text.assemble(lines[-1], " " * gap, verdict_of)
        else:
            lines.append(Text.assemble(" " * (self.width - cell_len(verdict_of.plain)), verdict_of))
        for line in lines:
            self.console.print(line)

    def audit(self, rec: Recording) -> None:
        """One sentence on all numbers of the run."""
        audit = self.waiting("cli.progress.verifying", rec.verify, operator="")
        self.disagreements += audit.disagree
        self.say(
            "demo.audit" if audit.ok else "demo.audit.not_all",
            count=grouped(audit.scalars),
            calls=len(rec.calls),
            exact=grouped(audit.exact),
            within=grouped(audit.within),
            disagree=audit.disagree,
            opaque=grouped(audit.opaque),
            leaves=audit.leaves,
        )
        for kind, sentence in summary(audit, language()):
            if kind in ("nonfinite", "not checked", "unbounded"):
                self.console.print(Text(f"{MARKS[kind]} {sentence}", SHADES[kind]))

    def page(self, rec: Recording, folder: Path | None, subject: Subject) -> Path | None:
        """Writes the page of a run."""
        if folder is None:
            return None
        from openheart.show import to_html

        folder.mkdir(parents=True, exist_ok=True)
        path = (folder / f"openheart-{subject.name}.html").resolve()

        def write() -> Any:
            return to_html(
                rec, path, title=subject.name, story=subject.story[language()], labels=subject.labels
            )

        self.waiting("cli.progress.writing", write)
        return path

    def waiting(self, key: str, work: Callable[[], Any], **params: str) -> Any:
        """Does some work, with a sign of life on a terminal."""
        if not sys.stderr.isatty():
            return work()
        with Console(stderr=True).status(message(key, **params)):
            return work()


def reading(model: torch.nn.Module, image: torch.Tensor) -> Recording:
    """What a network, as it is used, makes of an image, (1, 1, H, W), and the probabilities that follow."""
    model.eval()
    with recording(model) as rec:
        torch.softmax(model(image), dim=-1)
    return rec


def softmax_of(rec: Recording) -> tuple[str, Any]:
    """The name and the numbers, (classes,), of a run's probabilities."""
    name = next(rec.name(call.outputs[0]) for call in rec.calls if "softmax" in call.name)
    return name, rec.value(name).array[0]


def brightest(rec: Recording, name: str) -> tuple[int, int, int]:
    """Where a sample's feature map is largest, away from the border: channel, row, column."""
    array = rec.value(name).array[0]
    inner = array[:, 1:-1, 1:-1]
    place = int(inner.argmax())
    channel, rest = divmod(place, inner.shape[1] * inner.shape[2])
    row, column = divmod(rest, inner.shape[2])
    return channel, row + 1, column + 1


def strongest(rec: Recording, name: str) -> str:
    """The index of a tensor's largest element in size, as an address writes it."""
    array = rec.value(name).array
    place = int(abs(array).argmax())
    index = []
    for size in reversed(array.shape):
        place, at = divmod(place, size)
        index.append(str(at))
    return f"[{','.join(reversed(index))}]"


def grouped(count: int) -> str:
    """12 345: a number that one can read."""
    return f"{count:,}".replace(",", "\u202f")


def _painted(piece: Piece) -> tuple[str, str]:
    if piece.figure is not None:
        known = piece.figure.address or piece.figure.name
        return piece.text, SHADES["figure" if known else "constant"]
    return piece.text, SHADES.get(piece.role, "")
