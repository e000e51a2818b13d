"""Swaps and cuts: one function in the place of another, an edge that carries nothing.

What takes a piece's place is run by PyTorch, forward and backward, and its calls are put into the program.
Which of the recorded gradients the piece handed on, and to which of its inputs, autograd's own graph tells.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from openheart.errors import InterventionError
from openheart.recording import Call, Value, values_in
from openheart.recording.addresses import Part, find_part
from openheart.surgery.aliases import refuse_partial
from openheart.surgery.edits import Edit
from openheart.surgery.plan import Added, Graft, Later, Spot
from openheart.surgery.program import Program, redraws, run_line, where
from openheart.surgery.running import Run
from openheart.surgery.tracing import Traced, applied
from openheart.wiring import Arrival, Edge

if TYPE_CHECKING:
    from openheart.surgery.operate import Surgeon

__all__ = ["cut_edge", "swap_calls"]

aten = torch.ops.aten
_FUNCTIONS = (
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign",
    "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "tanhshrink", "sigmoid", "tanh",
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A part of the forward pass with one way in and one way out: an activation's call, a module's calls."""

    name: str
    calls: tuple[Call, ...]
    taken: Value
    given: Value


# Swaps ------------------------------------------------------------------------------------------------------


def swap_calls(surgeon: Surgeon, edit: Edit) -> None:
    """Puts a function in the place of every piece that the edit means.

    Raises:
        InterventionError: it means none, or a piece cannot be taken out of the network by itself.
    """
    assert edit.address is not None
    pieces = _pieces(surgeon, edit.address)
    if not pieces:
        activations = sorted(
            {call.name.rstrip("_") for call in surgeon.recording.calls if call.name.rstrip("_") in _FUNCTIONS}
        )
        raise InterventionError(
            "error.edit.swap.what", name=edit.address, known=", ".join(activations) or "–"
        )
    for piece in pieces:
        _swap(surgeon, piece, edit)


def _function(edit: Edit) -> Callable[..., torch.Tensor]:
    by = edit.value
    if isinstance(by, torch.nn.Module):
        return copy.deepcopy(by)  # what is done to the module later does not change this recording
    if callable(by):
        return by
    if by == "identity":
        return lambda tensor: tensor
    if isinstance(by, str) and by in _FUNCTIONS:
        return getattr(torch, by) if by in ("sigmoid", "tanh") else getattr(torch.nn.functional, by)
    raise InterventionError("error.edit.swap.by", by=by, name=edit.address, known=", ".join(_FUNCTIONS))


def _pieces(surgeon: Surgeon, what: str) -> list[Piece]:
    recording = surgeon.recording
    forward = [call for call in recording.calls if call.phase in ("forward", "loss")]
    names = recording._named.values
    paths = [what] if f"{what}.out" in names and f"{what}.in" in names else []
    if not paths and recording.model is not None:
        paths = [path for path, module in recording.model.named_modules() if type(module).__name__ == what]
    if paths:
        found = []
        for path in paths:
            found += _module_pieces(surgeon, path, forward)
        return found
    return [
        Piece(where(call), (call,), call.args[0], call.outputs[0])
        for call in forward
        if call.name.rstrip("_") == what and call.outputs and isinstance(call.args[0], Value)
    ]


def _module_pieces(surgeon: Surgeon, path: str, forward: list[Call]) -> list[Piece]:
    """One piece for each time that a module was called, in each step."""
    recording = surgeon.recording
    names = recording._named.values
    found: list[Piece] = []
    for step in sorted({call.step for call in forward}):
        last = -1
        visit = 1
        while True:
            stem = f"{path}:{visit}" if visit > 1 else path
            stem = f"@{step} {stem}" if step else stem
            taken, given = names.get(f"{stem}.in"), names.get(f"{stem}.out")
            if taken is None or given is None:
                break
            made = recording.maker(given)
            end = made[0].id if made is not None else -1
            calls = tuple(
                call
                for call in forward
                if last < call.id <= end
                and call.step == step
                and (call.scope == path or call.scope.startswith(f"{path}."))
            )
            found.append(Piece(stem, calls if taken is not given else (), taken, given))
            last, visit = end, visit + 1
    return found


