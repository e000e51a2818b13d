"""Evaluation: whole arrays, single elements and a schoolchild's loops agree, and bounds hold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.formula.formulas import COLUMNS, ROWS, formulas, numbers
from tests.formula.naive import Naive

from openheart.formula import loops, reduce
from openheart.formula.cutting import cut
from openheart.formula.evaluate import NoLaw, evaluate, evaluate_all
from openheart.formula.expr import Leaf, Number, Tensor, index, named, recurrence, total, where
from openheart.formula.functions import computed_in, double, exp
from openheart.formula.precision import BFLOAT16, FLOAT16, FLOAT32, FLOAT64

SEEDS = st.integers(0, 2**31)
OFTEN = settings(max_examples=300, deadline=None)


def fetcher(tensors):
    return lambda tensor: np.asarray(tensors[tensor.name])


def close(a, b, bound):
    if not np.isfinite(b) or not np.isfinite(a):
        return np.array_equal(float(a), float(b), equal_nan=True)
    return abs(a - b) <= bound + 1e-12 * abs(b)


@OFTEN
@given(formulas(), SEEDS)
def test_whole_single_and_naive_agree(made, seed):
    node, indices = made
    tensors = numbers(seed)
    value, bound = evaluate(node, indices, fetcher(tensors), FLOAT64)
    naive = Naive(tensors)
    for place in itertools.product(range(ROWS), range(COLUMNS)):
        env = dict(zip(indices, place, strict=True))
        one, its_bound = evaluate(node, indices, fetcher(tensors), FLOAT64, env)
        expected = naive.of(node, env)
        assert close(value[place], expected, bound[place]), (place, value[place], expected)
        assert close(one, expected, its_bound), (place, one, expected)
        assert np.isnan(its_bound) or its_bound <= 1.01 * bound[place] + 1e-300


@OFTEN
@given(formulas(), SEEDS)
def test_a_cut_evaluation_is_the_whole_one(made, seed):
    node, indices = made
    tensors = numbers(seed)
    whole = evaluate(node, indices, fetcher(tensors), FLOAT32)
    pieces = evaluate_all(node, indices, fetcher(tensors), FLOAT32, peak=5)
    np.testing.assert_allclose(
        np.asarray(pieces[0], dtype=np.float64), np.asarray(whole[0], dtype=np.float64), rtol=1e-9, atol=1e-9
    )
    # A sum's bound counts the terms of the longest sum, which may stand in another piece.
    assert np.all((pieces[1] <= 1.01 * np.asarray(whole[1]) + 1e-300) | np.isnan(whole[1]))


@OFTEN
@given(formulas(), SEEDS)
def test_bounds_hold_for_float32_in_any_order(made, seed):
    node, indices = made
    tensors = numbers(seed)
    value, bound = evaluate(node, indices, fetcher(tensors), FLOAT32)
    single = Naive(tensors, single=True, seed=seed)
    for place in itertools.product(range(ROWS), range(COLUMNS)):
        got = single.of(node, dict(zip(indices, place, strict=True)))
        if not np.isfinite(value[place]) or not np.isfinite(got):
            continue
        # as `check.judge` has it: a number known exactly is still rounded to be stored
        allowed = bound[place] or FLOAT32.unit * abs(value[place])
        assert abs(float(got) - float(value[place])) <= allowed, (place, got, value[place], allowed)


@OFTEN
@given(st.data(), SEEDS)
def test_sums_of_products_as_matrix_products(data, seed):
    """Any factors over any of five indices, any of them summed, with a mask: contraction is the plain sum."""
    draw = np.random.default_rng(seed)
    every = [index(name, data.draw(st.integers(1, 4))) for name in "ijklm"]
    summed = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=3, unique_by=id))
    outer = [i for i in every if i not in frozenset(summed)]
    tensors, body = {}, Number(1)
    for n in range(data.draw(st.integers(2, 4))):
        used = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=4, unique_by=id))
        tensor = Tensor(f"t{n}", tuple(i.extent for i in used), "float", (f"t{n}", None))
        tensors[tensor.name] = draw.normal(size=tensor.shape)
        body = body * tensor[tuple(used)]
    mask = data.draw(st.sampled_from([None, every[0] + every[1] < 4, every[2] != every[3]]))
    node = total(summed, body, where=mask)
    plain, plain_bound = evaluate(node, outer, fetcher(tensors), FLOAT32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reduce, "LARGE", 1)
        value, bound = evaluate(node, outer, fetcher(tensors), FLOAT32)
    np.testing.assert_allclose(value, plain, rtol=1e-9, atol=1e-12)
    # It counts the terms of the longest sum for all (at most 64 here, of four factors).
    assert np.all(bound <= (64 + 4) * plain_bound + 1e-30)
    assert np.all(np.abs(value - plain) <= bound + plain_bound + 1e-300)


@OFTEN
@given(st.booleans(), st.integers(1, 6), st.integers(1, 3), SEEDS)
def test_recurrences(backward, steps, width, seed):
    draw = np.random.default_rng(seed)
    tensors = {"x": draw.normal(size=(steps, width)), "a": draw.normal(size=(width,))}
    x = Tensor("x", (steps, width), "float", ("x", None))
    a = Tensor("a", (width,), "float", ("a", None))
    t, j = index("t", steps), index("j", width)

    def step(s):
        near = s[t + 1, j] if backward else s[t - 1, j]
        known = t + 1 < steps if backward else t >= 1
        return a[j] * where(known, near, 0.5) + x[t, j]

    made = recurrence("s", (t, j), step, backward=backward)
    i, k = index("i", steps), index("k", width)
    value, bound = evaluate(made[i, k], (i, k), fetcher(tensors), FLOAT32)
    expected = np.zeros((steps, width))
    single = np.zeros((steps, width), dtype=np.float32)
    order = range(steps)
    last, last_single = np.full(width, 0.5), np.full(width, 0.5, dtype=np.float32)
    for n in reversed(order) if backward else order:
        last = expected[n] = tensors["a"] * last + tensors["x"][n]
        last_single = single[n] = tensors["a"] * last_single + tensors["x"][n]
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-14)
    assert np.all(np.abs(single - expected) <= bound)


@pytest.mark.parametrize(("precision", "kind"), [(FLOAT16, np.float16), (FLOAT32, np.float32)])
def test_a_part_computed_in_a_precision_of_its_own(precision, kind):
    draw = np.random.default_rng(7)
    tensors = {"x": draw.normal(size=(20, 50)).astype(kind).astype(np.float64)}
    x, i, k = Tensor("x", (20, 50), "float", ("x", None)), index("i", 20), index("k", 50)
    node = computed_in(precision, total(k, x[i, k]))
    value, bound = evaluate(node, (i,), fetcher(tensors), FLOAT64)
    sums = np.zeros(20, dtype=kind)
    for column in tensors["x"].T:
        sums = (sums + column.astype(kind)).astype(kind)
    error = np.abs(sums.astype(np.float64) - value)
    assert np.all(error <= bound)
    assert np.max(error) > 1e-3 * np.max(bound)


def test_a_part_rounded_to_the_precision_around_it():
    x, i = Tensor("x", (5,), "float", ("x", None)), index("i", 5)
    tensors = {"x": np.linspace(0.1, 0.9, 5)}
    value, bound = evaluate(
        computed_in(BFLOAT16, computed_in(FLOAT32, x[i])), (i,), fetcher(tensors), FLOAT32
    )
    np.testing.assert_allclose(bound, BFLOAT16.unit * value, rtol=1e-6)
    _, tight = evaluate(double(x[i] * x[i] + 1), (i,), fetcher(tensors), FLOAT32)
    _, loose = evaluate(x[i] * x[i] + 1, (i,), fetcher(tensors), FLOAT32)
    assert np.all(tight < loose)


def test_a_denominator_is_summed_once_a_row():
    # e^x / Σ e^x over 300 × 300: without hoisting it would be 27 million exponentials
    x, i, j, k = (
        Tensor("x", (300, 300), "float", ("x", None)),
        index("i", 300),
        index("j", 300),
        index("k", 300),
    )
    node = exp(x[i, j]) / named("Z", total(k, exp(x[i, k])))
    draw = np.random.default_rng(1).normal(size=(300, 300))
    seen = []

    def fetch(tensor):
        seen.append(tensor.name)
        return draw

    value, _ = evaluate_all(node, (i, j), fetch, FLOAT32)
    np.testing.assert_allclose(value.sum(1), 1)
    assert len(seen) < 10


def test_places_outside_are_not_read_and_leaves_have_no_law():
    x, i = Tensor("x", (3,), "float", ("x", None)), index("i", 5)
    value, _ = evaluate(where(i < 3, x[i], -1.0), (i,), lambda _: np.arange(3.0), FLOAT32)
    assert value.tolist() == [0, 1, 2, -1, -1]
    with pytest.raises(NoLaw, match="random"):
        evaluate(Leaf("random") + 1, (), lambda _: None, FLOAT32)


@pytest.mark.skipif(not loops.available(), reason="Numba is not installed")
def test_loops_compute_in_float64():
    # a product of float32 numbers, read by a loop, is not rounded to float32 on its way
    draw = np.random.default_rng(3)
    arrays = {
        "x": draw.normal(size=(300, 200)).astype(np.float32),
        "y": draw.normal(size=300).astype(np.float32),
    }
    x, y = Tensor("x", (300, 200), "float", ("x", None)), Tensor("y", (300,), "float", ("y", None))
    i, j, k = index("i", 300), index("j", 200), index("k", 200)
    node = x[i, j] * y[i] * y[i] + x[i, j] * total(k, x[i, k]) * y[i]
    value, _ = evaluate(node, (i, j), fetcher(arrays), FLOAT32)
    a, b = (arrays[name].astype(np.float64) for name in "xy")
    expected = a * b[:, None] ** 2 + a * a.sum(1, keepdims=True) * b[:, None]
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-13)


def test_a_scatter_is_not_cut_by_what_it_never_holds():
    # 6 million pairs of a source and an output, but one pass over 2,500 sources
    n, i, j, k = Tensor("n", (2500,), "int", ("n", None)), index("i", 50), index("j", 50), index("k", 2500)
    node = total(k, Number(1.0), where=(n[k] // 50 == i) & (n[k] % 50 == j))
    assert len(cut(node, (i, j))) == 1
    value, _ = evaluate_all(node, (i, j), lambda _: np.arange(2500)[::-1], FLOAT32)
    assert np.all(value == 1)
