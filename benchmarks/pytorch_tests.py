"""PyTorch's own tests as runs to record: what is whole, what is not, and what should not be.

    python benchmarks/pytorch_tests.py                             # everything: hours on one core
    python benchmarks/pytorch_tests.py --slice 3/20 --seed 7       # a twentieth of it, drawn with a seed
    python benchmarks/pytorch_tests.py --only "^op norm" --dtypes complex64 bfloat16 --samples 6 -v
    python benchmarks/pytorch_tests.py --only "^(module|optim)" --dtypes float32 --json found.jsonl

Every entry of `op_db`, `module_db` and `optim_db` in each number type that it has on the CPU, forward and
backward where it has one (and in place for its first sample): `--samples` samples, the first one and others
drawn with `--seed`. Each is run twice without a recording and once with one; what differs between the first
two is not compared. Then the recording is audited and one number of each call's outputs explained.

The table counts entries: **whole** (nothing of what follows), **opaque** (an operator without a law),
**not checked** (or unbounded), **disagree**, **raised** (by the recording, the audit or an explanation),
**bits differ** (an output, gradient, parameter or state is not, bit for bit, that of the run without a
recording, and the recording does not say so), **said** (they differ and it says so), **failed** (the entry
fails without us as well, took too long, or took the process with it). An entry may be counted in several
columns. Below the table stands what was found, the same thing in many entries once.

Entries run in a process of their own, `--jobs` at once, that is started anew when one of them aborts it,
takes longer than `--limit` seconds, or when it holds more than `--memory` MiB. `-v` prints every finding as
it is found.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import random
import re
import resource
import select
import subprocess
import sys
import threading
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

COLUMNS = ("whole", "opaque", "not checked", "disagree", "raised", "bits differ", "said", "failed")
ANNOUNCED = ("recording.notice.compiled",)
"""The notices by which a recording says that without it other bits may have come out."""
Finding = tuple[str, str, str]
"""Column, what (the same for all entries that it befalls), where."""


# -- in a worker -----------------------------------------------------------------------------------


def tried(name: str, dtype: str, samples: int, seed: int) -> list[Finding]:
    """What an entry's runs show; nothing when all of it is whole."""
    from lib.entries import runs

    found: list[Finding] = []
    try:
        for run in runs(name, dtype, samples, seed):
            found += _one(run, seed)
    except Exception as error:  # noqa: BLE001
        found.append(("failed", _said(error), "samples"))
    return list(dict.fromkeys(found))


def _one(run: Any, seed: int) -> Iterator[Finding]:
    import openheart as oh

    try:
        first, second = _made(run, seed, None), _made(run, seed, None)
    except Exception as error:  # noqa: BLE001
        if run.title != "in place":  # a result of another type does not fit into its input
            yield "failed", _said(error), run.title
        return
    kept: list[Any] = []

    def recorded(model: Any, work: Callable[[], Any]) -> Any:
        with oh.recording(model) as rec:
            made = work()
        kept.append(rec)
        return made

    try:
        third = _made(run, seed, recorded)
        rec = kept[0]
        calls = list(rec.calls)
    except Exception as error:  # noqa: BLE001
        yield "raised", f"recording: {_said(error)}", run.title
        return
    for n, (a, b, c) in enumerate(zip(first, second, third, strict=True)):
        if a == b and a != c:
            said = [notice.key for notice in rec.notices if notice.key in ANNOUNCED]
            where = f"{run.title}: tensor {n} of the results, {c[0]}"
            yield ("said", "; ".join(said), where) if said else ("bits differ", "", where)
            break
    yield from _audited(rec, run.title)
    yield from _explained(rec, calls, run.title)


def _made(run: Any, seed: int, how: Callable[[Any, Callable[[], Any]], Any] | None) -> list[tuple[str, Any]]:
    from lib.entries import sow, tensors

    sow(seed)
    model, work = run.make()
    sow(seed + 1)
    made = work() if how is None else how(model, work)
    return [_bits(x) for x in tensors(made)]