def _swap(surgeon: Surgeon, piece: Piece, edit: Edit) -> None:
    function = _function(edit)
    if not piece.calls:  # the module hands its input on as it is
        part = Part(f"{piece.name}.out", piece.given, None, piece.given.shape)
        refuse_partial(surgeon.recording, part)
        surgeon.edit_made(part, [(Edit("call", edit.address, value=function), part)])
        return
    recording, plan, program = surgeon.recording, surgeon.plan, surgeon.program
    _must_stand_alone(surgeon, piece)
    last = recording.maker(piece.given)
    assert last is not None
    like = last[0]
    plan.removed.update(call.id for call in piece.calls)
    traced = Traced(lambda tensor: _result(function, tensor, edit), [piece.taken.id], like, piece.given.id)
    parameters = list(function.named_parameters()) if isinstance(function, torch.nn.Module) else []
    traced.others = [(parameter, plan.fresh()) for _, parameter in parameters]
    for (name, _), (_, identity) in zip(parameters, traced.others, strict=True):
        plan.names[f"{piece.name}.{name}"] = identity

    graft = Graft((0, 0), [])

    def forward(run: Run) -> None:
        with run.noting(graft.forward):
            result = traced.forward(run)
        if tuple(result.shape) != piece.given.shape or result.dtype != piece.given.dtype:
            raise InterventionError(
                "error.edit.swap.shape",
                by=edit.value,
                after=tuple(result.shape),
                kind=result.dtype,
                name=piece.name,
                before=piece.given.shape,
                dtype=piece.given.dtype,
            )

    plan.after.setdefault(like.id, []).append(forward)
    arrival = _arrival(surgeon, piece.given)
    if arrival is None:
        return
    gradient = recording.values[arrival.gradient]
    tied = _backward_calls(surgeon, piece)
    handed = _handed(surgeon, piece)
    where_to, taken = handed.pop(piece.taken.id, (None, None))
    plan.removed.update(call.id for call in tied)
    _bury(surgeon, piece, tied, taken)
    goes_to = taken.id if taken is not None else None
    if taken is gradient:
        goes_to = plan.fresh()
        surgeon.turn(arrival, goes_to)
    ids = [plan.fresh() for _ in parameters]
    for (name, _), identity in zip(parameters, ids, strict=True):
        plan.names[f"{piece.name}.{name}.grad"] = identity
    graft.turned[arrival.backward] = gradient.id, [goes_to]
    graft.edge, graft.to, graft.value = arrival.edges[0], [where_to], piece.given.id
    plan.grafts.append(graft)

    def backward(run: Run) -> None:
        with run.noting(graft.backward.setdefault(arrival.backward, [])):
            traced.backward(run, gradient.id, [goes_to], ids)

    first = min(call.id for call in tied) if tied else program.made_at[gradient.id] + 1
    plan.before.setdefault(first, []).append(backward)


def _arrival(surgeon: Surgeon, value: Value) -> Arrival | None:
    """The one gradient that arrives at a value, if any does."""
    arrivals = surgeon.backward.arrivals(value)
    if len(arrivals) > 1:
        raise InterventionError("error.edit.gradient.several", name=surgeon.recording.name(value))
    return arrivals[0] if arrivals else None


def _result(function: Callable[..., torch.Tensor], tensor: torch.Tensor, edit: Edit) -> torch.Tensor:
    result = applied(replace(edit, value=function), tensor)
    if not isinstance(result, torch.Tensor):
        raise InterventionError(
            "error.edit.swap.kind", by=edit.value, kind=type(result).__name__, name=edit.address
        )
    return result


def _must_stand_alone(surgeon: Surgeon, piece: Piece) -> None:
    """Nothing outside of a piece may read what it makes on the way, but its own backward."""
    inside = {call.id for call in piece.calls}
    for call in piece.calls:
        surgeon.backward.twins.refuse(piece.name, call)
    if piece.given.id in surgeon.plan.renamed or not inside.isdisjoint(surgeon.plan.removed):
        raise InterventionError("error.edit.together", name=piece.name)
    mine = inside | {call.id for call in _backward_calls(surgeon, piece)}
    mine |= {call.id for call in surgeon.backward.saved(piece.given)}
    for call in piece.calls:
        for value in call.outputs:
            if value is piece.given:
                continue
            for user in surgeon.recording.users(value):
                if user.id not in mine and user.name != "detach":
                    raise InterventionError(
                        "error.edit.swap.inside", name=piece.name, reader=where(user), call=where(call)
                    )


