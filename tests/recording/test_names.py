"""Every value has a name, every name leads to its value, and a wrong address says which one is near."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.recording.programs import PROGRAMS, Program, Tied
from torch import nn
from torch.nn import functional as F

import openheart as oh
from openheart.recording import Element, Recording
from openheart.recording.addresses import split


def _trained(steps: int = 2, **options: bool) -> tuple[Recording, list[dict[str, torch.Tensor]], nn.Module]:
    """A recording of some steps of Adam, and the state dict before each and after the last."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, **options)
    x = torch.randn(4, 2)
    states = [copy.deepcopy(model.state_dict())]
    with oh.recording(model) as rec:
        for _ in range(steps):
            loss = nn.functional.mse_loss(model(x), torch.ones(4, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch._C._DisableTorchDispatch():
                states.append(copy.deepcopy(model.state_dict()))
            loss.item()
    return rec, states, model


@pytest.mark.parametrize("options", [{"foreach": False}, {"foreach": True}, {"fused": True}], ids=str)
def test_parameters_and_buffers_before_and_after_each_step(options: dict[str, bool]) -> None:
    rec, states, model = _trained(3, **options)
    for step in range(3):
        prefix = f"@{step} "
        for name in states[0]:
            assert torch.equal(rec.value(prefix + name).data, states[step][name]), (step, name)
            assert torch.equal(rec.value(f"{prefix}{name}.after").data, states[step + 1][name]), (step, name)
        for name, parameter in model.named_parameters():
            assert rec.value(f"{prefix}{name}.grad").shape == parameter.shape
            assert rec.value(f"{prefix}{name}.exp_avg.after").shape == parameter.shape
    assert rec.value("0.weight") is rec.value("@0 0.weight")
    assert rec.value("0.weight.after") is rec.value("@1 0.weight")
    assert rec.value("0.weight.exp_avg.after") is rec.value("@1 0.weight.exp_avg")
    assert torch.equal(rec.value("0.weight.exp_avg").data, torch.zeros(3, 2))
    assert rec.value("0.weight.step.after").data.item() == 1
    assert {call.step for call in rec.calls} == {0, 1, 2}
    assert rec.value("0.weight").origin == "parameter"
    assert rec.value("1.running_mean").origin == "buffer"
    assert rec.value("input").origin == "input"


def test_the_phases_of_a_step() -> None:
    rec, _, _ = _trained(1)
    phases = [call.phase for call in rec.calls if call.name != "local_scalar_dense"]
    order = [phase for place, phase in enumerate(phases) if place == 0 or phases[place - 1] != phase]
    assert order == ["forward", "loss", "backward", "optimizer"]
    assert rec.name(rec.value("loss")) == "loss"
    assert rec.value("loss/mse_loss.out") is rec.value("loss")
    assert torch.equal(rec.value("loss.grad").data, torch.ones(()))
    maker = rec.maker(rec.value("0.out"))
    assert maker is not None
    assert (maker[0].name, maker[0].scope, maker[1]) == ("addmm", "0", 0)
    assert maker[0].source is not None
    assert maker[0].source.startswith("test_names.py:")


def test_an_in_place_relu_does_not_overwrite_the_linear_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 50), nn.ReLU(inplace=True))
    x = torch.randn(3, 4)
    expected = model[0](x).detach()
    rec = oh.record(model, x)
    assert (expected < 0).any()
    assert torch.equal(rec.value("0.out").data, expected)
    assert torch.equal(rec.value("1.out").data, expected.relu())
    assert rec.value("1.in") is rec.value("0.out")
    assert rec.value("output") is rec.value("1.out")
    assert rec.value(".out") is rec.value("1.out")


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 3))

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = torch.tanh(self.inner(x) * scale)
        hidden = torch.tanh(self.inner(hidden))
        left, right = hidden.split([1, 2], dim=1)
        return {"left": left, "right": right}


