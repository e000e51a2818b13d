"""Explanations as they are shown: terminal, HTML, LaTeX, MathML, JSON, page."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from tests.printers.schema import problems

import openheart as oh
from openheart import i18n
from openheart.patients import patient
from openheart.printers.explanation import latex, mathml, rich_explanation, text
from openheart.printers.html import explanation_html
from openheart.printers.json import explanation_dict
from openheart.printers.page import page

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "explanation.schema.json").read_text(encoding="utf-8"))


@cache
def step(name: str) -> Any:
    """One training step of a patient, recorded."""
    subject = patient(name)
    model = subject.build()
    optimizer, loss = subject.optimizer(model.parameters()), subject.loss()
    inputs, target = subject.inputs(), subject.target()
    with oh.recording(model) as recording:
        loss(model(*inputs), target).backward()
        optimizer.step()
    return recording


CASES = [
    ("seed", "1.out[0,0]", 1),
    ("seed", "0.weight.grad[0,1]", 1),
    ("seed", "0.weight.after[0,1]", 1),
    ("seed", "input[0,1]", 1),
    ("seed", "0.weight[1,1]", 1),
    ("seed", "1.out[0,0]", 2),
    ("seed-softmax", "1.out[0,1]", 1),
    ("iris", "2.bias.after[1]", 1),
    ("digits-cnn", "conv1.out[0,0,0,3]", 1),
    ("digits-cnn", "norm1.out[0,0,3,3]", 1),
    ("digits-cnn", "pool1.out[0,0,0,1]", 1),
    ("digits-cnn", "conv1.weight.grad[0,0,1,1]", 1),
    ("digits-cnn", "dropout/bernoulli_.out[0,3]", 1),
    ("tiny-gpt", "blocks.0.attention_norm.out[0,3,2]", 1),
    ("tiny-gpt", "token.out[0,3,4]", 1),
    ("tiny-gpt", "blocks.0.mlp.1.out[0,0,3]", 1),
]
IDS = [f"{name}-{address}-{depth}" for name, address, depth in CASES]


def explained(case: tuple[str, str, int]) -> Any:
    name, address, depth = case
    return step(name).explain(address, depth=depth)


every_case = pytest.mark.parametrize("case", CASES, ids=IDS)
both = pytest.mark.parametrize("lang", ["es", "en"])


TUTORIAL = """\
1.out[0,0] = 0.8347                                                           addmm · forward pass

law             outᵢⱼ = self₀ + Σₖ mat1ᵢₖ · mat2ₖⱼ
                self = 1.bias   mat1 = 0.out   mat2 = 1.weightᵀ

numbers         1.out[0,0] = 0.3112 + 2.7539·(−0.1986) + 2.8982·0.3628 + (−1.1063)·(−0.0171)
                    = 0.8347

contributions   0.out[0,1] · 1.weight[0,1]   1.0515  55 %  ████████████████████████
                0.out[0,0] · 1.weight[0,0]  −0.5469  28 %  ████████████▌
                1.bias[0]                    0.3112  16 %  ███████▏
                0.out[0,2] · 1.weight[0,2]   0.0189   1 %  ▍

from            1.bias[0] = 0.3112        0.out[0,0] = 2.7539       1.weight[0,0] = −0.1986
                0.out[0,1] = 2.8982       1.weight[0,1] = 0.3628    0.out[0,2] = −1.1063
                1.weight[0,2] = −0.0171

"""


def test_the_tutorials_output_neuron() -> None:
    made = text(explained(("seed", "1.out[0,0]", 1)), lang="en")
    first, _, rest = made.partition("\n")
    assert re.sub(r" · \S+:\d+$", "", first).split() == TUTORIAL.partition("\n")[0].split()
    assert rest.startswith(TUTORIAL.partition("\n")[2])
    # How this machine's kernel orders the sum decides which of the two it is.
    assert re.search(r"^check {11}✓ (exact|within rounding) — ", rest, re.MULTILINE)


@both
@every_case
@pytest.mark.parametrize("width", [40, 60, 100, 200])
def test_text_stays_within_its_width(case: tuple[str, str, int], lang: str, width: int) -> None:
    made = text(explained(case), lang=lang, width=width)
    assert max(cell_len(line) for line in made.split("\n")) <= width
    assert "\x1b" not in made


def test_colour_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    explanation = explained(("seed", "1.out[0,0]", 1))
    assert "\x1b[" in text(explanation, color=True)

    def shown(**settings: Any) -> str:
        out = io.StringIO()
        Console(file=out, width=80, **settings).print(rich_explanation(explanation, lang="en"))
        return out.getvalue()

    assert "\x1b[" not in shown()
    assert "\x1b[36m" in shown(force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[36m" not in shown(force_terminal=True, color_system="standard")


class Page(HTMLParser):
    """Checks that every tag is closed, and collects addresses and visible words."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: set[str] = set()
        self.words = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "wbr"):
            self.open.append(tag)
        self.addresses |= {value for name, value in attrs if name == "data-address" and value}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data


