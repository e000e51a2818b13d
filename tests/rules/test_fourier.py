"""Fourier transforms."""

import pytest
import torch
from tests.rules.harness import audit


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("dim", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_dimension(dtype: torch.dtype, dim: int, norm: str) -> None:
    x = torch.randn(3, 12, 5, dtype=dtype)
    z = torch.complex(x, x.flip(0))
    audit(
        lambda: (torch.fft.rfft(x, dim=dim, norm=norm), torch.fft.fft(x, dim=dim, norm=norm)),
        covers="_fft_r2c",
    )
    audit(
        lambda: (torch.fft.fft(z, dim=dim, norm=norm), torch.fft.ifft(z, dim=dim, norm=norm)),
        covers="_fft_c2c",
    )
    audit(lambda: torch.fft.irfft(z, dim=dim, norm=norm), covers="_fft_c2r")


def test_several_dimensions() -> None:
    x = torch.randn(3, 12, 5)
    z = torch.complex(x, x.flip(0))
    audit(lambda: torch.fft.fft2(z), covers="_fft_c2c")
    audit(lambda: torch.fft.rfft2(x), covers="_fft_r2c")
    audit(lambda: (torch.fft.irfft2(z, s=(12, 8)), torch.fft.irfft2(z, s=(12, 9))), covers="_fft_c2r")