def test_functional_calls_second_visits_keywords_and_several_outputs() -> None:
    torch.manual_seed(0)
    model = Functional()
    x, scale = torch.randn(2, 3), torch.tensor(2.0)
    rec = oh.record(model, x, scale=scale)
    first = model.inner(x)
    assert torch.equal(rec.value("scale").data, scale)
    assert rec.value(".in.scale") is rec.value("scale")
    assert torch.equal(rec.value("inner.0.out").data, first)
    assert rec.value("inner.0:1.out") is rec.value("inner.0.out")
    assert torch.equal(rec.value("/mul.out").data, first * scale)
    assert torch.equal(rec.value("/tanh.out").data, torch.tanh(first * scale))
    assert torch.equal(rec.value("inner.0:2.out").data, model.inner(torch.tanh(first * scale)))
    assert rec.value("inner:2.in") is rec.value("/tanh.out")
    assert torch.equal(rec.value("/tanh_1.out").data, torch.tanh(model.inner(torch.tanh(first * scale))))
    assert rec.value(".out") is rec.value("output.left")
    assert rec.value(".out_1") is rec.value("output.right")
    assert rec.value("/split_with_sizes.out_1") is rec.value("output.right")
    split_call = rec.maker(rec.value(".out_1"))
    assert split_call is not None
    assert split_call[0].slots == ((0, 0), (0, 1))


def test_tied_weights_have_both_names() -> None:
    torch.manual_seed(0)
    rec = oh.record(Tied(), torch.tensor([[1, 2]]))
    assert rec.value("embedding.weight") is rec.value("head.weight")
    assert rec.name(rec.value("head.weight")) == "embedding.weight"
    assert rec.value("shared:2.out") is not rec.value("shared.out")


def test_slots_of_what_is_written_and_not_returned() -> None:
    rec, _, _ = _trained(1, fused=True)
    norm = next(call for call in rec.calls if call.name == "native_batch_norm")
    assert norm.slots == ((0, None), (1, None), (2, None), ("running_mean", None), ("running_var", None))
    assert rec.name(norm.outputs[3]) == "1.running_mean.after"
    fused = next(call for call in rec.calls if call.name == "fused_adam_")
    assert fused.slots[0] == ("self", 0)
    assert ("exp_avgs", 0) in fused.slots
    assert not any(slot == "grads" for slot, _ in fused.slots)
    assert {"self", "grads", "lr", "beta1", "amsgrad", "found_inf"} <= set(fused.arguments)


def test_arguments_are_named_and_defaults_filled_in() -> None:
    rec, _, _ = _trained(1)
    call = next(call for call in rec.calls if call.name == "addmm")
    assert list(call.arguments) == ["self", "mat1", "mat2", "beta", "alpha"]
    assert call.arguments["alpha"] == 1
    assert call.arguments["self"] is rec.value("0.bias")
    assert rec.value("0.bias") in call.args


def test_a_buffer_written_through_views_is_read_again() -> None:
    with oh.recording() as rec:
        buffer = torch.zeros(3, 2)
        row = buffer[1]
        row.fill_(5)
        total = buffer.sum()
    reread = next(call for call in rec.calls if call.name == "reread")
    arguments = reread.arguments
    assert arguments["new"].data.equal(torch.full((2,), 5.0))
    assert (arguments["new_size"], arguments["new_stride"], arguments["new_offset"]) == ([2], [1], 2)
    assert reread.op(*(getattr(item, "data", item) for item in reread.args)).equal(buffer)
    assert reread.outputs[0].data.equal(buffer)
    assert rec.users(reread.outputs[0])[0].name == "sum"
    assert arguments["old"].data.equal(torch.zeros(3, 2))
    assert total == 10


def test_plain_tensor_code() -> None:
    weight, x = torch.ones(2, requires_grad=True), torch.tensor([1.0, 2.0])
    with oh.recording() as rec:
        for _ in range(2):
            (weight * x).sum().backward()
            with torch.no_grad():
                weight -= 0.5 * weight.grad  # type: ignore[operator]
            weight.grad = None
    assert rec.value("constant_0").data.tolist() == [1, 1]
    assert rec.value("constant_0.grad").data.tolist() == [1, 2]
    assert rec.value("constant_0.after").data.tolist() == [0.5, 0]
    assert rec.value("@1 constant_0.after").data.tolist() == [0, -1]
    assert rec.value("@1 loss").data.item() == 0.5


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_value_has_one_canonical_name_that_leads_back(program: Program) -> None:
    torch.manual_seed(3)
    model = program.build()
    with oh.recording(model) as rec:
        program.train(model, program.optimizer(model.parameters()))
    called = [rec.name(value) for value in rec.values]
    assert len(called) == len(set(called))
    assert set(rec.addresses()) <= set(called) and len(rec.addresses()) == len(set(rec.addresses()))
    for value in rec.values:
        assert rec.value(rec.name(value)) is value
    for call in rec.calls:
        for number, value in enumerate(call.outputs):
            assert rec.maker(value) == (call, number)
    for phase in ("forward", "backward"):
        assert any(call.phase == phase for call in rec.calls)


