"""Which leaves are what a loss compares the output with."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from openheart.recording.values import Call, Value, values_in

if TYPE_CHECKING:
    from openheart.recording.build import Facts

__all__ = ["CRITERIA", "FUNCTIONAL", "targets"]

FUNCTIONAL = torch.nn.functional.__file__

_FUNCTIONS = (
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "ctc_loss",
    "gaussian_nll_loss", "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "mse_loss",
    "multi_margin_loss", "multilabel_margin_loss", "multilabel_soft_margin_loss", "nll_loss",
    "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss",
)  # fmt: skip
# The functions of torch.nn.functional that take (output, target), by the identity of their code.
CRITERIA = {
    id(code)
    for name in _FUNCTIONS
    if (code := getattr(getattr(torch.nn.functional, name, None), "__code__", None)) is not None
}
_NOT_TARGETS = {"weight", "pos_weight", "input_lengths", "target_lengths"}
_COPIES = {"clone", "to_copy", "lift_fresh"}


def targets(facts: Facts) -> Iterator[tuple[int, Value]]:
    """(step, leaf) for each leaf that a loss reads as its target, in the order of the run.

    That is an argument called `target`, a leaf that one of PyTorch's loss functions reads by another name
    (`l1_loss` subtracts it), and what is subtracted from the output of the model, or it from that.
    """
    outputs = {value.id for visit in facts.visits if visit.path == "" for _, value in visit.outputs}
    for call in facts.calls:
        if call.phase in ("backward", "optimizer"):
            continue
        for value in _compared(call, facts, outputs):
            leaf = _origin(value, facts)
            if leaf.id not in facts.makers and leaf.origin == "constant":
                yield call.step, leaf


def _compared(call: Call, facts: Facts, outputs: set[int]) -> Iterator[Value]:
    target: Any = call.arguments.get("target", call.arguments.get("targets"))
    if isinstance(target, Value):
        yield target
    elif facts.criteria.get(call.id):
        tensors = {
            name: item
            for name, item in call.arguments.items()
            if isinstance(item, Value)
            and name not in _NOT_TARGETS
            and _origin(item, facts).id not in facts.makers
        }
        if tensors:
            yield tensors.get("other", next(iter(tensors.values())))
    elif call.phase == "loss" and call.name == "sub" and call.id not in facts.criteria:
        pair = list(values_in(call.args))
        if len(pair) == 2 and pair[0].shape == pair[1].shape:
            for one, other in (pair, pair[::-1]):
                if _origin(one, facts, outputs).id in outputs:
                    yield other


def _origin(value: Value, facts: Facts, stop: set[int] | None = None) -> Value:
    """The value that this one is a view or a plain copy of."""
    while (stop is None or value.id not in stop) and (made := facts.makers.get(value.id)) is not None:
        call = made[0]
        source = call.args[0] if call.args else None
        if not isinstance(source, Value) or not (call.name in _COPIES or _is_view(call.op)):
            break
        value = source
    return value


def _is_view(op: Any) -> bool:
    schema = getattr(op, "_schema", None)
    if schema is None or len(schema.returns) != 1:
        return False
    alias = schema.returns[0].alias_info
    return alias is not None and not alias.is_write
