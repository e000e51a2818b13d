"""Comparisons as they are shown."""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from tests.printers.schema import problems

import openheart as oh
from openheart.i18n import set_decimal_mark
from openheart.patients import patient
from openheart.printers.comparison_parts import listing, pair
from openheart.show import page_of

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "comparison.schema.json").read_text("utf-8"))


def run(change: Any = None) -> Any:
    subject = patient("iris")
    model = subject.build()
    inputs, target = subject.inputs(), subject.target()
    if change is not None:
        with torch.no_grad():
            change(list(model.parameters()))
    optimizer = subject.optimizer(model.parameters())
    with oh.recording(model) as recording:
        subject.loss()(model(*inputs), target).backward()
        optimizer.step()
    assert recording.calls
    return recording


def upset(parameters: Any) -> None:
    parameters[0][1, 0] += 4.0


def spoil(parameters: Any) -> None:
    parameters[-1][0] = math.nan


def nudge(parameters: Any) -> None:
    parameters[0].mul_(1 + 2e-7)


CHANGES = {"same": None, "upset": upset, "spoil": spoil, "nudge": nudge}


@cache
def found(name: str) -> Any:
    if name == "batch":
        model = torch.nn.Linear(2, 3)
        return oh.compare(oh.record(model, torch.ones(4, 2)), oh.record(model, torch.ones(5, 2)))
    return oh.compare(run(), run(CHANGES[name]))


ALL = [*CHANGES, "batch"]


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("width", [30, 40, 60, 72, 80, 100])
@pytest.mark.parametrize("name", ALL)
def test_text_stays_within_its_width(name: str, lang: str, width: int) -> None:
    assert max(map(cell_len, found(name).text(lang=lang, width=width).split("\n"))) <= width


def test_text_says_what_was_found() -> None:
    count = len(found("same").unchanged)
    assert (
        found("same").text(lang="en").startswith(f"= every number is the same, bit for bit ({count} values)")
    )
    assert found("same").text(lang="es").startswith("= cada número es el mismo, bit a bit")
    upset = found("upset").text(lang="en")
    assert upset.startswith(f"≠ {len(found('upset').changed)} values moved")
    assert "1 of 6 samples changes class" in upset
    assert "1 de 6 muestras cambia de clase" in found("upset").text(lang="es")
    assert "6 became NaN" in found("spoil").text(lang="en")
    assert "6 pasaron a NaN" in found("spoil").text(lang="es")
    assert "≤ redondeo" in found("nudge").text(lang="es")
    assert "input: its shape is 4×2 before and 5×2 after" in found("batch").text(lang="en")
    assert "input: su forma es 4×2 antes y 5×2 después" in found("batch").text(lang="es")


def test_printed_numbers_are_the_changes() -> None:
    """The table read back: a name, a place, two numbers and an effect on each line."""
    comparison = found("upset")
    changes = {change.name: change for change in comparison.changed}
    read = 0
    for line in comparison.text(lang="en", digits=6, top=12, width=140).split("\n"):
        cells = line.split()
        if line.startswith("  ") and cells and cells[0] in changes and len(cells) >= 6:
            change = changes[cells[0]]
            place = cells[1] if cells[1].startswith("[") else ""
            moved, before, after, difference, effect = cells[1 + bool(place) :][:5]
            assert change.name + place == change.largest
            assert moved == f"{change.moved}/{change.moved + change.unmoved}"
            for said, meant in ((before, change.before), (after, change.after), (effect, change.relative)):
                assert float(said.replace("−", "-")) == pytest.approx(meant, rel=1e-2, abs=1e-3)
            assert float(difference.replace("−", "-")) == pytest.approx(change.difference, rel=1e-3)
            read += 1
    assert read == 12


def test_rows_are_the_largest_of_each_phase_in_the_order_of_the_run() -> None:
    comparison = found("upset")
    rows = listing(comparison, 5).rows
    order = {"forward": 0, "loss": 1, "backward": 2, "optimizer": 3}
    assert [order[r.change.phase] for r in rows] == sorted(order[r.change.phase] for r in rows)
    before = comparison.before
    own = [c for c in comparison.changed if before.has_own_name(before.value(c.name))]
    for phase in order:  # one of each in the first turn, forward's second in the second
        wanted = [c.name for c in own if c.phase == phase][: 2 if phase == "forward" else 1]
        assert {row.change.name for row in rows if row.change.phase == phase} == set(wanted)
    everything = listing(comparison, 10_000)
    assert len(everything.rows) + everything.copies == len(comparison.changed) and everything.more == 0
    assert "0/t.out" not in {row.change.name for row in everything.rows}  # 0.weight, seen the other way round
    assert len(listing(comparison, None).rows) == 20
    few = oh.compare(comparison.before, comparison.after, top=3)
    assert len(listing(few, None).rows) == 3 and len(listing(few, 4).rows) == 4


