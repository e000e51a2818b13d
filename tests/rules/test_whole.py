"""Runs that a single law would spoil are whole: every operator that they call has one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import distributions as D

import openheart as oh


def whole(model: torch.nn.Module | None, work: Callable[[], torch.Tensor]) -> oh.Audit:
    with oh.recording(model) as rec:
        work().sum().backward()
    audit = rec.verify()
    assert audit.disagree == 0
    assert audit.opaque_operators == ()
    return audit


@pytest.mark.parametrize(
    "normed", [torch.nn.utils.spectral_norm, torch.nn.utils.parametrizations.spectral_norm]
)
def test_spectral_norm(normed: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    torch.manual_seed(0)
    layer = normed(torch.nn.Linear(5, 7))
    whole(layer, lambda: layer(torch.randn(3, 5)))


@pytest.mark.parametrize("name", ["Normal", "Beta", "Dirichlet"])
def test_distributions(name: str) -> None:
    torch.manual_seed(0)
    a, b = ((torch.rand(4) + 0.5).requires_grad_() for _ in range(2))

    def made() -> D.Distribution:
        return D.Dirichlet(a) if name == "Dirichlet" else getattr(D, name)(a, b)

    whole(None, lambda: made().log_prob(made().sample()).sum() + made().entropy().sum() + made().mean.sum())
    whole(None, lambda: D.kl_divergence(made(), made()))


def test_a_mixture_of_experts() -> None:
    from tests.zoo.architectures import mixtral

    torch.manual_seed(0)
    model, given = mixtral()
    audit = whole(model, lambda: model(**given).loss)
    assert {"aten._grouped_mm", "aten.histc"} <= audit.by_operator.keys()


def test_every_gradient_of_a_complex_product() -> None:
    torch.manual_seed(0)
    x, w = (torch.randn(4, 4, dtype=torch.complex64, requires_grad=True) for _ in range(2))
    whole(None, lambda: (x * w + x @ w - torch.einsum("ij,jk->ik", x, w) / w).abs())
