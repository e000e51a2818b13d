"""What a recording keeps: everything, a module's subtree, or only the graph, its values computed again."""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

from collections import OrderedDict

import torch

from openheart.errors import InputError, OpaqueError
from openheart.i18n import Message
from openheart.nearest import nearest
from openheart.recording.build import Facts
from openheart.recording.lines import Line
from openheart.recording.log import is_plain
from openheart.recording.seat import aside
from openheart.recording.storages import Geometry, Life, Undo, geometry_of
from openheart.recording.thrift import Again
from openheart.recording.values import Call, Value, values_in

__all__ = ["Recipe", "check_keep", "drop", "held_bytes"]

ROOM = 256 * 2**20  # bytes of computed values that are held in case they are asked for again


def check_keep(keep: str, model: torch.nn.Module | None) -> None:
    """Raises `InputError` if `keep` says nothing that a recording of `model` could keep."""
    if keep in ("all", "graph"):
        return
    paths = [path for path, _ in model.named_modules()] if model is not None else []
    if keep in paths:
        return
    near = nearest(str(keep), ["all", "graph", *filter(None, paths)])
    hint = "" if near is None else Message("error.hint", {"name": near})
    raise InputError("error.keep", keep=keep, hint=hint)


def drop(facts: Facts, keep: str) -> None:
    """Lets go of every value that is not to be kept."""
    kitchen = _Kitchen(facts.makers)
    for value in facts.computed:
        _replace(value, Recipe(kitchen, value))
    if keep == "graph":
        _keep_graph(facts)
    elif keep != "all":
        _keep_subtree(facts, keep)
        held = {value._life for value in facts.values}
        facts.lives = {key: life for key, life in facts.lives.items() if life in held}


def held_bytes(values: list[Value]) -> int:
    """Bytes of the storages that these values lie in, each once."""
    storages: dict[int, int] = {}
    for value in values:
        undos = value._life.undos if isinstance(value._life, Life) else []
        held = (undo.held.before if isinstance(undo.held, Again) else undo.held for undo in undos)
        for tensor in (value._tensor, *held):
            if tensor is not None:
                storage = tensor.untyped_storage()
                storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())


def _keep_subtree(facts: Facts, path: str) -> None:
    inside = f"{path}." if path else ""
    kept = {
        value.id
        for _, name, value in (
            *facts.parameters,
            *facts.parameters_after,
            *facts.states,
            *facts.states_after,
            *((held.step, held.owner or "", held.value) for held in facts.gradients),
        )
        if name.startswith(inside)
    }
    for call in facts.calls:
        if call.scope == path or call.scope.startswith(inside):
            kept.update(value.id for value in (*values_in((call.args, call.kwargs)), *call.outputs))
    for value in facts.values:
        if value.id not in kept:
            _replace(value, Life())


def _replace(value: Value, life: Life | Recipe) -> None:
    object.__setattr__(value, "_life", life)
    object.__setattr__(value, "_tensor", None)
    value._cache.clear()


# Computing again --------------------------------------------------------------------------------------------

# What these return depends on memory around their argument, which a value computed again does not have.
_BY_MEMORY = {"as_strided", "as_strided_", "set_", "resize_", "resize_as_", "as_strided_scatter"}


class Recipe:
    """Stands where a value's `Life` would be: the way to compute it again from what is kept."""

    __slots__ = ("_kitchen", "_value")
    lasting = False

    def __init__(self, kitchen: _Kitchen, value: Value) -> None:
        self._kitchen = kitchen
        self._value = value

    def keeps(self, geometry: Geometry, version: int, tensor: torch.Tensor | None) -> bool:  # noqa: ARG002
        """Always: that is what the recipe is for."""
        return True

    def fixed(self, geometry: Geometry, version: int) -> bool:  # noqa: ARG002
        """Never: it is computed again."""
        return False

    def intact(self) -> bool:
        """Nobody else has what was computed."""
        return True

    def read(self, geometry: Geometry, version: int, tensor: torch.Tensor | None) -> torch.Tensor:  # noqa: ARG002
        """The value, computed again."""
        return self._kitchen.compute(self._value)


