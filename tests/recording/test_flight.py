"""Of a long run some steps are held, exactly as they were; the others leave nothing behind."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.recording.programs import PROGRAMS, Program
from torch import nn

import openheart as oh
from openheart.recording import Recording


def _recorded(program: Program, steps: int, **options: Any) -> Recording:
    torch.manual_seed(3)
    model = program.build()
    optimizer = program.optimizer(model.parameters())
    data = program.data()
    with oh.recording(model, **options) as rec:
        for _ in range(steps):
            optimizer.zero_grad()
            program.run(model, *data).backward()
            optimizer.step()
    return rec


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _of_step(name: str) -> int:
    return int(name[1:].split(maxsplit=1)[0]) if name.startswith("@") else 0


def assert_part(part: Recording, whole: Recording, steps: list[int]) -> None:
    """What is held of these steps is what the whole recording holds of them, under the same names."""
    assert part.steps == steps
    calls = [call for call in whole.calls if call.step in steps]
    assert [(call.op, call.phase, call.step, call.scope, call.visit) for call in part.calls] == [
        (call.op, call.phase, call.step, call.scope, call.visit) for call in calls
    ]
    outside = {value.id for call in whole.calls if call.step not in steps for value in call.outputs}
    for name in whole.addresses():
        owner = whole._named.values.get(name.removesuffix(".grad"))
        foreign = name.endswith(".grad") and (owner is None or owner.id in outside)
        if _of_step(name) in steps and "constant" not in name and not foreign:
            one, other = whole.value(name), part.value(name)
            assert one.shape == other.shape
            if one.kept:
                assert _bits(one.data) == _bits(other.data), name


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_what_is_held_is_what_a_whole_recording_holds(program: Program) -> None:
    torch.manual_seed(3)
    model = program.build()
    options = [{}, {"last": 2}, {"every": 2}, {"every": 2, "last": 2}]
    with ExitStack() as stack:
        whole, last, every, both = [stack.enter_context(oh.recording(model, **given)) for given in options]
        replace(program, steps=5).train(model, program.optimizer(model.parameters()))
    assert_part(last, whole, [3, 4])
    assert_part(every, whole, [0, 2, 4])
    assert_part(both, whole, [2, 4])


@pytest.mark.parametrize("options", [{"last": 2}, {"every": 3}, {"last": 2, "keep": "graph"}], ids=str)
def test_what_is_held_explains_verifies_replays_and_is_operated_on(options: Any, tmp_path: Path) -> None:
    program = next(item for item in PROGRAMS if item.name == "mlp, Adam foreach")
    rec = _recorded(program, 7, **options)
    last = rec.steps[-1]
    audit = rec.verify()
    assert audit.ok and audit.scalars > 1000
    again = rec.replay()
    for value, twin in zip(rec.values, again.values, strict=True):
        assert not value.kept or _bits(value.data) == _bits(twin.data)
    explanation = rec.explain(f"@{last} 0.weight.after[0,0]")
    assert explanation.verdict in ("exact", "within rounding")
    assert rec.value("0.weight").origin == "parameter"
    assert rec.maker(rec.value(f"@{rec.steps[0]} 0.weight")) is None
    if options.get("last"):
        assert rec.maker(rec.value("0.weight.exp_avg")) is None
        assert rec.name(rec.value("0.weight.exp_avg")) == f"@{rec.steps[0]} 0.weight.exp_avg"
    changed = rec.intervene({f"@{last} 0.weight[0,0]": 1.0})
    assert changed.value(f"@{last} loss").data != rec.value(f"@{last} loss").data
    rec.save(tmp_path / "run.oh")
    loaded = oh.load(tmp_path / "run.oh")
    assert (repr(loaded), loaded.steps) == (
        repr(rec).rsplit(",", 1)[0] + "," + repr(loaded).rsplit(",", 1)[1],
        rec.steps,
    )


def test_names_without_a_number_mean_the_first_step_that_is_held() -> None:
    rec = _recorded(PROGRAMS[0], 6, last=2)
    assert rec.value("loss") is rec.value("@4 loss")
    assert rec.name(rec.value("loss")) == "@4 loss"
    assert rec.value("0.weight.grad") is rec.value("@4 0.weight.grad")
    changed = rec.intervene({"0.weight[0,0]": 1.0})
    assert changed.value("loss") is changed.value("@4 loss")
    for gone in ("@0 loss", "@3 loss", "@6 loss"):
        with pytest.raises(oh.AddressError, match=r"'@[45] loss'"):
            rec.value(gone)


def test_an_edit_before_steps_that_are_not_held_says_what_it_does_not_reach() -> None:
    rec = _recorded(PROGRAMS[0], 6, every=2)
    changed = rec.intervene({"0.weight[0,0]": 1.0})
    assert any("steps 1, 3 are not held" in str(note) for note in changed.notes)
    changed = _recorded(PROGRAMS[0], 6, last=2).intervene({"0.weight[0,0]": 1.0})
    assert not any("not held" in str(note) for note in changed.notes)


def test_memory_that_numpy_writes_in_steps_that_are_not_held() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    memory = np.zeros((1, 2), dtype=np.float32)
    batch = torch.from_numpy(memory)
    with oh.recording(model, every=2) as rec:
        for step in range(5):
            memory[:] = step
            model(batch).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    read = [(call.step, call.args[1].data.tolist()) for call in rec.calls if call.name == "addmm"]
    assert read == [(step, [[step, step]]) for step in (0, 2, 4)]
    assert rec.verify().ok


def test_memory_is_that_of_the_steps_that_are_held() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model.parameters())
    alive: list[Any] = []
    most = 0
    with oh.recording(model, last=3) as rec:
        for _ in range(60):
            optimizer.zero_grad()
            out = model(torch.randn(2, 3))
            alive.append(weakref.ref(out))
            out.square().mean().backward()
            optimizer.step()
            most = max(most, sum(item() is not None for item in alive))
    assert most == 3
    assert rec.ran == 60 and rec.steps == [57, 58, 59]
    assert 0 < rec.nbytes < 50_000
    assert "steps 57–59 of 60" in repr(rec) and "MiB" in repr(rec)


def test_a_run_that_breaks_off_leaves_its_last_steps() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train() -> None:
        for step in range(5):
            loss = model(torch.ones(1, 2)).sum()
            if step == 4:
                raise ZeroDivisionError
            loss.backward()
            optimizer.step()

    with pytest.raises(ZeroDivisionError), oh.recording(model, last=2) as rec:
        train()
    assert rec.steps == [3, 4]
    assert rec.value("@3 weight.after") is rec.value("@4 weight")
    assert rec.verify().ok


# Where steps begin ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, nullcontext])
def test_without_training_each_call_of_the_model_is_a_step(context: Any) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with oh.recording(model, last=2) as rec, context():
        for number in range(20):
            model(torch.full((1, 2), float(number)))
    assert rec.steps == [18, 19] and rec.ran == 20
    assert rec.value("@18 input").data.tolist() == [[18.0, 18.0]]
    assert rec.value("@19 0.out").kept


def _loop(kind: str, model: nn.Module, optimizer: Any) -> Iterator[None]:
    x = torch.ones(1, 2)
    while True:
        if kind == "two calls, one backward pass":
            (model(x) - model(x + 1)).sum().backward()
            optimizer.step()
        elif kind == "accumulated":
            for _ in range(3):
                model(x).sum().backward()
            optimizer.step()
        elif kind == "looked at and dropped":
            model(x).sum().backward()
            model.zero_grad()
        elif kind == "by hand":
            model(x).sum().backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad  # type: ignore[operator]
                    parameter.grad = None
        elif kind == "by hand, data":
            model(x).sum().backward()
            for parameter in model.parameters():
                parameter.data -= 0.1 * parameter.grad.data  # type: ignore[union-attr]
                parameter.grad.zero_()  # type: ignore[union-attr]
        elif kind == "a closure":

            def closure() -> torch.Tensor:
                optimizer.zero_grad()
                loss = model(x).square().sum()
                loss.backward()
                return loss

            optimizer.step(closure)
        optimizer.zero_grad(set_to_none=False)
        yield


@pytest.mark.parametrize(
    "kind",
    [
        "two calls, one backward pass", "accumulated", "looked at and dropped", "by hand", "by hand, data",
        "a closure",
    ],
)  # fmt: skip
def test_each_turn_of_a_loop_is_a_step(kind: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    lbfgs = torch.optim.LBFGS(model.parameters(), max_iter=3)
    loop = _loop(kind, model, lbfgs if kind == "a closure" else torch.optim.SGD(model.parameters(), lr=0.1))
    with oh.recording(model, last=2) as rec:
        for _ in range(6):
            next(loop)
    assert rec.steps == [4, 5] and rec.ran == 6
    of_step = [[call.op for call in rec.calls if call.step == step] for step in (4, 5)]
    assert of_step[0] == of_step[1] or kind == "a closure"
    assert rec.verify().ok


def test_an_evaluation_in_between_is_steps_of_its_own() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with oh.recording(model, last=3) as rec:
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for _ in range(10):
                    model(torch.zeros(1, 2))
    assert rec.ran == 22 and rec.steps == [19, 20, 21]


def test_code_without_a_model_has_steps_by_its_updates() -> None:
    weight = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with oh.recording(last=2) as rec:
        for _ in range(5):
            weight.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert rec.steps == [3, 4] and rec.ran == 5


@pytest.mark.parametrize("bad", [0, -1, 1.5, "3", True, float("nan")])
@pytest.mark.parametrize("name", ["last", "every"])
def test_a_wrong_number_of_steps_is_refused(name: str, bad: Any) -> None:
    with pytest.raises(oh.InputError, match=f"{name}=.*whole number from 1 on"), oh.recording(**{name: bad}):
        pass
    oh.set_language("es")
    try:
        with pytest.raises(oh.InputError, match="número entero"), oh.recording(**{name: bad}):
            pass
    finally:
        oh.set_language("en")


def test_a_network_may_be_traced_symbolically_while_it_flies() -> None:
    """What a tracer puts in a tensor's place answers to any name, and is no dataclass."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    with oh.recording(net, last=1) as rec:
        traced = torch.fx.symbolic_trace(net)
        net(torch.ones(1, 2)).sum().backward()
    assert torch.equal(traced(torch.ones(1, 2)), net(torch.ones(1, 2)))
    assert rec.verify().ok
