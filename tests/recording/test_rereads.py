"""Writes through one view of a memory, read through another: complex and real, conjugated, of other types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import openheart as oh


def parts(z: torch.Tensor) -> torch.Tensor:
    torch.view_as_real(z).mul_(3)
    return z + 1


def real_part(z: torch.Tensor) -> torch.Tensor:
    z.real.add_(2)
    z.imag[1:].mul_(5)
    return z * z


def back(z: torch.Tensor) -> torch.Tensor:
    flat = torch.view_as_real(z)[..., 0]
    z.mul_(2)
    return flat + 1


def conjugated(z: torch.Tensor) -> torch.Tensor:
    z.conj().mul_(2 + 1j)
    return z + 1


def from_conjugated(z: torch.Tensor) -> torch.Tensor:
    conjugate = z.conj()
    z.add_(1j)
    return conjugate * 2


def negated(z: torch.Tensor) -> torch.Tensor:
    z.conj().imag.add_(4)
    return z + 1


def negated_back(z: torch.Tensor) -> torch.Tensor:
    imaginary = z.conj().imag
    z.mul_(2)
    return imaginary + 1


def integers(z: torch.Tensor) -> torch.Tensor:
    flat = torch.view_as_real(z)
    flat.view(torch.int32)[0, 0] = 0
    return z + 1


@pytest.mark.parametrize(
    "write", [parts, real_part, back, conjugated, from_conjugated, negated, negated_back, integers]
)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_a_write_through_another_view_is_told_replayed_and_edited(
    write: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype
) -> None:
    if write is integers and dtype is torch.complex128:
        return
    torch.manual_seed(0)
    start = torch.randn(3, dtype=dtype)
    expected = write(start * 2)
    with oh.recording() as rec:
        result = write(start * 2)
    assert torch.equal(result, expected)
    audit = rec.verify()
    assert audit.disagree == 0
    assert torch.equal(rec.calls[-1].outputs[0].data, expected)
    again = rec.replay()
    assert torch.equal(again.calls[-1].outputs[0].data, expected)
    first = next(call for call in rec.calls if call.name == "mul").outputs[0]
    changed = start * 2
    changed[1] = 7
    edited = rec.intervene({f"{rec.name(first)}[1]": 7})
    torch.testing.assert_close(edited.value(rec.name(rec.calls[-1].outputs[0])).data, write(changed))


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.SGD])
def test_steps_on_complex_parameters_agree(kind: Any, foreach: bool) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(3, dtype=torch.complex64))
    optimizer = kind([weight], lr=0.1, foreach=foreach)
    with oh.recording() as rec:
        for _ in range(2):
            optimizer.zero_grad()
            (weight * 2).abs().sum().backward()
            optimizer.step()
    audit = rec.verify()
    assert audit.disagree == 0
    again = rec.replay()
    for one, other in zip(rec.values, again.values, strict=True):
        if one.kept and one.shape == other.shape and not rec.name(one).startswith("empty"):
            assert torch.equal(one.data, other.data), rec.name(one)
