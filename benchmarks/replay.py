"""What it costs to see the effect of an edit: a replay of what follows from it, beside forward hooks.

    python benchmarks/replay.py [--quick] [--models mlp gpt2 resnet50 bert] [--rounds N] [--no-nnsight]

The same edit, one slice of a module's output set to a number, near the end of the network, in its middle and
at its beginning: by `rec.intervene`, by a forward hook in a whole forward pass, and by nnsight where it is
installed. Every way's output is held against the hook's, bit for bit, before anything is timed. Time is CPU
time on one thread: the median of interleaved runs after a warm-up; recording is not part of a replay.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from lib.measure import in_new_process, interleaved, milliseconds, table, times
from lib.networks import NETWORKS, TITLES, Only, prepared
from torch import Tensor, nn

import openheart as oh

NUMBER = 0.25


def bert() -> tuple[nn.Module, Tensor]:
    """BERT base's config, one sequence of 64 tokens, two classes."""
    from transformers import BertConfig, BertForSequenceClassification

    return Only(BertForSequenceClassification(BertConfig())), torch.randint(30522, (1, 64))


NETWORKS["bert"] = bert
TITLES["bert"] = "BERT base, 64 tokens"

# network → place → the module whose output is edited, and the slice, as an address has it and as Python does
LAST, CHANNEL = ("...,3", (..., 3)), (":,3", (slice(None), 3))
PLACES: dict[str, dict[str, tuple[str, tuple[str, Any]]]] = {
    "mlp": {"last": ("1", ("...,0", (..., 0))), "first": ("0", LAST)},
    "gpt2": {
        "last": ("network.lm_head", LAST),
        "middle": ("network.transformer.h.5.mlp", LAST),
        "first": ("network.transformer.h.0.attn.c_attn", LAST),
    },
    "resnet50": {
        "last": ("network.classifier.1", LAST),
        "middle": ("network.resnet.encoder.stages.2.layers.0.layer.0.convolution", CHANNEL),
        "first": ("network.resnet.embedder.embedder.convolution", CHANNEL),
    },
    "bert": {
        "last": ("network.classifier", ("...,0", (..., 0))),
        "middle": ("network.bert.encoder.layer.5.output.dense", LAST),
        "first": ("network.bert.encoder.layer.0.attention.self.query", LAST),
    },
}
VARIANTS = {
    "replay": "openheart, output",
    "read": "openheart, and its calls read",
    "hook": "forward hook, whole pass",
    "nnsight": "nnsight",
}


def hooked(model: nn.Module, x: Tensor, path: str, index: Any) -> Tensor:
    """The output of a whole forward pass with the edit made in a hook."""

    def edit(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[index] = NUMBER
        return changed

    handle = model.get_submodule(path).register_forward_hook(edit)
    try:
        with torch.no_grad():
            return model(x)
    finally:
        handle.remove()


def variants(model: nn.Module, x: Tensor, path: str, slice_: tuple[str, Any], nnsight: bool) -> Any:
    """What each way of making the edit runs; each gives the output."""
    with torch.no_grad():
        recording = oh.record(model, x)
    written, index = slice_
    edits = {f"{path}.out[{written}]": NUMBER}

    def replay() -> Tensor:
        return recording.intervene(edits).output

    def read() -> Tensor:
        changed = recording.intervene(edits)
        changed.calls  # noqa: B018 -- the recording is put together when it is first asked for
        return changed.output

    found: dict[str, Callable[[], Tensor]] = {
        "replay": replay,
        "read": read,
        "hook": lambda: hooked(model, x, path, index),
    }
    if nnsight:
        found["nnsight"] = traced(model, x, path, index)
    return recording, found


def traced(model: nn.Module, x: Tensor, path: str, index: Any) -> Callable[[], Tensor]:
    """The edit by nnsight."""
    from nnsight import NNsight

    wrapped = NNsight(model)

    def run() -> Tensor:
        with torch.no_grad(), wrapped.trace(x):
            module = wrapped
            for part in path.split("."):
                module = module[int(part)] if part.isdigit() else getattr(module, part)
            module.output[index] = NUMBER
            output = wrapped.output.save()
        return output  # noqa: RET504 -- it is a tensor only after the block

    return run


def measured(name: str, rounds: int, nnsight: bool) -> dict[str, Any]:
    """Median seconds of a plain forward pass, and of each variant for each place of the edit."""
    model, x = prepared(name)
    repeats = 100 if name == "mlp" else 1

    def plain() -> Tensor:
        with torch.no_grad():
            return model(x)

    found: dict[str, Any] = {}
    for place, (path, slice_) in PLACES[name].items():
        recording, works = variants(model, x, path, slice_, nnsight)
        expected = works["hook"]()
        for which, work in works.items():
            if not torch.equal(work(), expected):
                raise SystemExit(f"{TITLES[name]}, {place}: {which} does not give what the hook gives")
        taken = interleaved({"plain": plain, **works}, rounds, repeats)
        found[place] = {**taken, "calls": len(recording.calls), "again": run_again(recording, path, slice_)}
    return found


def run_again(recording: Any, path: str, slice_: tuple[str, Any]) -> int:
    """How many calls a replay runs, but those that the edit itself puts in."""
    changed = recording.intervene({f"{path}.out[{slice_[0]}]": NUMBER})
    same = {id(value) for value in recording.values}
    made = [call for call in changed.calls if any(id(value) not in same for value in call.outputs)]
    return len(made) - (len(changed.calls) - len(recording.calls))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(PLACES), default=list(PLACES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="one round: is it alive?")
    parser.add_argument("--no-nnsight", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    rounds = 1 if given.quick else given.rounds
    nnsight = not given.no_nnsight and importlib.util.find_spec("nnsight") is not None
    if given.child:
        print(json.dumps(measured(given.child, rounds, nnsight)))
        return
    rows = []
    for name in given.models:
        print(f"{TITLES[name]} …", file=sys.stderr)
        if given.quick:
            found = measured(name, 1, nnsight)
        else:
            extra = ["--no-nnsight"] if given.no_nnsight else []
            found = in_new_process(__file__, "--rounds", str(rounds), *extra, "--child", name)
        for place, taken in found.items():
            for which, title in {"plain": "plain forward pass", **VARIANTS}.items():
                if which in taken:
                    rows.append(
                        [
                            f"{TITLES[name]}: {place}" if which == "plain" else "",
                            title,
                            milliseconds(taken[which]),
                            times(taken[which] / taken["plain"]),
                            times(taken[which] / taken["hook"]),
                            f"{taken['again']} / {taken['calls']}" if which == "replay" else "",
                        ]
                    )
    table(["edit", "variant", "ms", "÷ plain", "÷ hook", "calls run again"], rows, words=2)
    if not nnsight:
        print("nnsight is not installed here: not measured", file=sys.stderr)


if __name__ == "__main__":
    main()
