"""Functions of complex numbers against PyTorch: |z|² is no z², and each part is rounded on its own."""

from __future__ import annotations

import pytest
import torch
from tests.rules.harness import audit, gradients

DTYPES = [torch.complex64, torch.complex128]
ONE = (
    "exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan sinh cosh tanh asin acos atan "
    "asinh acosh atanh sigmoid sinc abs angle sgn square neg"
)


def drawn(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    made = torch.randn(*shape, dtype=torch.complex128, generator=generator)
    return (made * torch.rand(*shape, dtype=torch.float64, generator=generator) * 6).to(dtype)


@pytest.mark.parametrize("name", ONE.split())
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_functions_of_one_number(name: str, dtype: torch.dtype) -> None:
    z = drawn(dtype, 40, 50)
    audit(getattr(torch, name), z, singles=1)
    audit(getattr(torch, name), z / 50, singles=1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_functions_of_two_numbers(dtype: torch.dtype) -> None:
    a, b = drawn(dtype, 40, 50), drawn(dtype, 50)
    for f in (torch.add, torch.mul, torch.div, torch.logaddexp, torch.pow, torch.sub):
        audit(f, a, b)
    for exponent in (0.5, -0.5, 2, 3, -1, -2, 1.7, 0.3 - 2j):
        audit(torch.pow, a, exponent)
        audit(torch.pow, 1.5 + 0.5j, a)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_variance_norms_and_products(dtype: torch.dtype) -> None:
    z = drawn(dtype, 7, 9, 5)
    for dim in (None, 1, (0, 2)):
        audit(lambda d=dim: (z.var(d), z.std(d), torch.var_mean(z, d), torch.std_mean(z, d, correction=0)))
    for order in (0, 1, 2, 3, 0.5, float("inf"), float("-inf")):
        audit(lambda p=order: torch.linalg.vector_norm(z, p, 1))
        audit(lambda p=order: z.norm(p, 0))
    audit(lambda: (z.logsumexp(1), z.logsumexp((0, 2)), z.sum(1), z.mean(0), z.prod(1), z.cumprod(1)))
    audit(lambda: torch.nn.functional.normalize(z, dim=1))


@pytest.mark.parametrize("name", ["exp", "tanh", "sigmoid", "reciprocal", "sqrt", "abs", "square"])
def test_gradients(name: str) -> None:
    audit(
        gradients(getattr(torch, name), drawn(torch.complex64, 9, 9)),
        skips=["randn_like", "new_empty_strided"],
    )


@pytest.mark.filterwarnings("ignore:Casting complex")
def test_casts_of_complex_numbers() -> None:
    z = drawn(torch.complex64, 3, 4).real * (1 + 0j)
    for dtype in (torch.int64, torch.uint8, torch.float32, torch.complex128, torch.bool):
        audit(lambda d=dtype: z.abs().to(torch.complex64).to(d), singles=1)
