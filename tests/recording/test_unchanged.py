"""What runs under a recording is what would have run without it, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.recording.programs import tensors_in
from torch import nn
from torch.nn import functional as F

import openheart as oh

COMPLEX = torch.complex64
GRAD = {"requires_grad": True}


def trained(activation: nn.Module, dtype: torch.dtype) -> Any:
    net = nn.Sequential(nn.Linear(3, 17), activation, nn.Linear(17, 2)).to(dtype)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(4):
        optimizer.zero_grad()
        net(torch.randn(8, 3, dtype=dtype)).pow(2).sum().backward()
        optimizer.step()
    return list(net.parameters())


def gradients(of: Callable[..., torch.Tensor], *tensors: torch.Tensor) -> Any:
    result = of(*tensors)
    (result.abs() if result.is_complex() else result).sum().backward()
    return [result, *(tensor.grad for tensor in tensors)]


def inferred(run: Callable[[], Any]) -> Any:
    with torch.inference_mode():
        return run()


def nested(*lengths: int) -> torch.Tensor:
    return torch.nested.nested_tensor([torch.randn(length, 4) for length in lengths])


def attention(q: torch.Tensor) -> Any:
    many = q.unsqueeze(1)
    return F.scaled_dot_product_attention(many, many, many)


def autocast(run: Callable[[], Any]) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        return run()


RUNS: dict[str, Callable[[], Any]] = {
    "silu": lambda: trained(nn.SiLU(), torch.float32),
    "silu in bfloat16": lambda: trained(nn.SiLU(), torch.bfloat16),
    "mish": lambda: trained(nn.Mish(), torch.float32),
    "channel shuffle": lambda: nn.ChannelShuffle(2)(torch.randn(1, 4, 3, 3)),
    "channel shuffle, inferred": lambda: inferred(lambda: nn.ChannelShuffle(2)(torch.randn(1, 4, 3, 3))),
    "silu, inferred": lambda: inferred(lambda: F.silu(torch.randn(4000))),
    "linear of a transposed batch": lambda: inferred(
        lambda: nn.Linear(64, 64)(torch.randn(8, 3, 64).transpose(0, 1))
    ),
    "linear of a nested tensor": lambda: nn.Linear(4, 3)(nested(2, 5)).unbind(),
    "nested, inferred": lambda: inferred(
        lambda: [nn.Linear(4, 3)(nested(2, 5)).unbind(), nested(3, 2).chunk(2, -1)[0].unbind()]
    ),
    "nested products": lambda: torch.matmul(nested(2, 5), nested(2, 5).transpose(1, 2)).unbind(),
    "product of a nested batch with its transpose": lambda: inferred(
        lambda: torch.bmm(nested(4, 4), nested(4, 4)).unbind()
    ),
    "matmul without gradients": lambda: torch.randn(8, 1, 64) @ torch.randn(1, 64, 64),
    "matmul, inferred": lambda: inferred(lambda: torch.randn(8, 1, 64) @ torch.randn(1, 64, 64)),
    "prod": lambda: gradients(lambda x: x.prod(), torch.randn(30, **GRAD)),
    "prod along a dimension": lambda: gradients(lambda x: x.prod(1), torch.randn(5, 30, **GRAD)),
    "prod over a zero": lambda: gradients(
        lambda x: x.prod(1), (torch.arange(12.0).reshape(2, 6) / 7).requires_grad_()
    ),
    "cumprod": lambda: gradients(lambda x: x.cumprod(0), torch.randn(9, **GRAD)),
    "complex pinv": lambda: torch.linalg.pinv(torch.randn(4, 3, dtype=COMPLEX)),
    "gradient of complex pinv": lambda: gradients(
        torch.linalg.pinv, torch.randn(4, 3, dtype=COMPLEX, **GRAD)
    ),
    "complex, inferred": lambda: inferred(
        lambda: torch.einsum(
            "ij,kj->ik", torch.randn(3, 4, dtype=COMPLEX), torch.randn(5, 4, dtype=COMPLEX).conj()
        )
    ),
    "a conjugated linear, inferred": lambda: inferred(
        lambda: F.linear(torch.randn(2, 3, 4, dtype=COMPLEX).conj(), torch.randn(5, 4, dtype=COMPLEX))
    ),
    "svdvals": lambda: gradients(torch.linalg.svdvals, torch.randn(4, 3, **GRAD)),
    "ctc": lambda: gradients(
        lambda x: F.ctc_loss(x.log_softmax(2), torch.tensor([[1, 2]]), torch.tensor([5]), torch.tensor([2])),
        torch.randn(5, 1, 4, **GRAD),
    ),
    "autocast": lambda: gradients(
        lambda x: autocast(lambda: nn.Linear(4, 4)(x) @ torch.ones(4, 2)).float(), torch.randn(3, 4, **GRAD)
    ),
    "autocast, inferred": lambda: inferred(
        lambda: autocast(lambda: torch.einsum("ij,jk->ik", torch.randn(7, 9), torch.randn(9, 5)))
    ),
    "autocast of distances": lambda: autocast(lambda: torch.cdist(torch.randn(40, 9), torch.randn(40, 9))),
    "a transformer's fast path": lambda: inferred(
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()(torch.randn(2, 5, 8))
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RUNS)
def test_the_same_bits_with_and_without_a_recording(name: str) -> None:
    torch.manual_seed(0)
    plain = list(tensors_in(RUNS[name]()))
    torch.manual_seed(0)
    with oh.recording() as rec:
        recorded = list(tensors_in(RUNS[name]()))
    assert rec.calls
    assert len(plain) == len(recorded) > 0
    for one, other in zip(plain, recorded, strict=True):
        assert one.dtype == other.dtype
        assert one.stride() == other.stride()
        assert torch.equal(one, other)


def test_parts_are_recorded_where_nothing_but_parts_would_run() -> None:
    with torch.inference_mode():
        rec = oh.record(nn.Sequential(nn.Linear(3, 4), nn.SiLU()), torch.randn(2, 3))
    assert [call.name for call in rec.calls] == ["t", "addmm", "silu"]


def test_gradients_of_complex_least_squares_are_right() -> None:
    def solved() -> Any:
        torch.manual_seed(0)
        a, b = torch.randn(4, 3, dtype=COMPLEX, **GRAD), torch.randn(4, 2, dtype=COMPLEX, **GRAD)
        return gradients(lambda a, b: torch.linalg.lstsq(a, b).solution, a, b)

    plain = solved()
    with oh.recording():
        recorded = solved()
    for one, other in zip(plain, recorded, strict=True):  # LAPACK's last bits depend on where memory lies
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
