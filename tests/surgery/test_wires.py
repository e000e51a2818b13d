"""Edits of networks whose operators hand gradients on in every way: as a forward hook does, bit for bit.

A fresh PyTorch run changes a module's output in a forward hook, and the edited recording the same output;
loss, gradients and parameters after the step must be the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import openheart as oh
from openheart.surgery.program import same_bits
from openheart.wiring import check_wiring


class Net(nn.Module):
    """Three layers of 6 by 6, `f`, `p` and `q`."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.p, self.q = (nn.Linear(6, 6) for _ in range(3))


class Experts(Net):
    """A mixture of experts, put together by index_add_."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.f(x))
        out = torch.zeros_like(h)
        gates = h.softmax(-1)
        for number, expert in enumerate((self.p, self.q)):
            chosen = torch.arange(number, len(x), 2)
            out = out.index_add(0, chosen, expert(h[chosen]) * gates[chosen, :1])
            out.index_add_(0, chosen.flip(0), h[chosen])
        return out


class Film(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        out = torch.addcmul(h, self.p(x), self.q(h), value=0.5)
        out = torch.addcdiv(out, h, self.p(h).exp())
        return out.addcmul_(h, h).addcdiv_(x, h.exp())


class Messages(Net):
    """A graph network: messages along edges are gathered by scatter_add."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        source, target = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([1, 2, 0, 0, 3])
        messages = torch.relu(self.p(h))[source]
        out = h.scatter_add(0, target[:, None].expand(5, 6), messages)
        out = out.index_put((target,), self.q(messages), accumulate=True)
        out = out.index_put_((source,), messages, accumulate=True)
        return out.put(torch.tensor([0, 7, 7]), h[0, :3] * 2, accumulate=True)


