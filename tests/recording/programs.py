"""Small runs of every kind, and a witness that copies what every call reads and makes, as it happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from openheart.recording import Call, Value, values_in

__all__ = ["PROGRAMS", "Program", "Witness", "tensors_in"]


class Witness(TorchDispatchMode):
    """Copies everything, at once: slow, simple, and right by construction."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[torch.Tensor], list[torch.Tensor]]] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = _copies((args, kwargs))
        result = func(*args, **(kwargs or {}))
        if not func.name().startswith("profiler::"):
            self.seen.append((func.name(), before, _copies(result)))
        return result

    def check(self, calls: list[Call]) -> None:
        """Every call of the recording read and made exactly these numbers."""
        calls = [call for call in calls if call.op.name() != "openheart::reread"]
        assert [call.op.name() for call in calls] == [name for name, _, _ in self.seen]
        for call, (_, before, after) in zip(calls, self.seen, strict=True):
            reads = list(values_in((call.args, call.kwargs)))
            assert len(reads) == len(before), call
            for value, tensor in zip(reads, before, strict=True):
                _same(value, tensor, f"{call!r} reads {value!r}")
            returned = [
                value
                for value, (slot, _) in zip(call.outputs, call.slots, strict=True)
                if isinstance(slot, int)
            ]
            for value, tensor in zip(returned, after, strict=True):
                if not call.name.startswith(("empty", "new_empty")):
                    _same(value, tensor, f"{call!r} makes {value!r}")


def _same(value: Value, tensor: torch.Tensor, what: str) -> None:
    assert value.shape == tuple(tensor.shape), what
    assert value.dtype == tensor.dtype, what
    if value.kept:
        assert _bits(value.data).equal(_bits(tensor)), what
    else:
        assert value.origin == "call", what


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.resolve_conj().resolve_neg().contiguous()
    return tensor.view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)


def tensors_in(item: Any) -> Iterator[torch.Tensor]:
    if isinstance(item, torch.Tensor):
        yield item
    elif isinstance(item, dict):
        for part in item.values():
            yield from tensors_in(part)
    elif isinstance(item, (tuple, list)):
        for part in item:
            yield from tensors_in(part)


def _copies(item: Any) -> list[torch.Tensor]:
    with torch._C._DisableTorchDispatch(), torch.no_grad():
        return [tensor.detach().clone() for tensor in tensors_in(item)]


@dataclass(frozen=True)
class Program:
    """A network, its data, and what is done with them."""

    name: str
    build: Callable[[], nn.Module]
    data: Callable[[], tuple[Any, ...]]
    run: Callable[..., Any]
    steps: int = 3
    optimizer: Callable[[Any], torch.optim.Optimizer] = field(
        default=lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    )

    def train(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """Runs the steps; the losses, copied."""
        data = self.data()
        losses = []
        for _ in range(self.steps):
            optimizer.zero_grad()
            loss = self.run(model, *data)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + torch.tanh(self.first(x))
        x = x - torch.nn.functional.gelu(self.second(x)) * 0.5
        x = self.norm(x) + x.mean(0)
        return self.head(x)


class Rows(nn.Module):
    """Fills a buffer row by row, as a recurrent net by hand does, and writes through views of it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        out = torch.empty(3, *x.shape)
        state = x
        for row in range(3):
            state = torch.sigmoid(self.cell(state))
            out[row] = state
        out[:, :, 1] *= 2
        half = out[:, :2]
        half.add_(1)
        return out.transpose(0, 1).reshape(x.shape[0], -1)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.head = nn.Linear(5, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.shared = nn.Linear(5, 5)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embedding(tokens)
        hidden = self.shared(torch.relu(self.shared(hidden)))
        return self.head(hidden)


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.block = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.3), nn.Linear(6, 6))
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(checkpoint(self.block, x.requires_grad_(), use_reentrant=self.reentrant))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, (hidden, _) = self.lstm(x)
        return self.head(out[:, -1] + hidden[-1])


class Waves(nn.Module):
    """Complex numbers, conjugate views, real and imaginary parts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(4, dtype=torch.complex64))
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wave = torch.fft.fft(x) * self.scale.conj()
        wave = wave + wave.mH.mT
        return self.head(torch.cat([wave.real, wave.imag], -1))


