"""What PyTorch has beside plain calls goes on inside of a recording as outside of it, bit for bit."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

import openheart as oh
from openheart.recording import seat

pytestmark = pytest.mark.filterwarnings("ignore")
func = torch.func


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.LayerNorm(8), nn.Linear(8, 3))


def gradients(model: nn.Module) -> list[Any]:
    return [parameter.grad for parameter in model.parameters()]


def called(model: nn.Module) -> Callable[..., torch.Tensor]:
    """The sum of the squares of what a model makes, as a function of its parameters."""
    return lambda p, x: func.functional_call(model, p, (x,)).square().sum()


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


# torch.func ---------------------------------------------------------------------------------------


def vmap(model: nn.Module, x: torch.Tensor) -> Any:
    return func.vmap(model)(x)


def grad(model: nn.Module, x: torch.Tensor) -> Any:
    return func.grad(called(model))(parameters(model), x)


def of_each_sample(model: nn.Module, x: torch.Tensor) -> Any:
    return func.vmap(func.grad(called(model)), in_dims=(None, 0))(parameters(model), x)


def jvp(model: nn.Module, x: torch.Tensor) -> Any:
    return func.jvp(model, (x,), (torch.ones_like(x),))


def vjp(model: nn.Module, x: torch.Tensor) -> Any:
    out, back = func.vjp(model, x)
    return out, back(torch.ones_like(out))


def jacobians(model: nn.Module, x: torch.Tensor) -> Any:
    return func.jacrev(model)(x[0]), func.jacfwd(model)(x[0])


def hessian(model: nn.Module, x: torch.Tensor) -> Any:
    return func.hessian(lambda x: model(x).sum())(x[0])


def linearized(model: nn.Module, x: torch.Tensor) -> Any:
    out, along = func.linearize(model, x)
    return out, along(torch.ones_like(x))


def functionalized(_: nn.Module, x: torch.Tensor) -> Any:
    return func.functionalize(lambda x: x.clone().mul_(2).add_(1))(x)


def ensemble(model: nn.Module, x: torch.Tensor) -> Any:
    held, buffers = func.stack_module_state([model, net(), net()])
    bare = copy.deepcopy(model).to("meta")
    return func.vmap(lambda p, b: func.functional_call(bare, (p, b), (x,)))(held, buffers)


def forwards(model: nn.Module, x: torch.Tensor) -> Any:
    with forward_ad.dual_level():
        return tuple(forward_ad.unpack_dual(model(forward_ad.make_dual(x, torch.ones_like(x)))))


# Compiled, traced, fake -----------------------------------------------------------------------------


def compiled(model: nn.Module, x: torch.Tensor) -> Any:
    run = torch.compile(model, backend="aot_eager")
    for _ in range(2):
        run(x).square().mean().backward()
    return gradients(model)


def exported(model: nn.Module, x: torch.Tensor) -> Any:
    return torch.export.export(model, (x,)).module()(x), model(x)


def exported_strictly(model: nn.Module, x: torch.Tensor) -> Any:
    return torch.export.export(model, (x,), strict=True).run_decompositions().module()(x)


def exported_for_every_size(model: nn.Module, x: torch.Tensor) -> Any:
    sizes = ({0: torch.export.Dim("batch")},)
    return torch.export.export(model, (x,), dynamic_shapes=sizes).module()(x), model(x[:2])


def traced(model: nn.Module, x: torch.Tensor) -> Any:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return torch.jit.trace(model, x)(x), make_fx(model)(x)(x), torch.fx.symbolic_trace(model)(x)


def faked(model: nn.Module, x: torch.Tensor) -> Any:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = model(mode.from_tensor(x))
        assert torch.ops.prim.device(fake).type == "cpu"
        assert fake.layout is torch.strided
        net()(torch.ones(2, 4)).sum().backward()
    return model(x)


def outside_of_the_dispatcher(_: nn.Module, x: torch.Tensor) -> Any:
    assert torch.ops.prim.device(x) == x.device
    assert torch.ops.prim.layout(x) == 0  # a number, outside of TorchScript
    assert torch.ops.aten.sym_size(x, 1) == 4
    return x * 2


# Training, numbers, data, copies --------------------------------------------------------------------


def with_checkpoints(reentrant: bool, model: nn.Module, x: torch.Tensor) -> Any:
    model, x = nn.Sequential(model, nn.Dropout(0.5)), x.clone().requires_grad_()
    out = checkpoint(model, x, use_reentrant=reentrant)
    assert out is not None
    out.square().mean().backward()
    return *gradients(model), x.grad, out


def again_by_saving(model: nn.Module, x: torch.Tensor) -> Any:
    return with_checkpoints(False, model, x)


def again_by_running(model: nn.Module, x: torch.Tensor) -> Any:
    return with_checkpoints(True, model, x)


def autocast(model: nn.Module, x: torch.Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(x).float().square().mean()
    loss.backward()
    return loss, *gradients(model)


def inference(model: nn.Module, x: torch.Tensor) -> Any:
    with torch.inference_mode():
        return model(x.expand(3, 5, 4).transpose(0, 1)), model[1](x).mul_(2)


def many_at_once(model: nn.Module, x: torch.Tensor) -> Any:
    x = x.clone().requires_grad_()
    batched = torch.autograd.grad(model(x), x, torch.eye(15).view(15, 5, 3), is_grads_batched=True)
    return batched, torch.autograd.functional.jacobian(model, x[0], vectorize=True)


class Drawn(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.rand(4) * number


def loaded(model: nn.Module, _: torch.Tensor) -> Any:
    made = [model(x) for workers in (0, 2) for x in DataLoader(Drawn(), batch_size=2, num_workers=workers)]
    torch.stack(made).sum().backward()
    return *made, *gradients(model)


def copied(model: nn.Module, x: torch.Tensor) -> Any:
    model(x).sum().backward()
    other = copy.deepcopy(model)
    out = other(x)
    out.sum().backward()
    return out, *gradients(other), *gradients(model)


def pickled(model: nn.Module, x: torch.Tensor) -> Any:
    other, buffer = pickle.loads(pickle.dumps(model)), io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    third = torch.load(buffer, weights_only=False)
    third.load_state_dict(other.state_dict())
    return other(x), third(x), model(x)


RUNS = [
    vmap, grad, of_each_sample, jvp, vjp, jacobians, hessian, linearized, functionalized, ensemble, forwards,
    compiled, exported, exported_strictly, exported_for_every_size, traced, faked, outside_of_the_dispatcher,
    many_at_once, again_by_saving, again_by_running, autocast, inference, loaded, copied, pickled,
]  # fmt: skip
LEAVE_OUT = {exported, exported_strictly, exported_for_every_size, faked, functionalized}


def tensors(item: Any) -> Iterator[torch.Tensor]:
    if isinstance(item, torch.Tensor):
        yield item.detach()
    elif isinstance(item, (list, tuple, dict)):
        for part in item.values() if isinstance(item, dict) else item:
            yield from tensors(part)


def unchanged(run: Callable[..., Any]) -> oh.Recording:
    """The recording of a run, which gave bit for bit what it gives without one."""

    def made(recorded: bool) -> tuple[list[torch.Tensor], Any]:
        torch.manual_seed(3)
        model, x = net(), torch.randn(5, 4)
        if not recorded:
            return list(tensors(run(model, x))), None
        with oh.recording(model) as rec:
            result = run(model, x)
        return list(tensors(result)), rec

    (expected, _), (found, rec) = made(False), made(True)
    assert len(expected) == len(found) > 0
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)
        assert one.stride() == other.stride()
    assert not seat.is_taken_here()
    audit = rec.verify()
    assert audit.disagree == audit.wiring.disagree == 0
    return rec  # type: ignore[no-any-return]


@pytest.mark.parametrize("run", RUNS)
def test_it_is_what_it_is_outside(run: Callable[..., Any], tmp_path: Path) -> None:
    rec = unchanged(run)
    assert rec.calls
    keys = [notice.key for notice in rec.notices]
    assert ("recording.notice.left_out" in keys) == (run in LEAVE_OUT), keys
    assert ("recording.notice.compiled" in keys) == (run is compiled)
    rec.save(tmp_path / "run.oh")
    assert len(oh.load(tmp_path / "run.oh").calls) == len(rec.calls)


def test_a_plain_run_leaves_nothing_out() -> None:
    model = net()
    assert "recording.notice.left_out" not in [n.key for n in oh.record(model, torch.ones(1, 4)).notices]


def test_what_stands_in_a_wrapper_is_what_a_module_returned() -> None:
    model, x = net(), torch.randn(5, 4)
    with oh.recording(model) as rec:
        out = func.vmap(model)(x)
    assert torch.equal(rec.value("0.out").data, model[0](x))
    assert torch.allclose(rec.value("output").data, out)


def test_a_backward_pass_that_was_compiled_before_says_so() -> None:
    model, x = net(), torch.randn(5, 4)
    run = torch.compile(model, backend="aot_eager")
    run(x).square().mean().backward()
    expected = gradients(model)
    model.zero_grad()
    loss = run(x).square().mean()
    with oh.recording(model) as rec:
        loss.backward()
    for one, other in zip(expected, gradients(model), strict=True):
        assert torch.equal(one, other)
    keys = [notice.key for notice in rec.notices]
    assert "recording.notice.kernels" in keys
    assert "recording.notice.compiled" not in keys
