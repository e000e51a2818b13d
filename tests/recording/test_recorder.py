"""What recording must not do: break, leave something behind, load a compiler, show an overwritten number."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from tests.recording.programs import PROGRAMS, Program, Witness
from torch import nn

import openheart as oh
from openheart.recording import afterwards

UNTOUCHED = nn.Module._call_impl


def _clean() -> None:
    assert nn.Module._call_impl is UNTOUCHED
    assert torch._C._len_torch_dispatch_stack() == 0


def _python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_and_recording_load_no_compiler() -> None:
    code = """
import sys, openheart as oh
assert "torch" not in sys.modules
import torch
rec = oh.record(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU()), torch.ones(1, 2))
rec.element("1.out[0,0]")
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""
    assert _python(code) == "[]"


def test_the_verbs_are_not_hidden_by_the_modules_of_the_same_name() -> None:
    code = """
import openheart.record, openheart.recording, openheart as oh
from openheart.recording import Value
print(callable(oh.record), callable(oh.recording), oh.Value is Value)
"""
    assert _python(code) == "True True True"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = oh.nothing


class Raises(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"no {self.layer(x).shape}")


def test_an_exception_leaves_nothing_behind() -> None:
    with pytest.raises(ValueError, match="no "):
        oh.record(Raises(), torch.ones(1, 2))
    _clean()
    with oh.recording(model := Raises()) as rec, pytest.raises(ValueError, match="no "):
        model(torch.ones(1, 2))
    _clean()
    assert rec.value("layer.out").kept
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        oh.record(nn.Linear(3, 2), torch.ones(2, 4))
    _clean()


def test_recordings_inside_one_another() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with oh.recording(model) as outer:
        with oh.recording(model) as inner:
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
        model(torch.ones(1, 3))
    _clean()
    assert [call.name for call in outer.calls][: len(inner.calls)] == [call.name for call in inner.calls]
    assert torch.equal(inner.value("weight.after").data, outer.value("weight.after").data)
    assert "@1 .out" in outer.addresses()


def test_other_threads_are_not_recorded() -> None:
    model, stop = nn.Linear(3, 2), threading.Event()

    def work() -> None:
        while not stop.is_set():
            model(torch.ones(1, 3))

    thread = threading.Thread(target=work)
    thread.start()
    lengths = set()
    for _ in range(50):
        with oh.recording(model) as rec:
            model(torch.ones(1, 3))
        lengths.add(len(rec.calls))
    stop.set()
    thread.join()
    assert len(lengths) == 1
    _clean()


@pytest.mark.parametrize(
    "program",
    [item for item in PROGRAMS if "penalty" not in item.name and "check" not in item.name],
    ids=lambda p: p.name,
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(program: Program, mode: Any) -> None:
    if "accumulated" in program.name:
        return
    torch.manual_seed(1)
    model = program.build()
    other = copy.deepcopy(model)
    data = program.data()
    with mode():
        torch.manual_seed(2)
        expected = program.run(other, *data)
        torch.manual_seed(2)
        with Witness() as witness, oh.recording(model) as rec:
            loss = program.run(model, *data)
    assert torch.equal(loss, expected)
    names = [call.op.name() for call in rec.calls]
    assert "aten::linear" not in names
    if mode is torch.no_grad:
        witness.check(rec.calls)
    assert {call.phase for call in rec.calls} <= {"forward", "loss"}


def test_functional_transforms() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    parameters = dict(model.named_parameters())
    x = torch.randn(5, 3)

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, parameters, (x,)).pow(2).mean()

    for run in (
        lambda: torch.func.grad(loss)(parameters, x),
        lambda: torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, x),
        lambda: {"vmap": torch.func.vmap(model)(x)},
        lambda: {"jacobian": torch.func.jacrev(model)(x)},
        lambda: {"forward": torch.func.jacfwd(model)(x)},
        lambda: {"hessian": torch.func.hessian(lambda x: model(x).sum())(x)},
    ):
        expected = run()
        with oh.recording(model) as rec:
            result = run()
        for name, tensor in expected.items():
            assert torch.equal(result[name], tensor)
        assert rec.calls
        assert rec.addresses()
    _clean()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tensors_without_readable_numbers_are_opaque_and_no_crash() -> None:
    with torch.device("meta"):
        model = nn.Linear(3, 2)
    rec = oh.record(model, torch.empty(4, 3, device="meta"))
    value = rec.value("output")
    assert value.shape == (4, 2)
    assert not value.kept
    with pytest.raises(oh.OpaqueError, match="meta"):
        _ = value.data
    with oh.recording() as rec:
        torch.eye(3).to_sparse() @ torch.ones(3, 2)
        torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged) * 2
        torch.cond(torch.tensor(True), lambda x: x + 1, lambda x: x - 1, (torch.ones(3),))
    sparse = next(call for call in rec.calls if call.name == "to_sparse").outputs[0]
    assert not sparse.kept
    assert any(call.name == "cond" for call in rec.calls)
    for item in rec.values:
        if item.kept:
            _ = item.array
    _clean()


class Named(torch.Tensor):
    """A subclass that takes no call over."""


def test_a_subclass_that_takes_nothing_over_is_an_ordinary_tensor() -> None:
    x = torch.randn(2, 3).as_subclass(Named)
    rec = oh.record(nn.Linear(3, 2), x)
    assert type(rec.value("input").data) is torch.Tensor
    assert rec.value("input").data.tolist() == x.tolist()
    assert rec.value("output").kept


