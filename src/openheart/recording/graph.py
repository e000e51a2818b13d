"""Autograd's own graph as the run left it: its nodes, whom each hands its gradients to, and when it ran.

Nothing here is told from an operator's name. The nodes and their arrows are `grad_fn` and `next_functions`;
which calls a node made is the node that was running; where a backward pass began and what it gave is what
the engine was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Edge", "Graph", "Node", "Pass", "Run"]

Edge = tuple[int, int]
"""An arrow's end: the position of a node in `Graph.nodes`, and which of its gradients it is."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node of autograd's graph.

    Attributes:
        name: what autograd calls it, `"AddmmBackward0"`.
        follows: for each argument of its operator that can have a gradient, where that gradient goes; None:
            nowhere.
        call: the id of the call whose gradient it computes, if known.
        leaf: for a node that gathers the gradient of a leaf: the ids of the values that this leaf ever held.
        edit: it stands for an edit; `inside` are then the calls that the edit put into the forward pass.
    """

    name: str
    follows: tuple[Edge | None, ...]
    call: int | None = None
    leaf: tuple[int, ...] = ()
    edit: bool = False
    inside: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a node.

    Attributes:
        calls: what it called, with what the engine did before the next node ran: it sums up gradients then.
        received, handed: ids of gradients, where they are known beforehand (of an edit's node); else empty.
    """

    node: int
    calls: tuple[int, ...]
    received: tuple[int | None, ...] = ()
    handed: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Pass:
    """One backward pass.

    Attributes:
        roots: where it began, and the id of the gradient that it began with.
        taken: gradients that were given to the caller (`torch.autograd.grad`): whose, and their ids.
        runs: the nodes that called something, in their order.
        whole: it followed the graph wherever it leads, not only to some tensors.
    """

    roots: tuple[tuple[Edge, int], ...]
    taken: tuple[tuple[Edge, int], ...]
    runs: tuple[Run, ...]
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Graph:
    """Autograd's graph in a recording.

    Attributes:
        slots: id of a value → where its gradient arrives.
        sound: every backward pass was seen from its beginning to its end.
        put: id of a value as a call made it → id of what an edit has put in its place.
    """

    nodes: tuple[Node, ...] = ()
    passes: tuple[Pass, ...] = ()
    slots: Mapping[int, Edge] = field(default_factory=dict)
    sound: bool = True
    put: Mapping[int, int] = field(default_factory=dict)

    def renumbered(self, calls: Mapping[int, int]) -> Graph:
        """The same graph where calls have other ids; those that `calls` does not have are no more."""

        def known(found: tuple[int, ...]) -> tuple[int, ...]:
            return tuple([calls[call] for call in found if call in calls])

        nodes = [
            replace(
                node,
                call=None if node.call is None else calls.get(node.call),
                inside=known(node.inside),
            )
            for node in self.nodes
        ]
        passes = [
            replace(each, runs=tuple([replace(run, calls=known(run.calls)) for run in each.runs]))
            for each in self.passes
        ]
        return replace(self, nodes=tuple(nodes), passes=tuple(passes))

    def to_json(self) -> dict[str, Any]:
        """The graph as plain data."""
        return {
            "nodes": [
                [node.name, node.follows, node.call, node.leaf, node.edit, node.inside] for node in self.nodes
            ],
            "passes": [
                [
                    each.roots,
                    each.taken,
                    [[run.node, run.calls, run.received, run.handed] for run in each.runs],
                    each.whole,
                ]
                for each in self.passes
            ],
            "slots": [[value, *edge] for value, edge in self.slots.items()],
            "sound": self.sound,
            "put": list(self.put.items()),
        }

    @classmethod
    def from_json(cls, item: dict[str, Any], values: int, calls: int) -> Graph:
        """The graph that `to_json` made data of.

        Raises:
            ValueError: it is none, or speaks of nodes, values or calls that are not there.
        """
        number = len(item["nodes"])

        def edge(found: Any) -> Edge:
            node, slot = found
            return _below(node, number), _below(slot, 1 << 20)

        def ids(found: Any, limit: int) -> tuple[int, ...]:
            return tuple([_below(each, limit) for each in found])

        def some(found: Any) -> tuple[int | None, ...]:
            return tuple([None if each is None else _below(each, values) for each in found])

        nodes = tuple(
            [
                Node(
                    str(name),
                    tuple([None if each is None else edge(each) for each in follows]),
                    None if call is None else _below(call, calls),
                    ids(leaf, values),
                    bool(edit),
                    ids(inside, calls),
                )
                for name, follows, call, leaf, edit, inside in item["nodes"]
            ]
        )
        passes = tuple(
            [
                Pass(
                    tuple([(edge(where), _below(value, values)) for where, value in roots]),
                    tuple([(edge(where), _below(value, values)) for where, value in taken]),
                    tuple(
                        [
                            Run(_below(node, number), ids(made, calls), some(received), some(handed))
                            for node, made, received, handed in runs
                        ]
                    ),
                    bool(whole),
                )
                for roots, taken, runs, whole in item["passes"]
            ]
        )
        slots = {_below(value, values): edge((node, slot)) for value, node, slot in item["slots"]}
        put = {_below(one, values): _below(other, values) for one, other in item["put"]}
        return cls(nodes, passes, slots, bool(item["sound"]), put)


def _below(number: Any, limit: int) -> int:
    if type(number) is not int or not 0 <= number < limit:
        raise ValueError(f"{number!r} is no number below {limit}")
    return number
