"""Special functions: the laws against PyTorch, and the numbers behind them against known ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.rules.harness import audit

from openheart.formula import special

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


@pytest.mark.parametrize(
    "name",
    [
        "erf",
        "erfc",
        "erfinv",
        "erfcx",
        "ndtri",
        "log_ndtr",
        "gammaln",
        "digamma",
        "i0",
        "i0e",
        "i1",
        "i1e",
        "entr",
        "sinc",
    ],
)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_functions(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(7)
    for x in (
        torch.rand(70, generator=generator),
        torch.randn(9, 7, generator=generator).t(),
        torch.tensor(0.3),
    ):
        try:
            getattr(torch.special, name)(x.to(dtype))
        except (RuntimeError, NotImplementedError):
            pytest.skip(f"PyTorch has no {name} of {dtype}")
        audit(getattr(torch.special, name), x.to(dtype))


@pytest.mark.parametrize("dtype", FLOATS[:2], ids=str)
def test_more_arguments(dtype: torch.dtype) -> None:
    x = torch.linspace(0.1, 4, 40).to(dtype)
    for n in (0, 1, 2, 3):
        audit(lambda n=n: torch.special.polygamma(n, x))
    audit(lambda: torch.special.polygamma(1, -x - 0.05))
    audit(lambda: torch.special.zeta(x + 1.5, x))
    audit(lambda: torch.special.multigammaln(x + 3, 3))
    audit(
        lambda: (
            torch.special.xlog1py(x, x),
            torch.xlogy(x, 0.3),
            torch.xlogy(torch.zeros(3), torch.zeros(3)),
        )
    )
    p = torch.linspace(0.01, 0.99, 33).to(dtype)

    def backward() -> None:
        for eps in (None, 0.1):
            leaf = p.clone().requires_grad_()
            torch.logit(leaf, eps).sum().backward()

    audit(backward, covers=["logit", "logit_backward"])


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("digamma", 1.0, -0.5772156649015329),
        ("digamma", 0.5, -1.9635100260214235),
        ("lgamma", 2.5, 0.2846828704729192),
        ("lgamma", -0.5, 1.2655121234846454),
        ("erfinv", 0.5, 0.4769362762044699),
        ("ndtri", 0.975, 1.959963984540054),
        ("erfcx", 10.0, 0.05614099274382259),
        ("i0", 1.0, 1.2660658777520082),
        ("i1", 1.0, 0.5651591039924851),
    ],
)
def test_known_values(name: str, argument: float, value: float) -> None:
    assert getattr(special, name)(np.float64(argument)) == pytest.approx(value, rel=4e-15)


def test_zeta_and_polygamma() -> None:
    assert special.zeta(2.0, 1.0) == pytest.approx(math.pi**2 / 6, rel=1e-15)
    assert special.polygamma(1, 1.0) == pytest.approx(math.pi**2 / 6, rel=1e-15)
    assert special.lgamma(np.array([0.0, -1.0, math.inf])).tolist() == [math.inf] * 3
    assert special.lgamma(np.array([1.0, 2.0])).tolist() == [0.0, 0.0]
