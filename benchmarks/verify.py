"""How fast an audit is, beside the forward pass that it audits; and the audits of whole training steps.

    python benchmarks/verify.py [--quick] [--models mlp gpt2 resnet50] [--rounds N] [--no-steps]
    python benchmarks/verify.py --patients digits-mlp lstm

The first table audits recordings of a forward pass, each in a process of its own, with an empty cache of
compiled laws at first. Multiply-adds are those of the matrix products, convolutions and attention.
The second table audits a training step of every patient and of ten small published architectures.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lib.measure import in_new_process, interleaved, milliseconds, seconds, table, times
from lib.networks import NETWORKS, TITLES, prepared

import openheart as oh
from openheart.patients import patients
from openheart.progress import COMPILING
from openheart.recording import Call

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the small architectures are the tests'


def multiply_adds(call: Call) -> int:
    """How many products a call adds up; 0 for what is no matrix product."""
    name, given = call.name, call.arguments
    size = math.prod(call.outputs[0].shape) if call.outputs else 0
    if name in ("addmm", "mm", "bmm", "baddbmm", "mv", "linear"):
        factor = {"addmm": "mat1", "baddbmm": "batch1", "linear": "input"}.get(name, "self")
        return size * given[factor].shape[-1]
    if name == "convolution":
        return size * math.prod(given["weight"].shape[1:])
    if name.startswith("scaled_dot_product") and "backward" not in name:
        query, key, value = (given[n].shape for n in ("query", "key", "value"))
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return 0


def _compiles(rec: oh.Recording) -> bool:
    """Audit once more; whether a law was compiled on the way."""
    told: list[str] = []
    rec.verify(progress=lambda _done, _whole, at_hand: told.append(at_hand))
    return COMPILING in told


def forward(name: str, rounds: int) -> dict[str, float]:
    """Seconds of the forward pass and of its audits; this process has compiled nothing yet."""
    model, x = prepared(name)
    with torch.no_grad():
        plain = interleaved({"plain": lambda: model(x)}, 2 * rounds + 1, 50 if name == "mlp" else 1)["plain"]
        rec = oh.record(model, x)
    rec.calls  # noqa: B018 -- the log is read once, before anything is timed
    start = time.perf_counter()
    audit = rec.verify()
    first = time.perf_counter() - start
    while _compiles(rec):  # what is compiled only where it pays is compiled before anything is timed
        pass
    later = interleaved({"audit": rec.verify}, rounds, 5 if name == "mlp" else 1)["audit"]
    return {
        "plain": plain,
        "first": first,
        "later": later,
        "madds": sum(map(multiply_adds, rec.calls)),
        "scalars": audit.scalars,
        "disagree": audit.disagree,
        "opaque": audit.opaque,
    }


def forwards(models: list[str], rounds: int, quick: bool) -> None:
    rows = []
    for name in models:
        print(f"{TITLES[name]} …", file=sys.stderr)
        with tempfile.TemporaryDirectory() as cache:
            arguments = ("--rounds", str(rounds), "--child", name)
            cold = in_new_process(__file__, *arguments, OPENHEART_CACHE=cache)
            warm = cold if quick else in_new_process(__file__, *arguments, OPENHEART_CACHE=cache)
        rows.append(
            [
                TITLES[name],
                f"{warm['scalars']:,.0f}",
                f"{warm['disagree']:.0f}",
                f"{warm['opaque']:.0f}",
                milliseconds(warm["plain"]),
                milliseconds(cold["first"]),
                milliseconds(warm["first"]),
                milliseconds(warm["later"]),
                times(warm["later"] / warm["plain"]),
                f"{warm['madds'] / 1e6:,.4g}",
                f"{warm['madds'] / warm['later'] / 1e9:.2f}",
            ]
        )
    heads = [
        "forward pass",
        "scalars",
        "disagree",
        "opaque",
        "plain ms",
        "first audit ms",
        "first, compiled before",
    ]
    table([*heads, "audit ms", "÷ plain", "10⁶ multiply-adds", "10⁹ a second"], rows)


def training_step(subject: Any) -> oh.Recording:
    """A recording of one training step of a patient: forward, loss, backward, optimizer, and nothing else.

    The data are there before: what loading them takes is no part of the step.
    """
    model = subject.build()
    optimizer = subject.optimizer(model.parameters())
    inputs, target, criterion = subject.inputs(), subject.target(), subject.loss()
    torch.manual_seed(1)
    with oh.recording(model) as rec:
        loss = criterion(model(*inputs), target)
        loss.backward()
        optimizer.step()
    return rec


def steps(quick: bool, only: list[str] | None = None) -> None:
    """A whole training step of each network, audited."""
    chosen = [p for p in patients() if only is None or p.name in only]
    makers: dict[str, Callable[[], oh.Recording]] = {
        p.name: lambda p=p: training_step(p) for p in (chosen[:1] if quick else chosen)
    }
    if not quick and only is None:
        from tests.zoo.architectures import ARCHITECTURES, train_step

        makers.update({f"{name} (small)": lambda name=name: train_step(name) for name in ARCHITECTURES})
    rows = []
    for name, make in makers.items():
        print(f"{name} …", file=sys.stderr)
        rec = make()
        rec.verify()
        audit: list[Any] = []
        taken = seconds(lambda rec=rec, audit=audit: audit.append(rec.verify()))
        (a,) = audit
        rows.append(
            [
                name,
                f"{len(rec.calls):,}",
                *(f"{n:,}" for n in (a.scalars, a.exact, a.within, a.unbounded, a.leaves)),
                *(f"{n:,}" for n in (a.disagree, a.opaque, a.not_checked, a.nonfinite)),
                "–" if a.worst is None else f"{a.worst.ratio:.2f}",
                f"{taken:.2f}",
            ]
        )
        if a.opaque:
            print(f"{name}: opaque: {', '.join(a.opaque_operators)}", file=sys.stderr)
    heads = [
        "training step of",
        "calls",
        "scalars",
        "exact",
        "within rounding",
        "unbounded",
        "not computed",
        "disagree",
        "opaque",
        "not checked",
        "NaN or ∞",
    ]
    table([*heads, "worst error ÷ bound", "s"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round, one patient: is it alive?")
    parser.add_argument("--no-steps", action="store_true", help="leave out the training steps")
    parser.add_argument(
        "--patients", nargs="+", help="audit a training step of these alone, and nothing else"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 1 if given.quick else given.rounds
    if given.child:
        print(json.dumps(forward(given.child, rounds)))
        return
    if given.patients:
        steps(given.quick, given.patients)
        return
    forwards(given.models, rounds, given.quick)
    if not given.no_steps:
        print()
        steps(given.quick)


if __name__ == "__main__":
    main()
