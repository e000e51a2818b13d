"""Make the pictures of the README and the docs from the product itself.

    python scripts/pictures.py

Terminal pictures are SVG, drawn by rich; pictures of pages need Chromium and are left as they are without it.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import openheart as oh
from openheart.explain import Explanation
from openheart.patients import patient
from openheart.printers.audit import rich_audit
from openheart.printers.comparison import rich_comparison
from openheart.printers.explanation import rich_explanation

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
EDIT = {"0.weight[1,0]": 2.0}
FRAME = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>{lines}</defs>
<rect fill="#11151f" width="{width}" height="{height}" rx="10"/>
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def training_step(name: str) -> Any:
    """One recorded training step of a patient."""
    who = patient(name)
    torch.manual_seed(0)
    model = who.build()
    optimizer = who.optimizer(model.parameters())
    inputs, target, criterion = who.inputs(), who.target(), who.loss()
    with oh.recording(model) as recording:
        loss = criterion(model(*inputs), target)
        loss.backward()
        optimizer.step()
    return recording


def terminal(name: str, shown: Any, width: int = 100) -> None:
    """What the terminal shows, as SVG."""
    console = Console(
        record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(shown)
    svg = console.export_svg(code_format=FRAME, unique_id=name)
    (FOLDER / f"{name}.svg").write_text(
        "\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8"
    )
    print(f"wrote {name}.svg")


def drawn(name: str, svg: str) -> None:
    """A picture that the product draws itself."""
    (FOLDER / f"{name}.svg").write_text(svg.rstrip() + "\n", encoding="utf-8")
    print(f"wrote {name}.svg")


@contextlib.contextmanager
def said(lang: str) -> Iterator[None]:
    """In this language."""
    oh.set_language(lang)
    try:
        yield
    finally:
        oh.set_language(None)


def network() -> torch.nn.Module:
    """A network on two inputs, with random weights."""
    torch.manual_seed(4)
    return torch.nn.Sequential(
        torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
    )


def page(name: str, recording: Any, lang: str, size: str, *flags: str) -> None:
    """What a browser shows of an exported page, as PNG."""
    browser = shutil.which("chromium")
    if browser is None:
        print(f"{name}.png: left as it is, there is no chromium here")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        recording.to_html(path, lang=lang)
        target = FOLDER / f"{name}.png"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *flags]
        command += [f"--user-data-dir={folder}/profile", f"--window-size={size}", f"--screenshot={target}"]
        subprocess.run([*command, path.as_uri()], check=True, capture_output=True, timeout=120)
    print(f"wrote {name}.png")


def main() -> None:
    """Every picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    seed = training_step("seed")
    number: Explanation = seed.explain("1.out[0,0]")
    for lang in ("en", "es"):
        terminal(f"number-{lang}", rich_explanation(number, lang=lang))
        gradient = training_step("digits-cnn").explain("conv1.weight.after[3,0,1,1]")
        terminal(f"step-{lang}", rich_explanation(gradient, lang=lang))
        terminal(f"audit-{lang}", rich_audit(training_step("iris").verify(), lang=lang))
        drawn(f"regions-{lang}", oh.count_regions(network(), low=(-2, -2), high=(2, 2)).to_svg(lang=lang))
        with said(lang):
            terminal(f"compare-{lang}", rich_comparison(oh.compare(seed, seed.intervene(EDIT))))
            curve = seed.sweep("0.weight[1,0]", torch.linspace(-2, 2, 41), watch="loss")
            drawn(f"sweep-{lang}", curve.to_svg())
    page("page-en", seed, "en", "1100,1400")
    page("page-es", training_step("digits-cnn"), "es", "1100,1400", "--force-dark-mode")


if __name__ == "__main__":
    main()