def test_numbers_that_differ_are_printed_differently() -> None:
    assert pair(1.0000001, 1.0000002, 4) == ("1.0000001", "1.0000002")
    assert pair(0.5, 0.5, 4) == ("0.5", "0.5")
    assert pair(0.0, -0.0, 4) == ("0", "−0")
    assert pair(1.0, math.nan, 4) == ("1", "nan")
    assert pair(math.nan, math.inf, 4) == ("nan", "∞")
    assert pair(False, True, 4) == ("False", "True")


def test_the_decimal_mark_is_the_one_set() -> None:
    set_decimal_mark(",")
    try:
        assert "0,0028 → 0,4178" in found("upset").text(lang="es")
        assert "0,4178" in found("upset").to_html(lang="es")
    finally:
        set_decimal_mark(".")
    assert "0.0028 → 0.4178" in found("upset").text(lang="es")


def test_rich_prints_it_at_the_consoles_width() -> None:
    console = Console(width=64, file=io.StringIO())
    console.print(found("upset"))
    lines = console.file.getvalue().split("\n")  # type: ignore[attr-defined]
    assert max(map(cell_len, lines)) <= 64 and "≠" in lines[0]


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("name", ALL)
def test_html_needs_nothing_else(name: str, lang: str) -> None:
    made = found(name).to_html(lang=lang)
    assert not re.search(r"<script|https?://|src=|@import|url\(", made)
    assert (
        made.count("<tr") == made.count("</tr>") and made.count("<article") == made.count("</article>") == 1
    )
    listed = listing(found(name), None).rows
    assert made.count('class="oh-change"') == len(listed)
    for row in listed:
        assert f'data-address="{row.change.largest}"' in made


def test_html_escapes_what_it_is_told() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_module("<b>&", torch.nn.Linear(1, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._modules["<b>&"](x)  # type: ignore[misc]

    net = Net()
    made = oh.compare(oh.record(net, torch.ones(1, 1)), oh.record(net, torch.zeros(1, 1))).to_html()
    assert "<b>" not in made and "&lt;b&gt;&amp;" in made


@pytest.mark.parametrize("name", ALL)
def test_data_is_json_as_the_schema_says(name: str) -> None:
    made = json.loads(json.dumps(found(name).to_dict(), allow_nan=False))
    assert problems(made, SCHEMA, SCHEMA) == []
    assert [change["name"] for change in made["changed"]] == [c.name for c in found(name).changed]
    broken = {**made, "changed": [{"name": 3}]}
    assert problems(broken, SCHEMA, SCHEMA)


def test_data_has_the_numbers_in_full() -> None:
    made = found("spoil").to_dict()
    first = made["changed"][0]
    assert (first["name"], first["after"], first["relative"]) == ("2.bias", "nan", "nan")
    assert first["before"] == found("spoil").changed[0].before


def test_a_notebook_gets_all_three() -> None:
    bundle = found("upset")._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html", "application/vnd.openheart.comparison+json"}
    assert bundle["text/plain"] == repr(found("upset"))
    assert bundle["text/html"] == found("upset")._repr_html_()


@pytest.mark.parametrize("width", [390, 1000])
def test_no_page_is_wider_than_its_screen(chromium: str, tmp_path: Path, width: int) -> None:
    page = tmp_path / "page.html"
    fragments = "".join(found(name).to_html(lang="es") for name in ALL)
    page.write_text(page_of(fragments, "c", "es"), encoding="utf-8")
    outer = tmp_path / "outer.html"  # Chromium's own window is never narrower than 500 pixels
    outer.write_text(
        f'<iframe id="i" src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
        "<script>i.onload = () => document.title = i.contentDocument.documentElement.scrollWidth</script>"
    )
    shown = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
         "--virtual-time-budget=4000", "--dump-dom", outer.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    title = re.search(r"<title>(\d+)</title>", shown)
    assert title is not None and int(title[1]) <= width