REC, _, _ = _trained(2)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_addresses_of_elements_go_both_ways(data: st.DataObject) -> None:
    value = data.draw(st.sampled_from([value for value in REC.values if 0 not in value.shape]))
    index = tuple(data.draw(st.integers(0, size - 1)) for size in value.shape)
    address = REC.address(Element(value, index))
    assert REC.element(address) == Element(value, index)
    if index:
        backwards = [str(at - size) for at, size in zip(index, value.shape, strict=True)]
        assert REC.element(f"{REC.name(value)}[{', '.join(backwards)}]") == Element(value, index)


@pytest.mark.parametrize(
    ("address", "suggestion", "says"),
    [
        ("0.outt[0,2]", "0.out[0,2]", "its shape is (4, 3)"),
        ("0.out[0,3]", "0.out[0,2]", "index 3 is out of range for dimension 1 of size 3"),
        ("0.out[-5,0]", "0.out[0,0]", "out of range for dimension 0"),
        ("0.out[1]", "0.out[1,0]", "1 indices for 2 dimensions"),
        ("0.out", "0.out[0,0]", "is not one number"),
        ("loss[0]", "loss", "1 indices for 0 dimensions"),
        ("0.out[a]", "0.out", "not a list of whole numbers"),
        ("0.weigth[2,1]", "0.weight[2,1]", "did you mean"),
        ("@7 0.weight[0,0]", "@1 0.weight[0,0]", "did you mean"),
        ("", None, "no value is called"),
    ],
)
def test_a_wrong_address_says_what_is_near(address: str, suggestion: str | None, says: str) -> None:
    with pytest.raises(oh.AddressError) as caught:
        REC.element(address)
    assert says in str(caught.value)
    assert isinstance(caught.value, LookupError)
    if suggestion is not None:
        assert caught.value.suggestion == suggestion
    REC.element(str(caught.value.suggestion)) if suggestion not in (None, "0.out") else None


def test_spaces_and_steps_in_an_address() -> None:
    assert split(" @0  0.out [ 0 , -1 ] ") == ("0.out", (0, -1))
    assert split("@01 loss") == ("@1 loss", None)
    assert split("loss[]") == ("loss", ())
    assert REC.element("loss").index == ()


def test_nothing_can_be_read_while_it_runs() -> None:
    with oh.recording() as rec, pytest.raises(oh.OpenheartError, match="still running"):
        _ = rec.calls
    assert rec.calls == []
    with pytest.raises(oh.AddressError, match="nothing was recorded"):
        rec.value("loss")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_name_of_a_value_with_a_gradient_has_a_twin(program: Program) -> None:
    torch.manual_seed(3)
    model = program.build()
    x, y = program.data()
    if x.is_floating_point():
        x.requires_grad_()
    with oh.recording(model) as rec:
        program.run(model, x, y).backward()
    names = rec._named.values
    called: dict[int, set[str]] = {}
    for name, value in names.items():
        if not name.endswith(".after"):
            called.setdefault(value.id, set()).add(name)
    twins = 0
    for group in called.values():
        gradients = {names[f"{name}.grad"].id for name in group if f"{name}.grad" in names}
        assert len(gradients) <= 1, group
        if gradients:
            assert {f"{name}.grad" for name in group} <= set(names), group
            twins += 1
    assert twins >= len(list(model.parameters()))


def test_a_module_s_own_name_comes_first() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
    x = torch.randn(5, 3, requires_grad=True)
    with oh.recording(model) as rec:
        model(x).sum().backward()
    gradient = rec.value("3.out.grad")
    for name in (".out.grad", "output.grad", "3/addmm.out.grad"):
        assert rec.value(name) is gradient
    assert rec.name(gradient) == "3.out.grad"
    assert rec.name(rec.value("output")) == "3.out"
    for name in ("0.in.grad", ".in.grad"):
        assert rec.value(name) is rec.value("input.grad")
    assert rec.name(rec.value("0.in.grad")) == "input.grad"


