"""The losses and their gradients against PyTorch, in every reduction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.rules.harness import audit, gradients
from torch.nn import functional as F

import openheart as oh

FLOATS = [torch.float32, torch.float64, torch.bfloat16]
REDUCTIONS = ["none", "mean", "sum"]
Loss = Callable[..., torch.Tensor]
SHAPES = [(50,), (4, 33), (2, 3, 4), (), (3, 1)]


def both_ways(loss: Loss, x: torch.Tensor, covers: Any = ()) -> None:
    audit(
        gradients(loss, x), covers=covers, skips=["randn_like", "empty_like", "new_empty_strided"], singles=1
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_regression(dtype: torch.dtype, reduction: str) -> None:
    for shape in SHAPES:
        x, y = (torch.randn(shape).to(dtype) * 2 for _ in range(2))
        both_ways(lambda a, y=y: F.mse_loss(a, y, reduction=reduction), x, ["mse_loss", "mse_loss_backward"])
        both_ways(lambda a, y=y: F.l1_loss(a, y, reduction=reduction), x)
        for width in (1.0, 0.3, 0.0):
            both_ways(lambda a, y=y, w=width: F.smooth_l1_loss(a, y, reduction=reduction, beta=w), x)
        for width in (1.0, 0.3):
            both_ways(
                lambda a, y=y, w=width: F.huber_loss(a, y, reduction=reduction, delta=w),
                x,
                ["huber_loss", "huber_loss_backward"],
            )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_two_classes(dtype: torch.dtype, reduction: str) -> None:
    for shape in SHAPES:
        x, y, w = (torch.randn(shape).to(dtype), torch.rand(shape).to(dtype), torch.rand(shape).to(dtype))
        p = torch.sigmoid(x)
        for weight in (None, w):
            both_ways(
                lambda a, y=y, w=weight: F.binary_cross_entropy(a, y, w, reduction=reduction),
                p,
                ["binary_cross_entropy", "binary_cross_entropy_backward"],
            )
            for positive in (None, w):
                both_ways(
                    lambda a, y=y, w=weight, q=positive: F.binary_cross_entropy_with_logits(
                        a, y, w, reduction=reduction, pos_weight=q
                    ),
                    x,
                    "binary_cross_entropy_with_logits",
                )
        certain = (y > 0.4).to(dtype)
        both_ways(lambda a, t=1 - certain: F.binary_cross_entropy(a, t, reduction=reduction), certain)
        sides = certain * 2 - 1
        both_ways(
            lambda a, t=sides: F.soft_margin_loss(a, t, reduction=reduction),
            x,
            ["soft_margin_loss", "soft_margin_loss_backward"],
        )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_many_classes(dtype: torch.dtype, reduction: str) -> None:
    shapes = [
        ((7, 5), (7,)),
        ((5,), ()),
        ((3, 5, 4, 6), (3, 4, 6)),
        ((3, 5, 4), (3, 4)),
        ((130, 11), (130,)),
        ((0, 5), (0,)),
    ]
    for shape, places in shapes:
        x, y = torch.randn(shape).to(dtype), torch.randint(0, 5, places)
        classes = shape[1] if len(shape) > 1 else 5
        for weight in (None, torch.rand(classes).to(dtype) + 0.1):
            for ignored in (-100, 2):
                both_ways(
                    lambda a, y=y, w=weight, i=ignored: F.nll_loss(
                        a, y, w, ignore_index=i, reduction=reduction
                    ),
                    x,
                )
            both_ways(lambda a, y=y, w=weight: F.cross_entropy(a, y, w, reduction=reduction), x)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", FLOATS[:2], ids=str)
def test_margins(dtype: torch.dtype, reduction: str) -> None:
    for shape, places in (((7, 5), (7,)), ((5,), ())):
        x, y = torch.randn(shape).to(dtype), torch.randint(0, 5, places)
        for weight in (None, torch.rand(5).to(dtype)):
            for p, margin in ((1, 1.0), (2, 0.4)):
                both_ways(
                    lambda a, y=y, w=weight, p=p, m=margin: F.multi_margin_loss(
                        a, y, p, m, w, reduction=reduction
                    ),
                    x,
                    ["multi_margin_loss", "multi_margin_loss_backward"],
                )
    listed = torch.full((4, 6), -1)
    listed[0, :3] = torch.tensor([3, 1, 5])
    listed[2] = torch.arange(6)
    listed[3, 0] = 2
    for target in (listed, listed[0]):
        both_ways(
            lambda a, t=target: F.multilabel_margin_loss(a, t, reduction=reduction),
            torch.randn(target.shape).to(dtype),
            ["multilabel_margin_loss_forward", "multilabel_margin_loss_backward"],
        )


def test_an_ignored_target_may_lie_outside() -> None:
    y = torch.tensor([1, -100, 2, -100])
    both_ways(lambda a: F.cross_entropy(a, y), torch.randn(4, 3), ["nll_loss_forward", "nll_loss_backward"])


@pytest.mark.parametrize("listed", [0, -1])
def test_a_single_number_is_a_row_of_one_class(listed: int) -> None:
    x, target = torch.tensor(1.5, requires_grad=True), torch.tensor(listed)
    with oh.recording() as rec:
        F.multilabel_margin_loss(x, target).backward()
    audit_ = rec.verify()
    assert audit_.ok and audit_.not_checked == audit_.opaque == 0
    assert rec.explain("multilabel_margin_loss_forward.out").value == 0.0
    assert x.grad is not None and x.grad.item() == 0.0
