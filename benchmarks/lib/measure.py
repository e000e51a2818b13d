"""Time and memory of a piece of work; markdown tables."""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def seconds(work: Callable[[], object], repeats: int = 1) -> float:
    """CPU seconds of one call, averaged over `repeats`: a busy machine stretches wall time, hardly this."""
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def interleaved(
    works: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 1, limit: float = 120.0
) -> dict[str, float]:
    """Median CPU seconds of each work, taken in turns after a warm-up, for `limit` seconds at most."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    start = time.monotonic()
    for turn in range(rounds):
        if turn and time.monotonic() - start > limit:
            break
        for name, work in works.items():
            gc.collect()
            taken[name].append(seconds(work, repeats))
    return {name: statistics.median(times) for name, times in taken.items()}


def peak_memory() -> int:
    """The most bytes that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_new_process(script: str, *arguments: str, **environment: str) -> Any:
    """The JSON that `script arguments` prints last, run by a process of its own."""
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)} ended with code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], words: int = 1) -> None:
    """Print a markdown table; its first `words` columns are text, the others are numbers."""
    cells = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        padded = [
            c.ljust(w) if n < words else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if n < words else "-" * (w - 1) + ":" for n, w in enumerate(widths)]
    print("\n".join([line(cells[0]), line(rule), *map(line, cells[1:])]), flush=True)


def milliseconds(time_: float | None) -> str:
    """A time for a table, three digits."""
    if time_ is None:
        return "–"
    ms = time_ * 1e3
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:,.0f}"


def times(ratio: float | None) -> str:
    """A ratio for a table, three digits."""
    if ratio is None:
        return "–"
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"