class Products(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, u = self.f(x), self.p(x)
        square = self.q.weight
        out = torch.addmm(h, u, square, beta=2) + torch.addmm(u, h, square)
        out = torch.addbmm(out, h[None].expand(2, 4, 6), square[None].expand(2, 6, 6))
        out = torch.addr(out, u[:, 0], h[0]) + torch.addmv(h[:, 0], u, square[0])[:, None]
        out = torch.baddbmm(out[None], h[None], square[None])[0]
        return torch.rsub(out, h, alpha=2) + torch.sub(u, out, alpha=1)


class Lists(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, u = self.f(x), self.p(x)
        one, two = torch._foreach_add([h, u], [u, h])
        one, two = torch._foreach_mul([one, two], [two, self.q(h)])
        three, four = torch._foreach_addcmul([one, h], [u, two], [h, u])
        return torch.lerp(three, four, 0.3) + torch._foreach_sub([four], [h])[0]


class InPlace(Net):
    """Operators that write in place, for which autograd saves a copy of what they overwrite."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        out = F.hardtanh(h * 1, 0.0, 0.6, inplace=True)
        out = F.silu(out + h, inplace=True)
        out = F.mish(self.p(out), inplace=True)
        out = F.hardswish(out + 0, inplace=True)
        out = F.elu(self.q(out), inplace=True) * 1
        out = out.mul_(h).div_(h.exp()).add_(h, alpha=2)
        out = (out * 1).clamp_(-2, 2).sub_(x).pow_(2).neg_()
        return out.sigmoid_() + torch.tanh_(out * 3) + torch.relu_(out * 2 - 1)


class Gated(Net):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRUCell(6, 6), nn.LSTMCell(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, c = self.f(x), self.p(x)
        for _ in range(2):
            h = self.gru(x, h)
            h, c = self.lstm(h, (h, c))
        return self.q(h) + c


class Rotated(Net):
    """Rotary embeddings, a residual stream, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.q.weight = self.p.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.layer_norm(self.f(x), (6,))
        angles = torch.arange(4.0)[:, None] * torch.tensor([1.0, 0.5, 0.25])
        cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

        def turned(part: torch.Tensor) -> torch.Tensor:
            one, two = part.chunk(2, -1)
            return part * cos + torch.cat([-two, one], -1) * sin

        query, key = turned(self.p(h)), turned(self.q(h))
        mixed = F.scaled_dot_product_attention(query[None, None], key[None, None], h[None, None])[0, 0]
        h = h + mixed
        return h + F.normalize(h, dim=-1) + self.p(h)


class Viewed(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        out = self.p(h) * 1
        out[:, :3] = h[:, 3:]
        out[1].mul_(h[0])
        out.view(2, 12)[0].add_(out.view(2, 12)[1])
        one, two = out.unbind(0)[:2]
        return out + one * two + self.q(out).t().reshape(4, 6)


class Shared(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.f(x)
        u = h + h
        w = u + h + u.detach() + self.p(u)
        w += u
        w = torch.where(w > 0, w, u) + w.masked_fill(w > 1, 0.5)
        return self.q(w) + w + u.sum(0) + torch.cat([h[:2], w[2:]])


NETS = [Experts, Film, Messages, Products, Lists, InPlace, Gated, Rotated, Viewed, Shared]


def masked(tensor: torch.Tensor) -> torch.Tensor:
    mask = torch.zeros(tensor.shape, dtype=torch.bool)
    mask[..., 0] = True
    return mask


EDITS: dict[str, tuple[Any, Callable[[torch.Tensor], torch.Tensor]]] = {
    "set": (0.5, lambda out: torch.where(masked(out), torch.tensor(0.5), out)),
    "scale": (oh.scale(-2.0), lambda out: torch.where(masked(out), out * -2.0, out)),
}


def train(build: type[nn.Module], change: Callable[[nn.Module], Any] = lambda net: None) -> oh.Recording:
    torch.manual_seed(0)
    net = build()
    change(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    torch.manual_seed(1)
    given = torch.randn(4, 6)
    with oh.recording(net) as recording:
        net(given).square().mean().backward()
        optimizer.step()
    return recording


def hook(
    path: str, function: Callable[[torch.Tensor], torch.Tensor], number: int
) -> Callable[[nn.Module], Any]:
    calls: list[int] = []

    def changed(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        calls.append(1)
        if len(calls) != number:
            return output
        return (function(output[0]), *output[1:]) if isinstance(output, tuple) else function(output)

    return lambda net: net.get_submodule(path).register_forward_hook(changed)


def compare(fresh: oh.Recording, edited: oh.Recording) -> int:
    compared = 0
    for name, value in fresh._named.values.items():
        if name.endswith(("loss", "weight.grad", "bias.grad", ".after", "_ih.grad", "_hh.grad")):
            assert torch.equal(value.data, edited.value(name).data), name
            compared += 1
    return compared


@pytest.mark.parametrize("kind", EDITS)
@pytest.mark.parametrize("net", NETS)
def test_an_edit_is_what_a_forward_hook_does(net: type[nn.Module], kind: str) -> None:
    recording = train(net)
    assert check_wiring(recording).disagree == 0
    edit, function = EDITS[kind]
    modules = [path for path, _ in net().named_modules() if path and f"{path}.out" in recording._named.values]
    for path in modules:
        for number in (1, 2):
            address = f"{path}.out" if number == 1 else f"{path}:{number}.out"
            if address not in recording._named.values:
                continue
            edited = recording.intervene({f"{address}[:,0]": edit})
            assert compare(train(net, hook(path, function, number)), edited) >= 5, address
            audit = check_wiring(edited)
            assert audit.ok, (address, audit.disagreements)


def test_a_value_that_is_edited_twice_is_edited_as_two_hooks_do() -> None:
    recording = train(Shared)
    edit, function = EDITS["scale"]

    def both(net: nn.Module) -> None:
        hook("f", function, 1)(net)
        hook("p", lambda out: torch.where(masked(out), torch.tensor(0.5), out), 1)(net)

    fresh = train(Shared, both)
    once = recording.intervene({"f.out[:,0]": edit})
    for edited in (
        once.intervene({"p.out[:,0]": 0.5}),
        recording.intervene({"f.out[:,0]": edit, "p.out[:,0]": 0.5}),
    ):
        assert compare(fresh, edited) >= 5
        assert check_wiring(edited).ok


def test_a_loaded_recording_is_edited_alike(tmp_path: Any) -> None:
    recording = train(Film)
    recording.save(tmp_path / "film.oh")
    edited = oh.load(tmp_path / "film.oh").intervene({"f.out[:,0]": 0.5})
    assert compare(train(Film, hook("f", EDITS["set"][1], 1)), edited) >= 5
    edited.save(tmp_path / "edited.oh")
    again = oh.load(tmp_path / "edited.oh")
    assert check_wiring(again) == check_wiring(edited)
    assert same_bits(again.value("p.weight.grad").data, edited.value("p.weight.grad").data)


def test_an_edit_of_an_edited_value_is_told_alike() -> None:
    recording = train(Shared)
    edited = recording.intervene({"f.out[0,1]": 1.5}).intervene({"f.out[:,0]": oh.scale(2.0)})
    edited = edited.intervene({"f.out.grad": oh.scale(3.0)})
    found = check_wiring(edited)
    assert (found.disagree, found.unknown) == (0, 0)
