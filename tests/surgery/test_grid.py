"""The patch grid, held against one intervention for each cell."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch

import openheart as oh
from openheart.errors import AddressError, InterventionError
from openheart.patients import patient
from openheart.patients.gpt import encode
from openheart.surgery.grid import PatchGrid


@cache
def prompts() -> tuple[Any, Any]:
    """Two prompts of tiny-gpt, of which the other one ends another way."""
    model = patient("tiny-gpt").build(training=False)
    return tuple(oh.record(model, encode(text)[None]) for text in ("En un lugar de l", "En un jugar de s"))


@cache
def digits(loss: bool = False) -> tuple[Any, Any]:
    """Two digits that digits-cnn has read, with the loss of the first one's class if asked for."""
    subject = patient("digits-cnn")
    model, images, target = subject.build(training=False), subject.inputs()[0], subject.target()
    found = []
    for place in (0, 1):
        with oh.recording(model) as recording:
            output = model(images[place : place + 1])
            if loss:
                subject.loss()(output, target[:1]).backward()
        assert recording.calls
        found.append(recording)
    return found[0], found[1]


def number(recording: Any, address: str) -> float:
    element = recording.element(address)
    return float(element.value.data[element.index])


def holds(grid: PatchGrid, metric: Any, tolerance: float) -> None:
    """Every cell is the metric of one intervention; the recovery is what the formula says."""
    for row, layer in enumerate(grid.layers):
        size = grid.recording.value(layer).shape[grid.dimension]
        assert grid.raw[row, size:].isnan().all()
        for place in range(size):
            address = f"{layer}[{':,' * grid.dimension}{place}]"
            assert grid.address(row, place) == address
            wanted = metric(grid.recording.intervene({address: oh.patch(grid.other)}))
            assert abs(grid.raw[row, place].item() - wanted) <= tolerance
            assert metric(grid.at(layer, place)) == wanted
    wanted_values = (grid.raw - grid.baseline) / (grid.target - grid.baseline)
    assert torch.equal(grid.values.nan_to_num(7), wanted_values.nan_to_num(7))


@pytest.mark.parametrize("batched", [True, False])
def test_each_cell_of_two_prompts_is_one_intervention(batched: bool) -> None:
    here, there = prompts()
    grid = here.patch_grid(there, metric="output[0,-1,5]", batched=batched)
    assert grid.layers == ("blocks.0.out", "blocks.1.out")
    assert grid.values.shape == (2, 16)
    assert grid.batched is batched
    assert grid.baseline == number(here, "output[0,-1,5]") and grid.target == number(there, "output[0,-1,5]")
    holds(grid, lambda rec: number(rec, "output[0,-1,5]"), 1e-5 if batched else 0.0)


def test_positions_before_a_difference_do_nothing() -> None:
    here, there = prompts()
    grid = here.patch_grid(there, metric="output[0,-1,5]", batched=False)
    assert (grid.values[:, :6] == 0).all()  # "En un " is the same in both
    assert (grid.values[1, :-1] == 0).all()  # the last block's other positions are read by nobody
    assert grid.values[1, -1] == 1  # and its last one is all that the metric sees


def test_digits_channel_by_channel() -> None:
    here, there = digits()
    grid = here.patch_grid(there, metric="output[0,3]")
    assert grid.layers[0] == "conv1.out" and grid.layers[-1] == "linear.out"
    assert "flatten.out" not in grid.layers  # it shows the numbers of pool2.out
    holds(grid, lambda rec: number(rec, "output[0,3]"), 1e-4)
    assert grid.values[-1, 3] == 1


def test_the_loss_is_the_metric_where_there_is_one() -> None:
    here, there = digits(loss=True)
    grid = here.patch_grid(there, layers=["relu2", "linear.out"])
    assert grid.metric == "loss"
    holds(grid, lambda rec: number(rec, "loss"), 1e-4)


