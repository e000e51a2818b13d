"""`openheart collapse`: the one affine map that a stack of modules is, with the proof."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from openheart.cli.commands import _answer, _json, say_what_runs
from openheart.cli.complaints import warn
from openheart.cli.progress import waiting
from openheart.i18n import set_decimal_mark
from openheart.loading import open_subject
from openheart.loading.models import load_weights
from openheart.loading.subject import SEED, is_patient, load_model_seeded, looks_like_a_name

__all__ = ["collapse"]


def collapse(
    *,
    model: str,
    first: str,
    last: str,
    digits: int,
    form: str,
    output: str | None,
    comma: bool,
    **options: Any,
) -> int:
    """Prints a stack collapsed; exit code 1 when its proof disagrees."""
    set_decimal_mark("," if comma else ".")
    say_what_runs(model)
    drawn = not options["inputs"] and not is_patient(model) and not looks_like_a_name(model)
    network, given = _alone(model, options) if drawn else _with_input(model, options)
    from openheart.surgery.collapse import collapse as collapsed

    with contextlib.redirect_stdout(sys.stderr):
        found = collapsed(network, first, last, given)
    if form == "json":
        _answer(_json(found.to_dict()), output)
    elif form == "latex":
        _answer(found.latex(digits=digits), output)
    elif form == "html":
        from openheart.show import page_of

        _answer(page_of(found.html(digits=digits), f"{model} · {first} … {last}"), output)
    else:
        _answer(found.text(digits=digits), output)
    return 1 if found.verdict == "disagrees" else 0


def _alone(model: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """A network without an input: one is drawn for the stack."""
    seed = SEED if options["seed"] is None else options["seed"]
    with waiting("cli.progress.opening", model=model):
        network = load_model_seeded(model, seed, options["trust"])
        if options["weights"] is not None:
            load_weights(network, Path(options["weights"]).expanduser(), options["trust"])
    with contextlib.suppress(NotImplementedError):  # an exported program keeps the mode it was exported in
        network.train(bool(options["train"]))
    return network, None


def _with_input(model: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """A network and its input, the one given or a patient's own, in the form in which the network took it."""
    with waiting("cli.progress.opening", model=model):
        subject = open_subject(
            model,
            options["inputs"],
            weights=options["weights"],
            dtype=options["dtype"],
            seed=options["seed"],
            mode="train" if options["train"] else "eval",
            trust=options["trust"],
        )
    with waiting("cli.progress.recording", model=subject.name):
        ran = subject.run()
    for sentence in ran.warnings:
        warn(sentence)
    names = [f"input_{n}" if n else "input" for n in range(len(ran.inputs.args))]
    given: Any = tuple(ran.recording.value(name).data for name in names)
    if ran.inputs.kwargs:
        given = given, {name: ran.recording.value(name).data for name in ran.inputs.kwargs}
    return ran.model, given
