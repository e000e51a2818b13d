"""Interpolation and its gradients, against PyTorch."""

import pytest
import torch
from tests.rules.harness import audit, gradients
from torch.nn import functional as F

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
SIZES = (5, 6, 4)
MODES = [
    ("upsample_nearest1d", "nearest", 1),
    ("upsample_nearest2d", "nearest", 2),
    ("upsample_nearest3d", "nearest", 3),
    ("_upsample_nearest_exact1d", "nearest-exact", 1),
    ("_upsample_nearest_exact2d", "nearest-exact", 2),
    ("_upsample_nearest_exact3d", "nearest-exact", 3),
    ("upsample_linear1d", "linear", 1),
    ("upsample_bilinear2d", "bilinear", 2),
    ("upsample_trilinear3d", "trilinear", 3),
    ("upsample_bicubic2d", "bicubic", 2),
]
TARGETS = [
    {"scale_factor": 2},
    {"scale_factor": 1.7},
    {"scale_factor": 0.6},
    {"size": (7, 9, 4)},
    {"size": (3, 2, 4)},
]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("operator", "mode", "rank"), MODES)
def test_interpolation(operator, mode, rank, target, dtype):
    options = {"size": target["size"][:rank]} if "size" in target else target
    x = torch.randn(2, 3, *SIZES[:rank]).to(dtype)
    both = (operator, f"{operator}_backward")
    audit(gradients(lambda a: F.interpolate(a, mode=mode, **options), x), covers=both)
    if not mode.startswith("nearest"):
        audit(gradients(lambda a: F.interpolate(a, mode=mode, align_corners=True, **options), x), covers=both)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_interpolation_where_channels_lie_last(mode, dtype):
    x = torch.randn(2, 8, 5, 6).to(dtype).to(memory_format=torch.channels_last)
    audit(
        gradients(lambda a: F.interpolate(a, size=(9, 7), mode=mode), x),
        covers=f"upsample_{mode}2d_backward" if mode != "nearest" else "upsample_nearest2d_backward",
    )


def test_sources_that_the_kernel_rounds_to_the_place_below():
    # 49 places to 150: some sources are whole numbers that float32 puts just below themselves
    x = torch.randn(1, 2, 50, 49)
    audit(
        gradients(lambda a: F.interpolate(a, size=(70, 150), mode="bilinear"), x),
        covers="upsample_bilinear2d_backward",
    )
    audit(
        gradients(lambda a: F.interpolate(a, size=(147, 149), mode="nearest"), x),
        covers="upsample_nearest2d_backward",
    )


def test_interpolation_that_changes_nothing():
    x = torch.randn(1, 2, 5, 6)
    audit(
        gradients(lambda a: F.interpolate(a, size=(5, 6), mode="bilinear"), x), covers="upsample_bilinear2d"
    )
    audit(
        gradients(lambda a: F.interpolate(a, size=(1, 6), mode="bilinear", align_corners=True), x),
        covers="upsample_bilinear2d",
    )
