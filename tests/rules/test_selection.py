"""Sorting, the largest k, medians and modes: against PyTorch, and against tampered results."""

import math

import numpy as np
import pytest
import torch
from tests.rules.harness import audit
from tests.rules.test_reduction import KINDS, SHAPES, legal, named

from openheart.check import fetcher
from openheart.formula.evaluate import evaluate_all
from openheart.record import recording
from openheart.rules.registry import law_of

SELECTIONS = [
    lambda x: x.sort(0),
    lambda x: x.sort(-1, descending=True),
    lambda x: x.sort(dim=0, stable=True),
    lambda x: x.sort(dim=-1, stable=True, descending=True),
    lambda x: x.argsort(0),
    lambda x: x.topk(1, 0),
    lambda x: x.topk(3, -1),
    lambda x: x.topk(2, 0, largest=False),
    lambda x: x.topk(3, -1, sorted=False),
    lambda x: x.kthvalue(2, 0),
    lambda x: x.kthvalue(1, -1, keepdim=True),
    lambda x: x.median(),
    lambda x: x.median(0),
    lambda x: x.nanmedian(),
    lambda x: x.nanmedian(-1, keepdim=True),
    lambda x: x.mode(0),
    lambda x: x.mode(-1, keepdim=True),
]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", SELECTIONS, ids=named)
def test_selection(function, kind):
    if "mode" in named(function) and "NaN" in kind:
        pytest.skip("the mode of numbers with NaN among them depends on the sort that found it")
    for shape in SHAPES:
        x = KINDS[kind](*shape)
        if legal(function, x):
            audit(function, x)


@pytest.mark.parametrize("function", SELECTIONS, ids=named)
def test_selection_of_a_scalar(function):
    x = torch.tensor(2.0)
    if legal(function, x):
        audit(function, x)


# What a wrong kernel could have returned for x = [3, 1, 2, 1]: (call, wrong indices)
WRONG = [
    (lambda x: x.sort(), [1, 3, 0, 2]),  # not in order
    (lambda x: x.sort(), [1, 1, 2, 0]),  # one twice, one never
    (lambda x: x.sort(stable=True), [3, 1, 2, 0]),  # equal ones changed places
    (lambda x: x.sort(descending=True), [1, 3, 2, 0]),
    (lambda x: x.topk(2), [0, 1]),
    (lambda x: x.topk(2), [0, 0]),
    (lambda x: x.kthvalue(2), 2),
    (lambda x: x.median(0), 0),
    (lambda x: x.mode(), 2),
]


@pytest.mark.parametrize(("function", "wrong"), WRONG)
def test_a_wrong_selection_disagrees(function, wrong):
    x = torch.tensor([3.0, 1.0, 2.0, 1.0])
    with recording() as run:
        function(x)
    call = next(c for c in run.calls if len(c.outputs) == 2)
    law = law_of(call, 1)
    tampered = np.array(wrong)
    asked = fetcher(call)

    def fetch(tensor):
        return tampered if tensor.key == ("output", 1) else asked(tensor)

    right, _ = evaluate_all(law.expr, law.indices, asked, law.precision)
    computed, _ = evaluate_all(law.expr, law.indices, fetch, law.precision)
    assert np.array_equal(right, call.outputs[1].array)
    assert not np.array_equal(computed, tampered)


def test_a_wrong_median_disagrees():
    with recording() as run:
        torch.tensor([5.0, 1.0, math.pi]).median()
    law = law_of(run.calls[-1])
    asked = fetcher(run.calls[-1])

    def fetch(tensor):
        return np.array(5.0) if tensor.key == ("output", 0) else asked(tensor)

    computed, _ = evaluate_all(law.expr, law.indices, fetch, law.precision)
    assert np.isnan(computed)
