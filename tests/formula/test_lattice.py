"""Places that are looked at together: there are enough of them, and their numbers are those of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from openheart.check import Check, evaluated
from openheart.formula.expr import Leaf
from openheart.formula.lattice import lattice
from openheart.record import recording
from openheart.rules.registry import law_of


@given(st.lists(st.integers(1, 40), max_size=4), st.integers(1, 200), st.integers(0, 5))
def test_there_are_enough_places_and_not_many_more(shape: list[int], wanted: int, seed: int) -> None:
    spans = lattice(shape, wanted, Random(seed))
    assert all(0 <= span[0] <= span[-1] < extent for span, extent in zip(spans, shape, strict=True))
    held = math.prod(map(len, spans))
    assert held >= min(wanted, math.prod(shape))
    assert held <= max(1, wanted) * 2 ** len(shape)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


X = drawn(3, 6, 11, 9)
ROWS = drawn(30, 16)
PLACES = torch.randint(0, 30, (50,), generator=torch.Generator().manual_seed(0))
GRADIENT = torch.ops.aten.embedding_dense_backward
RUNS: dict[str, Callable[[], object]] = {
    "product": lambda: ROWS @ drawn(16, 40),
    "softmax": lambda: torch.softmax(ROWS, -1),
    "layer norm": lambda: F.layer_norm(ROWS, (16,), drawn(16), drawn(16)),
    "batch norm": lambda: F.batch_norm(X, drawn(6), drawn(6).abs(), drawn(6), drawn(6), training=True),
    "convolution": lambda: F.conv2d(X, drawn(4, 6, 3, 3), drawn(4), stride=2, padding=1, dilation=2),
    "transposed": lambda: F.conv_transpose2d(X, drawn(6, 4, 3, 3), stride=2, padding=1),
    "pooling": lambda: F.max_pool2d(X, 3, 2, 1, return_indices=True),
    "attention": lambda: F.scaled_dot_product_attention(*[drawn(1, 2, 9, 8)] * 3),
    "embedding's gradient": lambda: GRADIENT(drawn(50, 16), PLACES, 30, -1, False),
    "scatter": lambda: torch.zeros(30, 16).index_add(0, PLACES, drawn(50, 16)),
    "running sum": lambda: ROWS.cumsum(0) + ROWS.flip(0).cumsum(1),
    "running largest": lambda: ROWS.cummax(0),
    "sorted": lambda: ROWS.sort(0),
    "gathered": lambda: ROWS[PLACES] * 2,
    "joined": lambda: torch.cat([ROWS, ROWS * 2], 1).roll(3, 0),
    "padded": lambda: F.pad(X, (1, 2, 2, 1), mode="reflect"),
    "upsampled": lambda: F.interpolate(X, scale_factor=2, mode="bilinear"),
    "whole numbers": lambda: (PLACES.view(5, 10) // 3).sum(0),
    "truths": lambda: (ROWS > 0) & (ROWS < 1),
    "complex": lambda: torch.fft.fft(ROWS),
}  # fmt: skip


@pytest.mark.parametrize("name", list(RUNS))
@pytest.mark.parametrize("wanted", [1, 24])
def test_some_places_have_the_numbers_that_the_whole_has_there(name: str, wanted: int) -> None:
    with recording() as rec:
        RUNS[name]()
    for call in rec.calls:
        for output, value in enumerate(call.outputs):
            law = law_of(call, output)
            if law is None or isinstance(law.expr, Leaf):
                continue
            spans = lattice(value.shape, wanted, Random(wanted))
            at = tuple(slice(span.start, span.stop, span.step) for span in spans)
            whole, some = _parts(evaluated(call, output, law)), _parts(evaluated(call, output, law, spans))
            bound = np.broadcast_to(whole[2], value.shape)[at]
            for a, b in zip(whole[:2], some[:2], strict=True):
                assert np.shape(b) == np.shape(bound)
                assert np.all(np.abs(a[at].astype(complex) - b) <= bound), call
            # As a matrix product a sum of products is bounded by the longest of its sums.
            assert np.all(some[2] <= bound * 1.2), call
            assert np.all(some[2] >= bound / 10), call


def _parts(found: Any) -> tuple[Any, Any, Any]:
    parts = (found.recorded, found.computed, found.bound) if isinstance(found, Check) else found
    return tuple(np.broadcast_to(part, np.shape(parts[0])) for part in parts)  # type: ignore[return-value]
