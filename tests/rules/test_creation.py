"""Constants, ranges and draws against PyTorch."""

from __future__ import annotations

import pytest
import torch
from tests.rules.harness import audit

from openheart.check import check
from openheart.record import recording

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool], ids=str)
@pytest.mark.parametrize("shape", [(3,), (0,), (2, 3), ()], ids=str)
def test_constants(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    like = torch.ones(shape, dtype=dtype)
    audit(lambda: (torch.zeros(shape, dtype=dtype), torch.ones(shape, dtype=dtype)))
    audit(lambda: (torch.full(shape, 3, dtype=dtype), torch.full_like(like, 2.7)))
    audit(lambda: (torch.zeros_like(like), torch.ones_like(like), like.new_zeros(2), like.new_ones(2)))
    audit(lambda: (like.new_full((2,), 1.7), torch.scalar_tensor(2.6, dtype=dtype), torch.tensor([1, 2])))
    audit(lambda: (torch.eye(3, dtype=dtype), torch.eye(2, 5, dtype=dtype)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ranges(dtype: torch.dtype) -> None:
    for arguments in ((11,), (3, 200), (3, 17, 2), (1000.0, 1100, 0.1), (2, 40, 0.37)):
        if dtype.is_floating_point or len(arguments) < 3 or isinstance(arguments[2], int):
            audit(lambda a=arguments: torch.arange(*a, dtype=dtype))
    for arguments in ((0, 1, 11), (3.3, 70, 101), (5, 5, 3), (2, 9, 1), (0, 0, 0), (0.1, 100.7, 101)):
        audit(lambda a=arguments: torch.linspace(*a, dtype=dtype))
    if dtype.is_floating_point:
        audit(
            lambda: (torch.arange(-5000.3, 5000, 3.37, dtype=dtype), torch.arange(10, -10, -3, dtype=dtype))
        )
        audit(lambda: torch.linspace(torch.tensor(-3.0), 70, 101, dtype=dtype))


def test_draws_and_fresh_memory_are_leaves() -> None:
    with recording() as run:
        (
            torch.rand(3),
            torch.randn(3),
            torch.randint(5, (3,)),
            torch.randperm(5),
            torch.ones(3).bernoulli_(0.5),
        )
        torch.bernoulli(torch.full((3,), 0.4)), torch.ones(3).uniform_(), torch.ones(3).normal_()
        torch.normal(0.0, 1.0, (3,)), torch.multinomial(torch.ones(4), 2), torch.ones(3).exponential_()
        torch.empty(3), torch.empty_like(torch.ones(2)), torch.ones(2).new_empty(3)
    made = ("rand", "bernoulli", "uniform", "normal", "multinomial", "exponential", "empty", "new_empty")
    drawn = [call for call in run.calls if call.name.removeprefix("new_").startswith(made)]
    assert len(drawn) == 14
    assert all(check(call, 0) is None for call in drawn)


def test_dropout() -> None:
    for p, train in ((0.0, True), (0.3, True), (1.0, True), (0.3, False)):
        x = torch.randn(50, requires_grad=True)

        def run(x: torch.Tensor = x, p: float = p, train: bool = train) -> None:
            torch.native_dropout(x, p, train)[0].sum().backward()

        seen = audit(run, covers=())
        assert seen.scalars >= 100
