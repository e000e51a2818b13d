"""The audit: whole runs, samples, loops against arrays, what is counted how."""

from __future__ import annotations

import math
import time

import pytest
import torch
from tests.test_explain import step

import openheart as oh
from openheart.formula import loops
from openheart.patients import patients
from openheart.verify import verify


@pytest.mark.parametrize("who", [p.name for p in patients()])
def test_nothing_disagrees_and_nothing_is_opaque(who: str) -> None:
    audit = step(who).verify()
    assert audit.disagree == 0, audit.disagreements
    assert audit.opaque == 0, audit.opaque_operators
    assert audit.ok
    assert audit.scalars == audit.exact + audit.within + audit.unbounded + audit.leaves
    assert audit.unbounded <= 1e-3 * audit.scalars
    assert not audit.nonfinite
    assert audit.worst is not None
    assert 0 < audit.worst.ratio <= 1
    step(who).element(audit.worst.address)  # the address is one


def test_by_operator_adds_up() -> None:
    audit = step("digits-cnn").verify()
    for name in ("scalars", "exact", "within", "unbounded", "disagree", "opaque", "not_checked", "leaves"):
        assert sum(getattr(t, name) for t in audit.by_operator.values()) == getattr(audit, name)
    assert audit.by_operator["aten.convolution"].calls == 2
    assert max(t.worst for t in audit.by_operator.values()) == audit.worst.ratio  # type: ignore[union-attr]


def test_a_sample_is_a_quick_look() -> None:
    rec = step("tiny-gpt")
    audit = rec.verify(sample=2)
    assert audit.ok
    assert audit.sampled
    assert 0 < audit.scalars < rec.verify().scalars / 20
    assert rec.verify(sample=2).to_dict() == audit.to_dict(), "the same seed draws the same places"


@pytest.mark.parametrize("who", ["iris", "digits-cnn"])
@pytest.mark.parametrize("sample", [1, 100])
def test_a_sample_costs_less_than_the_whole_and_holds_as_many_numbers(who: str, sample: int) -> None:
    rec = step(who)
    few, whole = rec.verify(sample=sample), rec.verify()
    assert few.ok
    sizes = (math.prod(v.shape) for call in rec.calls for v in call.outputs if v.kept)
    assert few.exact + few.within + few.unbounded <= sum(min(sample, n) for n in sizes)
    assert few.exact + few.within + few.unbounded >= 0.9 * min(sample, 4) * len(rec.calls) / 4

    def cost(count: int | None) -> float:
        start = time.process_time()
        rec.verify(sample=count)
        return time.process_time() - start

    taken = [(cost(sample), cost(None)) for _ in range(5)]
    assert min(one for one, _ in taken) < 1.1 * min(all_ for _, all_ in taken)
    assert whole.scalars >= few.scalars


def test_a_sample_names_what_disagrees() -> None:
    with oh.recording() as rec:
        torch.randn(60, 50).mul(3.0).exp()
    rec.calls[-1].outputs[0].data.mul_(1.001)
    audit = rec.verify(sample=12)
    assert (audit.disagree, len(audit.disagreements)) == (12, 12)
    assert len({d.address for d in audit.disagreements}) == 12
    for d in audit.disagreements:
        assert d.operator == "exp"
        again = rec.explain(d.address)
        assert (again.value, again.computed) == (d.recorded, pytest.approx(d.computed, rel=1e-12))
        assert again.verdict == "disagrees"


def test_progress_is_told() -> None:
    told: list[tuple[int, int, str]] = []
    rec = step("seed")
    verify(rec, progress=lambda done, whole, name: told.append((done, whole, name)))
    assert told[0][0] == 0
    assert told[-1][:2] == (len(rec.calls), len(rec.calls))


@pytest.mark.skipif(not loops.available(), reason="Numba is not installed")
def test_compiled_loops_and_arrays_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.LayerNorm(256), torch.nn.Softmax(-1)
    )
    rec = oh.record(net, torch.randn(200, 64))
    monkeypatch.setattr(loops, "PAYS", 0)
    quick = rec.verify()
    monkeypatch.setattr(loops, "available", lambda: False)
    slow = rec.verify()
    assert (quick.exact, quick.within, quick.disagree) == (slow.exact, slow.within, slow.disagree)
    assert quick.worst is not None and slow.worst is not None
    assert quick.worst.address == slow.worst.address
    assert quick.worst.ratio == pytest.approx(slow.worst.ratio, rel=1e-3)


@pytest.mark.skipif(not loops.available(), reason="Numba is not installed")
def test_a_compiled_loop_names_what_disagrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "PAYS", 0)
    start = torch.randn(300, 300, generator=torch.Generator().manual_seed(1))
    with oh.recording() as rec:
        start.mul(3.0).exp()
    rec.calls[-1].outputs[0].data[123, 45] *= 1.001
    audit = rec.verify()
    assert audit.disagree == 1
    (found,) = audit.disagreements
    assert found.address.endswith("[123,45]")
    assert found.operator == "exp"
    assert abs(found.recorded - found.computed) > found.bound


def test_numbers_that_were_not_kept_are_not_counted_as_checked() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    whole = oh.record(net, torch.randn(2, 3)).verify()
    part = oh.record(net, torch.randn(2, 3), keep="1").verify()
    assert part.disagree == 0
    assert part.exact + part.within < whole.exact + whole.within
