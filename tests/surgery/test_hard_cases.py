"""Edits of networks that are hard to edit: gradients shared and summed, views, checkpoints, two backwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

import openheart as oh
from openheart.wiring import check_wiring

Step = Callable[[nn.Module], None]


def descend(net: nn.Module) -> None:
    """A training step."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    net(torch.randn(3, 4)).square().mean().backward()
    optimizer.step()


def clipped(net: nn.Module) -> None:
    net(torch.randn(3, 4)).square().mean().backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.1)
    torch.optim.SGD(net.parameters(), lr=0.1).step()


def accumulated(net: nn.Module) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    net(torch.randn(3, 4)).square().mean().backward()
    net(torch.randn(3, 4)).abs().mean().backward()
    optimizer.step()


def scheduled(net: nn.Module) -> None:
    halves = list(net.parameters())
    optimizer = torch.optim.AdamW([{"params": halves[:2], "lr": 0.1}, {"params": halves[2:]}], lr=0.01)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(3, 4)).square().mean().backward()
        optimizer.step()
        schedule.step()


def retained(net: nn.Module) -> None:
    out = net(torch.randn(3, 4))
    out.square().mean().backward(retain_graph=True)
    out.abs().sum().backward()


def penalised(net: nn.Module) -> None:
    given = torch.randn(3, 4, requires_grad=True)
    loss = net(given).square().mean()
    (slope,) = torch.autograd.grad(loss, given, create_graph=True)
    (loss + slope.square().sum()).backward()


class Net(nn.Module):
    """Three layers of 4 by 4, `f`, `p` and `q`."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.p, self.q = (nn.Linear(4, 4) for _ in range(3))


class Plain(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.q(torch.tanh(self.p(torch.relu(self.f(x)))))


class Fan(Net):
    """One tensor feeds four, whose gradient is the very same tensor."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        return self.p(h) + self.q(h) + h + torch.tanh(h) * h


class Skips(Net):
    """The same gradient reaches one value by several sums."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        u = h + self.p(h)
        w = u + h + self.q(u)
        return w + u - h + w.detach()


class TwoSums(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        return (h + self.p(h)) + (torch.add(h, self.q(h), alpha=2) - h)


class Doubled(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        y = h + h
        return self.q(self.p(y * y) + y)


class Twice(Net):
    """A module called three times, and tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.q.weight = self.p.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.q(self.f(torch.tanh(self.f(self.p(self.f(x))))))


