"""Asks autograd what one node does with a gradient: which calls it makes, and what it hands to whom.

The recorded call is run once more under autograd, from its recorded inputs, and its node is watched as a
gradient goes through it. So what is known of an operator's backward pass is what this PyTorch does, and
nothing is told from a list of operators.
"""

# What is asked, PyTorch answers only under underscored names.

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from openheart.errors import OpaqueError
from openheart.record import Recorder
from openheart.recording import Call, Value, seat
from openheart.recording.plans import plan_of, written_tensors

__all__ = ["Place", "Routing", "Source", "ask", "places_in"]

Place = tuple[int | str, ...]
"""Where an argument stands: `(1,)`, `("weight",)`, `(0, 2)` in a list."""
Source = tuple[str, int, int]
"""Where a tensor comes from: `("made", call, output)`, `("received", which, 0)`, `("other", 0, 0)`."""
OTHER: Source = ("other", 0, 0)


@dataclass(frozen=True, slots=True)
class Routing:
    """What a node does when it runs.

    Attributes:
        name: what autograd calls the node.
        calls: the operators that it calls, with the source of each tensor that they read, by place.
        handed: for each of the node's arrows what is handed on; None: nothing.
        arguments: for each arrow the place of the argument whose gradient that is; None where it has none.
    """

    name: str
    calls: tuple[tuple[Any, tuple[tuple[Place, Source], ...]], ...]
    handed: tuple[Source | None, ...]
    arguments: tuple[Place | None, ...]


def places_in(arguments: Any, kind: type = Value) -> Iterator[tuple[Place, Any]]:
    """Every value among the arguments of a call, `(args, kwargs)`, with its place."""
    args, kwargs = arguments
    for place, item in (*enumerate(args), *kwargs.items()):
        yield from _inside(item, (place,), kind)


def _inside(item: Any, place: Place, kind: type) -> Iterator[tuple[Place, Any]]:
    if isinstance(item, kind):
        yield place, item
    elif isinstance(item, (list, tuple)):
        for number, part in enumerate(item):
            yield from _inside(part, (*place, number), kind)


def ask(
    call: Call, output: int, name: str, needed: frozenset[Place], received: Sequence[Value | None]
) -> Routing | None:
    """What the node that `call` makes for its output does with these gradients; None: it cannot be asked.

    Args:
        call: the recorded call.
        output: which of its outputs has the node.
        name: what autograd calls the node.
        needed: the places of the arguments that need a gradient.
        received: the gradients that arrive at the node, None where there is none.
    """
    if getattr(call.op, "_schema", None) is None or not hasattr(call.op, "tags"):
        return None
    key = _key(call, output, needed, received)
    if key not in _KNOWN:
        if len(_KNOWN) > 4096:
            _KNOWN.clear()
        _KNOWN[key] = _apart(lambda: _asked(call, output, needed, received))
    found = _KNOWN[key]
    return found if found is not None and found.name == name else None


_KNOWN: dict[Any, Routing | None] = {}


def _key(call: Call, output: int, needed: frozenset[Place], received: Sequence[Value | None]) -> Any:
    gradients = tuple([None if value is None else _geometry(value) for value in received])
    return call.op, _shape_of(call.args), _shape_of(call.kwargs), output, needed, gradients


def _geometry(value: Value) -> Any:
    return value.shape, value.stride, value.dtype, value.geometry.bits


def _shape_of(item: Any) -> Any:
    """An argument as far as it decides what is called: tensors by their geometry, all else by what it is."""
    if isinstance(item, Value):
        return _geometry(item)
    if isinstance(item, (list, tuple)):
        return tuple([_shape_of(part) for part in item])
    if isinstance(item, dict):
        return tuple([(name, _shape_of(part)) for name, part in item.items()])
    return repr(item)


def _asked(
    call: Call, output: int, needed: frozenset[Place], received: Sequence[Value | None]
) -> Routing | None:
    random = torch.Tag.nondeterministic_seeded in call.op.tags
    draws = torch.random.fork_rng(devices=()) if random else contextlib.nullcontext()
    modes = _disable_current_modes() if torch._C._len_torch_dispatch_stack() else contextlib.nullcontext()
    with modes, torch.inference_mode(mode=False), torch.enable_grad(), draws:
        try:
            return _Question(call, needed).answer(output, received)
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, OpaqueError):
            return None


def _apart(question: Callable[[], Routing | None]) -> Routing | None:
    """Asks where nobody who records in this thread hears it."""
    if not seat.is_taken_here():
        return question()
    found: list[Routing | None] = []
    asking = threading.Thread(target=lambda: found.append(question()))
    asking.start()
    asking.join()
    return found[0] if found else None


