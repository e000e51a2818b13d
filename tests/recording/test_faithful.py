"""A recording holds what ran, and what ran is what would have run without it."""

from __future__ import annotations

import pytest
import torch
from tests.recording.programs import PROGRAMS, Program, Witness, tensors_in

import openheart as oh


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_recording_never_changes_a_number(program: Program) -> None:
    def run(recorded: bool) -> list[torch.Tensor]:
        torch.manual_seed(3)
        model = program.build()
        optimizer = program.optimizer(model.parameters())
        torch.manual_seed(4)
        if recorded:
            with oh.recording(model):
                losses = program.train(model, optimizer)
        else:
            losses = program.train(model, optimizer)
        gradients = [parameter.grad for parameter in model.parameters()]
        numbers = [*losses, *gradients, *model.parameters(), *model.buffers()]
        return [
            tensor for tensor in (*numbers, *tensors_in(list(optimizer.state.values()))) if tensor is not None
        ]

    plain, recorded = run(False), run(True)
    assert len(plain) == len(recorded)
    for one, other in zip(plain, recorded, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_call_holds_the_numbers_it_read_and_made(program: Program) -> None:
    torch.manual_seed(3)
    model = program.build()
    optimizer = program.optimizer(model.parameters())
    with oh.recording(model) as rec, Witness() as witness:
        program.train(model, optimizer)
    witness.check(rec.calls)
    program.train(model, optimizer)  # and they stay so when the run goes on outside
    witness.check(rec.calls)
