"""The export itself: the size that is refused, files, numbers beside the module, a real browser."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import torch
from tests.live.running import HUGE, in_node, off, trained
from torch import nn

import openheart as oh
from openheart.errors import InputError


def test_a_recording_that_is_too_large_is_refused_with_its_size() -> None:
    rec, _, _ = trained("digits-cnn")
    with pytest.raises(InputError) as refused:
        oh.to_javascript(rec)
    found = re.search(r"takes ([\d,]+) multiply-adds, and a live program up to 200,000", str(refused.value))
    assert found is not None
    size = int(found[1].replace(",", ""))
    assert oh.to_javascript(rec, limit=size).terms == size
    with pytest.raises(InputError):
        oh.to_javascript(rec, limit=size - 1)


def test_terms_are_counted() -> None:
    """A linear layer of 3 neurons over 4 inputs, 5 samples: 60 products, and 15 sums with the bias."""
    rec = oh.record(nn.Linear(4, 3), torch.randn(5, 4))
    assert oh.to_javascript(rec).terms == 5 * 3 * 4 + 5 * 3 + 4 * 3  # the transposed weight's 12 as well


def test_nothing_recorded_is_refused() -> None:
    with oh.recording() as rec:
        pass
    with pytest.raises(InputError, match="no call"):
        oh.to_javascript(rec)


def test_files_and_numbers_of_their_own(tmp_path: Path) -> None:
    rec, _, _ = trained("hand")
    whole = oh.to_javascript(rec, tmp_path / "whole.js")
    assert (tmp_path / "whole.js").read_text(encoding="utf-8") == whole.source == str(whole)
    apart = oh.to_javascript(rec, tmp_path / "apart.js", separate=True)
    assert apart.data is not None
    assert (tmp_path / "apart.bin").read_bytes() == apart.data
    assert len(apart.source) < len(whole.source)
    said = in_node(
        tmp_path,
        apart,
        """
        const held = readFileSync("program.bin");
        const p = create({ data: held.buffer.slice(held.byteOffset, held.byteOffset + held.length) });
        let told; try { create(); } catch (error) { told = error.message; }
        print({ loss: p.get("loss"), told });
        """,
    )
    assert said["loss"] == float(rec.value("loss").data)
    assert "create({ data })" in said["told"]


def test_the_program_reads_like_the_law() -> None:
    source = oh.to_javascript(trained("seed")[0]).source
    assert "// outᵢⱼ = selfⱼ + Σₖ mat1ᵢₖ · mat2ₖⱼ" in source.replace("self₀", "selfⱼ")
    assert re.search(r"sum \+= mat1_?\w*\[?.*\* mat2", source)
    assert "eval(" not in source
    assert "new Function" not in source
    assert "</script" not in source


def test_several_programs_run_side_by_side(tmp_path: Path) -> None:
    rec, _, _ = trained("hand")
    said = in_node(
        tmp_path,
        oh.to_javascript(rec),
        "const p = create(), q = create(); p.set('0.weight[0,0]', 9).step(3);"
        "print([p.get('loss'), q.get('loss')]);",
    )
    assert said[1] == float(rec.value("loss").data)
    assert said[0] != said[1]


def test_half_precision_is_rounded_where_pytorch_rounds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 2))
    for dtype in (torch.bfloat16, torch.float16):
        wide = net.to(dtype)
        rec = oh.record(wide, torch.randn(4, 6, dtype=dtype))
        said = in_node(
            tmp_path,
            oh.to_javascript(rec, bounds=True),
            "const p = create(); print(p.addresses().map((a) => p.value(a)));",
        )
        for value, found in zip(rec.values, said, strict=True):
            wanted = value.data.double().reshape(-1)
            made = torch.tensor(found["data"], dtype=torch.float64)
            assert torch.equal(made.to(dtype).double(), made), "each number is one of the format"
            assert (off(wanted.numpy(), made.numpy()) <= torch.tensor(found["bound"]).numpy()).all()


def test_in_a_real_browser_it_says_what_node_says(chromium: str, tmp_path: Path) -> None:
    rec, _, _ = trained("iris", steps=2)
    program = oh.to_javascript(rec, limit=HUGE)
    script = "const p = create(); p.set('0.weight[1,2]', 0.5); p.step(20);"
    script += "const told = p.addresses().map((a) => Array.from(p.value(a).data ?? [], String));"
    in_page = script + "document.querySelector('pre').textContent = JSON.stringify(told);"
    page = "<!doctype html><meta charset=utf-8><pre>nothing</pre>"
    page += f"<script type=module>{program.source}\n{in_page}</script>"
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    shown = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert shown is not None, done.stderr[-500:]
    in_node(tmp_path, program, script + "writeFileSync('told.json', JSON.stringify(told)); print(1);")
    assert shown[1] == (tmp_path / "told.json").read_text()
