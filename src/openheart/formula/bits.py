"""Floating-point numbers as the bits that stand for them, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
WIDTHS = {"float16": 16, "bfloat16": 16, "float32": 32, "float64": 64}
"""How many bits a number of each format has."""


def bits_of(dtype: str) -> Callable[[Array], Array]:
    """The bits of numbers of this format, as a whole number; of 64 bits the highest is the sign."""

    def of(x: Array) -> Array:
        x = np.asarray(x)
        if dtype == "float64":
            return x.astype(np.float64).view(np.int64)[()]
        if dtype == "float16":
            return _half(x)[()]
        pattern = x.astype(np.float32).view(np.uint32).astype(np.int64)
        return (pattern >> 16 if dtype == "bfloat16" else pattern)[()]

    return of


def _half(x: Array) -> Array:
    """The 16 bits of numbers of float16; a NaN keeps its own, which a conversion may change."""
    with np.errstate(all="ignore"):
        bits = x.astype(np.float16).view(np.uint16).astype(np.int64)
    strange = np.isnan(x)
    if x.dtype == np.float32 and np.any(strange):
        own = x.view(np.uint32).astype(np.int64)
        bits = np.where(strange, own >> 16 & 0x8000 | 0x7C00 | own >> 13 & 0x3FF, bits)
    return bits


def number_of(dtype: str) -> Callable[[Array], Array]:
    """The number of this format that has these bits."""

    def of(bits: Array) -> Array:
        bits = np.asarray(bits, dtype=np.int64)
        if dtype == "float64":
            return bits.view(np.float64)[()]
        if dtype == "float16":
            return bits.astype(np.uint16).view(np.float16).astype(np.float64)[()]
        bits = bits << 16 if dtype == "bfloat16" else bits
        return bits.astype(np.uint32).view(np.float32).astype(np.float64)[()]

    return of
