"""Running live programs in Node, and training steps to make them from."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import openheart as oh
from openheart.errors import OpaqueError
from openheart.live import LiveProgram
from openheart.patients import Patient, patient

NO_NODE = "no Node on this machine: the live programs were not run (`apt-get install nodejs`)"
HUGE = 10**9


@cache
def node() -> str:
    """The path of Node; a test that needs it is skipped, loudly, where there is none."""
    found = shutil.which("node")
    if found is None:
        pytest.skip(NO_NODE)
    return found


def in_node(folder: Path, program: LiveProgram | str, script: str) -> Any:
    """What a script prints as JSON; it finds the module as `program`, and NaN and infinities as strings."""
    source = program if isinstance(program, str) else program.source
    (folder / "program.mjs").write_text(source, encoding="utf-8")
    if not isinstance(program, str) and program.data is not None:
        (folder / "program.bin").write_bytes(program.data)
    (folder / "script.mjs").write_text(
        'import * as program from "./program.mjs";\nimport { readFileSync, writeFileSync } from "node:fs";\n'
        "const { create } = program;\n"
        "const plain = (key, x) => (ArrayBuffer.isView(x) ? Array.from(x, plain.bind(null, '')) : "
        "typeof x === 'number' && x - x !== 0 ? String(x) : x);\n"
        "const print = (x) => writeFileSync('said.json', JSON.stringify(x, plain));\n" + script,
        encoding="utf-8",
    )
    done = subprocess.run([node(), "script.mjs"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "said.json").read_text())


def numbers(said: Iterable[Any]) -> Any:
    """Numbers from JSON, where NaN and infinities are words."""
    words = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf, True: 1.0, False: 0.0}
    return np.array([words.get(x, x) if isinstance(x, (str, bool)) else x for x in said], dtype=np.float64)


Optimizer = Callable[[Any], torch.optim.Optimizer]


def trained(
    name: str | Patient,
    steps: int = 1,
    optimizer: Optimizer | None = None,
    training: bool = True,
    take: int | None = None,
    initial: bool = False,
) -> tuple[Any, nn.Module, Callable[[], torch.Tensor]]:
    """A recording of a patient's first training steps, the network after them, and one more step, to call.

    `take` keeps the first samples of the batch only; `initial` starts from the weights before training.
    """
    who = patient(name) if isinstance(name, str) else name
    torch.manual_seed(0)
    net = who.network().train(training) if initial else who.build(training)
    inputs, target, loss = [x[:take] for x in who.inputs()], who.target()[:take], who.loss()
    chosen = (optimizer or who.optimizer)(net.parameters())

    def step() -> torch.Tensor:
        chosen.zero_grad()
        made = loss(net(*inputs), target)
        made.backward()
        chosen.step()
        return made

    with oh.recording(net) as rec:
        for _ in range(steps):
            step()
    return rec, net, step


def recorded(value: Any) -> Any | None:
    """A recorded value's numbers as a flat float64 array, None where there are none."""
    try:
        return value.array.astype(np.float64).reshape(-1) if not value.dtype.is_complex else None
    except OpaqueError:
        return None


CALL_BY_CALL = """
const held = readFileSync("recorded.bin");
const all = new Float64Array(held.buffer, held.byteOffset, held.length / 8);
const { CALLS, VALUES, OPTIONS } = program;
let place = 0;
const v = [], e = [];
for (const [, shape, dtype] of VALUES) {
  const n = shape.reduce((a, b) => a * b, 1);
  const single = ["float32", "bfloat16", "float16"].includes(dtype);
  const Kind = single ? Float32Array : dtype === "bool" ? Uint8Array : Float64Array;
  v.push(new Kind(all.subarray(place, place + n)));
  e.push(new Float64Array(n));
  place += n;
}
const o = OPTIONS.map(([, , value]) => value), out = [];
for (const { outputs } of CALLS) for (const [id, , run] of outputs) {
  if (run === null) continue;
  const [numbers, errors] = [v[id], e[id]];
  v[id] = new numbers.constructor(numbers.length);
  e[id] = new Float64Array(numbers.length);
  run(v, e, o);
  out.push(id, ...v[id], ...e[id]);
  [v[id], e[id]] = [numbers, errors];
}
writeFileSync("made.bin", new Uint8Array(Float64Array.from(out).buffer));
print(out.length);
"""


def call_by_call(folder: Path, rec: Any, program: LiveProgram) -> dict[int, tuple[Any, Any]]:
    """For each computed value, what its call makes of the recorded numbers and the bound, by its id."""
    numbers = [recorded(v) for v in rec.values]
    filled = [
        np.full(int(np.prod(v.shape)), np.nan) if x is None else x
        for v, x in zip(rec.values, numbers, strict=True)
    ]
    np.concatenate(filled).astype("<f8").tofile(folder / "recorded.bin")
    opened = program.source + "\nexport { CALLS, VALUES, OPTIONS };\n"
    in_node(folder, opened, CALL_BY_CALL)
    made = np.fromfile(folder / "made.bin", dtype="<f8")
    found: dict[int, tuple[Any, Any]] = {}
    place = 0
    while place < len(made):
        identity = int(made[place])
        n = int(np.prod(rec.values[identity].shape))
        found[identity] = made[place + 1 : place + 1 + n], made[place + 1 + n : place + 1 + 2 * n]
        place += 1 + 2 * n
    return found


def off(one: Any, other: Any) -> Any:
    """How far numbers lie apart; equal infinities and NaNs do not."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)
    return np.where(
        (one == other) | (np.isnan(one) & np.isnan(other)), 0.0, np.where(np.isnan(apart), np.inf, apart)
    )
