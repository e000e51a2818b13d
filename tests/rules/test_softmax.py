"""Softmax, its logarithm and their gradients against PyTorch."""

from __future__ import annotations

import math

import pytest
import torch
from tests.rules.harness import audit, gradients

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SHAPES = [
    ((3, 5), (0, 1)),
    ((2, 33, 4), (0, 1, -1)),
    ((7, 300), (0, 1)),
    ((), (0,)),
    ((4, 0), (1,)),
    ((70, 2), (0,)),
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("function", [torch.softmax, torch.log_softmax], ids=["softmax", "log_softmax"])
def test_softmax(dtype: torch.dtype, function: object) -> None:
    generator = torch.Generator().manual_seed(4)
    for shape, dims in SHAPES:
        for scale in (1, 20):
            x = (torch.randn(shape, generator=generator) * scale).to(dtype)
            for dim in dims:
                audit(gradients(lambda y, d=dim: function(y, d), x), covers=(), singles=1)  # type: ignore[operator]
    x = torch.randn(6, 5, generator=generator).to(dtype).t()
    audit(lambda: function(x, 0))  # type: ignore[operator]
    if dtype != torch.float64:
        audit(lambda: function(x, 1, dtype=torch.float64))  # type: ignore[operator]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_masked_rows(dtype: torch.dtype) -> None:
    x = torch.randn(4, 6).to(dtype)
    x[:, :2] = -math.inf
    x[0] = -math.inf
    for dim in (0, 1):
        audit(lambda d=dim: torch.ops.aten._safe_softmax(x, d), covers="_safe_softmax")
        audit(lambda d=dim: (torch.softmax(x, d), torch.log_softmax(x, d)))
    x[2, 3] = math.nan
    audit(lambda: torch.softmax(x, 1))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_masked_softmax(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(2, 3, 8, 8, generator=generator).to(dtype)
    for kind, shape in ((0, (8, 8)), (1, (2, 8)), (2, (2, 3, 8, 8))):
        mask = torch.rand(shape, generator=generator) > 0.5
        audit(lambda m=mask, k=kind: torch._masked_softmax(x, m, 3, k), covers="_masked_softmax")
    audit(gradients(lambda y: torch._masked_softmax(y, mask, 3, 2), x), covers="_masked_softmax_backward")
    audit(lambda: torch._masked_softmax(x, torch.ones(2, 3, 8, 8, dtype=torch.bool), 3, 2))
