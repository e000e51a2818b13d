"""Why a value has no gradient: no backward pass, frozen, unused, detached, no_grad, apart from the loss.

What autograd follows is known call by call: it made a node for it, or it did not. So the way from a value to
the loss can be walked, and where it breaks, the call says why.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from openheart.errors import AddressError
from openheart.recording.values import Call, Value, values_in

if TYPE_CHECKING:
    from openheart.recording.build import Facts
    from openheart.recording.names import Names

__all__ = ["absence"]

_DETACH = {"detach", "detach_", "detach_copy"}


def absence(facts: Facts, names: Names, name: str) -> AddressError | None:
    """Why nothing has this name, if it is the gradient of something that has one; None if it is not."""
    if not name.endswith(".grad"):
        return None
    owner = name.removesuffix(".grad")
    step, bare = 0, owner
    if owner.startswith("@"):
        number, _, bare = owner[1:].partition(" ")
        step = int(number) if number.isdigit() else 0
    value = names.values.get(owner)
    if value is None and any(bare == known for _, known, _ in facts.parameters):
        value = names.values.get(bare)
    if value is None or step > max((call.step for call in facts.calls), default=0):
        return None
    asked = names.values.get(f"{owner}.autograd_grad")
    if asked is not None:
        suggestion = f"{owner}.autograd_grad"
        return AddressError("error.grad.asked", suggestion, name=name, shape=asked.shape)
    if not (value.dtype.is_floating_point or value.dtype.is_complex):
        return AddressError("error.grad.dtype", name=name, owner=owner, dtype=value.dtype)
    calls = [call for call in facts.calls if call.step == step]
    if not any(call.phase == "backward" for call in calls):
        return AddressError("error.grad.none", name=name)
    if value.id in facts.frozen:
        return AddressError("error.grad.frozen", name=name, owner=owner)
    if facts.followed is None:  # read from a file, or run again: what autograd followed is not known
        return AddressError("error.grad.unknown", name=name)
    return _on_the_way(facts, calls, value, name, owner)


def _on_the_way(facts: Facts, calls: list[Call], value: Value, name: str, owner: str) -> AddressError:
    """Why no gradient came back from the loss to this value."""
    followed = facts.followed or set()
    forward = [call for call in calls if call.phase in ("forward", "loss")]
    made = facts.makers.get(value.id)
    if made is not None and made[0].phase in ("forward", "loss") and made[0].id not in followed:
        return _cut(made[0], name, owner, "made")
    if not any(_reads(call, value) for call in forward):
        return AddressError("error.grad.unused", name=name, owner=owner)
    losses = {loss.id for step, loss, _ in facts.seeds if step == calls[0].step}
    leads = _leads(forward, losses)
    reached, cuts = {value.id}, []
    for call in forward:
        if not any(read.id in reached for read in _read(call)):
            continue
        if call.id in followed:
            reached.update(output.id for output in call.outputs)
        elif any(output.id in leads for output in call.outputs):
            cuts.append(call)
    if not losses or not losses.isdisjoint(reached):
        return AddressError("error.grad.unknown", name=name)
    if not cuts:
        return AddressError("error.grad.apart", name=name, owner=owner)
    return _cut(next((call for call in cuts if call.name in _DETACH), cuts[0]), name, owner, "cut")


def _cut(call: Call, name: str, owner: str, how: str) -> AddressError:
    """What a call is that autograd did not follow."""
    where = call.source or call.scope or call.name
    numbers = any(output.dtype.is_floating_point or output.dtype.is_complex for output in call.outputs)
    if call.name in _DETACH:
        kind = "detached"
    elif not numbers:
        kind = "steps"
    else:
        kind = "untracked"
    return AddressError(f"error.grad.{how}.{kind}", name=name, owner=owner, call=call.name, where=where)


def _leads(forward: list[Call], losses: set[int]) -> set[int]:
    """What the losses are computed from."""
    leads = set(losses)
    for call in reversed(forward):
        if any(output.id in leads for output in call.outputs):
            leads.update(read.id for read in _read(call))
    return leads


def _reads(call: Call, value: Value) -> bool:
    return any(read is value for read in _read(call))


def _read(call: Call) -> Iterator[Value]:
    return values_in((call.args, call.kwargs))