class InPlace(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        h[:, 0].mul_(2)
        h.t()[1].add_(h[:, 2])
        y = self.p(h * 1.0)
        y += h
        y.view(-1)[3:5].relu_()
        return self.q(y)


class Pieces(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = self.f(x).chunk(2, -1)
        u, v = self.p(x).split([1, 3], -1)
        return self.q(torch.cat([one * two, torch.stack(list(v.unbind(-1))[:2], -1) + u], -1))


class Attention(Net):
    """Its result is laid out in memory as no one would lay it out by hand, and is viewed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (layer(x).view(1, 3, 2, 2).transpose(1, 2) for layer in (self.f, self.p, self.q))
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(3, 4)


class Unfollowed(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        with torch.no_grad():
            scale = self.p(h).norm()
        return self.q(h) / scale + (h.detach() * 2) + self.p.weight.data.sum()


NETS = [Plain, Fan, Skips, TwoSums, Doubled, Twice, InPlace, Pieces, Attention, Unfollowed]
EDITS: dict[str, tuple[Any, Callable[[torch.Tensor], torch.Tensor]]] = {
    "set": (0.5, lambda out: torch.where(_first(out), torch.tensor(0.5), out)),
    "scale": (oh.scale(-2.0), lambda out: torch.where(_first(out), out * -2.0, out)),
    "function": (lambda part: part.sin() * 3, lambda out: torch.where(_first(out), out.sin() * 3, out)),
}


def _first(tensor: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(tensor.shape, dtype=torch.bool)
    mask[:, 0] = True
    return mask


def run(
    net: type[nn.Module], step: Step, change: Callable[[nn.Module], object] = lambda _: None
) -> oh.Recording:
    torch.manual_seed(0)
    model = net()
    change(model)
    torch.manual_seed(1)
    with oh.recording(model) as recording:
        step(model)
    return recording


def hooked(path: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[nn.Module], object]:
    """A forward hook that acts the first time that a module is called."""
    calls: list[int] = []

    def hook(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return function(output) if len(calls) == 1 else output

    return lambda model: model.get_submodule(path).register_forward_hook(hook)


def held(fresh: oh.Recording, edited: oh.Recording) -> int:
    """Compares what the edited run gives with PyTorch: loss, gradients, parameters after the step."""
    compared = 0
    for name, value in fresh._named.values.items():
        if name.endswith(("loss", "weight.grad", "bias.grad", ".after")) and "optimizer" not in name:
            twin = edited.value(name)
            assert torch.equal(value.data, twin.data), name
            compared += 1
    return compared


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("net", NETS)
def test_an_activation_is_edited_as_a_forward_hook_does(net: type[nn.Module], kind: str) -> None:
    recording = run(net, descend)
    edit, function = EDITS[kind]
    for path in ("f", "p", "q"):
        edited = recording.intervene({f"{path}.out[:,0]": edit})
        assert held(run(net, descend, hooked(path, function)), edited) >= 5
        assert edited.verify().ok
        assert check_wiring(edited).ok


@pytest.mark.parametrize("net", [Plain, Fan, Skips, TwoSums])
def test_a_gradient_is_edited_as_a_tensor_hook_does(net: type[nn.Module]) -> None:
    recording = run(net, descend)

    def doubled(output: torch.Tensor) -> torch.Tensor:
        output.register_hook(lambda gradient: gradient * 2)
        return output

    for path in ("f", "p", "q"):
        edited = recording.intervene({f"{path}.out.grad": oh.scale(2.0)})
        assert held(run(net, descend, hooked(path, doubled)), edited) >= 5
        assert edited.verify().ok


@pytest.mark.parametrize("step", [clipped, accumulated, scheduled])
def test_steps_of_many_kinds(step: Step) -> None:
    recording = run(Plain, step)
    edit, function = EDITS["scale"]
    edited = recording.intervene({"p.out[:,0]": edit})
    assert held(run(Plain, step, hooked("p", function)), edited) >= 5

    def weight(model: nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter("f.weight")[1, 2] = 0.5

    edited = edited.intervene({"f.weight[1,2]": 0.5}).undo("p.out[:,0]")
    assert held(run(Plain, step, weight), edited) >= 5
    assert edited.verify().ok


def edit_of_p(step: Step) -> tuple[oh.Recording, oh.Recording]:
    edit, function = EDITS["scale"]
    return run(Plain, step, hooked("p", function)), run(Plain, step).intervene({"p.out[:,0]": edit})


def test_each_of_several_backward_passes_is_turned() -> None:
    fresh, edited = edit_of_p(retained)
    assert held(fresh, edited) >= 5
    assert edited.verify().ok
    assert check_wiring(edited).ok


def test_a_backward_pass_that_was_differentiated_is_refused_and_a_leaf_is_not() -> None:
    recording = run(Plain, penalised)
    with pytest.raises(oh.InterventionError, match="does not tell which one"):
        recording.intervene({"p.out[:,0]": 0.5})
    added = recording.intervene({"p.out": oh.add(0.5)})
    assert held(run(Plain, penalised, hooked("p", lambda out: out + 0.5)), added) >= 5

    def weight(model: nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter("f.weight")[1, 2] = 0.5

    assert held(run(Plain, penalised, weight), recording.intervene({"f.weight[1,2]": 0.5})) >= 5


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_checkpoint_computes_twice_is_refused_and_what_goes_in_is_not(reentrant: bool) -> None:
    class Checked(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.f(x)
            out: torch.Tensor = checkpoint(
                lambda part: torch.tanh(self.p(torch.relu(part))), h, use_reentrant=reentrant
            )
            return self.q(out + h)

    recording = run(Checked, descend)
    for address in ("p.out[:,0]", "p:2.out[:,0]"):
        with pytest.raises(oh.InterventionError, match="checkpoint"):
            recording.intervene({address: 0.5})
    edit, function = EDITS["scale"]
    for path in ("f", "q"):
        edited = recording.intervene({f"{path}.out[:,0]": edit})
        assert held(run(Checked, descend, hooked(path, function)), edited) >= 5


def test_a_share_of_a_gradient_goes_to_whom_the_graph_says() -> None:
    class Shared(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.f(x)
            return self.q((h * 2) * (h + 1) + h)

    class Cut(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.f(x)
            return self.q((h * 2) * (h + 1).masked_fill(_first(h), 0.5) + h)

    edited = run(Shared, descend).intervene({"add.out[:,0]": 0.5})
    assert held(run(Cut, descend), edited) >= 5
    assert check_wiring(edited).ok


def test_a_module_that_returns_its_argument_does_not_own_it() -> None:
    class Idle(Net):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.f(x)
            return self.q(h + self.idle(h) * 2)

    recording = run(Idle, descend)
    for address in ("idle.out[:,0]", "idle.in[:,0]"):
        with pytest.raises(oh.InterventionError, match=r"edit 'f\.out'"):
            recording.intervene({address: 0.5})
    edited = recording.intervene({"f.out[:,0]": 0.5})
    assert held(run(Idle, descend, hooked("f", EDITS["set"][1])), edited) >= 5


def test_gradients_that_cannot_be_read_are_refused() -> None:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.e = nn.Embedding(5, 4, sparse=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.e(x).mean(1)

    def step(net: nn.Module) -> None:
        net(torch.tensor([[0, 2, 3], [1, 1, 0]])).square().mean().backward()
        torch.optim.SGD(net.parameters(), lr=0.1).step()

    recording = run(Sparse, step)
    for edit in ({"e.weight.grad": oh.scale(2.0)}, {"lr": 0.5}):
        with pytest.raises(oh.InterventionError, match="not in the recording"):
            recording.intervene(edit)
    edited = recording.intervene({"e.weight[0,0]": 1.0})
    assert not edited.verify().disagreements


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ({"f.out": lambda part: part / (1 // 0)}, "raises ZeroDivisionError"),
        ({"f.weight": lambda part: part.nothing}, "raises AttributeError"),
        ({"f.weight.grad": lambda: 1}, "raises TypeError"),
        ({"lr": lambda rate: rate / 0}, "raises ZeroDivisionError"),
        ({"f.weight": oh.scale("twice")}, "is none"),
        ({"f.weight": oh.scale(torch.ones(7))}, "do not fit"),
        ({"lr": oh.scale("twice")}, "makes no number"),
        (oh.swap("relu", lambda tensor: tensor.nothing), "raises AttributeError"),
        (oh.swap("relu", lambda tensor: "x"), "not a tensor"),
    ],
)
def test_an_edit_that_goes_wrong_is_refused_by_its_address(edits: Any, message: str) -> None:
    with pytest.raises(oh.InterventionError, match=message):
        run(Plain, descend).intervene(edits)
