"""Matrix products, against PyTorch."""

from __future__ import annotations

import pytest
import torch
from tests.rules.harness import audit, gradients
from torch import Tensor

from openheart.check import check
from openheart.record import recording

aten = torch.ops.aten
FLOATS = [torch.float32, torch.float64, torch.bfloat16]


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (3, 5, 2), (17, 129, 8), (2, 0, 3)])
def test_matrix_products(dtype: torch.dtype, m: int, k: int, n: int) -> None:
    a, b = drawn(m, k, dtype=dtype), drawn(k, n, dtype=dtype)
    audit(aten.mm.default, a, b, covers="mm")
    audit(aten.mm.default, a, drawn(n, k, dtype=dtype).t(), covers="mm")
    for bias in (drawn(n, dtype=dtype), drawn(m, n, dtype=dtype), drawn(1, dtype=dtype)):
        audit(aten.addmm.default, bias, a, b, covers="addmm")
    audit(lambda: aten.addmm.default(drawn(n, dtype=dtype), a, b, beta=0.5, alpha=-2.0), covers="addmm")
    batch = drawn(4, m, k, dtype=dtype), drawn(4, k, n, dtype=dtype)
    audit(aten.bmm.default, *batch, covers="bmm")
    audit(aten.baddbmm.default, drawn(4, m, n, dtype=dtype), *batch, covers="baddbmm")
    audit(aten.addbmm.default, drawn(m, n, dtype=dtype), *batch, covers="addbmm")


@pytest.mark.parametrize("dtype", FLOATS)
def test_vectors(dtype: torch.dtype) -> None:
    a, v = drawn(6, 40, dtype=dtype), drawn(40, dtype=dtype)
    audit(aten.mv.default, a, v, covers="mv")
    audit(aten.addmv.default, drawn(6, dtype=dtype), a, v, covers="addmv")
    audit(aten.dot.default, v, v.flip(0), covers="dot")


def test_whole_numbers_are_exact() -> None:
    a, b = torch.arange(12).reshape(3, 4), torch.arange(8).reshape(4, 2)
    seen = audit(aten.mm.default, a, b, covers="mm")
    assert seen.exact == seen.scalars == 6


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_no_numbers(bad: float) -> None:
    a = drawn(3, 4)
    a[1, 2] = bad
    audit(aten.mm.default, a, drawn(4, 2), covers="mm")


def test_a_large_start_may_be_rounded_once_a_term() -> None:
    """A kernel that adds the products onto the bias rounds at the bias's size every time."""
    start, a, b = torch.full((1, 8), 1e6), drawn(1, 4096), drawn(4096, 8)
    audit(aten.addmm.default, start, a, b, covers="addmm")
    with recording() as run:
        aten.addmm.default(start, a, b)
    held = check(run.calls[-1])
    assert held is not None
    assert (held.bound >= 4095 * 2.0**-24 * 1e6).all()


def test_the_product_of_a_vector_with_another_ones_conjugate() -> None:
    for dtype in (torch.float32, torch.float64, torch.complex64, torch.complex128):
        a, b = (torch.randn(7, dtype=dtype, generator=torch.Generator().manual_seed(n)) for n in (1, 2))
        audit(torch.vdot, a, b, covers="vdot")
        audit(torch.linalg.vecdot, a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_grouped_products(dtype: torch.dtype) -> None:
    ends = torch.tensor([4, 4, 16], dtype=torch.int32)
    cases = [((16, 8), (3, 8, 24)), ((3, 8, 24), (24, 16)), ((8, 16), (16, 8))]
    for left, right in cases:
        a, b = drawn(*left, dtype=dtype), drawn(*right, dtype=dtype)
        audit(lambda a=a, b=b: torch._grouped_mm(a, b, offs=ends), covers="_grouped_mm")
    a, b = drawn(3, 8, 16, dtype=dtype), drawn(3, 16, 8, dtype=dtype)
    audit(lambda: torch._grouped_mm(a, b), covers="_grouped_mm")
    a, b = drawn(16, 8, dtype=dtype), drawn(3, 8, 24, dtype=dtype)
    audit(gradients(lambda a, b: torch._grouped_mm(a, b, offs=ends), a, b), covers="_grouped_mm")


def test_rows_behind_the_last_group_are_memory_that_nobody_wrote() -> None:
    ends = torch.tensor([4, 6, 12], dtype=torch.int32)
    a, b = drawn(16, 8), drawn(3, 8, 24)
    with recording() as run:
        torch._grouped_mm(a, b, offs=ends)
    (call,) = run.calls
    assert check(call) is None  # not all of it can be checked
    assert check(call, 0, (15, 2)) is None
    held = check(call, 0, (11, 2))
    assert held is not None
    assert held.agrees
