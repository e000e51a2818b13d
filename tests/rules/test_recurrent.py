"""The fused LSTM layer and its gradients."""

import pytest
import torch
from tests.rules.harness import audit
from torch import nn

from openheart.check import check
from openheart.record import recording

OUTPUTS = {"aten.mkldnn_rnn_layer.default": 3, "aten.mkldnn_rnn_layer_backward.default": 7}
"""The workspace, one output more, is oneDNN's own."""


def hold(net: nn.Module, x: torch.Tensor, states: bool) -> None:
    """Every output of every fused call of a forward and a backward pass has a law, and obeys it."""

    def run() -> None:
        y, (h, c) = net(x)
        wanted = [y, h, c] if states else [y]
        torch.autograd.backward(wanted, [torch.randn_like(part) for part in wanted])

    seen = audit(run, covers=[])
    checked = [(str(call.op), n) for call, n, _ in seen.checks]
    for name, outputs in OUTPUTS.items():
        assert {n for op, n in checked if op == name} == set(range(outputs)), name
    assert {entry.split(" ")[0] for entry in seen.opaque if "rnn" in entry} <= set(OUTPUTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"batch_first": True}, {"bidirectional": True, "num_layers": 2}]
)
@pytest.mark.parametrize("states", [False, True])
def test_lstm(options: dict, states: bool, dtype: torch.dtype) -> None:
    hold(nn.LSTM(5, 4, **options).to(dtype), torch.randn(6, 3, 5).to(dtype).requires_grad_(), states)


def test_one_step_and_given_states() -> None:
    net, x = nn.LSTM(3, 2), torch.randn(1, 2, 3, requires_grad=True)
    start = (torch.randn(1, 2, 2, requires_grad=True), torch.randn(1, 2, 2, requires_grad=True))
    audit(lambda: net(x, start)[0].backward(torch.randn(1, 2, 2)), covers=[])


def test_a_longer_sequence() -> None:
    hold(nn.LSTM(16, 32), torch.randn(40, 4, 16), states=True)


def test_only_the_workspace_is_opaque() -> None:
    with recording() as run:
        nn.LSTM(3, 2)(torch.randn(4, 2, 3))
    (call,) = (c for c in run.calls if c.name == "mkldnn_rnn_layer")
    assert [check(call, n) is None for n in range(4)] == [False, False, False, True]