@pytest.mark.parametrize("small", [True, False])
def test_values_stay_when_the_run_goes_on(small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(afterwards, "SMALL", 2**26 if small else 0)
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    before = model.weight.detach().clone()
    rec = oh.record(model, torch.ones(1, 3))
    held = rec.value("weight").data if small else None
    for _ in range(2):
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
    assert not torch.equal(model.weight, before)
    assert torch.equal(rec.value("weight").data, before)
    assert held is None or torch.equal(held, before)


@pytest.mark.parametrize("small", [True, False])
def test_a_recording_that_nobody_reads_is_not_read_by_the_next_step(
    small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afterwards, "SMALL", 2**26 if small else 0)
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()

    with oh.recording(model) as rec:
        step()
    expected = model.weight.detach().clone(), optimizer.state[model.weight]["exp_avg"].clone()
    with oh.recording(model) as other:
        step()
    assert rec._facts is None
    step()
    assert rec._facts is None and other._facts is None
    assert torch.equal(rec.value("weight.after").data, expected[0])
    assert torch.equal(rec.value("weight.exp_avg.after").data, expected[1])
    assert torch.equal(other.value("weight").data, expected[0])
    assert torch.equal(other.value("weight.exp_avg").data, expected[1])


def test_a_value_that_was_overwritten_behind_our_back_says_so() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    rec = oh.record(model, torch.ones(1, 3))
    assert rec.value("0.out").array.shape == (1, 2)
    rec.output.detach().add_(1)
    with pytest.raises(oh.OpaqueError, match="overwritten in place after the recording ended"):
        _ = rec.value("0.out").array


def test_parameters_that_are_given_other_memory() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    weights = [model.weight.detach().clone()]
    with oh.recording(model) as rec:
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
            for parameter in model.parameters():
                parameter.data = parameter.data - 0.1 * parameter.grad  # type: ignore[operator]
                parameter.grad = None
            with torch._C._DisableTorchDispatch():
                weights.append(model.weight.detach().clone())
    for step in range(2):
        assert torch.equal(rec.value(f"@{step} weight").data, weights[step])
        assert torch.equal(rec.value(f"@{step} weight.after").data, weights[step + 1])


def test_reshaped_objects_keep_what_they_were() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    with oh.recording() as rec, Witness() as witness:
        y = x * 2
        y.t_()
        z = y + 1
        z.unsqueeze_(0)
        z.squeeze_(0)
        z.resize_(2, 2)
        torch.add(z, 1, out=torch.empty(0))
        z.transpose_(0, 1).mul_(3)
    witness.check(rec.calls)


def test_hooks_see_and_change_what_they_always_do() -> None:
    def run(recorded: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))
        model[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
        model[1].register_forward_hook(lambda module, args, out: out + 1)
        model[2].register_full_backward_hook(lambda module, incoming, outgoing: (incoming[0] * 3,))
        model[0].weight.register_hook(lambda grad: grad + 1)
        x = torch.randn(2, 3, requires_grad=True)
        if recorded:
            with oh.recording(model) as rec:
                model(x).sum().backward()
            assert torch.equal(rec.value("0.weight.grad").data, model[0].weight.grad)
        else:
            model(x).sum().backward()
        return [x.grad, *(parameter.grad for parameter in model.parameters())]  # type: ignore[list-item]

    for one, other in zip(run(False), run(True), strict=True):
        assert torch.equal(one, other)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_network_runs_and_is_recorded_as_pytorch_runs_it_under_a_mode() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2))
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(2, 3)
    expected = compiled(x)
    with oh.recording(compiled) as rec:
        result = compiled(x)
        result.sum().backward()
    assert torch.equal(result, expected)
    assert "addmm" in {call.name for call in rec.calls}
    _clean()


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_modules_get_their_names() -> None:
    model = nn.Sequential(nn.LazyLinear(2))
    rec = oh.record(model, torch.ones(1, 3))
    assert torch.equal(rec.value("0.weight").data, model[0].weight)


def test_closures_run_inside_the_optimizer() -> None:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(1, 2)).pow(2).sum()
        loss.backward()
        return loss

    with oh.recording(model) as rec:
        optimizer.step(closure)
        optimizer.step(closure)
    steps = {(call.phase, call.step) for call in rec.calls}
    assert {("forward", 0), ("backward", 0), ("optimizer", 0), ("forward", 1), ("optimizer", 1)} <= steps
    assert torch.equal(rec.value("@1 weight.after").data, model.weight)


def test_recordings_that_were_not_read_yet_leave_the_next_one_as_it_is() -> None:
    def step() -> oh.Recording:
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(inplace=True), torch.nn.Linear(3, 1))
        optimizer = torch.optim.Adam(net.parameters())
        with oh.recording(net) as recording:
            (net(torch.ones(4, 2)) ** 2).mean().backward()
            optimizer.step()
        return recording

    one, two, three = step(), step(), step()
    assert [call.phase for call in one.calls] == [call.phase for call in two.calls]
    assert one.addresses() == two.addresses() == three.addresses()


def test_each_call_has_the_line_that_called_the_module_it_runs_in() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.deep = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), nn.Linear(2, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.deep(x)
            x = x.exp()
            return self.deep(
                self.deep[0](x),
            )

    x = torch.ones(1, 2)
    with oh.recording(model := Twice()) as rec:
        model(x)
    first = Twice.forward.__code__.co_firstlineno
    lines = [int((call.source or "").split(":")[1]) - first for call in rec.calls]
    assert lines == [1] * 5 + [2] + [4] * 3 + [3] * 5