def _backward_calls(surgeon: Surgeon, piece: Piece) -> list[Call]:
    """The calls of a piece's own backward pass, and those that sum up what it alone hands back."""
    backward = surgeon.backward
    wiring = backward.wiring
    inside = {call.id for call in piece.calls}
    nodes = wiring.graph.nodes
    found: set[int] = set()
    for flow in wiring.flows.values():
        if nodes[flow.node].call in inside:
            own = (*flow.hooks, *flow.own) if flow.routing is not None else flow.after
            found.update(call for call in own if call not in wiring.sums)
    for call, each in wiring.sums.items():
        if all(giver is not None and nodes[giver].call in inside for giver in each.givers):
            found.add(call)
    found.update(
        call.id for made in inside for call in backward.tied.get(made, ()) if call.id not in wiring.owner
    )
    return [surgeon.recording.calls[call] for call in sorted(found)]


def _bury(surgeon: Surgeon, piece: Piece, tied: list[Call], taken: Value | None) -> None:
    """Takes out what was made of gradients that are no more: those of the piece's parameters."""
    recording, plan = surgeon.recording, surgeon.plan
    dead = {value.id for call in tied for value in call.outputs if value is not taken}
    for call in recording.calls:
        if call.id in plan.removed:
            continue
        if any(value.id in dead for value in values_in((call.args, call.kwargs))):
            if call.phase == "optimizer":
                raise InterventionError("error.edit.swap.updated", name=piece.name)
            if call.id in surgeon.backward.wiring.sums:
                raise InterventionError("error.edit.swap.shared", name=piece.name)
            plan.removed.add(call.id)
            dead.update(value.id for value in call.outputs)


# Cuts -------------------------------------------------------------------------------------------------------


def cut_edge(surgeon: Surgeon, edit: Edit) -> None:
    """Computes the destination as if the source were zero; nothing else sees it.

    Raises:
        InterventionError: nothing leads from the source to the destination.
    """
    assert edit.address is not None
    assert edit.to is not None
    recording, plan = surgeon.recording, surgeon.plan
    source = find_part(recording._named, edit.address)
    target = find_part(recording._named, edit.to)
    piece = _between(surgeon, source, target)
    for call in piece.calls:
        surgeon.backward.twins.refuse(target.name, call)
    if target.value.id in plan.renamed:
        raise InterventionError("error.edit.together.cut", name=target.name)
    like = piece.calls[-1]
    before, shadow = plan.fresh(), plan.fresh()
    plan.renamed[target.value.id] = before
    plan.names[f"{target.name}.before"] = before
    for reader in surgeon.backward.saved(target.value):
        plan.move(reader.id, target.value.id, before)
    keep = torch.ones(source.value.shape, dtype=torch.bool)
    keep[... if source.index is None else source.index] = False
    reached = torch.zeros(target.value.shape, dtype=torch.bool)
    reached[... if target.index is None else target.index] = True
    inputs = _inputs(piece)
    at = [value.id for value in inputs].index(source.value.id)

    def function(*tensors: torch.Tensor) -> torch.Tensor:
        env = {value.id: tensor for value, tensor in zip(inputs, tensors, strict=True)}
        env[source.value.id] = tensors[at].masked_fill(~keep, 0)
        return _run_piece(surgeon.program, piece, env)

    traced = Traced(function, [value.id for value in inputs], like, shadow)
    joined: list[Any] = []

    def forward(run: Run) -> None:
        if before not in run.env:
            run.put(before, target.value.data)
        traced.forward(run)
        parts = (run.constant(reached, f"{target.name}.cut.where"), Spot(shadow), Spot(before))
        joined.append(run.call(aten.where.self, parts, like, target.value.id)[1])

    plan.after.setdefault(like.id, []).append(forward)
    arrival = _arrival(surgeon, target.value)
    if arrival is None:
        plan.alike[before] = target.value.id
        return
    gradient = recording.values[arrival.gradient]
    handed = _handed(surgeon, piece)
    if any(value is gradient for _, value in handed.values()):
        raise InterventionError("error.edit.cut.gradient", name=edit.address, to=edit.to)
    kept, crossing = plan.fresh(), plan.fresh()
    surgeon.turn(arrival, kept)
    made = recording.maker(gradient)
    shares = {identity: plan.fresh() for identity in handed}
    edge = arrival.edges[0]
    graft = Graft(edge, [edge, *[there for there, _ in handed.values()]], target.value.id, (before,))
    graft.turned[arrival.backward] = gradient.id, [kept, *shares.values()]
    plan.grafts.append(graft)
    added = graft.backward.setdefault(arrival.backward, [])

    def split(run: Run) -> None:
        mask = run.constant(reached, f"{target.name}.cut.where")
        other = run.constant(~reached, f"{target.name}.cut.elsewhere")
        with run.noting(added):
            run.call(
                aten.masked_fill.Scalar, (Spot(gradient.id), mask, 0), like, kept, "backward", joined[-1]
            )
            run.call(
                aten.masked_fill.Scalar, (Spot(gradient.id), other, 0), like, crossing, "backward", joined[-1]
            )
            traced.backward(run, crossing, [shares.get(value.id) for value in inputs])

    plan.after.setdefault(-1 if made is None else made[0].id, []).append(split)
    for identity, (_, value) in handed.items():
        if value.id in plan.renamed:
            raise InterventionError("error.edit.together.cut", name=target.name)
        _add_share(surgeon, value, shares[identity], like, added)


