"""How long one explanation takes, by how many numbers it is made of.

    python benchmarks/explain.py [--quick]

Each line explains other addresses of one recording, after the first; the first one builds the names of the
recording, and is shown apart.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import islice, product
from typing import Any

import torch
from lib.measure import milliseconds, table
from torch import Tensor, nn

import openheart as oh


def linear(fan_in: int) -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(fan_in, 32)), torch.randn(8, fan_in)


def conv() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Conv2d(512, 16, 3, padding=1)), torch.randn(1, 512, 7, 7)


CASES: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "linear, fan-in 10": lambda: linear(10),
    "linear, fan-in 1,000": lambda: linear(1000),
    "linear, fan-in 4,608": lambda: linear(4608),
    "conv 512×3×3, fan-in 4,608": conv,
}


def median(work: Callable[[Any], object], items: list[Any]) -> float:
    taken = []
    for item in items:
        start = time.perf_counter()
        work(item)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few addresses: is it alive?")
    many = 3 if parser.parse_args().quick else 60
    torch.set_num_threads(1)
    rows = []
    for title, build in CASES.items():
        torch.manual_seed(0)
        rec = oh.record(*build())
        shape = rec.value("0.out").shape
        inside = [range(1, n - 1) if n == 7 else range(n) for n in shape]  # all of a kernel's taps
        places = islice(product(*inside), many + 1)
        addresses = [f"0.out[{','.join(map(str, at))}]" for at in places]
        start = time.perf_counter()
        rec.explain(addresses.pop(0)).text()
        first = time.perf_counter() - start
        one = median(rec.explain, addresses)
        explanations = [rec.explain(a) for a in addresses]
        terms = median(lambda e: e.terms[0], explanations)
        text = median(lambda e: e.text(), explanations)
        rows.append([title, *map(milliseconds, (one, terms, text, first))])
    table(["one number, median ms", "explain", "+ .terms", "+ .text()", "the first"], rows)


if __name__ == "__main__":
    main()
