"""Ties each backward call to the forward call whose gradient it computes, and reads autograd's own graph.

Autograd numbers its nodes. A forward call that makes a node has the newest number when it runs, and what it
returns knows its node; a backward call runs inside a node and can ask for its number. So equal numbers tie
the two. An operator may make several nodes, and call others before it does its work (an in-place one first
saves a copy of what it overwrites): the node's name then says which call is meant.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from openheart.recording.graph import Edge, Graph, Node, Pass, Run
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
_TAKES = {"new_empty_strided", "detach", "clone"}
_MANY = 4096
"""More nodes than that between two calls are none of theirs: somebody else made autograd count."""
_FEW = 64
"""A node's own call is among the first that run after it was made."""


@dataclass(slots=True, eq=False)
class _Pass:
    """A backward pass that is being walked through."""

    roots: list[tuple[Any, int, Value]]
    whole: bool
    followed: bool  # autograd follows the backward pass itself
    taken: list[tuple[Any, int, Value]] = field(default_factory=list)
    runs: dict[int, tuple[Any, list[int]]] = field(default_factory=dict)  # id of the node → node, calls


class Ties:
    """What the walk has seen of autograd so far; `newest` is the number of the newest node."""

    def __init__(self, newest: int) -> None:
        self.newest = newest
        self.accumulates: Any = None  # the leaf whose gradient is being accumulated by the last call
        self.running = False  # the last call ran inside a node
        self._calls: dict[int, str] = {}  # the names of the calls
        self._makers: dict[int, list[int]] = {}  # node number → the calls that may have made it
        self._wrote: dict[int, int] = {}  # node number → the last call before it that wrote in place
        self._writer = -1
        self._recent: list[int] = []
        self._tied: dict[int, int | None] = {}
        self._results: list[tuple[int, torch.Tensor, Value]] = []  # call, what it returned
        self._groups: dict[int, list[int]] = {}  # node number → its backward calls
        self._names: dict[int, str] = {}
        self._torn: set[int] = set()  # nodes that ran more than once
        self._last: int | None = None
        self._leaf_incoming: dict[int, list[Value | None]] = {}  # id of the leaf → gradients handed to it
        self._passes: list[_Pass] = []
        self._open: list[_Pass] = []
        self._sound = True
        self._again: set[int] = set()  # what a backward pass computes once more, as checkpoints do

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
        results: list[tuple[torch.Tensor, Value]],
        writes: bool,
    ) -> int | None:
        """Notes a call; the id of its forward call, if any. `remade`: a checkpoint runs its forward again."""
        self._calls[identity] = name
        fresh = sequence > self.newest
        if fresh:
            self._recent = [identity]
            for number in range(max(self.newest, sequence - _MANY) + 1, sequence + 1):
                self._makers[number] = self._recent
                self._wrote[number] = self._writer
            self.newest = sequence
        elif len(self._recent) < _FEW:
            self._recent.append(identity)
        if writes:
            self._writer = identity
        if fresh or node is None:
            self._results += [(identity, tensor, value) for tensor, value in results]
        self.accumulates = None
        self.running = node is not None
        if node is None:
            self._last = None
            return None
        followed = bool(self._open) and self._open[-1].followed
        if not followed and (remade or fresh or (reads and all(value.id in self._again for value in reads))):
            self._again.update(value.id for _, value in results)
        if remade:
            return None
        self._run(identity, node)
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
        return self._tie(number, node_name)

    def _tie(self, number: int, node_name: str) -> int | None:
        """The call whose gradient a node computes."""
        if number not in self._tied:
            made: int | None
            if node_name.endswith("CopySlices"):  # made once the operator has written to a view
                made = self._wrote.get(number, self._writer)
            else:
                calls = self._makers.get(number, ())
                likely = (call for call in calls if _of_one_name(self._calls[call], node_name))
                made = next(likely, calls[0] if calls else None)
            self._tied[number] = None if made == -1 else made
        return self._tied[number]

    # Backward passes ----------------------------------------------------------------------------------------

    def begins(self, roots: Iterable[tuple[Any, int, Value]], whole: bool, followed: bool) -> None:
        """A backward pass begins at these nodes with these gradients; `followed`: autograd follows it too."""
        self._open.append(_Pass(list(roots), whole, followed))
        self._passes.append(self._open[-1])
        self._last = None

    def ends(self, taken: Iterable[tuple[Any, int, Value]]) -> None:
        """It has given these gradients to the caller."""
        if self._open:
            self._open.pop().taken = list(taken)
        else:
            self._sound = False
        self._last = None

    def _run(self, identity: int, node: Any) -> None:
        if not self._open:
            self._sound = False
            return
        self._open[-1].runs.setdefault(id(node), (node, []))[1].append(identity)

    # Gradients of activations -------------------------------------------------------------------------------

    def plausible(self, call: Call, node_name: str) -> bool:
        """Whether a node of this name can be that call's."""
        return _of_one_name(call.name, node_name)

    def read(
        self,
        calls: list[Call],
        makers: dict[int, tuple[Call, int]],
        leaf: Callable[[torch.Tensor], tuple[int, ...]],
    ) -> tuple[list[tuple[Value, Value]], Graph]:
        """Reads autograd's graph while it lives: (value, its gradient) where it can be told, and the graph.

        `leaf` gives the ids of the values that a leaf has held.
        """
        nodes = self._nodes()
        return self._gradients(nodes, calls, makers), self._graph(nodes, leaf)

    def _gradients(
        self, reached: dict[int, Any], calls: list[Call], makers: dict[int, tuple[Call, int]]
    ) -> list[tuple[Value, Value]]:
        nodes: dict[int, Any] = {}
        arrows: dict[tuple[int, int], int] = {}
        for node in reached.values():
            if not node.name().endswith("AccumulateGrad"):
                nodes[node._sequence_nr()] = node
            for following, place in node.next_functions:
                if following is not None:
                    key = (_key(following), place)
                    arrows[key] = arrows.get(key, 0) + 1
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
                    and value.id not in self._again
                ]
                if len(strangers) > 1:
                    return None  # it may be two gradients of one value being summed up
                if strangers:
                    return strangers[0]
            return None

        def handed_on(number: int) -> Value | None:
            node = nodes.get(number)
            if node is None or number in self._torn or node.name() not in _HAND_ON:
                return None
            made = self._tie(number, node.name())
            if made is None:
                return None
            whole = node.name() == "AddBackward0" and calls[made].arguments.get("alpha", 1) == 1
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
        names = {number: node.name() for number, node in nodes.items()} | self._names
        for number in sorted(names):
            made = self._tie(number, names[number])
            if made is None or not self.plausible(calls[made], names[number]):
                continue
            call = calls[made]
            if call.phase not in ("forward", "loss") or not call.outputs or call.slots[0] != (0, None):
                continue
            several = (
                sum(value.dtype.is_floating_point or value.dtype.is_complex for value in call.outputs) > 1
            )
            if several and call.name not in _FIRST_ONLY:
                continue
            gradient = incoming(number)
            value = call.outputs[0]
            if gradient is not None and gradient.shape == value.shape:
                pairs.append((value, gradient))
        return pairs

    # The graph ----------------------------------------------------------------------------------------------

    def _nodes(self) -> dict[int, Any]:
        """Every node that is still alive, by the id of its object."""
        self._fns: list[tuple[int, torch.Tensor, Value, Any]] = []
        stack: list[Any] = []
        for identity, tensor, value in self._results:
            try:
                node = tensor.grad_fn if tensor.requires_grad else None
            except RuntimeError:  # a view that a later in-place call has made unfit for autograd
                node = None
            if node is not None:
                self._fns.append((identity, tensor, value, node))
                stack.append(node)
        for each in self._passes:
            stack += [node for node, _ in each.runs.values()]
            stack += [node for node, _, _ in (*each.roots, *each.taken) if not _is_leaf(node)]
        seen: dict[int, Any] = {}
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen[id(node)] = node
            stack += [following for following, _ in node.next_functions if following is not None]
        return seen

    def _graph(self, reached: dict[int, Any], leaf: Callable[[torch.Tensor], tuple[int, ...]]) -> Graph:
        places = {identity: place for place, identity in enumerate(reached)}
        gathers = {id(node.variable): key for key, node in reached.items() if _gathers(node)}
        slots: dict[int, Edge] = {}
        exact: dict[int, int] = {}
        for identity, tensor, value, node in self._fns:
            if identity in self._makers.get(node._sequence_nr(), ()):
                slots[value.id] = (places[id(node)], tensor.output_nr)
                exact[id(node)] = identity
        single: dict[int, list[Value]] = {}
        for identity, _, value in self._results:
            single.setdefault(identity, []).append(value)
        nodes = []
        for place, (key, node) in enumerate(reached.items()):
            name = node.name()
            made = exact.get(key)
            if made is None and not _gathers(node):
                made = self._tie(node._sequence_nr(), name)
                own = single.get(-1 if made is None else made, [])
                if made is not None and len(own) == 1 and _of_one_name(self._calls[made], name):
                    slots.setdefault(own[0].id, (place, 0))
            follows = tuple(
                [None if after is None else (places[id(after)], n) for after, n in node.next_functions]
            )
            nodes.append(Node(name, follows, made, leaf(node.variable) if _gathers(node) else ()))

        def edges(found: list[tuple[Any, int, Value]]) -> tuple[tuple[Edge, int], ...]:
            keys = [(gathers.get(id(node)) if _is_leaf(node) else id(node)) for node, _, _ in found]
            return tuple(
                [
                    ((places[key], slot), value.id)
                    for key, (_, slot, value) in zip(keys, found, strict=True)
                    if key
                ]
            )

        passes = [
            Pass(
                edges(each.roots),
                edges(each.taken),
                tuple([Run(places[key], tuple(calls)) for key, (_, calls) in each.runs.items()]),
                each.whole,
            )
            for each in self._passes
        ]
        return Graph(tuple(nodes), tuple(passes), slots, self._sound and not self._open)


def _is_leaf(node: Any) -> bool:
    return isinstance(node, torch.Tensor)


def _gathers(node: Any) -> bool:
    return bool(node.name().endswith("AccumulateGrad"))


def _key(node: Any) -> int:
    return -1 - id(node.variable) if node.name().endswith("AccumulateGrad") else node._sequence_nr()


def _of_one_name(call: str, node: str) -> bool:
    return _plain(call).startswith(_plain(node.rsplit("::", 1)[-1]))


@cache
def _plain(name: str) -> str:
    """`NativeLayerNormBackward0` and `native_layer_norm` are one name."""
    return re.sub(r"backwards?\d*$", "", name.lower().replace("_", ""))