@pytest.mark.parametrize(
    ("criterion", "target"),
    [
        (nn.CrossEntropyLoss(), torch.tensor([0, 1, 1])),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])), torch.tensor([0, 1, 1])),
        (nn.CrossEntropyLoss(), torch.full((3, 2), 0.5)),
        (nn.functional.cross_entropy, torch.tensor([0, 1, 1])),
        (nn.MSELoss(), torch.zeros(3, 2)),
        (nn.L1Loss(), torch.zeros(3, 2)),
        (nn.HuberLoss(), torch.zeros(3, 2)),
        (nn.KLDivLoss(reduction="batchmean"), torch.full((3, 2), 0.5)),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0])), torch.zeros(3, 2)),
        (nn.PoissonNLLLoss(), torch.ones(3, 2)),
        (nn.MultiLabelSoftMarginLoss(), torch.ones(3, 2)),
        (lambda out, y: ((out - y) ** 2).mean(), torch.zeros(3, 2)),
        (lambda out, y: nn.functional.cross_entropy(out[1:], y[1:].reshape(-1)), torch.tensor([0, 1, 1])),
    ],
    ids=[str(n) for n in range(13)],
)
def test_what_a_loss_compares_with_is_the_target(criterion: nn.Module, target: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    with oh.recording(model) as rec:
        for _ in range(2):
            criterion(model(torch.randn(3, 4)), target).backward()
            torch.optim.SGD(model.parameters(), lr=0.1).step()
    value = rec.value("target")
    assert torch.equal(value.data, target)
    assert rec.name(value) == "target"
    assert rec.value("@1 target") is value
    assert "target_1" not in rec.addresses()


CLASSES, SOFT = torch.tensor([0, 1, 2, 0, 1]), torch.full((5, 3), 1 / 3)
BY_CLASS, BY_NUMBER = torch.rand(3), torch.rand(5, 3)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (
            lambda o: F.cross_entropy(o, CLASSES, weight=BY_CLASS),
            {"target": CLASSES, "loss_weight": BY_CLASS},
        ),
        (lambda o: F.cross_entropy(o, SOFT, weight=BY_CLASS), {"target": SOFT, "loss_weight": BY_CLASS}),
        (
            lambda o: F.cross_entropy(o, CLASSES, weight=BY_CLASS, label_smoothing=0.1),
            {"target": CLASSES, "loss_weight": BY_CLASS},
        ),
        (
            lambda o: F.binary_cross_entropy(o.sigmoid(), SOFT, weight=BY_NUMBER),
            {"target": SOFT, "loss_weight": BY_NUMBER},
        ),
        (
            lambda o: F.binary_cross_entropy_with_logits(o, SOFT, weight=BY_NUMBER, pos_weight=BY_CLASS),
            {"target": SOFT, "loss_weight": BY_NUMBER, "pos_weight": BY_CLASS},
        ),
        (lambda o: F.mse_loss(o, SOFT, weight=BY_NUMBER), {"target": SOFT, "loss_weight": BY_NUMBER}),
        (lambda o: F.huber_loss(o, SOFT, weight=BY_NUMBER), {"target": SOFT, "loss_weight": BY_NUMBER}),
        (
            lambda o: F.multilabel_soft_margin_loss(o, SOFT, weight=BY_CLASS),
            {"target": SOFT, "loss_weight": BY_CLASS},
        ),
        (
            lambda o: F.multi_margin_loss(o, CLASSES, weight=BY_CLASS),
            {"target": CLASSES, "loss_weight": BY_CLASS},
        ),
        (lambda o: F.gaussian_nll_loss(o, SOFT, BY_NUMBER), {"target": SOFT, "variance": BY_NUMBER}),
    ],
    ids=[str(n) for n in range(10)],
)
def test_what_a_loss_weighs_with_is_no_target(
    criterion: nn.Module, expected: dict[str, torch.Tensor]
) -> None:
    model = nn.Linear(4, 3)
    x = torch.randn(5, 4)
    with oh.recording(model) as rec:
        criterion(model(x)).backward()
    for name, tensor in expected.items():
        value = rec.value(name)
        assert torch.equal(value.data, tensor) and rec.name(value) == name
    assert not any(name.startswith(("target_", "loss_weight_")) for name in rec.addresses())


def test_results_are_called_as_their_operator_says() -> None:
    model = nn.Sequential(
        nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.MaxPool2d(2), nn.Flatten(), nn.LayerNorm(16)
    )
    with oh.recording(model) as rec:
        model(torch.randn(2, 4, 4, 4)).topk(2)
    for name, number in {
        "0/native_batch_norm.save_mean": 1,
        "0/native_batch_norm.save_invstd": 2,
        "1/native_group_norm.mean": 1,
        "1/native_group_norm.rstd": 2,
        "2/max_pool2d_with_indices.indices": 1,
        "4/native_layer_norm.mean": 1,
        "4/native_layer_norm.rstd": 2,
        "loss/topk.indices": 1,
    }.items():
        value = rec.value(name)
        assert rec.name(value) == name
        assert rec.value(f"{name.rpartition('.')[0]}.out_{number}") is value
        made = rec.maker(value)
        assert made is not None and made[1] == number


