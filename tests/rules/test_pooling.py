"""Poolings, sliding blocks and their gradients, against PyTorch."""

import math

import pytest
import torch
from tests.rules.harness import audit, gradients
from torch.nn import functional as F

FULL = [torch.float32, torch.float64]
HALF = [torch.bfloat16, torch.float16]
LAST = torch.channels_last


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(2)


def ties(*shape):
    """Few different numbers, so that windows hold equal maxima."""
    return torch.randint(-2, 3, shape).float()


def edges(*shape):
    """NaN and infinities among them."""
    x = ties(*shape)
    x.view(-1)[::5] = math.nan
    x.view(-1)[1::7] = -math.inf
    return x


def lowest(*shape):
    return torch.full(shape, -math.inf)


MAXIMA = [
    ("max_pool2d_with_indices", F.max_pool1d, (2, 4, 11), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("max_pool2d_with_indices", F.max_pool2d, (2, 4, 11, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    (
        "max_pool2d_with_indices",
        F.max_pool2d,
        (2, 4, 11, 8),
        {"kernel_size": (2, 3), "stride": (1, 2), "padding": (1, 0), "dilation": (2, 1), "ceil_mode": True},
    ),
    ("max_pool2d_with_indices", F.max_pool2d, (4, 11, 8), {"kernel_size": 2}),
    ("max_pool3d_with_indices", F.max_pool3d, (2, 2, 6, 7, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("adaptive_max_pool2d", F.adaptive_max_pool2d, (2, 4, 11, 8), {"output_size": (3, 5)}),
    ("adaptive_max_pool3d", F.adaptive_max_pool3d, (2, 2, 5, 6, 4), {"output_size": (3, 5, 2)}),
]


@pytest.mark.parametrize("dtype", FULL + HALF)
@pytest.mark.parametrize("make", [torch.randn, ties, edges, lowest])
@pytest.mark.parametrize(("operator", "function", "shape", "options"), MAXIMA)
def test_max_pooling(operator, function, shape, options, make, dtype):
    x = make(*shape).to(dtype)
    audit(gradients(lambda a: function(a, **options), x), covers=(operator, f"{operator}_backward"))


@pytest.mark.parametrize("make", [ties, edges])
def test_max_pooling_where_channels_lie_last(make):
    x = make(2, 4, 11, 8).to(memory_format=LAST)
    audit(gradients(lambda a: F.max_pool2d(a, 3, 1, 1), x), covers="max_pool2d_with_indices_backward")
    audit(gradients(lambda a: F.adaptive_max_pool2d(a, (3, 5)), x), covers="adaptive_max_pool2d_backward")


def test_max_pooling_of_integers():
    audit(lambda: F.max_pool2d(torch.randint(-9, 9, (2, 3, 6, 6)), 3, 2, 1), covers="max_pool2d_with_indices")


AVERAGES = [
    ("avg_pool2d", F.avg_pool1d, (2, 4, 11), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ("avg_pool2d", F.avg_pool2d, (2, 4, 11, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    (
        "avg_pool2d",
        F.avg_pool2d,
        (2, 4, 11, 8),
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
    ),
    (
        "avg_pool2d",
        F.avg_pool2d,
        (2, 4, 12, 8),
        {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    ),
    ("avg_pool2d", F.avg_pool2d, (4, 11, 8), {"kernel_size": (3, 2), "divisor_override": 5}),
    (
        "avg_pool3d",
        F.avg_pool3d,
        (2, 4, 5, 6, 7),
        {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
    ),
    ("avg_pool3d", F.avg_pool3d, (2, 4, 5, 6, 7), {"kernel_size": 2, "padding": 1, "ceil_mode": True}),
    ("_adaptive_avg_pool2d", F.adaptive_avg_pool1d, (2, 4, 11), {"output_size": 3}),
    ("_adaptive_avg_pool2d", F.adaptive_avg_pool2d, (2, 4, 11, 8), {"output_size": (3, 4)}),
    ("_adaptive_avg_pool2d", F.adaptive_avg_pool2d, (2, 4, 11, 8), {"output_size": (13, 4)}),
    ("_adaptive_avg_pool3d", F.adaptive_avg_pool3d, (2, 4, 5, 4, 6), {"output_size": (3, 2, 5)}),
]


@pytest.mark.parametrize("dtype", FULL + HALF)
@pytest.mark.parametrize(("operator", "function", "shape", "options"), AVERAGES)
def test_average_pooling(operator, function, shape, options, dtype):
    if operator == "avg_pool3d" and dtype in HALF:
        pytest.skip("PyTorch has no half-precision avg_pool3d on the CPU")
    x = torch.randn(shape).to(dtype)
    audit(gradients(lambda a: function(a, **options), x), covers=(operator, f"{operator}_backward"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_average_pooling_where_channels_lie_last(dtype):
    x = torch.randn(2, 4, 12, 8).to(dtype).to(memory_format=LAST)
    audit(gradients(lambda a: F.avg_pool2d(a, 3, 1, 1), x), covers="avg_pool2d_backward")
    audit(gradients(lambda a: F.adaptive_avg_pool2d(a, (5, 3)), x), covers="_adaptive_avg_pool2d_backward")


@pytest.mark.parametrize("dtype", FULL + HALF)
def test_blocks_and_columns(dtype):
    def columns(a):
        return F.unfold(a, (2, 3), dilation=2, padding=1, stride=2)

    audit(gradients(columns, torch.randn(2, 3, 9, 8).to(dtype)), covers=("im2col", "col2im"))
    audit(gradients(lambda a: F.unfold(a, 3), torch.randn(3, 9, 8).to(dtype)), covers="im2col")
    x = torch.randn(2, 27, 72).to(dtype)
    audit(gradients(lambda a: F.fold(a, (9, 8), 3, padding=1), x), covers=("im2col", "col2im"))


def test_unpooling_puts_the_maxima_back():
    def there_and_back(a, step):
        pooled, indices = F.max_pool2d(a, 2, stride=step, return_indices=True)
        return F.max_unpool2d(pooled, indices, 2, stride=step, output_size=a.shape)

    for step in (2, 1):
        audit(lambda step=step: there_and_back(torch.randn(2, 3, 8, 6), step), covers="max_unpool2d")
    x = torch.randn(1, 2, 4, 4, 6)
    audit(lambda: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2), covers="max_unpool3d")
