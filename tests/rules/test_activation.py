"""Activation functions and their gradients against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.rules.harness import audit, gradients
from torch.nn import functional as F

import openheart as oh

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.3),
    "elu": lambda x: F.elu(x, 0.7),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 1.3),
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "mish": F.mish,
    "softplus": lambda x: F.softplus(x, 2.0, 1.0),
    "hardtanh": lambda x: F.hardtanh(x, -0.7, 0.3),
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "logsigmoid": F.logsigmoid,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "tanhshrink": F.tanhshrink,
    "softsign": F.softsign,
    "threshold": lambda x: F.threshold(x, 0.1, -7.3),
    "glu": lambda x: F.glu(x, -1),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.3], dtype=x.dtype)),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "rrelu at rest": lambda x: F.rrelu(x, training=False),
}


def skipped() -> list[str]:
    """What only a draw or fresh memory could explain."""
    return ["empty_like", "randn_like", "rrelu_with_noise", "new_empty_strided", "uniform_"]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_activations_and_their_gradients(name: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    function = ACTIVATIONS[name]
    # the edges are exact in every format, and on both sides of every bend
    edges = torch.tensor([0.0, -0.0, 3.0, -3.0, 6.0, 0.5, -0.5, 1.0, 20.0, -20.0, 88.0, -88.0])
    for x in (torch.randn(9, 14, generator=generator) * 3, torch.randn(66, 2, generator=generator), edges):
        try:
            function(x.to(dtype))
        except (RuntimeError, NotImplementedError):
            pytest.skip(f"PyTorch has no {name} of {dtype}")
        audit(gradients(function, x.to(dtype)), covers=(), skips=skipped())


def test_infinities_and_nans_pass_as_in_pytorch() -> None:
    x = torch.tensor([float("inf"), float("-inf"), float("nan"), 0.0] * 16)
    for name in ("relu", "relu6", "leaky_relu", "silu", "mish", "softplus", "hardtanh", "tanh", "sigmoid"):
        audit(ACTIVATIONS[name], x)


def test_in_place() -> None:
    x = torch.randn(40)
    for name in ("relu_", "sigmoid_", "tanh_"):
        audit(lambda name=name: getattr(torch, name)(x.clone()), covers=name)
    for function in (F.hardtanh_, F.leaky_relu_, F.elu_):
        audit(lambda f=function: f(x.clone()))


def test_prelu_slopes_by_channel() -> None:
    x, weight = torch.randn(3, 4, 5), torch.rand(4)
    audit(gradients(F.prelu, x, weight), covers=["_prelu_kernel", "_prelu_kernel_backward"])


@pytest.mark.parametrize("function", [torch.tanh, torch.sigmoid])
def test_the_gradient_of_a_complex_activation_is_conjugated(function: Any) -> None:
    numbers = torch.randn(5, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    numbers.requires_grad_(True)
    with oh.recording() as recording:
        function(numbers).abs().sum().backward()
    checked = recording.verify()
    assert checked.ok
    assert checked.opaque == 0
