"""The page of a run: what it costs."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path

import torch

import openheart as oh


def trained(steps: int) -> oh.Recording:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Tanh())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(8, 8), torch.randn(8, 8)
    with oh.recording(model) as recording:
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x), y).backward()
            optimizer.step()
    return recording


def test_a_page_looks_no_name_up_among_all_the_others(tmp_path: Path) -> None:
    """Which would cost steps times steps: most values have no `.after`, and most names are alike."""
    recording = trained(2)
    profile = cProfile.Profile()
    profile.enable()
    recording.to_html(tmp_path / "run.html")
    profile.disable()
    ran = {file for file, _, _ in pstats.Stats(profile).stats}  # type: ignore[attr-defined]
    assert any(file.endswith("selection.py") for file in ran)
    assert not any(file.endswith("difflib.py") for file in ran)


def test_a_name_that_may_not_be_there_is_one_look_up() -> None:
    recording = trained(1)
    assert recording.get("0.weight.grad") is recording.value("0.weight.grad")
    assert recording.get(" @0 0.weight ") is recording.value("0.weight")
    assert recording.get("0.weigth") is None