def test_every_position_of_a_layer_is_the_layers_whole_output() -> None:
    here, there = prompts()
    positions = {f"blocks.0.out[:,{place}]": oh.patch(there) for place in range(16)}
    # One address for each position of one value: all of them together are the whole.
    together = here.intervene(positions)
    whole = here.intervene({"blocks.0.out": oh.patch(there)})
    assert torch.equal(together.output, whole.output)
    assert torch.equal(whole.output, there.output)


@pytest.mark.parametrize("layer", ["blocks.0.out", "blocks.1.out"])
def test_what_a_whole_last_layer_recovers_is_one(layer: str) -> None:
    here, there = prompts()
    one = here.patch_grid(there, metric="output[0,-1,5]", layers=[layer], positions=0)
    assert one.values.shape == (1, 1)
    assert one.values.item() == 1


def test_a_part_of_each_block_and_a_function_as_metric() -> None:
    here, there = prompts()
    by_output = here.patch_grid(there, what="attention", metric=lambda out: out[0, -1, 5] - out[0, -1, 6])
    assert by_output.layers == ("blocks.0.attention.out", "blocks.1.attention.out")
    by_recording = here.patch_grid(
        there, what="attention", metric=lambda rec: rec.output[0, -1, 5] - rec.output[0, -1, 6]
    )
    assert by_output.batched
    assert torch.allclose(by_output.raw, by_recording.raw, atol=1e-4)
    holds(by_output, lambda rec: float(rec.output[0, -1, 5] - rec.output[0, -1, 6]), 1e-4)


def test_what_cannot_be_is_refused_with_the_reason() -> None:
    here, there = prompts()
    with pytest.raises(InterventionError, match="Recording"):
        here.patch_grid("other")
    with pytest.raises(InterventionError, match="no loss"):
        here.patch_grid(there)
    with pytest.raises(InterventionError, match="one number"):
        here.patch_grid(there, metric="output")
    with pytest.raises(InterventionError, match="nothing to recover"):
        here.patch_grid(here, metric="output[0,-1,5]")
    with pytest.raises(InterventionError, match="one number is needed"):
        here.patch_grid(there, metric=lambda out: "many")
    with pytest.raises(InterventionError, match="dimension 5"):
        here.patch_grid(there, metric="output[0,-1,5]", positions=5)
    with pytest.raises(InterventionError, match="labels"):
        here.patch_grid(there, metric="output[0,-1,5]", labels="abc")
    with pytest.raises(AddressError):
        here.patch_grid(there, metric="output[0,-1,5]", layers=["block.0"])
    with pytest.raises(AddressError, match="nose"):
        here.patch_grid(there, metric="output[0,-1,5]", what="nose")
    short = oh.record(here.model, encode("Al gun")[None])
    with pytest.raises(InterventionError, match="shape"):
        here.patch_grid(short, metric="output[0,0,5]")
    grid = here.patch_grid(there, metric="output[0,-1,5]")
    for layer, place in (("blocks.7", 0), (0, 99), (5, 0)):
        with pytest.raises(AddressError):
            grid.at(layer, place)


@pytest.mark.parametrize("lang", ["es", "en"])
def test_it_prints_itself(lang: str) -> None:
    here, there = prompts()
    grid = here.patch_grid(there, metric="output[0,-1,5]", labels="En un lugar de l")
    text = grid.text(lang=lang)
    assert "blocks.1" in text and "␣" in text and "1.00" in text
    for html in (grid.to_html(lang=lang), grid.to_svg(lang=lang), grid._repr_html_()):
        assert "http" not in html.replace("http://www.w3.org/2000/svg", "") and "<script" not in html
        assert html.count('class="cell ') == 32
    plain = json.loads(json.dumps(grid.to_dict(), allow_nan=False))
    assert plain["values"] == grid.values.tolist()
    one, two = digits()
    ragged = one.patch_grid(two, metric="output[0,3]").to_dict()
    assert ragged["values"][-1][-1] is None
