"""What recording costs, in time and memory, beside plain PyTorch, a bare dispatch mode and torchlens.

    python benchmarks/record.py [--quick] [--models mlp gpt2 resnet50] [--rounds N] [--no-torchlens]

Time is CPU time on one thread: the median of interleaved runs after a warm-up. Memory is the peak of a
process of its own for each variant, which holds what it recorded to the end.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lib.measure import in_new_process, interleaved, milliseconds, peak_memory, table, times
from lib.networks import NETWORKS, TITLES, prepared
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

VARIANTS = {
    "plain": "plain PyTorch",
    "bare": "bare dispatch mode",
    "openheart": "openheart",
    "flight": "openheart, last=3",
    "read": "openheart, and its calls read",
    "torchlens": "torchlens, with arguments",
}
WORK = {
    "forward": "forward",
    "step": "forward + backward + AdamW",
    "loop": "200 such steps in one recording",
}
LOOP = 200


class Bare(TorchDispatchMode):
    """The least that a recorder can do: keep inputs and outputs, in no order but that of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.kept.append((func, args, kwargs, out))
        return out


def variant(name: str, work: str, model: nn.Module, x: Tensor) -> Callable[[], Any]:
    """The work under one recorder; what it returns keeps the recording alive."""
    if work == "forward":
        optimizer = None
    else:
        optimizer = torch.optim.AdamW(model.parameters())

    def run() -> None:
        if optimizer is None:
            with torch.no_grad():
                model(x)
            return
        for _ in range(LOOP if work == "loop" else 1):
            model(x).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    def bare() -> Any:
        with Bare() as mode:
            run()
        return mode

    def openheart() -> Any:
        import openheart as oh

        with oh.recording(model) as rec:
            run()
        return rec

    def flight() -> Any:
        import openheart as oh

        with oh.recording(model, last=3) as rec:
            run()
        return rec

    def read() -> Any:
        rec = openheart()
        rec.calls  # noqa: B018 -- the log becomes calls and values when it is first asked for
        return rec

    def torchlens() -> Any:
        import torchlens as tl

        warnings.filterwarnings(
            "ignore", module="contextlib|torchlens"
        )  # what it cannot follow; once is enough
        options = tl.options.CaptureOptions(save_arg_values=True, save_grads=optimizer is not None)
        if optimizer is None:
            with torch.no_grad():
                return tl.trace(model, x, capture=options)
        trace = tl.trace(model, x, capture=options)
        trace.log_backward(trace[trace.output_layers[0]].out.square().mean())
        optimizer.step()
        optimizer.zero_grad()
        return trace

    made: dict[str, Callable[[], Any]] = {
        "plain": run,
        "bare": bare,
        "openheart": openheart,
        "flight": flight,
        "read": read,
        "torchlens": torchlens,
    }
    return made[name]


def timed(name: str, work: str, rounds: int, torchlens: bool) -> dict[str, float]:
    """Median seconds of each variant."""
    model, x = prepared(name, training=work != "forward")
    repeats = 50 if name == "mlp" and work != "loop" else 1
    names = [v for v in VARIANTS if v != "torchlens"]
    found = interleaved({v: variant(v, work, model, x) for v in names}, rounds, repeats)
    if torchlens and work != "loop":  # last: it replaces torch's functions for good
        last = {"torchlens": variant("torchlens", work, model, x)}
        found.update(interleaved(last, min(rounds, 3), limit=60.0))
    return found


def held(name: str, work: str, which: str) -> dict[str, float]:
    """Peak memory of this process after recording once, and the bytes that a recording holds."""
    model, x = prepared(name, training=work != "forward")
    run = variant(which, work, model, x)
    run()
    kept = run()
    found = {"peak": float(peak_memory()), "kept": 0.0}
    if which in ("openheart", "flight"):
        found["kept"] = float(kept_bytes(kept, model))
    return found


def kept_bytes(rec: Any, model: nn.Module) -> int:
    """Bytes of the storages that a recording holds, the model's own left out."""
    from openheart.recording.keeping import held_bytes

    own = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in model.state_dict().values()}
    return held_bytes(rec.values) - sum(own.values())


def first_entry(which: str) -> dict[str, float]:
    """Seconds of the first recording of a process, imports of the recorder included."""
    x = torch.ones(2)
    x + x
    start = time.perf_counter()
    if which == "bare":
        with Bare():
            x + x
    else:
        import openheart as oh

        with oh.recording():
            x + x
    return {"seconds": time.perf_counter() - start}


def measured(*arguments: str) -> dict[str, float]:
    """What a process of its own measures."""
    return in_new_process(__file__, "--child", *arguments)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="one round, no memory: is it alive?")
    parser.add_argument("--no-torchlens", action="store_true")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    rounds = 1 if given.quick else given.rounds
    if given.child:
        kind, *arguments = given.child
        if kind == "time":
            print(json.dumps(timed(arguments[0], arguments[1], rounds, not given.no_torchlens)))
        elif kind == "memory":
            print(json.dumps(held(*arguments)))
        else:
            print(json.dumps(first_entry(*arguments)))
        return

    every = [v for v in VARIANTS if not (given.no_torchlens and v == "torchlens")]
    extra = ["--rounds", str(rounds), *(["--no-torchlens"] if given.no_torchlens else [])]
    rows = []
    for name in given.models:
        for work, title in WORK.items():
            if work == "loop" and name != "mlp":
                continue
            shown = [v for v in every if not (work == "loop" and v == "torchlens")]
            print(f"{TITLES[name]}: {title} …", file=sys.stderr)
            if given.quick:
                taken, peaks = timed(name, work, 1, not given.no_torchlens), {}
            else:
                taken = in_new_process(__file__, *extra, "--child", "time", name, work)
                peaks = {v: measured("memory", name, work, v) for v in shown if v != "read"}
            for v in shown:
                peak = peaks.get(v)
                rows.append(
                    [
                        f"{TITLES[name]}: {title}" if v == "plain" else "",
                        VARIANTS[v],
                        milliseconds(taken[v]),
                        times(taken[v] / taken["plain"]),
                        times(taken[v] / taken["bare"]),
                        f"{peak['peak'] / 2**20:,.0f}" if peak else "–",
                        times(peak["peak"] / peaks["plain"]["peak"]) if peak else "–",
                        f"{peak['kept'] / 2**20:,.1f}" if peak and peak["kept"] else "–",
                    ]
                )
    heads = ["", "variant", "ms", "÷ plain", "÷ bare", "peak MiB", "÷ plain", "values kept MiB"]
    table(heads, rows, words=2)
    print()
    entries = [
        [VARIANTS[v], milliseconds(measured("entry", v)["seconds"])]
        for v in (["openheart"] if given.quick else ["bare", "openheart"])
    ]
    table(["first recording of a process", "ms"], entries)


if __name__ == "__main__":
    main()
