"""The recorder's seat in PyTorch's dispatcher, among modes, compilers and other recordings."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recording.programs import Witness
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.flex_attention import flex_attention

import openheart as oh
from openheart.recording import seat

pytestmark = pytest.mark.filterwarnings("ignore")


def _left() -> None:
    """Nothing is left of any recording."""
    assert not seat.is_taken_here()
    assert seat.recorders() == []
    assert "as_subclass" not in vars(torch.Tensor)
    assert torch.max_pool1d.__module__ != "openheart.recording.arrangements"


def test_exporting_and_faking_inside_of_a_recording() -> None:
    model, x = nn.Linear(3, 2), torch.ones(1, 3)
    with oh.recording(model) as rec:
        program = torch.export.export(model, (x,))
        with FakeTensorMode():
            fake = torch.ones(3) + torch.tensor([1.0, 2.0, 3.0])
            assert fake.device.type == "cpu"
            assert fake.layout is torch.strided
        result = model(x)
    assert torch.equal(program.module()(x), result)
    assert torch.equal(rec.value("output").data, result)
    _left()


def test_masked_tensors() -> None:
    with oh.recording() as rec:
        total = torch.masked.masked_tensor(
            torch.tensor([1.0, 2.0, 4.0]), torch.tensor([True, False, True])
        ).sum()
    assert total.get_data() == 5
    assert rec.verify().ok


def test_flexible_attention() -> None:
    q = torch.randn(1, 2, 16, 8)

    def attend() -> Any:
        return flex_attention(q, q, q, score_mod=lambda score, b, h, i, j: score + i - j)

    expected = attend()
    with oh.recording() as rec:
        result = attend()
    assert torch.equal(result, expected)
    assert rec.calls
    _left()


def test_what_must_be_compiled_whole_runs_as_it_is_written() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU())
    x = torch.randn(2, 3)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected = compiled(x)
    for run in (compiled, torch.compile(lambda x: model(x), backend="eager", fullgraph=True)):
        with oh.recording(model) as rec:
            result = run(x)
        assert torch.equal(result, expected)
        assert [call.name for call in rec.calls] == ["t", "addmm", "gelu"]
    assert torch.equal(compiled(x), expected)


@pytest.mark.parametrize("gradients", [True, False])
def test_pooling_is_an_operator(gradients: bool) -> None:
    x = torch.tensor([[[3.0, float("nan"), -1.0, 2.0, 7.0, 1.0]]])
    expected = nn.MaxPool1d(2)(x)
    with torch.set_grad_enabled(gradients):
        rec = oh.record(nn.MaxPool1d(2), x)
    assert torch.equal(rec.output.nan_to_num(9), expected.nan_to_num(9))
    assert rec.name(rec.value("output")) == ".out"
    maker = rec.maker(rec.value("output"))
    assert maker is not None
    assert not maker[0].name.startswith("empty")


def test_objects_of_another_class_are_made_inside_of_a_recording() -> None:
    class Named(torch.Tensor):
        pass

    with oh.recording():
        parameter = nn.Parameter(torch.ones(2) * 2)
        named = (torch.ones(2) + 1).as_subclass(Named)
    assert type(parameter) is nn.Parameter
    assert type(named) is Named
    assert parameter.tolist() == named.tolist() == [2, 2]


def test_modes_inside_of_a_recording_and_around_it() -> None:
    model = nn.Linear(3, 2)
    with Witness(), oh.recording(model) as outside, Witness(), Witness():
        model(torch.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    with oh.recording(model) as alone:
        model(torch.tensor([[1.0, 2.0, 3.0]])).sum().backward()
    assert [call.name for call in outside.calls if call.phase == "forward"] == [
        call.name for call in alone.calls if call.phase == "forward"
    ]
    assert {call.source for call in outside.calls} - {None} != set()
    _left()


def steps(factor: float, count: int) -> Iterator[oh.Recording]:
    """A generator that records so many calls with a number of its own, one at a time."""
    with oh.recording() as rec:
        for _ in range(count):
            yield rec
            torch.full((2,), factor).mul(factor)


def factors(rec: oh.Recording) -> list[float]:
    return [call.args[1] for call in rec.calls if call.name == "mul"]


def crossings(rec: oh.Recording) -> int:
    """How many recordings it says that it is interleaved with."""
    found = [n for n in rec.notices if n.key == "recording.notice.interleaved"]
    assert all(n.text("en") != n.text("es") for n in found)
    return found[0].details["count"] if found else 0


def by_turns(*counts: int) -> list[oh.Recording]:
    """As many generators, the first with 2.0, the next with 3.0, each asked in turn until all have ended."""
    running = [steps(2.0 + number, count) for number, count in enumerate(counts)]
    recs = [next(each) for each in running]
    for _ in range(max(counts)):
        for each in running:
            next(each, None)
    _left()
    return recs


def test_two_generators_that_end_in_another_order_say_what_they_hold() -> None:
    first, second = by_turns(2, 3)
    assert factors(first) == [2, 3, 2]
    assert factors(second) == [2, 3, 2, 3, 3]
    assert [crossings(first), crossings(second)] == [1, 1]


def test_two_generators_that_end_as_nested_ones_are_nested() -> None:
    first, second = by_turns(3, 2)
    assert factors(first) == [2, 3, 2, 3, 2]
    assert [crossings(first), crossings(second)] == [0, 0]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((1, 2, 3), [2, 2, 2]), ((3, 2, 1), [0, 0, 0]), ((2, 1, 3), [1, 1, 2]), ((3, 1, 2), [0, 1, 1])],
)
def test_three_generators_say_with_how_many_they_are_interleaved(
    counts: tuple[int, ...], expected: list[int]
) -> None:
    recs = by_turns(*counts)
    assert [crossings(rec) for rec in recs] == expected
    for rec, factor, count in zip(recs, (2.0, 3.0, 4.0), counts, strict=True):
        assert factors(rec).count(factor) == count


def test_a_file_keeps_that_recordings_were_interleaved(tmp_path: Path) -> None:
    first, _ = by_turns(2, 3)
    first.save(tmp_path / "run.oh")
    assert crossings(oh.load(tmp_path / "run.oh")) == 1


def test_recordings_that_follow_or_lie_in_one_another_are_not_interleaved() -> None:
    with oh.recording() as outside:
        with oh.recording() as inside:
            torch.ones(2) * 2
        with oh.recording() as after:
            torch.ones(2) * 3
    running = [steps(2.0, 1), steps(3.0, 1)]
    alone = []
    for each in running:
        alone.append(next(each))
        next(each, None)
    assert [crossings(rec) for rec in (outside, inside, after, *alone)] == [0] * 5


def test_tasks_each_hold_their_own() -> None:
    async def step(factor: float, pause: float) -> oh.Recording:
        with oh.recording() as rec:
            for _ in range(3):
                await asyncio.sleep(pause)
                torch.full((2,), factor).mul(factor)
        return rec

    async def both() -> list[oh.Recording]:
        return await asyncio.gather(step(2.0, 0.003), step(3.0, 0.002), step(5.0, 0))

    for rec, factor in zip(asyncio.run(both()), (2.0, 3.0, 5.0), strict=True):
        assert [(call.name, call.args[-1]) for call in rec.calls] == [
            pair for _ in range(3) for pair in (("full", factor), ("mul", factor))
        ]
        assert crossings(rec) == 0
    _left()


def test_a_task_that_goes_on_when_its_parent_has_ended_its_recording() -> None:
    """Then the parent's holds calls of the task's, and the task's holds its own alone."""

    async def child() -> oh.Recording:
        with oh.recording() as rec:
            for _ in range(3):
                await asyncio.sleep(0)
                torch.full((2,), 3.0).mul(3.0)
        return rec

    async def parent() -> tuple[oh.Recording, oh.Recording]:
        with oh.recording() as rec:
            task = asyncio.create_task(child())
            for _ in range(3):
                await asyncio.sleep(0)
            torch.full((2,), 2.0).mul(2.0)
        return rec, await task

    outer, inner = asyncio.run(parent())
    assert 0 < factors(outer).count(3.0) < 3
    assert factors(inner) == [3, 3, 3]
    assert [crossings(outer), crossings(inner)] == [1, 0]
