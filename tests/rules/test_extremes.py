"""Hard values: no law may crash an audit or an explanation, and none may accuse PyTorch of what is right.

A slice of the sweep of `extremes.py`, and by name each call that once failed.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.rules.extremes import HOWS, entries, faults, recorded, runs

from openheart.check import check, judge, spared
from openheart.formula.precision import FLOAT32
from openheart.record import recording

SLICE = 4
"""So many operators of each dtype, drawn anew when PyTorch's list changes."""
OWN = {"gcd", "empty_like", "mode"}
"""PyTorch is wrong or free there: gcd of the smallest integer is negative, the mode of NaNs any of them."""
EMPTY = torch.zeros(0, dtype=torch.long)
LARGEST = torch.finfo(torch.float32).max


def drawn() -> list[tuple[str, str, str]]:
    chooser = random.Random(7)
    found: list[tuple[str, str, str]] = []
    for dtype in ("float32", "bfloat16", "complex64", "int64"):
        found += [(e, dtype, chooser.choice(HOWS)) for e in chooser.sample(entries(dtype), SLICE)]
    return found


@pytest.mark.filterwarnings("ignore")
def test_a_slice_of_pytorchs_own_samples() -> None:
    seen = 0
    for entry, dtype, how in drawn():
        for run in runs(entry, dtype, how, samples=1, seed=0):
            made = recorded(run)
            if made is not None:
                seen += len(made.calls)
                wrong = [fault for fault in faults(made) if fault.split(" ")[0] not in OWN]
                assert not wrong, (entry, dtype, how, wrong)
    assert seen > SLICE


def x(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    torch.manual_seed(len(shape))
    return torch.randn(*shape, dtype=dtype).requires_grad_()


def above(a: torch.Tensor, least: float) -> torch.Tensor:
    return a[a > least]


def none(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.long)


CALLS: dict[str, Callable[[], Any]] = {
    "reflection padding": lambda: F.pad(x(1, 2, 6), (2, 3), mode="reflect"),
    "a mask": lambda: above(x(3, 4), 0),
    "a mask of rows": lambda: x(5, 4)[x(5, 4).sum(1) > 0],
    "masked_select": lambda: x(10).masked_select(x(10) > 0),
    "masked_scatter": lambda: x(5).masked_scatter(torch.tensor([True, False, True, False, True]), x(5)),
    "stft": lambda: torch.stft(x(64), 16, return_complex=True, window=torch.ones(16)).abs(),
    "an empty mask": lambda: above(-x(5).abs(), 0),
    "take of nothing": lambda: torch.take(x(3, 2), EMPTY),
    "put of nothing": lambda: torch.put(x(3, 2), EMPTY, torch.zeros(0)),
    "gather of nothing, of another rank": lambda: torch.gather(x(3), 0, none(2, 0)),
    "scatter of nothing, of another rank": lambda: torch.scatter(x(3), 0, none(2, 0), x(2, 0)),
    "index_copy": lambda: x(5, 2).index_copy(0, torch.tensor([1, 3]), x(2, 2)),
    "topk": lambda: x(5).topk(2)[0],
    "median": lambda: x(5).median(0)[0],
    "embedding_bag max": lambda: F.embedding_bag(EMPTY, x(5, 3), torch.tensor([0]), mode="max"),
    "multi_margin_loss of one": lambda: F.multi_margin_loss(x(3), torch.tensor(1)),
    "multi_margin_loss of nothing": lambda: F.multi_margin_loss(x(0, 3), EMPTY),
    "mean of nothing": lambda: x(0).mean(),
    "means of nothing": lambda: x(3, 0).mean(1),
    "mse of nothing": lambda: F.mse_loss(x(0), torch.zeros(0)),
    "variance of nothing": lambda: torch.var(x(0), correction=-5),
    "deviation of nothing": lambda: torch.std(x(0), correction=-1),
    "unfold of one number": lambda: x(1)[0].unfold(0, 1, 1),
    "complex logsumexp": lambda: x(4, dtype=torch.complex64).detach().logsumexp(0),
    "complex to integer": lambda: torch.tensor([1.5 + 2j]).to(torch.int64),
    "addbmm of integers": lambda: torch.addbmm(none(3, 3), none(2, 3, 3) + 2, none(2, 3, 3) + 3),
    "the least of many truths": lambda: torch.tensor([True, False] * 10).amin(),
    "bfloat16 meshgrid": lambda: torch.meshgrid(x(3).bfloat16(), x(4).bfloat16(), indexing="ij"),
    "bfloat16 split": lambda: torch.split(x(7).bfloat16(), 2),
    "overflow on the way": lambda: torch.tensor([[LARGEST, LARGEST]]) @ torch.tensor([[1.0, 2], [2, -2]]),
    "underflow on the way": lambda: F.layer_norm(torch.tensor([1e-30, 2e-30, 4e-30]), (3,), eps=0.0),
}


@pytest.mark.parametrize("name", CALLS)
def test_it_is_recorded_audited_and_explained(name: str) -> None:
    def run() -> Any:
        made = CALLS[name]()
        parts = made if isinstance(made, (tuple, list)) else [made]
        if parts[0].requires_grad:
            sum(part.sum() for part in parts).backward()
        return made

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = recorded(run)
    assert made is not None
    assert list(faults(made)) == []


@pytest.mark.parametrize(
    ("run", "right"),
    [
        (lambda: torch.zeros(3, 0).mean(1), math.nan),
        (lambda: torch.zeros(0).sum(), 0.0),
        (lambda: torch.zeros(0).prod(), 1.0),
        (lambda: torch.zeros(0).var(correction=-5), math.nan),
        (lambda: above(torch.tensor([1.0, 2.0, 0.0, 3.0]), 1), 2.0),
        (lambda: F.pad(torch.tensor([[1.0, 2, 3]]), (2, 1), mode="reflect"), 3.0),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_right_number(run: Callable[[], torch.Tensor], right: float) -> None:
    with recording() as made:
        result = run()
    value = made.calls[-1].outputs[0]
    told = made.explain(f"{made.name(value)}[{','.join('0' * result.ndim)}]")
    assert told.value == told.computed == right or (math.isnan(right) and math.isnan(told.computed))
    assert told.verdict == "exact"


def test_what_overflows_on_its_way_is_unbounded() -> None:
    with recording() as made:
        result = CALLS["overflow on the way"]()
    assert result.isnan().any() or result.isinf().any()
    audit = made.verify()
    assert audit.disagree == 0
    assert audit.scalars == audit.exact + audit.within + audit.unbounded


@pytest.mark.parametrize(("name", "number"), [("mul", math.inf), ("sub", math.nan)])
def test_an_infinity_that_nothing_explains_disagrees(name: str, number: float) -> None:
    """Only what may overflow, underflow or hang on a rounding is spared."""
    with recording() as made:
        torch.tensor([1.0, 2.0]) * 3 - 4
    (call,) = [call for call in made.calls if call.name == name]
    right = check(call)
    assert right is not None
    assert np.all(right.exact)
    accused = judge(right.law, np.array([number, 1.0]), right.computed, 0.0, FLOAT32)
    assert not spared(call, accused).agrees[0]
