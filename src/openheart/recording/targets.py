"""Which leaves are what a loss compares the output with."""

# The parts of a recording know each other's insides.

from __future__ import annotations

import math
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
# The functions of torch.nn.functional that take (output, target): their names, by the identity of their code.
CRITERIA = {
    id(code): name
    for name in _FUNCTIONS
    if (code := getattr(getattr(torch.nn.functional, name, None), "__code__", None)) is not None
}
_TARGETS = ("target", "targets")
_WEIGHTS = {"weight": "loss_weight", "pos_weight": "pos_weight", "var": "variance"}
_LENGTHS = {"input_lengths", "target_lengths"}
_COPIES = {"clone", "to_copy", "lift_fresh"}


def targets(facts: Facts) -> Iterator[tuple[int, str, Value]]:
    """(step, "target", leaf) for each leaf that a loss reads as its target, in the order of the run.

    That is an argument called `target`, a leaf that one of PyTorch's loss functions reads by another name
    (`l1_loss` subtracts it), and what is subtracted from the output of the model, or it from that. The other
    leaves that such a function reads weigh: "loss_weight", "pos_weight", and "variance".
    """
    outputs = {value.id for visit in facts.visits if visit.path == "" for _, value in visit.outputs}
    for calls in _together(facts):
        kind = facts.criteria.get(calls[0].id)
        found = _of_criterion(calls, kind, facts) if kind else _compared(calls[0], facts, outputs)
        for name, value in found:
            leaf = _origin(value, facts)
            if leaf.id not in facts.makers and leaf.origin == "constant":
                yield calls[0].step, name, leaf


def _together(facts: Facts) -> Iterator[list[Call]]:
    """The calls of the forward pass and the loss, those of one loss function together."""
    group: list[Call] = []
    for call in facts.calls:
        if call.phase in ("backward", "optimizer"):
            continue
        kind = facts.criteria.get(call.id)
        here = bool(group) and (group[-1].step, group[-1].source) == (call.step, call.source)
        if group and not (here and kind in (None, facts.criteria.get(group[-1].id))):
            yield group
            group = []
        if kind:
            group.append(call)
        else:  # `1 - target` is PyTorch's own Python, between two calls of the loss function
            yield [call]
    if group:
        yield group


def _of_criterion(calls: list[Call], kind: str, facts: Facts) -> Iterator[tuple[str, Value]]:
    """What a loss function compares with, and what it weighs with."""
    leaves: dict[int, tuple[str, Value]] = {}
    compared: list[Value] = []
    for call in calls:
        for name, item in call.arguments.items():
            if not isinstance(item, Value) or name in _LENGTHS:
                continue
            leaf = _origin(item, facts)
            if leaf.id in facts.makers or leaf.origin != "constant":
                continue
            if name in _TARGETS or (call.name == "sub" and kind != "kl_div"):
                compared.append(leaf)
            leaves.setdefault(leaf.id, (name, leaf))
            if name in _WEIGHTS:
                leaves[leaf.id] = name, leaf
    if not compared and leaves:  # a class's weight is smaller than what is known of every sample
        compared.append(max((leaf for _, leaf in leaves.values()), key=lambda leaf: math.prod(leaf.shape)))
    known = {leaf.id for leaf in compared}
    for leaf in compared:
        yield "target", leaf
    for name, leaf in leaves.values():
        if leaf.id not in known:
            name = "var" if kind == "gaussian_nll_loss" else name
            yield _WEIGHTS.get(name, "loss_weight"), leaf


def _compared(call: Call, facts: Facts, outputs: set[int]) -> Iterator[tuple[str, Value]]:
    target: Any = call.arguments.get("target", call.arguments.get("targets"))
    if isinstance(target, Value):
        yield "target", target
    elif call.phase == "loss" and call.name == "sub" and call.id not in facts.criteria:
        pair = list(values_in(call.args))
        if len(pair) == 2 and pair[0].shape == pair[1].shape:
            for one, other in (pair, pair[::-1]):
                if _origin(one, facts, outputs).id in outputs:
                    yield "target", other


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
