"""Fragments in a notebook's cell, whose sheet squeezes tables: nothing overprints its neighbour."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

import openheart as oh
from openheart.patients import patient

# What JupyterLab's own sheet says of tables and lists in a cell's output.
JUPYTER = """
.jp table { border-collapse: collapse; border: none; font-size: 12px; table-layout: fixed; }
.jp td, .jp th, .jp tr { vertical-align: middle; padding: .5em; white-space: normal; border: none; }
:not(.md).jp td, :not(.md).jp th, :not(.md).jp tr { text-align: right; }
.jp tbody tr:nth-child(odd) { background: #f5f5f5; }
.jp dt { float: left; width: 20%; } .jp dd { margin-left: 20px; } .jp ul { padding-left: 2em; }
"""
# Texts that stick out of their cell, or lie over one another, in visible pixels.
LOOK = """
const found = [];
for (const row of document.querySelectorAll("tr, h3")) {
  const boxes = [...row.querySelectorAll(":scope > td, :scope > th, :scope > span")]
    .filter(cell => cell.offsetParent && cell.textContent.trim())
    .map(cell => {
      const range = document.createRange();
      range.selectNodeContents(cell);
      const places = [...range.getClientRects()].map(b => [b.left, b.top, b.right, b.bottom]);
      return [cell.textContent.trim(), ...places];
    });
  for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++)
    for (const a of boxes[i].slice(1)) for (const b of boxes[j].slice(1)) {
      const [wide, high] = [0, 1].map(k => Math.min(a[k + 2], b[k + 2]) - Math.max(a[k], b[k]));
      if (wide > 1 && high > 3) found.push(boxes[i][0] + " | " + boxes[j][0]);
    }
}
for (const number of document.querySelectorAll("h3 .oh-number"))
  if (number.getClientRects().length > 1 || number.offsetHeight > 40)
    found.push("broken: " + number.textContent);
document.title = JSON.stringify(found.slice(0, 5));
"""


def fragments() -> list[str]:
    cnn = patient("digits-cnn")
    rec = oh.record(cnn.build(), *cnn.inputs())
    after = rec.intervene({"conv1.out[:,0]": oh.ablate()})
    long = torch.nn.Sequential()
    long.add_module("a_module_whose_name_is_rather_long", torch.nn.Linear(2, 1))
    named = oh.record(long, torch.tensor([[1e3, 1e5]]))
    return [
        rec.verify().html(lang="es"),
        oh.compare(rec, after).to_html(lang="es"),
        rec.explain("output[0,3]").html(lang="es"),
        named.explain("a_module_whose_name_is_rather_long.out[0,0]").html(lang="en"),
    ]


@pytest.mark.parametrize("width", [340, 620, 900])
def test_no_text_lies_over_another(chromium: str, tmp_path: Path, width: int) -> None:
    body = "".join(fragments())
    page = tmp_path / "cell.html"
    page.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><title></title><style>{JUPYTER}</style>'
        f'<body data-jp-theme-light="true"><div class="jp" style="width:{width}px">{body}</div>'
        f"<script>{LOOK}</script>",
        encoding="utf-8",
    )
    shown = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900",
         "--virtual-time-budget=4000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", shown)
    assert title is not None and json.loads(title[1]) == []


def test_a_narrow_terminal_loses_no_count() -> None:
    cnn = patient("digits-cnn")
    audit = oh.record(cnn.build(), *cnn.inputs()).verify()
    for width in (30, 60):
        said = " ".join(audit.text(lang="en", width=width).split())
        for name, row in audit.by_operator.items():
            for word, count in (("scalars", row.scalars), ("exact", row.exact), ("rounding", row.within)):
                assert not count or f"{word} {count:,}".replace(",", " ") in said, (name, word)


def test_a_live_program_prints_as_a_line() -> None:
    rec = oh.record(torch.nn.Linear(2, 1), torch.ones(1, 2))
    assert re.fullmatch(
        r"LiveProgram\([\d,]+ characters, \d+ multiply-adds, no training step\)", repr(oh.to_javascript(rec))
    )
