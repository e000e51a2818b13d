"""Batch, layer and group norm, weight norm, and their gradients, against PyTorch."""

import copy

import numpy as np
import pytest
import torch
from tests.rules.harness import audit, gradients
from torch import nn
from torch.nn import functional as F

from openheart.check import check
from openheart.record import recording

PAIRS = [
    (torch.float32, torch.float32),
    (torch.float64, torch.float64),
    (torch.bfloat16, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
]
LAYOUTS = ["contiguous", "channels last", "transposed"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(4)


def sample(shape, dtype, layout="contiguous", offset=0.0):
    x = (torch.randn(shape) + offset).to(dtype)
    if layout == "channels last" and len(shape) == 4:
        return x.to(memory_format=torch.channels_last)
    return x.transpose(0, -1).contiguous().transpose(0, -1) if layout == "transposed" else x


def ready(module, dtype):
    for tensor in [*module.parameters(), *module.buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 2)
    return module.to(dtype)


def both_ways(module, x, operator):
    audit(lambda: module(x), covers=operator)
    audit(gradients(module, x), covers=(operator, f"{operator}_backward"))


@pytest.mark.parametrize(("dtype", "parameters"), PAIRS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_batch_norm(dtype, parameters, layout, offset):
    for channels in (6, 1):
        made = [
            ready(nn.BatchNorm2d(channels), parameters),
            ready(nn.BatchNorm2d(channels), parameters).eval(),
            ready(nn.BatchNorm2d(channels, affine=False), parameters),
            ready(nn.BatchNorm2d(channels, track_running_stats=False), parameters),
            ready(nn.BatchNorm2d(channels, momentum=None), parameters),
        ]
        for module in made:
            both_ways(module, sample((5, channels, 7, 4), dtype, layout, offset), "native_batch_norm")
        module = ready(nn.BatchNorm1d(channels), parameters)
        both_ways(module, sample((5, channels), dtype, layout, offset), "native_batch_norm")
        both_ways(module, sample((5, channels, 3), dtype, layout, offset), "native_batch_norm")
        module = ready(nn.BatchNorm3d(channels), parameters)
        both_ways(module, sample((2, channels, 3, 4, 2), dtype, layout, offset), "native_batch_norm")


def test_batch_norm_writes_its_running_statistics():
    module = nn.BatchNorm2d(3)
    before = copy.deepcopy(module)
    x = torch.randn(4, 3, 5, 5) * 2 + 1
    seen = audit(lambda: module(x), covers="native_batch_norm")
    written = {call.slots[n][0] for call, n, _ in seen.checks if "batch_norm" in str(call.op)}
    assert {"running_mean", "running_var"} <= written
    assert not torch.equal(module.running_var, before.running_var)


def test_inference_and_instance_norm():
    module = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    both_ways(module, torch.randn(2, 4, 5, 3), "native_batch_norm")
    both_ways(nn.InstanceNorm1d(4), torch.randn(2, 4, 6), "native_batch_norm")


def test_functional_overloads():
    x, w, b = torch.randn(4, 3, 5), torch.randn(3), torch.randn(3)
    stats = torch.zeros(3), torch.ones(3)
    aten = torch.ops.aten
    audit(
        lambda: aten._native_batch_norm_legit(x, w, b, *stats, True, 0.1, 1e-5),
        covers="_native_batch_norm_legit",
    )
    audit(
        lambda: aten._native_batch_norm_legit.no_stats(x, w, b, True, 0.1, 1e-5),
        covers="_native_batch_norm_legit.no_stats",
    )
    audit(
        lambda: aten._native_batch_norm_legit_functional(x, w, b, *stats, True, 0.1, 1e-5),
        covers="_native_batch_norm_legit_functional",
    )
    audit(
        lambda: aten._native_batch_norm_legit_no_training(x, w, b, *stats, 0.1, 1e-5),
        covers="_native_batch_norm_legit_no_training",
    )


@pytest.mark.parametrize(("dtype", "parameters"), PAIRS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_layer_norm(dtype, parameters, layout, offset):
    made = [
        nn.LayerNorm(17),
        nn.LayerNorm(17, bias=False),
        nn.LayerNorm(17, elementwise_affine=False),
        nn.LayerNorm((5, 17)),
    ]
    for module in made:
        both_ways(ready(module, parameters), sample((6, 5, 17), dtype, layout, offset), "native_layer_norm")
    both_ways(
        ready(nn.LayerNorm(300), parameters), sample((40, 300), dtype, layout, offset), "native_layer_norm"
    )


@pytest.mark.parametrize(("dtype", "parameters"), PAIRS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_group_norm(dtype, parameters, layout, offset):
    for affine in (True, False):
        module = ready(nn.GroupNorm(2, 6, affine=affine), parameters)
        for shape in ((3, 6, 7, 5), (3, 6), (3, 6, 4)):
            both_ways(module, sample(shape, dtype, layout, offset), "native_group_norm")
        module = ready(nn.GroupNorm(6, 6, affine=affine), parameters)
        both_ways(module, sample((3, 6, 4, 4), dtype, layout, offset), "native_group_norm")


def test_group_norm_where_channels_lie_last_loses_digits_and_says_so():
    # the kernel takes mean(x²) − μ² there: with a mean of 100 and a deviation of 0.1 few digits are left
    x = (torch.randn(2, 6, 9, 8) * 0.1 + 100).to(memory_format=torch.channels_last)
    with recording() as run:
        F.group_norm(x, 2)
    held = check(next(c for c in run.calls if "group_norm" in str(c.op)), 2)
    assert held.agrees.all()
    assert np.max(np.abs(held.recorded / held.computed - 1)) > 1e-3


def test_local_response_norm_and_rms_norm():
    audit(
        gradients(nn.LocalResponseNorm(3), torch.randn(2, 4, 5, 5)),
        covers=("avg_pool3d", "avg_pool3d_backward"),
    )
    audit(gradients(nn.RMSNorm(4), torch.randn(2, 4)), covers=("mean.dim", "rsqrt"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("v", "g", "dim"), [((4, 3), (4, 1), 0), ((4, 3, 2), (1, 1, 2), 2), ((4, 3, 2, 5), (4, 1, 1, 1), 0)]
)
def test_weight_norm(v, g, dim, dtype):
    both = ("_weight_norm_interface", "_weight_norm_interface_backward")
    v, g = torch.randn(v).to(dtype), torch.randn(g).to(dtype)
    audit(gradients(lambda a, b: torch._weight_norm(a, b, dim), v, g), covers=both)