@both
@every_case
def test_html_is_whole_and_needs_nothing(case: tuple[str, str, int], lang: str) -> None:
    explanation = explained(case)
    made = explanation_html(explanation, lang=lang)
    seen = Page()
    seen.feed(made)
    assert not seen.open
    assert not seen.tags & {"script", "link", "img", "iframe"}
    assert not re.search(r"https?://|url\(|@import", made)
    assert explanation.address in seen.addresses
    assert set(list(parts_sources(explanation))[:24]) <= seen.addresses
    verdict = i18n.message(f"verdict.{explanation.verdict.split()[0]}", lang)
    assert verdict in seen.words or explanation.kind != "computed"


def parts_sources(explanation: Any) -> dict[str, Any]:
    from openheart.printers.parts import sources

    return sources(explanation)


@both
@every_case
def test_mathml_is_well_formed(case: tuple[str, str, int], lang: str) -> None:
    """And only of MathML Core's elements, which browsers draw."""
    made = ElementTree.fromstring(mathml(explained(case), lang=lang))
    core = {
        "math",
        "mtable",
        "mtr",
        "mtd",
        "mrow",
        "mi",
        "mn",
        "mo",
        "mtext",
        "msub",
        "msup",
        "msubsup",
        "mfrac",
    }
    core |= {"msqrt", "munder"}
    assert {node.tag.rpartition("}")[2] for node in made.iter()} <= core
    for node in made.iter():
        places = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "msubsup": 3}.get(
            node.tag.rpartition("}")[2]
        )
        assert places is None or len(node) == places


@every_case
def test_json_is_as_its_schema_says(case: tuple[str, str, int]) -> None:
    made = json.loads(json.dumps(explanation_dict(explained(case)), allow_nan=False))
    assert problems(made, SCHEMA, SCHEMA) == []


def test_the_schema_says_no_to_what_is_wrong() -> None:
    made = explanation_dict(explained(("seed", "1.out[0,0]", 1)))
    assert problems({**made, "verdict": "fine"}, SCHEMA, SCHEMA)
    assert problems({**made, "version": 2}, SCHEMA, SCHEMA)
    assert problems({**made, "lines": [{}]}, SCHEMA, SCHEMA)


def test_json_says_what_json_cannot() -> None:
    recording = oh.record(torch.nn.Identity(), torch.tensor([float("nan"), float("inf"), -float("inf")]))
    made = [explanation_dict(recording.explain(f"input[{n}]")) for n in range(3)]
    assert [m["value"] for m in made] == ["nan", "inf", "-inf"]
    assert all(problems(m, SCHEMA, SCHEMA) == [] for m in made)
    json.dumps(made, allow_nan=False)


@both
def test_latex_compiles(lang: str, tmp_path: Path) -> None:
    engine = shutil.which("pdflatex")
    if engine is None:
        pytest.skip("pdflatex is not on this machine: the LaTeX of the explanations was NOT compiled")
    body = "\n".join(f"\\[\n{latex(explained(case), lang=lang)}\n\\]" for case in CASES)
    source = (
        "\\documentclass{article}\\usepackage[utf8]{inputenc}\\usepackage[T1]{fontenc}"
        "\\usepackage{amsmath,amssymb}\\usepackage[landscape,margin=1cm]{geometry}\n"
        f"\\begin{{document}}\n{body}\n\\end{{document}}\n"
    )
    (tmp_path / "page.tex").write_text(source, encoding="utf-8")
    done = subprocess.run(
        [engine, "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "Undefined control sequence" not in done.stdout


def test_page_is_one_document() -> None:
    explanation = explained(("seed", "1.out[0,0]", 1))
    fragment = explanation_html(explanation, lang="es", styled=False)
    made = page("x < y", [("a & b", fragment), fragment], "es")
    seen = Page()
    seen.feed(made.removeprefix("<!DOCTYPE html>"))
    assert not seen.open
    assert 'lang="es"' in made
    assert "x &lt; y" in made
    assert "a &amp; b" in made
    assert made.count("<style>") == 1
    assert not re.search(r"<script|https?://", made)


def test_decimal_comma_reaches_every_surface() -> None:
    explanation = explained(("seed", "1.out[0,0]", 1))
    i18n.set_decimal_mark(",")
    try:
        assert "1.out[0,0] = 0,8347" in text(explanation, lang="es")
        assert "0{,}8347" in latex(explanation)
        assert "<mn>0,8347</mn>" in mathml(explanation).replace(
            ' class="oh-slot" data-address="1.out[0,0]"', ""
        )
        assert "0,8347" in explanation_html(explanation, lang="es")
    finally:
        i18n.set_decimal_mark(".")
