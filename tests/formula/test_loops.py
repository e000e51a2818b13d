"""Compiled loops find what the arrays find: how many numbers are exact, how many agree, which is worst."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from openheart.check import check, count
from openheart.formula import loops
from openheart.record import recording
from openheart.recording import Call
from openheart.rules.registry import Law, law_of

pytestmark = pytest.mark.skipif(not loops.available(), reason="Numba is not installed")


@pytest.fixture(autouse=True)
def _compiled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "PAYS", 0)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


X = drawn(3, 40, 24, 16)
ROWS = drawn(300, 160)
RUNS: dict[str, Callable[[], object]] = {
    "relu": lambda: torch.relu(X),
    "broadcast": lambda: X * drawn(40, 1, 16),
    "expanded": lambda: (
        drawn(3, 40, 24, 1).expand(3, 40, 24, 16) * 3 + drawn(3, 40, 1, 1).expand(3, 40, 24, 16)
    ),
    "transposed": lambda: X.transpose(1, 3) - X.permute(0, 3, 2, 1).contiguous() * 3,
    "row": lambda: drawn(50000) / 3,
    "tanh": lambda: torch.tanh(ROWS),
    "masked": lambda: ROWS.masked_fill(ROWS > 1, -torch.inf) + 1,
    "not a number": lambda: torch.sqrt(ROWS) * 2,
    "softmax": lambda: torch.softmax(ROWS, -1),
    "layer norm": lambda: F.layer_norm(ROWS, (160,), drawn(160), drawn(160)),
    "batch norm": lambda: F.batch_norm(X, drawn(40), drawn(40).abs(), drawn(40), drawn(40), training=True),
    "product": lambda: ROWS @ drawn(160, 150),
    "convolution": lambda: F.conv2d(X, drawn(20, 40, 3, 3), drawn(20), stride=1, padding=1),
    "mean": lambda: drawn(200, 200, 30).mean((0, 2)),
    "largest": lambda: drawn(200, 200, 30).amax(1),
    "half": lambda: ROWS.bfloat16() * 3,
}


def outputs(run: Callable[[], object]) -> Iterator[tuple[Call, int, Law]]:
    with recording() as rec:
        run()
    for call in rec.calls:
        for n, value in enumerate(call.outputs):
            law = law_of(call, n)
            if law is not None and value.array.size >= loops.LOOPS:
                yield call, n, law


@pytest.mark.parametrize("name", list(RUNS))
def test_a_count_is_what_a_check_says(name: str) -> None:
    for call, n, law in outputs(RUNS[name]):
        held = check(call, n, None, law)
        counted = count(call, n, law)
        if counted is None or held is None:
            continue
        bound = np.asarray(held.bound)
        with np.errstate(all="ignore"):
            error = np.abs(np.asarray(held.recorded) - held.computed)
            ratio = np.where((bound > 0) & np.isfinite(error), error / bound, 0.0)
        assert counted.agree == np.count_nonzero(held.agrees)
        # A sum in another order may fall on the other side of a rounding.
        assert abs(counted.exact - np.count_nonzero(held.exact)) <= 1e-4 * bound.size
        assert counted.worst == pytest.approx(float(ratio.max()), rel=1e-3)
        assert ratio.reshape(-1)[counted.place] == pytest.approx(counted.worst, rel=1e-3)


@pytest.mark.parametrize("name", ["broadcast", "transposed", "batch norm", "product"])
def test_a_count_names_the_numbers_that_disagree(name: str) -> None:
    *_, (call, n, law) = outputs(RUNS[name])
    array = call.outputs[n].array
    places = sorted(np.random.default_rng(1).choice(array.size, 5, replace=False).tolist())
    for place in places:
        at = np.unravel_index(place, array.shape)
        array[at] = array[at] * 1.5 + 1
    counted = count(call, n, law, rooms=3)
    assert counted is not None
    assert counted.agree == array.size - 5
    assert list(counted.disagreeing) == places[:3]
    assert counted.place in places
    assert counted.worst > 10
