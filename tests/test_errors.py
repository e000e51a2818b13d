"""Errors are data: a key of the catalogues and what fills it in, told in the language that is set."""

from __future__ import annotations

import ast
import pickle
import string
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import openheart as oh
from openheart import errors, i18n
from openheart.errors import OpenheartError
from openheart.live import export

SOURCE = Path(errors.__file__).parent
KINDS = {*errors.__all__, "Complaint"}
FACTORIES = {"bad_input": "cli.error.", "bad_model": "cli.error."}


def raised() -> Iterator[tuple[str, ast.Call, str]]:
    """(where, the call that makes an error, what stands before its key) for each in the product."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                where = f"{path.relative_to(SOURCE)}:{node.lineno}"
                if node.func.id in KINDS:
                    yield where, node, ""
                elif node.func.id in FACTORIES:
                    yield where, node, FACTORIES[node.func.id]


def test_every_error_has_its_sentence_and_fills_it_in() -> None:
    catalogue = i18n.catalogue("en")
    wrong = []
    for where, node, before in raised():
        first = node.args[0]
        if isinstance(first, ast.JoinedStr) and isinstance(first.values[0], ast.Constant):
            beginning = before + str(first.values[0].value)
            if not any(key.startswith(beginning) for key in catalogue):
                wrong.append(f"{where}: no sentence begins with {beginning!r}")
            continue
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
            continue
        key = before + first.value
        if key not in catalogue:
            wrong.append(f"{where}: no sentence {key!r}")
            continue
        given = {keyword.arg for keyword in node.keywords}
        if given & {"key", "lang"}:
            wrong.append(f"{where}: a parameter cannot be called 'key' or 'lang'")
        sentence = catalogue[key]
        said = sentence if isinstance(sentence, str) else " ".join(sentence.values())
        wanted = {name for _, name, _, _ in string.Formatter().parse(said) if name}
        if None not in given and not wanted <= given | {"suggestion"}:
            wrong.append(f"{where}: {key!r} lacks {', '.join(sorted(wanted - given))}")
    assert not wrong, "\n".join(wrong)


def test_a_sentence_for_the_command_line_needs_no_more_than_the_error_has() -> None:
    for lang in i18n.LANGUAGES:
        catalogue = i18n.catalogue(lang)
        for key, said in catalogue.items():
            if key.startswith("error.") and key.endswith(".cli"):
                fields = [
                    {name for _, name, _, _ in string.Formatter().parse(str(each)) if name}
                    for each in (said, catalogue[key.removesuffix(".cli")])
                ]
                assert fields[0] <= fields[1], key


def refusals() -> dict[str, object]:
    """Requests that cannot be met, one for every verb of the face."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    x = torch.ones(2, 2)
    rec = oh.record(model, x)

    def running() -> None:
        with oh.recording(model) as live:
            live.calls  # noqa: B018

    return {
        "keep": lambda: oh.record(model, x, keep="alles"),
        "running": running,
        "explain": lambda: rec.explain("9.out[0,0]"),
        "not a number": lambda: rec.explain("0.out"),
        "index": lambda: rec.explain("0.out[9,9]"),
        "intervene": lambda: rec.intervene({"9.weight": 1.0}),
        "no edit": lambda: rec.intervene({}),
        "form": lambda: rec.intervene(3),
        "shape": lambda: rec.intervene({"0.weight": torch.ones(7)}),
        "step": lambda: rec.intervene({"lr": 1.0}),
        "swap": lambda: rec.intervene(oh.swap("nothing", "relu")),
        "ablate": lambda: rec.intervene({"0.out": oh.ablate("max")}),
        "undo": lambda: rec.undo(),
        "sweep": lambda: rec.sweep("0.weight[0,0]", 3),
        "grid": lambda: rec.patch_grid(3),
        "compare": lambda: oh.compare(rec, 3),
        "live": lambda: oh.to_javascript(3),
        "large": lambda: oh.to_javascript(rec, limit=1),
        "collapse": lambda: oh.collapse(model, "0", "2"),
        "local map": lambda: rec.local_map(sample=9),
        "patient": lambda: __import__("openheart.patients").patients.patient("nobody"),
        "load": lambda: oh.load(__file__),
    }


@pytest.mark.parametrize("request_", refusals())
def test_every_refusal_speaks_the_language_that_is_set(request_: str) -> None:
    with pytest.raises(OpenheartError) as caught:
        refusals()[request_]()  # type: ignore[operator]
    error = caught.value
    said = {}
    for lang in i18n.LANGUAGES:
        i18n.set_language(lang)
        try:
            said[lang] = str(error)
        finally:
            i18n.set_language(None)
    assert said["es"] != said["en"]
    assert error.key in i18n.catalogue("en")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_limits_are_told_as_they_are() -> None:
    rec = oh.record(torch.nn.Linear(2, 1), torch.ones(1, 2))
    with pytest.raises(oh.InputError, match=r"limit=\d+") as caught:
        export.to_javascript(rec, limit=1)
    assert caught.value.params["limit"] == 1