class _Question:
    """One call, run again with leaves in the place of its arguments."""

    def __init__(self, call: Call, needed: frozenset[Place]) -> None:
        self.call = call
        self.needed = needed
        plan = plan_of(call.op)
        self.written = {name for _, name in plan.writes} if plan is not None else set()
        self.names = [argument.name for argument in call.op._schema.arguments]
        self.leaves: dict[Place, torch.Tensor] = {}
        self.given: dict[int, Place] = {}  # id of what hands a gradient to an argument → the argument
        self.alive: list[Any] = []

    def answer(self, output: int, received: Sequence[Value | None]) -> Routing | None:
        args = [self._argument(item, (place,)) for place, item in enumerate(self.call.args)]
        kwargs = {name: self._argument(item, (name,)) for name, item in self.call.kwargs.items()}
        outputs = self._outputs(self.call.op(*args, **kwargs), args, kwargs)
        node = outputs[output].grad_fn
        if node is None:
            return None
        arguments = tuple([self._place(following) for following, _ in node.next_functions])
        roots, gradients = [], []
        for slot, value in enumerate(received):
            root = next((item for item in outputs if item.grad_fn is node and item.output_nr == slot), None)
            if value is not None:
                if root is None:
                    return None
                roots.append(root)
                gradients.append(value.data.detach())
        recorder = Recorder()
        incoming: list[Any] = []
        outgoing: list[Any] = []
        handles = [
            node.register_prehook(lambda grads: incoming.append(grads)),
            node.register_hook(lambda grads, _: outgoing.append(grads)),
        ]
        leaves = [leaf for leaf in self.leaves.values() if leaf.requires_grad]
        try:
            with recorder:
                # `torch.autograd.grad` would import sympy, to look at the shapes of these gradients.
                torch.autograd.Variable._execution_engine.run_backward(
                    tuple(roots), tuple(gradients), False, False, tuple(leaves), True, accumulate_grad=False
                )
        finally:
            for handle in handles:
                handle.remove()
        if len(incoming) != 1 or len(outgoing) != 1:
            return None
        seen = [entry for entry in recorder.log.entries if len(entry) > 5 and entry[7] is node]
        return _routing(node.name(), seen, incoming[0], outgoing[0], arguments)

    def _argument(self, item: Any, place: Place) -> Any:
        if isinstance(item, Value):
            return self._leaf(item, place)
        if isinstance(item, (list, tuple)):
            return type(item)([self._argument(part, (*place, number)) for number, part in enumerate(item)])
        return item

    def _leaf(self, value: Value, place: Place) -> torch.Tensor:
        leaf = value.data.detach()
        if place in self.needed:
            leaf.requires_grad_()
        first = place[0]
        name = first if isinstance(first, str) else self.names[first]
        given = leaf
        if name in self.written:
            given = leaf.clone()  # autograd does not let a leaf be written to
        self.leaves[place] = leaf
        if given.grad_fn is not None:
            self.alive.append(given.grad_fn)
            self.given[id(given.grad_fn)] = place
        return given

    def _outputs(self, result: Any, args: list[Any], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        several = len(self.call.op._schema.returns) > 1
        found = []
        for slot, place in self.call.slots:
            if isinstance(slot, int):
                item = result[slot] if several else result
            else:
                item = kwargs[slot] if slot in kwargs else args[self.names.index(slot)]
            found.append(item if place is None else item[place])
        return found

    def _place(self, following: Any) -> Place | None:
        if following is None:
            return None
        if id(following) in self.given:
            return self.given[id(following)]
        variable = getattr(following, "variable", None)
        return next((place for place, leaf in self.leaves.items() if leaf is variable), None)


def _routing(
    name: str,
    seen: list[tuple[Any, ...]],
    incoming: Sequence[torch.Tensor | None],
    outgoing: Sequence[torch.Tensor | None],
    arguments: tuple[Place | None, ...],
) -> Routing | None:
    sources: dict[int, Source] = {
        id(item): ("received", slot, 0) for slot, item in enumerate(incoming) if item is not None
    }
    calls = []
    for number, (op, args, kwargs, result, *_) in enumerate(seen):
        kwargs = kwargs or {}
        reads = [
            (place, sources.get(id(item), OTHER)) for place, item in places_in((args, kwargs), torch.Tensor)
        ]
        made: list[Any] = [item for _, item in _inside(result, (), torch.Tensor)]
        plan = plan_of(op)
        if plan is not None:
            known = {id(item) for item in made}
            made += [item for _, _, item in written_tensors(plan, args, kwargs) if id(item) not in known]
        sources.update({id(item): ("made", number, place) for place, item in enumerate(made)})
        calls.append((op, tuple(reads)))
    handed = tuple([None if item is None else sources.get(id(item), OTHER) for item in outgoing])
    if len(handed) != len(arguments):
        return None
    return Routing(name, tuple(calls), handed, arguments)
