"""Kinds of numbers: where half precision rounds, whole numbers are cut off, truth values add up."""

from __future__ import annotations

import math

import pytest
import torch
from tests.rules.harness import audit, gradients
from torch.nn import functional as F

from openheart.check import check
from openheart.record import recording

HALVES = [torch.float16, torch.bfloat16]
DREW = ["randn_like", "new_empty_strided"]


def drawn(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * 3).to(dtype)


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_rounds_each_step(dtype: torch.dtype) -> None:
    x = drawn(dtype, 40, 50)
    for exponent in (3, -2, 0.5, -0.5, -1, 2, 1.5):
        audit(lambda e=exponent: (x.abs() + 0.1) ** e)
        audit(lambda e=exponent: x.clone().abs_().pow_(e))
    y = drawn(dtype, 8, 9)
    t = torch.where(y > 0, 1.0, -1.0).to(dtype)
    audit(gradients(lambda a: F.soft_margin_loss(a * 5, t), y), skips=DREW)
    audit(gradients(torch.logit, torch.sigmoid(y)), skips=DREW)
    if dtype == torch.bfloat16:
        with recording() as rec:
            F.rrelu(y, training=True)
        held = check(rec.calls[-1], rec.calls[-1].slots.index((0, None)))
        assert held is not None
        assert held.agrees.all()
    index = torch.randint(0, 5, (40,), generator=torch.Generator().manual_seed(1))
    for reduce in ("prod", "mean", "amax", "amin"):
        base = drawn(dtype, 5, 50).abs() + 0.5
        audit(lambda r=reduce, b=base: b.index_reduce(0, index, x.abs() + 0.5, r), covers="index_reduce")
        wide = index[:, None].expand(40, 50)
        audit(lambda r=reduce, b=base, w=wide: b.scatter_reduce(0, w, x, r), covers="scatter_reduce.two")
    audit(lambda: torch.addmm(y, y, drawn(dtype, 9, 9), beta=0.6, alpha=0.3), covers="addmm")
    audit(lambda: torch.addmv(drawn(dtype, 8), y, drawn(dtype, 9), beta=0.6, alpha=0.3), covers="addmv")
    audit(lambda: torch.mv(y, drawn(dtype, 18)[::2]), covers="mv")
    audit(gradients(lambda w: F.embedding_bag(index.reshape(8, 5), w), drawn(dtype, 5, 6)), skips=DREW)


def test_what_overruns_float16_on_its_way_is_infinite() -> None:
    x = torch.tensor([-12.0, 11.0, 3.0], dtype=torch.float16)
    audit(lambda: F.soft_margin_loss(x, torch.tensor([1.0, -1.0, 1.0]).half(), reduction="none"))


def test_square_roots_and_powers_of_infinity() -> None:
    for dtype in (torch.float32, torch.float64, *HALVES):
        x = torch.tensor([-math.inf, -0.0, 0.0, math.inf, -2.0], dtype=dtype)
        for exponent in (0.5, -0.5, 3, -2, -1, 1.5):
            audit(torch.pow, x, exponent)


def test_whole_numbers() -> None:
    a, b, c = (
        torch.randint(-9, 9, s, generator=torch.Generator().manual_seed(3)) for s in ((3, 4), (4, 5), (3, 5))
    )
    audit(lambda: torch.addmm(c, a, b, beta=0.6, alpha=1.9), covers="addmm")
    audit(lambda: torch.baddbmm(c[None], a[None], b[None], beta=0.2, alpha=2.2), covers="baddbmm")
    audit(lambda: torch.addmv(c[:, 0], a, b[:, 0], beta=0.2), covers="addmv")
    audit(lambda: torch.addr(c, a[:, 0], b[0], beta=2, alpha=3), covers="addr")
    images = torch.randint(-20, 20, (1, 2, 6, 6), generator=torch.Generator().manual_seed(3))
    audit(lambda: F.avg_pool2d(images, 3, 2, 1), covers="avg_pool2d")
    audit(lambda: F.avg_pool1d(images[0], 3, count_include_pad=False), covers="avg_pool2d")
    audit(lambda: F.hardtanh(a, -2.5, 3.7), covers="hardtanh")
    index = torch.tensor([0, 2, 2])
    audit(
        lambda: torch.zeros(3, dtype=torch.int64).scatter_(0, index, -0.5, reduce="add"),
        covers="scatter_.value_reduce",
    )


def test_truth_values() -> None:
    base, index = torch.tensor([True, False, False]), torch.tensor([0, 1, 1, 0])
    source = torch.tensor([True, True, True, False])
    audit(lambda: base.index_add(0, index, source), covers="index_add")
    audit(lambda: base.scatter_add(0, index, source), covers="scatter_add")
    audit(lambda: base.index_put((index,), source, accumulate=True), covers="index_put")
    for reduce in ("sum", "prod", "amax", "amin"):
        for own in (True, False):
            audit(lambda r=reduce, o=own: base.scatter_reduce(0, index, source, r, include_self=o))


def test_nothing_is_read_where_beta_is_0() -> None:
    nan = torch.full((3, 5), math.nan)
    a, b = torch.randn(3, 4), torch.randn(4, 5)
    audit(lambda: torch.addmm(nan, a, b, beta=0), covers="addmm")
    audit(lambda: torch.addr(nan, a[:, 0], b[0], beta=0), covers="addr")


def test_unique_values_with_nans() -> None:
    x = torch.tensor([math.nan, 1.0, 2.0, math.nan, 1.0, -math.inf])
    audit(lambda: torch.unique(x, return_inverse=True, return_counts=True), covers="_unique2")
    audit(lambda: torch.unique(torch.full((3,), math.nan), return_counts=True), covers="_unique2")


def test_an_index_without_dimensions_looks_up_one_row() -> None:
    table = torch.randn(4, 3)
    audit(gradients(lambda w: F.embedding(torch.tensor(2), w), table), skips=DREW)


def test_a_number_that_does_not_fit_into_a_whole_one_is_undefined() -> None:
    x = torch.tensor([3.0, 1e20, -1e20, math.nan, math.inf, 300.0])
    for dtype in (torch.int64, torch.int32, torch.uint8):
        with recording() as rec:
            x.to(dtype)
        held = check(rec.calls[0])
        assert held is not None
        assert held.agrees.all()
        fits = [True, False, False, False, False, dtype != torch.uint8]
        assert [bool(bound == 0) for bound in held.bound] == fits
        assert held.exact[0]


def test_polygamma_below_zero_where_terms_cancel() -> None:
    audit(lambda: torch.polygamma(6, torch.tensor([-8.5, -3.25, 2.0]).bfloat16()), covers="polygamma")


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"])
def test_numbers_of_eight_bits(name: str) -> None:
    dtype = getattr(torch, name)
    x = drawn(torch.float32, 3000)
    x = torch.cat([x, x[:300] * 1e-3, x[:300] * 1e4])
    ties = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    ties = ties[ties.isfinite()].sort().values
    edges = torch.tensor([448.0, 464.0, 464.1, 480.0, 248.0, 57344.0, 61440.0, 61439.0, math.inf, math.nan])
    for given in (x, (ties[1:] + ties[:-1]) / 2, torch.cat([edges, -edges]), x.bfloat16(), x.double()):
        audit(lambda g=given: g.to(dtype).float())