class Clamp(torch.autograd.Function):
    """A custom gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * (x > 0)


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(Clamp.apply(self.body(x)))


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.4), nn.Linear(8, 3))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def _encoder() -> nn.Module:
    return nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), nn.Linear(8, 3))


def _rows(width: int) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    return lambda: (torch.randn(5, width), torch.tensor([0, 2, 1, 0, 2]))


def _classify(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(x), y)


def _classify_each(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())


def _square(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (model(x).float() ** 2).mean() + y.float().mean()


def _autocast(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return nn.functional.cross_entropy(model(x), y)


def _penalty(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    out = model(x)
    (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    return nn.functional.cross_entropy(out, y) + 0.1 * (slope.norm(dim=1) - 1).pow(2).mean()


def _clipped(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    (nn.functional.cross_entropy(model(x[:2]), y[:2]) / 2).backward()
    (nn.functional.cross_entropy(model(x[2:]), y[2:]) / 2).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    return nn.functional.cross_entropy(model(x), y)


def _adam(**options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1, **options)


def _rmsprop(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(parameters, lr=0.01, centered=True, momentum=0.5)


def _adamw(**options: Any) -> Callable[[Any], torch.optim.Optimizer]:
    return lambda parameters: torch.optim.AdamW(parameters, lr=0.01, **options)


def _tokens() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(11, (2, 7)), torch.randint(11, (2, 7))


def _doubles() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 2, 1, 0, 2])


def _images() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 1, 8, 8), torch.tensor([0, 2, 1, 0, 2])


def _sequences() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 6, 4), torch.tensor([0, 2, 1, 0, 2])


def _sentences() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 4, 8), torch.randint(3, (5, 4))


PROGRAMS = [
    Program("mlp with dropout, momentum", _mlp, _rows(6), _classify),
    Program("mlp, Adam for loop", _mlp, _rows(6), _classify, optimizer=_adam(foreach=False)),
    Program("mlp, Adam foreach", _mlp, _rows(6), _classify, optimizer=_adam(foreach=True, amsgrad=True)),
    Program("mlp, AdamW fused", _mlp, _rows(6), _classify, optimizer=_adamw(fused=True)),
    Program("mlp, RMSprop", _mlp, _rows(6), _classify, optimizer=_rmsprop),
    Program("mlp, bfloat16 autocast", _mlp, _rows(6), _autocast),
    Program("mlp, gradient penalty", _mlp, _rows(6), _penalty),
    Program("mlp, accumulated and clipped", _mlp, _rows(6), _clipped),
    Program("mlp in float64", lambda: _mlp().double(), _doubles, _classify),
    Program("cnn, batch norm, in-place relu", _cnn, _images, _classify),
    Program("cnn in evaluation", lambda: _cnn().eval(), _images, _classify),
    Program("residual", Residual, _rows(6), _classify, optimizer=_adamw(foreach=True)),
    Program("rows written through views", Rows, _rows(4), _square),
    Program("transformer encoder", _encoder, _sentences, _classify_each, optimizer=_adam()),
    Program("lstm", Recurrent, _sequences, _classify),
    Program("tied weights, a module called twice", Tied, _tokens, _classify_each),
    Program("checkpoint", lambda: Checkpointed(False), _rows(6), _classify),
    Program("checkpoint, reentrant", lambda: Checkpointed(True), _rows(6), _classify),
    Program("complex", Waves, _rows(4), _square),
    Program("custom gradient", Custom, _rows(6), _classify),
]  # fmt: skip
