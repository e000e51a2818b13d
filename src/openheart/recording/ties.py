"""Ties each backward call to the forward call whose gradient it computes, and finds activations' gradients.

Autograd numbers its nodes. A forward call that makes a node has the newest number when it runs; a backward
call runs inside a node and can ask for its number. So equal numbers tie the two.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

import re
from typing import Any

import torch

from openheart.recording.values import Call, Value, values_in

__all__ = ["Ties"]

# Nodes that hand on the gradient they are given, and make no call to do so.
_HAND_ON = {"AddBackward0", "SubBackward0", "CloneBackward0", "AliasBackward0"}
# Operators with several outputs of which only the first one has a gradient.
_FIRST_ONLY = {
    "native_layer_norm",
    "native_batch_norm",
    "native_group_norm",
    "nll_loss_forward",
    "max_pool2d_with_indices",
    "native_dropout",
    "scaled_dot_product_flash_attention_for_cpu",
}


class Ties:
    """What the walk has seen of autograd so far; `newest` is the number of the newest node."""

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self.accumulates: Any = None  # the leaf whose gradient is being accumulated by the last call
        self.running = False  # the last call ran inside a node
        self._forward: dict[int, int] = {}  # node number → call
        self._results: dict[int, Any] = {}  # node number → what the call returned
        self._groups: dict[int, list[int]] = {}  # node number → its backward calls
        self._names: dict[int, str] = {}
        self._torn: set[int] = set()  # nodes that ran more than once
        self._last: int | None = None
        self._leaf_incoming: dict[int, list[Value | None]] = {}  # id of the leaf → gradients handed to it

    def fresh(self, sequence: int) -> bool:
        """Whether a call made a node of its own."""
        return sequence > self.newest

    def of_call(
        self,
        identity: int,
        name: str,
        sequence: int,
        node: Any,
        remade: bool,
        reads: list[Value],
        result: Any,
    ) -> int | None:
        """Notes a call; the id of its forward call, if any. `remade`: a checkpoint runs its forward again."""
        if sequence > self.newest:
            self.newest = sequence
            self._forward[sequence] = identity
            self._results[sequence] = result
        self.accumulates = None
        self.running = node is not None
        if node is None:
            self._last = None
            return None
        if remade:
            return None
        node_name = node.name()
        if node_name.endswith("AccumulateGrad"):
            self.accumulates = node.variable
            if self._last != -1 - id(node):
                taken = reads[0] if name in _TAKES and reads else None
                self._leaf_incoming.setdefault(id(node.variable), []).append(taken)
            self._last = -1 - id(node)
            return None
        number = node._sequence_nr()
        if self._last != number:
            if number in self._groups:
                self._torn.add(number)
            self._last = number
        self._groups.setdefault(number, []).append(identity)
        self._names[number] = node_name
        # A write to a view makes two nodes: the operator's own, then one that puts the gradient back in its
        # place.
        return self._forward.get(number - 1 if node_name == "CopySlices" else number)

    def plausible(self, call: Call, node_name: str) -> bool:
        """Whether a node of this name can be that call's."""
        return _plain(call.name).startswith(_plain(node_name.rsplit("::", 1)[-1]))

    def gradients(self, calls: list[Call], makers: dict[int, tuple[Call, int]]) -> list[tuple[Value, Value]]:
        """(value, its gradient) for every activation whose gradient can be told for certain."""
        nodes, arrows = self._graph()
        found: dict[int, Value | None] = {}

        def incoming(number: int) -> Value | None:
            if number not in found:
                found[number] = None  # a graph has no cycles, but a recording may be cut anywhere
                found[number] = own(number) or handed_on(number)
            return found[number]

        def own(number: int) -> Value | None:
            """The first value made elsewhere in the backward pass that one of the node's calls reads."""
            group = self._groups.get(number, [])
            if number in self._torn:
                return None
            for identity in group:
                strangers = [
                    value
                    for item in (*calls[identity].args, *calls[identity].kwargs.values())
                    for value in values_in(item)
                    if (made := makers.get(value.id))
                    and made[0].phase == "backward"
                    and made[0].id not in group
                ]
                if len(strangers) > 1:
                    return None  # it may be two gradients of one value being summed up
                if strangers:
                    return strangers[0]
            return None

        def handed_on(number: int) -> Value | None:
            node = nodes.get(number)
            if (
                node is None
                or number in self._torn
                or number not in self._forward
                or node.name() not in _HAND_ON
            ):
                return None
            alpha = calls[self._forward[number]].arguments.get("alpha", 1)
            whole = node.name() == "AddBackward0" and alpha == 1
            for following, place in node.next_functions if whole else node.next_functions[:1]:
                if following is None or arrows.get((_key(following), place)) != 1:
                    continue
                if following.name().endswith("AccumulateGrad"):
                    given = self._leaf_incoming.get(id(following.variable), [])
                    gradient = given[0] if len(given) == 1 else None
                else:
                    gradient = incoming(following._sequence_nr())
                if gradient is not None:
                    return gradient
            return None

        pairs = []
        for number, identity in self._forward.items():
            call = calls[identity]
            if call.phase not in ("forward", "loss") or not call.outputs or call.slots[0] != (0, None):
                continue
            name = self._names.get(number) or (nodes[number].name() if number in nodes else "")
            several = (
                sum(value.dtype.is_floating_point or value.dtype.is_complex for value in call.outputs) > 1
            )
            if not name or not self.plausible(call, name) or (several and call.name not in _FIRST_ONLY):
                continue
            gradient = incoming(number)
            value = call.outputs[0]
            if gradient is not None and gradient.shape == value.shape:
                pairs.append((value, gradient))
        return pairs

    def _graph(self) -> tuple[dict[int, Any], dict[tuple[int, int], int]]:
        """Autograd's nodes by number, and how many arrows lead into each input of each node."""
        nodes: dict[int, Any] = {}
        arrows: dict[tuple[int, int], int] = {}
        stack = []
        for result in self._results.values():
            for tensor in result if isinstance(result, (tuple, list)) else (result,):
                try:
                    node = tensor.grad_fn if isinstance(tensor, torch.Tensor) else None
                except RuntimeError:  # a view that a later in-place call has made unfit for autograd
                    node = None
                if node is not None:
                    stack.append(node)
        seen: dict[int, Any] = {}
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen[id(node)] = node
            if not node.name().endswith("AccumulateGrad"):
                nodes[node._sequence_nr()] = node
            for following, place in node.next_functions:
                if following is not None:
                    key = (_key(following), place)
                    arrows[key] = arrows.get(key, 0) + 1
                    stack.append(following)
        return nodes, arrows


_TAKES = {"new_empty_strided", "detach", "clone"}


def _key(node: Any) -> int:
    return -1 - id(node.variable) if node.name().endswith("AccumulateGrad") else node._sequence_nr()


def _plain(name: str) -> str:
    """`NativeLayerNormBackward0` and `native_layer_norm` are one name."""
    return re.sub(r"backwards?\d*$", "", name.lower().replace("_", ""))
