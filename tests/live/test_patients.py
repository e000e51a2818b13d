"""Every patient's training step as a live program, held against PyTorch's numbers and real bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.live.running import HUGE, call_by_call, in_node, numbers, off, recorded, trained

import openheart as oh
from openheart.patients import patients

# tiny-gpt's step takes 9 million multiply-adds; one sample of it is enough to see every law it has.
TAKE = {"tiny-gpt": 1}
NAMES = [p.name for p in patients()]


@pytest.mark.parametrize("who", NAMES)
def test_each_call_from_recorded_numbers_is_within_its_bound(who: str, tmp_path: Path) -> None:
    rec, _, _ = trained(who, steps=2, take=TAKE.get(who))
    program = oh.to_javascript(rec, bounds=True, limit=HUGE)
    assert set(program.frozen.values()) <= {"uninitialized", "random", "external", "empty"}
    made = call_by_call(tmp_path, rec, program)
    computed = {value.id for value in rec.values if rec.maker(value)} - {
        rec.value(a).id for a in program.frozen
    }
    assert set(made) == computed, "everything that is not frozen was made"
    exact = scalars = 0
    for identity, (values, bounds) in made.items():
        wanted = recorded(rec.values[identity])
        if wanted is None:
            continue
        apart = off(wanted, values)
        assert (apart <= bounds).all(), (rec.name(rec.values[identity]), apart.max(), bounds[apart.argmax()])
        assert np.isfinite(bounds).all() or not np.isfinite(values).all(), rec.name(rec.values[identity])
        exact += int((apart == 0).sum())
        scalars += values.size
    assert exact > 0.6 * scalars, "most numbers are PyTorch's to the last bit"


@pytest.mark.parametrize("who", NAMES)
def test_the_whole_program_is_within_the_bound_that_it_carries(who: str, tmp_path: Path) -> None:
    rec, _, _ = trained(who, take=TAKE.get(who))
    program = oh.to_javascript(rec, bounds=True, limit=HUGE)
    plain = oh.to_javascript(rec, limit=HUGE)
    every = "const p = create(); print(p.addresses().map((a) => p.value(a)));"
    said = in_node(tmp_path, program, every)
    bare = in_node(tmp_path, plain, every)
    finite = scalars = 0
    for value, found, without in zip(rec.values, said, bare, strict=True):
        wanted = recorded(value)
        assert found["data"] == without["data"], "the numbers do not depend on whether bounds are carried"
        assert not found["stale"]
        if wanted is None or found["data"] is None:
            assert found["frozen"] in ("uninitialized", "external") or wanted is None
            continue
        bounds = numbers(found["bound"])
        apart = off(wanted, numbers(found["data"]))
        assert (apart <= bounds).all(), (rec.name(value), apart.max())
        finite += int(np.isfinite(bounds).sum())
        scalars += bounds.size
    forward = [c.outputs[0] for c in rec.calls if c.phase == "forward" and c.outputs]
    assert finite > 0.25 * scalars, (finite, scalars)
    assert forward
