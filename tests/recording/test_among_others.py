"""Others who look on, take calls over, or call back: a recording among them changes nothing either."""

from __future__ import annotations

import concurrent.futures
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recording.test_inside import gradients, unchanged
from torch import nn
from torch._higher_order_ops import while_loop
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import profile
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

import openheart as oh

pytestmark = pytest.mark.filterwarnings("ignore")


def trained(model: nn.Module, x: torch.Tensor) -> list[Any]:
    model(x).square().sum().backward()
    return gradients(model)


def saved_elsewhere(model: nn.Module, x: torch.Tensor) -> Any:
    with torch.autograd.graph.save_on_cpu():
        loss = model(x).sum()
    loss.backward()
    return gradients(model)


def counted(model: nn.Module, x: torch.Tensor) -> Any:
    with FlopCounterMode(display=False) as counter:
        found = trained(model, x)
    assert counter.get_total_flops() == 3 * 2 * 5 * (4 * 8 + 8 * 3) - 2 * 5 * 4 * 8
    return found


def profiled(model: nn.Module, x: torch.Tensor) -> Any:
    with profile() as seen:
        found = trained(model, x)
    assert any("addmm" in event.key for event in seen.key_averages())
    return found


def with_anomalies(model: nn.Module, x: torch.Tensor) -> Any:
    with torch.autograd.detect_anomaly():
        return trained(model, x)


def selectively(model: nn.Module, x: torch.Tensor) -> Any:
    def policy(_context: Any, op: Any, *_args: Any, **_kwargs: Any) -> CheckpointPolicy:
        saved = op is torch.ops.aten.addmm.default
        return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE

    out = checkpoint(
        model, x, use_reentrant=False, context_fn=lambda: create_selective_checkpoint_contexts(policy)
    )
    assert out is not None
    out.sum().backward()
    return gradients(model)


def called_back(_: nn.Module, x: torch.Tensor) -> Any:
    chosen = torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))
    return chosen, while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x * 2), (torch.tensor(0), x))


def with_compiled_autograd(model: nn.Module, x: torch.Tensor) -> Any:
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager")):
        return trained(model, x)


def in_other_threads(model: nn.Module, x: torch.Tensor) -> Any:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(model, (x, x * 2, x * 3)))


class Wrapped(torch.Tensor):
    """A class that takes every call over."""

    inside: torch.Tensor

    @staticmethod
    def __new__(cls, inside: torch.Tensor) -> Any:
        made = torch.Tensor._make_wrapper_subclass(cls, inside.shape, dtype=inside.dtype)  # type: ignore[attr-defined]
        made.inside = inside
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(Wrapped, lambda item: item.inside, (args, kwargs or {}))
        return tree_map_only(torch.Tensor, Wrapped, op(*args, **kwargs))


def taken_over(model: nn.Module, x: torch.Tensor) -> Any:
    out = Wrapped(x) * 2 + 1
    assert isinstance(out, Wrapped)
    return out.inside, model(out.inside)


def scripted_and_saved(model: nn.Module, x: torch.Tensor) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(model), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)(x).detach()


RUNS = [
    saved_elsewhere, counted, profiled, with_anomalies, selectively, called_back, with_compiled_autograd,
    in_other_threads, taken_over, scripted_and_saved,
]  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_it_is_what_it_is_outside(run: Callable[..., Any]) -> None:
    rec = unchanged(run)
    keys = {notice.key for notice in rec.notices}
    assert ("recording.notice.compiled" in keys) == (run in {called_back, with_compiled_autograd})
    assert "recording.notice.left_out" not in keys


def hidden(x: torch.Tensor) -> torch.Tensor:
    with torch._C._DisableTorchDispatch():
        return x * 2


def test_a_call_that_is_hidden_is_said_to_be() -> None:
    x = torch.ones(3)
    with oh.recording() as rec:
        y = hidden(x) + 1
    assert y.tolist() == [3, 3, 3]
    assert [call.name for call in rec.calls] == ["add"]
    assert [(n.key, n.details) for n in rec.notices] == [("recording.notice.left_out", {"count": 1})]


@pytest.mark.parametrize("around", [True, False])
def test_training_that_is_faked(around: bool, tmp_path: Path) -> None:
    """Around the recording or in it: no call raises, nobody says that its numbers were checked."""
    mode, rec = FakeTensorMode(), oh.recording()

    def train() -> None:
        model = nn.Linear(4, 3)
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        for _ in range(2):
            model(torch.randn(2, 4)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    first, second = (mode, rec) if around else (rec, mode)
    with first as one, second as other:
        train()
    held: Any = other if around else one
    audit = held.verify()
    assert audit.disagree == audit.wiring.disagree == 0
    assert audit.scalars < 20
    assert [notice.key for notice in audit.notices] == ["recording.notice.left_out"]
    held.save(tmp_path / "run.oh")
    assert [notice.key for notice in oh.load(tmp_path / "run.oh").notices] == ["recording.notice.left_out"]