def _bits(x: Any) -> tuple[str, Any]:
    """A tensor's kind and its bytes; every NaN is the same one."""
    import torch

    kind = f"{x.dtype} {tuple(x.shape)} {x.layout}"
    x = x.detach()
    if x.layout != torch.strided:
        return kind, tuple(_bits(part) for part in _parts(x))
    try:
        x = x.resolve_conj().resolve_neg().contiguous()
        x = torch.view_as_real(x) if x.is_complex() else x
        x = torch.where(x.isnan(), torch.nan, x).to(x.dtype) if x.is_floating_point() else x
        return kind, bytes(x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    except (RuntimeError, TypeError, NotImplementedError):
        return kind, None


def _parts(x: Any) -> list[Any]:
    import torch

    if x.layout == torch.sparse_coo:
        return [x._indices(), x._values()]
    if x.layout == torch.jagged:
        return [x.values()]
    names = ("crow_indices", "col_indices", "ccol_indices", "row_indices")
    return [getattr(x, n)() for n in names if _has(x, n)] + [x.values()]


def _has(x: Any, name: str) -> bool:
    try:
        getattr(x, name)()
    except (RuntimeError, AttributeError):
        return False
    return True


def _audited(rec: Any, title: str) -> Iterator[Finding]:
    try:
        audit = rec.verify()
    except Exception as error:  # noqa: BLE001
        yield "raised", f"verify: {_said(error)}", title
        return
    for operator in audit.opaque_operators:
        yield "opaque", operator, title
    for operator, tally in audit.by_operator.items():
        if getattr(tally, "not_checked", 0) or getattr(tally, "unbounded", 0):
            yield "not checked", operator, title
        if tally.disagree:
            yield "disagree", operator, f"{title}: {_worst(audit, operator)}"


def _worst(audit: Any, operator: str) -> str:
    of = [d for d in audit.disagreements if d.operator == operator.split(".")[1]]
    if not of:
        return ""
    d = of[0]
    error = abs(complex(d.recorded) - complex(d.computed))
    ratio = f"{error / d.bound:.3g}" if d.bound else "∞"
    return f"{len(of)} at {d.address}: recorded {d.recorded}, computed {d.computed}, error ÷ bound {ratio}"


def _explained(rec: Any, calls: list[Any], title: str) -> Iterator[Finding]:
    """One number of each output of each call, explained and printed."""
    from openheart.recording import Element

    chooser = random.Random(3)
    for call in calls:
        for value in call.outputs:
            if 0 in value.shape or not value.kept:
                continue
            at = tuple(chooser.randrange(size) for size in value.shape)
            try:
                rec.explain(rec.address(Element(value, at))).text()
            except Exception as error:  # noqa: BLE001
                yield "raised", f"explain: {_said(error)}", f"{title}: {call.op} at {at}"


def _said(error: BaseException) -> str:
    """An exception in one line, and the last line of ours that it went through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/openheart/" in f.filename]
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {re.sub(r'0x[0-9a-f]+', '0x…', words[0])[:150] if words else ''}{where}"


def work(samples: int, seed: int) -> None:
    """Answer one JSON line for each that comes in; what PyTorch prints goes nowhere."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    for line in sys.stdin:
        name, dtype = json.loads(line)
        found = tried(name, dtype, samples, seed)
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        answers.write(json.dumps([found, held]) + "\n")


# -- around the workers ----------------------------------------------------------------------------


class Worker:
    """A process that tries one entry after another."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.process: subprocess.Popen[str] | None = None

    def ask(self, name: str, dtype: str) -> list[Finding]:
        if self.process is None:
            command = [sys.executable, __file__, "--worker", "--samples", str(self.given.samples)]
            command += ["--seed", str(self.given.seed)]
            env = {**os.environ, "OMP_NUM_THREADS": "1"}
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env)
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([name, dtype]) + "\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], self.given.limit)
        line = process.stdout.readline() if ready else ""
        if not line:
            self.close()
            what = "took the process with it" if ready else f"took longer than {self.given.limit:g} s"
            return [("failed", f"{what} ({process.returncode})" if ready else what, "")]
        found, held = json.loads(line)
        if held > self.given.memory:
            self.close()
        return [(column, what, where) for column, what, where in found]

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def all_tried(given: argparse.Namespace, todo: list[tuple[str, str]]) -> dict[tuple[str, str], list[Finding]]:
    """The findings of every entry, by `--jobs` workers."""
    waiting: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    for entry in todo:
        waiting.put(entry)
    done: dict[tuple[str, str], list[Finding]] = {}
    file = Path(given.json or os.devnull).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115
    lock = threading.Lock()

    def serve() -> None:
        worker = Worker(given)
        while True:
            try:
                entry = waiting.get_nowait()
            except queue.Empty:
                break
            found = worker.ask(*entry)
            with lock:
                done[entry] = found
                file.write(json.dumps([*entry, found], ensure_ascii=False) + "\n")
                if given.verbose:
                    for column, what, where in found:
                        print(
                            f"{entry[0]} {entry[1]}: {column}: {what} [{where}]", file=sys.stderr, flush=True
                        )
                elif len(done) % 50 == 0:
                    print(f"{len(done)} of {len(todo)} …", file=sys.stderr, flush=True)
        worker.close()

    threads = [threading.Thread(target=serve) for _ in range(given.jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file.close()
    return done


def printed(done: dict[tuple[str, str], list[Finding]]) -> None:
    """One table for the docs, then what was found, the most frequent first."""
    from lib.entries import DTYPES
    from lib.measure import table

    rows = []
    for kind in ("op", "module", "optim"):
        for dtype in DTYPES:
            of = [found for (name, d), found in done.items() if d == dtype and name.startswith(f"{kind} ")]
            if not of:
                continue
            counts = Counter(column for found in of for column in {c for c, _, _ in found})
            counts["whole"] = sum(not found for found in of)
            rows.append([f"{kind}_db", dtype, len(of), *(counts[c] for c in COLUMNS)])
    table(["PyTorch's", "dtype", "entries", *COLUMNS], rows, words=2)
    befallen: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (name, dtype), found in sorted(done.items()):
        for (column, what), where in {(c, what): where for c, what, where in found[::-1]}.items():
            befallen[column, what].append(f"{name} {dtype} [{where}]")
    for column in COLUMNS[::-1]:
        shown = 3 if column in ("opaque", "failed") else 8
        for (c, what), places in sorted(befallen.items(), key=lambda pair: -len(pair[1])):
            if c == column:
                print(f"\n{column}: {what}: {len(places)} entries")
                print("\n".join(f"    {place}" for place in places[:shown]))


def main() -> None:
    from lib.entries import DTYPES, entries

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a regular expression that an entry's name has to match")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=DTYPES)
    parser.add_argument(
        "--slice", default="1/1", metavar="K/N", help="the K-th of N parts, drawn with the seed"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=3, help="samples of each entry (default 3)")
    parser.add_argument(
        "--limit", type=float, default=60.0, help="seconds that an entry may take (default 60)"
    )
    parser.add_argument("--memory", type=int, default=1500, help="MiB after which a worker is started anew")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="write every entry's findings there, a line each")
    parser.add_argument("-v", "--verbose", action="store_true")
    parser.add_argument("--quick", action="store_true", help="three entries: is it alive?")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.samples, given.seed)
        return
    part, parts = map(int, given.slice.split("/"))
    todo = [entry for entry in entries(tuple(given.dtypes)) if re.search(given.only, entry[0])]
    random.Random(given.seed).shuffle(todo)
    if given.quick:
        alive = ("op addmm", "module nn_Linear", "optim SGD")
        todo = [entry for entry in entries(("float32",)) if entry[0] in alive]
    printed(all_tried(given, todo[part - 1 :: parts]))


if __name__ == "__main__":
    main()
