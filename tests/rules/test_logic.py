"""Comparisons, logic, bits, choices and copies against PyTorch."""

from __future__ import annotations

import pytest
import torch
from tests.rules.harness import audit

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_choices(dtype: torch.dtype) -> None:
    a = torch.arange(12).reshape(3, 4).to(dtype)
    b = torch.arange(4).to(dtype)
    chosen = torch.arange(12).reshape(3, 4) % 3 == 0
    audit(lambda: (torch.where(chosen, a, b), torch.where(chosen, a, 2), torch.where(chosen, 0.3, a)))
    audit(lambda: (a.masked_fill(chosen, 3), a.clone().masked_fill_(chosen[:1], 1)))
    audit(lambda: a.masked_fill(chosen, torch.tensor(1).to(dtype)), covers="masked_fill.Tensor")
    audit(lambda: (a.clone().fill_(2), a.clone().fill_(b[1]), a.clone().zero_()))
    audit(lambda: (~(a > 1), torch.logical_not(a)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("target", DTYPES, ids=str)
def test_conversions(dtype: torch.dtype, target: torch.dtype) -> None:
    a = (torch.tensor([0.0, 0.1, 2.7, 99.9, 1.0]) * 1.01).to(dtype)
    audit(lambda: (a.to(target), torch.zeros(5, dtype=target).copy_(a)))


def test_a_scalar_is_compared_in_the_format_of_the_tensor() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        tie = torch.tensor([0.1, 0.3, 0.7]).to(dtype)
        seen = audit(lambda tie=tie: (tie == 0.1, tie < 0.1, tie >= 0.3, torch.threshold(tie, 0.3, -1.0)))
        assert seen.exact == seen.scalars


def test_frexp() -> None:
    audit(torch.frexp, torch.tensor([0.0, 1.0, -3.7, 1e10, 1e-30]))