class _Kitchen:
    """Runs recorded calls again, with the same kernels on the same numbers."""

    def __init__(self, makers: dict[int, tuple[Call, int]]) -> None:
        self._makers = makers
        self._ready: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._bytes = 0

    def compute(self, value: Value) -> torch.Tensor:
        """The numbers of a value; of what lies on the way, the last `ROOM` bytes are held."""
        at_hand: dict[int, torch.Tensor] = {}
        wanted = [value]
        while wanted:
            item = wanted[-1]
            if item.id in at_hand or self._take(item, at_hand):
                wanted.pop()
                continue
            call, _ = self._makers[item.id]
            missing = [read for read in values_in((call.args, call.kwargs)) if read.id not in at_hand]
            missing = [read for read in missing if not self._take(read, at_hand)]
            if missing:
                wanted += missing
            else:
                self._run(call, at_hand)
        return at_hand[value.id]

    def _take(self, value: Value, at_hand: dict[int, torch.Tensor]) -> bool:
        if not isinstance(value._life, Recipe):
            at_hand[value.id] = value.data
            return True
        if value.id in self._ready:
            self._ready.move_to_end(value.id)
            at_hand[value.id] = self._ready[value.id]
            return True
        return False

    def _run(self, call: Call, at_hand: dict[int, torch.Tensor]) -> None:
        with torch.no_grad(), aside():
            outputs = Line(call).run(at_hand)
        for value, tensor in zip(call.outputs, outputs, strict=True):
            at_hand[value.id] = tensor
            self._hold(value, tensor)

    def _hold(self, value: Value, tensor: torch.Tensor) -> None:
        if not isinstance(value._life, Recipe) or value.id in self._ready:
            return
        self._ready[value.id] = tensor
        self._bytes += tensor.numel() * tensor.itemsize
        while self._bytes > ROOM and len(self._ready) > 1:
            _, old = self._ready.popitem(last=False)
            self._bytes -= old.numel() * old.itemsize


def _keep_graph(facts: Facts) -> None:
    kitchen = _Kitchen(facts.makers)
    kept = [value for value in facts.values if value.id not in facts.makers]
    again = []
    for call in facts.calls:
        if _must_be_kept(call):
            kept += call.outputs
        else:
            again += [value for value in call.outputs if value.kept]
    facts.lives = _settle(kept)
    for value in again:
        _replace(value, Recipe(kitchen, value))


def _settle(values: list[Value]) -> dict[int, Life]:
    """Takes values out of storages that they share with others, which can then be let go.

    A storage of which they are all there is stays as it is: to copy it would only take more. Returns the
    lives of such storages as others may still write to.
    """
    storages: dict[int, list[tuple[Value, torch.Tensor, Geometry]]] = {}
    for value in values:
        try:
            data = value.data
        except OpaqueError:
            continue
        if is_plain(data):
            storages.setdefault(data.untyped_storage()._cdata, []).append((value, data, geometry_of(data)))
    lives: dict[int, Life] = {}
    for key, members in storages.items():
        pieces = {geometry: data for _, data, geometry in members}
        size = sum(data.numel() * data.itemsize for data in pieces.values())
        apart = size < members[0][1].untyped_storage().nbytes()
        if apart:
            pieces = {geometry: data.clone() for geometry, data in pieces.items()}
        for value, _, geometry in members:
            life = Life()
            if not apart and isinstance(value._life, Life) and not value._life.fixed(geometry, value.version):
                life = lives.setdefault(key, Life())
                life.watched = value._life.watched
                life.undos += [_NO_UNDO] * (value.version - len(life.undos))
            _replace(value, life)
            object.__setattr__(value, "_tensor", pieces[geometry])
    return lives


_NO_UNDO = Undo(Geometry(torch.uint8, (0,), (1,), 0), None)  # of a write that nothing is left of


def _must_be_kept(call: Call) -> bool:
    """Whether a call cannot be run again: it draws at random, sees memory, or is an unknown operator."""
    tags = getattr(call.op, "tags", ())
    return (
        getattr(call.op, "_schema", None) is None
        or torch.Tag.nondeterministic_seeded in tags
        or call.name in _BY_MEMORY
        or call.name.startswith(("empty", "new_empty", "mkldnn_rnn"))
        or any(not value.kept for value in values_in((call.args, call.kwargs)))
    )