def _add_share(surgeon: Surgeon, value: Value, share: int, like: Call, added: list[Added | Later]) -> None:
    """Adds what comes through the cut edge's other side to a gradient that the piece hands on."""
    plan = surgeon.plan
    alone = plan.fresh()
    plan.renamed[value.id] = alone
    line = surgeon.program.made_at[value.id]

    def add(run: Run) -> None:
        if alone not in run.env:
            run.put(alone, value.data)
        with run.noting(added):
            run.call(aten.add.Tensor, (Spot(alone), Spot(share)), like, value.id, "backward")

    plan.after.setdefault(line, []).append(add)


def _between(surgeon: Surgeon, source: Part, target: Part) -> Piece:
    """The calls that lead from one value to another."""
    recording = surgeon.recording
    made = recording.maker(target.value)
    reached = {source.value.id}
    onward: list[Call] = []
    for call in recording.calls:
        if made is not None and call.id > made[0].id:
            break
        if call.phase in ("forward", "loss") and any(
            value.id in reached for value in values_in((call.args, call.kwargs))
        ):
            onward.append(call)
            reached.update(value.id for value in call.outputs)
    needed = {target.value.id}
    calls: list[Call] = []
    for call in reversed(onward):
        if any(value.id in needed for value in call.outputs):
            calls.append(call)
            needed.update(value.id for value in values_in((call.args, call.kwargs)))
    if not calls or target.value.id not in reached or source.value is target.value:
        raise InterventionError("error.edit.cut.path", name=source.name, to=target.name)
    return Piece(target.name, tuple(reversed(calls)), source.value, target.value)


# Pieces -----------------------------------------------------------------------------------------------------


def _inputs(piece: Piece) -> list[Value]:
    """What a piece reads that it does not make."""
    made = {value.id for call in piece.calls for value in call.outputs}
    found: dict[int, Value] = {}
    for call in piece.calls:
        for value in values_in((call.args, call.kwargs)):
            if value.id not in made:
                found.setdefault(value.id, value)
    return list(found.values())


def _run_piece(program: Program, piece: Piece, env: dict[int, torch.Tensor]) -> torch.Tensor:
    """A piece on other numbers, as PyTorch runs it: autograd follows, modes see it."""
    for call in piece.calls:
        line = program.lines[call.id]
        if line.blank or (line.random and not redraws(line)):
            continue  # its draw stands
        for value, tensor in zip(call.outputs, run_line(line, env), strict=True):
            env[value.id] = tensor
    return env[piece.given.id]


def _handed(surgeon: Surgeon, piece: Piece) -> dict[int, tuple[Edge, Value]]:
    """For each input of a piece where its gradient arrives, and what the piece hands on to it.

    Raises:
        InterventionError: the recording does not tell it.
    """
    inside = {call.id for call in piece.calls}
    found: dict[int, tuple[Edge, Value]] = {}
    for value in _inputs(piece):
        for _, edge, gradient in surgeon.backward.handed(inside, value):
            found[value.id] = edge, surgeon.recording.values[gradient]
    return found