@pytest.mark.parametrize("program", PROGRAMS[::6], ids=lambda program: program.name)
def test_every_address_that_is_offered_can_be_explained(program: Program) -> None:
    torch.manual_seed(3)
    model = program.build()
    with oh.recording(model) as rec:
        program.train(model, program.optimizer(model.parameters()))
        nothing = torch.ones(3)
        nothing[nothing > 2].sum()
    for name in rec.addresses():
        shape = rec.value(name).shape
        rec.explain(f"{name}[{','.join('0' * len(shape))}]" if shape else name)
    assert all(0 not in rec.value(name).shape for name in rec.addresses())


def test_two_losses_have_two_targets() -> None:
    model = nn.Linear(4, 2)
    one, other = torch.zeros(3, 2), torch.tensor([0, 1, 1])
    with oh.recording(model) as rec:
        out = model(torch.randn(3, 4))
        nn.functional.mse_loss(out, one) + nn.functional.cross_entropy(out, other)
    assert torch.equal(rec.value("target").data, one)
    assert torch.equal(rec.value("target_1").data, other)


def test_a_function_outside_of_modules_is_called_after_itself() -> None:
    with oh.recording() as rec:
        x = torch.ones(2, 2) / 3
        y = x / 2
    assert rec.name(rec.values[-1]) == "div_1.out"
    for address in ("div_1.out[0,1]", "/div_1.out[0,1]"):
        element = rec.element(address)
        assert rec.address(element) == "div_1.out[0,1]"
        assert element.value.data.equal(y)
    assert not rec.has_own_name(rec.values[-1])


def test_a_module_keeps_its_name_before_a_function() -> None:
    class Relu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.relu(x) - 1) * 2

    x = torch.tensor([[0.5, 3.0]])
    rec = oh.record(Relu(), x)
    assert rec.value("relu.out").data.equal(x)
    assert rec.value("/relu.out").data.equal(torch.tensor([[0.0, 2.0]]))
    assert rec.name(rec.value("/relu.out")) == "/relu.out"
    assert rec.name(rec.value("/sub.out")) == "sub.out"
    assert rec.has_own_name(rec.value("relu.out"))
    assert not rec.has_own_name(rec.value("sub.out"))


def test_a_cross_entropy_without_a_backward_pass_is_the_loss() -> None:
    net = torch.nn.Linear(2, 3)
    with oh.recording(net) as recording:
        torch.nn.functional.cross_entropy(net(torch.ones(4, 2)), torch.tensor([0, 1, 2, 0]))
    assert recording.value("loss").shape == ()


class Direct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.last = nn.Linear(3, 4), nn.ReLU(), Doubled(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act.forward(self.first.forward(input=x)))


class Doubled(nn.Linear):
    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        return super().forward(input) * 2


def test_a_forward_that_is_called_directly_is_a_call_of_the_module() -> None:
    torch.manual_seed(0)
    model, x = Direct(), torch.randn(2, 3)
    before = {kind: vars(kind)["forward"] for kind in (Direct, Doubled, nn.Linear, nn.ReLU)}
    with oh.recording(model) as rec:
        out = model.forward(x)
        out.sum().backward()
        with oh.recording(model) as inner:
            model.forward(x)
    assert {kind: vars(kind)["forward"] for kind in before} == before
    for found in (rec, inner):
        assert torch.equal(found.value("output").data, out.detach())
        assert torch.equal(found.value("input").data, x)
        assert torch.equal(found.value("first.out").data, model.first(x))
        assert found.value("act.in") is found.value("first.out")
        assert found.value("last.in") is found.value("act.out")
    assert not any(":2" in name for name in inner._named.values)  # `super().forward` is no call of its own
    assert rec.value("first.out.grad").shape == (2, 4)
    assert rec.value(":2.out").shape == (2, 2)  # the second call of the model
    assert {call.phase for call in rec.calls if call.scope == "last" and call.name == "mul"} >= {"forward"}
    assert all(str(call.source).startswith("test_names.py:") for call in rec.calls)
