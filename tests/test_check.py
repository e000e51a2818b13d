"""The check against numbers that no honest run makes: none of them passes for rounding."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from openheart.check import fetcher, judge
from openheart.formula.evaluate import evaluate_all
from openheart.record import recording
from openheart.rules.registry import format_of, law_of

HUGE = torch.rand(64, 64).index_fill(0, torch.tensor([0]), math.inf)


def agrees(run: Callable[[], object], number: float | None) -> bool:
    """Whether the last call's first scalar passes, with `number` planted in its place if one is given."""
    with recording() as rec:
        run()
    call: Any = rec.calls[-1]
    law = law_of(call, 0)
    assert law is not None
    computed, bound = evaluate_all(law.expr, law.indices, fetcher(call), law.precision)
    recorded = np.array(call.outputs[0].array, copy=True)
    if number is not None:
        recorded.reshape(-1)[0] = number
    done = judge(law, recorded, computed, bound, format_of(call.outputs[0].dtype))
    return bool(np.all(done.agrees))


@pytest.mark.parametrize("number", [5.0, -math.inf, math.nan])
@pytest.mark.parametrize(
    "run",
    [
        lambda: HUGE @ torch.rand(64, 64),
        lambda: HUGE[0].mean(),
        lambda: HUGE[0].cumsum(0),
        lambda: torch.nn.functional.mse_loss(HUGE, torch.zeros(64, 64)),
        lambda: HUGE[:2].bfloat16().sum(1),
        lambda: HUGE * 2,
    ],
)
def test_an_infinite_result_is_not_near_any_other_number(run: Callable[[], object], number: float) -> None:
    assert agrees(run, None)
    assert not agrees(run, number)


@pytest.mark.parametrize("wrong", [1, -1, 64])
def test_whole_numbers_beyond_a_double_s_reach_are_held_exactly(wrong: int) -> None:
    large = torch.tensor([2**60, 3])
    assert agrees(lambda: large + 1, None)
    assert not agrees(lambda: large + 1, 2**60 + 1 + wrong)


def test_a_large_tensor_with_an_infinity_is_judged_alike_by_the_compiled_loop() -> None:
    with recording() as rec:
        torch.rand(400, 400).index_fill(0, torch.tensor([0]), math.inf) * 2
    value: Any = rec.calls[-1].outputs[0]
    assert rec.verify().ok
    value.array[0, 0] = 5.0
    audit = rec.verify()
    assert audit.disagree == 1


def test_a_complex_number_s_contributions_can_be_read() -> None:
    torch.manual_seed(0)
    with recording() as rec:
        torch.rand(2, 3, dtype=torch.complex64) @ torch.rand(3, 2, dtype=torch.complex64)
    assert "contributions" in rec.explain("mm.out[0,1]").text(lang="en")
