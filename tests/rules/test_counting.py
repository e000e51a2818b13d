"""Counts against PyTorch: in how many numbers fall into a bin, and how rounding may move one to the next."""

from __future__ import annotations

import pytest
import torch
from tests.rules.harness import audit

from openheart.check import check
from openheart.record import recording


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_how_many_numbers_fall_into_each_bin(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1000, generator=generator)
    x[:3] = torch.tensor([torch.nan, torch.inf, -torch.inf])
    finite = x[3:].to(dtype)
    whole = torch.randint(0, 10, (3000,), generator=generator).to(dtype)
    for bins, low, high in [(7, -1, 1), (20, -0.3, 2.7), (1, 0, 1)]:
        audit(lambda b=bins, lo=low, hi=high: torch.histc(x.to(dtype), b, lo, hi), covers="histc")
    for given in (finite, finite.reshape(-1, 1).t(), torch.full((5,), 2.0).to(dtype), finite[:0]):
        audit(lambda g=given: torch.histc(g, 20), covers="histc")
    audit(lambda: torch.histc(whole, 10, 0, 9), covers="histc")  # as experts are counted: none is in doubt
    audit(lambda: torch.histc(whole, 10, 0, 10), covers="histc")
    out = torch.zeros(7).to(dtype)
    audit(lambda: torch.histc(whole, 7, 0, 10, out=out), covers="histc.out")


def test_a_number_that_lies_on_an_edge_may_be_counted_on_either_side() -> None:
    x = torch.linspace(0, 1, 11)
    with recording() as rec:
        torch.histc(x, 10, 0, 1)
    held = check(rec.calls[0])
    assert held is not None
    assert held.agrees.all()
    assert held.bound.max() >= 1
    with recording() as rec:
        torch.histc(torch.arange(8.0), 8, 0, 7)
    sure = check(rec.calls[0])
    assert sure is not None
    assert sure.exact.all()
    assert sure.bound.max() == 0
