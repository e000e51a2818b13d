"""Size and speed of live programs, beside JavaScript written by hand and beside a graph of objects.

    python benchmarks/live_program.py [--quick]

All three compute the same network in one Node process: a forward pass of a batch, and a training step
(forward, loss, backward, plain SGD). The program is what `openheart.to_javascript` writes; "by hand" is one
loop nest a layer over typed arrays; "objects" holds neurons and edges as objects and takes one sample at a
time, as TensorFlow Playground does. The first network is that tool's own first one: 2-4-2-1 with tanh,
batches of 10.
Before anything is measured, all of them are held against PyTorch's parameters after ten steps.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lib.measure import table
from torch import Tensor, nn

import openheart as oh
from openheart.patients import patient

HERE = Path(__file__).parent
LR = 0.03
STEPS = 10


@dataclass(frozen=True)
class Case:
    """A network to be measured."""

    title: str
    sizes: tuple[int, ...]
    activation: str
    loss: str
    build: Callable[[], tuple[nn.Module, Tensor, Tensor]]


def of_patient(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    who = patient(name)
    return who.build(training=False), *who.inputs(), who.target()


def digits() -> tuple[nn.Module, Tensor, Tensor]:
    return of_patient("digits-mlp")


def playground() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    layers = [nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 1), nn.Tanh()]
    x = torch.randn(10, 2)
    return nn.Sequential(*layers), x, (x.norm(dim=1, keepdim=True) < 1).float() * 2 - 1


CASES = (
    Case("Playground's first net, 2-4-2-1, batch 10", (2, 4, 2, 1), "tanh", "squares", playground),
    Case("iris, 4-8-3, batch 6", (4, 8, 3), "relu", "cross-entropy", lambda: of_patient("iris")),
    Case(
        "digits-mlp, 64-32-10, batch 8",
        (64, 32, 10),
        "relu",
        "cross-entropy",
        digits,
    ),
)

SCRIPT = """
import { create as whole } from "./step.mjs";
import { create as ahead } from "./forward.mjs";
import { byHand, asObjects, interleaved } from "LIB";
const about = ABOUT;
const input = Float32Array.from(about.input);

const check = [byHand(about)];
if (about.loss === "squares") check.push(asObjects(about));
for (const made of check) for (let s = 0; s < about.steps; s++) made.step();
const lived = whole();
lived.step(about.steps - 1);
const mine = about.names.map((name) => lived.value(name + ".after").data);
const found = [mine, ...check.map((made) => made.parameters())];
let apart = 0;
for (const parameters of found) about.after.forEach((numbers, k) =>
  numbers.forEach((number, i) => (apart = Math.max(apart, Math.abs(parameters[k][i] - number)))));
if (!(apart < 1e-5)) throw new Error(`not the same network: ${apart}`);

const hand = byHand(about), objects = about.loss === "squares" ? asObjects(about) : null;
const step = whole(), forward = ahead();
const many = (work) => (n) => { for (let k = 0; k < n; k++) work(); };
const works = {
  "forward program": many(() => forward.setValue("input", input).run()),
  "forward hand": many(() => hand.forward()),
  "step program": (n) => step.step(n),
  "step hand": many(() => hand.step()),
};
if (objects !== null) {
  works["forward objects"] = many(objects.forward);
  works["step objects"] = many(objects.step);
}
console.log(JSON.stringify(interleaved(works, about.rounds, about.least)));
"""


def measure(case: Case, quick: bool, folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Median CPU seconds of each work, and the sizes of the program in bytes."""
    net, x, target = case.build()
    start = [p.detach().reshape(-1).tolist() for p in net.parameters()]
    criterion = nn.MSELoss() if case.loss == "squares" else nn.CrossEntropyLoss()
    forward = oh.to_javascript(oh.record(net, x), folder / "forward.mjs")
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)

    def step() -> None:
        optimizer.zero_grad()
        criterion(net(x), target).backward()
        optimizer.step()

    with oh.recording(net) as rec:
        step()
    program = oh.to_javascript(rec, folder / "step.mjs")
    for _ in range(STEPS - 1):
        step()
    apart = oh.to_javascript(rec, separate=True)
    assert apart.data is not None
    about = {
        "sizes": case.sizes, "activation": case.activation, "loss": case.loss, "lr": LR, "steps": STEPS,
        "parameters": start, "input": x.reshape(-1).tolist(), "target": target.reshape(-1).tolist(),
        "names": [name for name, _ in net.named_parameters()],
        "after": [p.detach().reshape(-1).tolist() for p in net.parameters()],
        "rounds": 3 if quick else 15, "least": 0.005 if quick else 0.1,
    }  # fmt: skip
    script = SCRIPT.replace("LIB", (HERE / "lib" / "live_program.mjs").as_uri()).replace(
        "ABOUT", json.dumps(about)
    )
    (folder / "script.mjs").write_text(script, encoding="utf-8")
    done = subprocess.run(
        [shutil.which("node") or "node", "script.mjs"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    sizes = {
        "code": len(apart.source.encode()),
        "data": len(apart.data),
        "whole": len(program.source.encode()),
        "terms": program.terms,
        "forward": forward.terms,
    }
    return json.loads(done.stdout), sizes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few rounds: is it alive?")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    speeds, sizes = [], []
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            times, size = measure(case, quick, Path(folder))
        for work in ("forward", "step"):
            mine = times[f"{work} program"]
            others = [times.get(f"{work} {other}") for other in ("hand", "objects")]
            ratios = ["–" if other is None else f"{mine / other:.2f}" for other in others]
            title = f"{case.title}, {'training step' if work == 'step' else 'forward'}"
            speeds.append([title, f"{mine * 1e6:.1f}", *ratios])
        row = [f"{size[key]:,}" for key in ("terms", "code", "data", "whole")]
        sizes.append([f"{case.title}, training step", *row])
    table(["program in Node", "µs", "÷ by hand", "÷ objects"], speeds)
    table(["size", "multiply-adds", "code, bytes", "numbers, bytes", "one module, bytes"], sizes)


if __name__ == "__main__":
    main()
