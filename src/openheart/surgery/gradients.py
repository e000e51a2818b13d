"""Where a gradient comes from and where it goes: what an edit in the forward pass does to the backward one.

If a number is set by hand, what made it has no influence on the loss any more: its gradient is cut off there,
as PyTorch's autograd would cut it off. In the recorded program that means: the calls that hand the gradient
of a value on to what made the value read another gradient.
"""

# The parts of a recording know each other's insides.

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary, ref

from openheart.errors import InterventionError
from openheart.recording import Call, Recording, Value, values_in
from openheart.surgery.checkpoints import Twins, twins_of
from openheart.surgery.program import where

__all__ = ["Backward", "backward_of"]

# Operators whose backward makes no call: the gradient is handed on as it is, to all of these arguments.
_HAND_ON = {"add": 2, "add_": 2, "sub": 1, "sub_": 1, "clone": 1, "alias": 1, "contiguous": 1, "copy_": 2}


@dataclass(slots=True, eq=False)
class Backward:
    """The backward pass of a recording, by what it belongs to.

    Attributes:
        reference: the recording, held weakly: this is kept as long as it lives.
        tied: id of a forward call → its backward calls.
        owners: id of a gradient → ids of the values whose gradient it is named to be.
        gradients: id of a value → its gradient.
        twins: what the backward pass computes a second time; it is no gradient, whatever it is called.
    """

    reference: ref[Recording]
    tied: dict[int, list[Call]] = field(default_factory=dict)
    owners: dict[int, set[int]] = field(default_factory=dict)
    gradients: dict[int, Value] = field(default_factory=dict)
    twins: Twins = field(default_factory=Twins)

    @property
    def recording(self) -> Recording:
        recording = self.reference()
        assert recording is not None
        return recording

    def gradient(self, value: Value) -> Value | None:
        """The gradient that arrives at a value; None if none does.

        Raises:
            InterventionError: one does, and the recording does not tell which it is.
        """
        known = self.gradients.get(value.id)
        made = self.recording.maker(value)
        if known is not None and self._arrives(value, known):
            return known
        if made is None or not (value.dtype.is_floating_point or value.dtype.is_complex):
            return None
        if made[0].name == "detach":
            return None
        candidates: dict[int, Value] = {}
        several = len(made[0].outputs) > 1
        for identity in self.handed(value, alone=True):
            source = self.recording.maker(self.recording.values[identity])
            for call in self.tied.get(source[0].id, ()) if source is not None else ():
                for stranger in self._strangers(call, made[1] if several else None, len(made[0].outputs)):
                    if stranger.shape == value.shape:
                        candidates[stranger.id] = stranger
        if not candidates and not self._flows(value):
            return None
        if len(candidates) == 1 and not (several and self._listless(made[0])):
            return next(iter(candidates.values()))
        raise self._unclear(value)

    def _unclear(self, value: Value) -> InterventionError:
        name, made = self.recording.name(value), self.recording.maker(value)
        if made is None:
            return InterventionError("error.edit.gradient", name=name)
        return InterventionError("error.edit.gradient.made", name=name, call=where(made[0]))

    def _flows(self, value: Value) -> bool:
        """Whether a gradient may arrive at a value and go on to what made it."""
        arrives = any(
            self.tied.get(call.id) or (call.name in _HAND_ON and call.phase != "backward")
            for call in self.recording.users(value)
        )
        if not arrives:
            return False
        for identity in self.handed(value):
            made = self.recording.maker(self.recording.values[identity])
            if self.tied.get(made[0].id) if made is not None else identity in self.gradients:
                return True
        return False

    def _arrives(self, value: Value, gradient: Value) -> bool:
        """Whether what is named the gradient of a value is what its maker's backward reads.

        A reentrant checkpoint sums its argument's gradient up apart, and then again with the others.
        """
        made = self.recording.maker(value)
        if made is None or made[0].name in _HAND_ON:
            return True
        group = [call for call in self.tied.get(made[0].id, ()) if not _sums(call)]
        return not group or any(call in group for call in self.recording.users(gradient))

    def _listless(self, maker: Call) -> bool:
        """Whether none of a call's backward calls takes its outputs' gradients as one list."""
        return not any(
            isinstance(argument, (list, tuple)) and len(list(values_in(argument))) == len(maker.outputs)
            for call in self.tied.get(maker.id, ())
            for argument in call.args
        )

    def _strangers(self, call: Call, output: int | None, outputs: int) -> list[Value]:
        """What a backward call reads that was made elsewhere in the backward pass."""
        group = {other.id for other in self.tied.get(call.forward_call or -1, ())}
        found = []
        for argument in (*call.args, *call.kwargs.values()):
            members = list(values_in(argument))
            if output is not None and isinstance(argument, (list, tuple)) and len(members) == outputs:
                members = [members[output]]
            for value in members:
                made = self.recording.maker(value)
                if made is None or made[0].phase != "backward" or made[0].id in group:
                    continue
                if value.id not in self.twins.values:
                    found.append(value)
        return found

    def handed(self, value: Value, alone: bool = False) -> set[int]:
        """The value, and all that are given its very gradient: what was only added to, or copied.

        `alone`: only those that nothing else reads, so that it is all of their gradient.
        """
        inside = {value.id}
        stack = [value]
        while stack:
            made = self.recording.maker(stack.pop())
            if made is None:
                continue
            call = made[0]
            if call.name == "detach":
                continue
            reach = _HAND_ON.get(call.name, 0 if self.tied.get(call.id) else 1)
            for argument in call.args[:reach]:
                if (
                    isinstance(argument, Value)
                    and argument.shape == value.shape
                    and argument.id not in inside
                    and not (alone and len(self._readers(argument)) > 1)
                ):
                    inside.add(argument.id)
                    stack.append(argument)
        return inside

    def _readers(self, value: Value) -> list[Call]:
        return [call for call in self.recording.users(value) if call.phase in ("forward", "loss")]

    def takers(self, value: Value, gradient: Value) -> list[Call]:
        """The calls that take the gradient of `value` and hand it on to what made the value.

        The same numbers may be the gradient of other values as well (of both terms of a sum): calls that take
        it for those are not among them.

        Raises:
            InterventionError: it is at once the gradient of a leaf and of something else.
        """
        inside = self.handed(value)
        shared = inside.union(*(self.handed(self.recording.values[i]) for i in self._owners(gradient)))
        makers = set()
        for identity in inside:
            made = self.recording.maker(self.recording.values[identity])
            if made is not None:
                makers.add(made[0].id)
        leaves = [i for i in inside if self.recording.maker(self.recording.values[i]) is None]
        found = []
        for call in self.recording.users(gradient):
            if call.phase == "optimizer":
                owned = self.owners.get(gradient.id, set()) - inside
                if not any(leaf in self.owners.get(gradient.id, ()) for leaf in leaves):
                    continue
                if owned:
                    raise InterventionError("error.edit.gradient.shared", name=self.recording.name(value))
                found.append(call)
            elif call.phase == "backward":
                if not self._accumulates(call, shared):
                    taken = call.forward_call in makers
                else:
                    taken = self._ends_in(call, inside, makers, shared)
                    if taken and call.forward_call is not None:
                        taken = self._share_of(call, gradient, makers, shared, value)
                if taken:
                    found.append(call)
        return found

    def _share_of(
        self, call: Call, gradient: Value, makers: set[int], shared: set[int], value: Value
    ) -> bool:
        """Whether the share of a sum that is `gradient` was handed on by one of `makers`.

        A sum's second term is what the node hands on in which it is made, and its first what came before,
        from another call that reads what the node's call read.

        Raises:
            InterventionError: it may be.
        """
        node = self.recording.calls[call.forward_call or 0]
        givers = {node.id} if call.args[1] is gradient else set()
        if call.args[0] is gradient:
            read = {item.id for item in values_in((node.args, node.kwargs))}
            before = {
                other.id
                for identity in read
                for other in self.recording.users(self.recording.values[identity])
                if other.id != node.id
                and any(item.id in shared for item in other.outputs)
                and not read.isdisjoint(
                    item.id for item in values_in(other.args[: _HAND_ON.get(other.name, 1)])
                )
            }
            if len(before) > 1:  # those that come later are not it
                before -= {
                    user.forward_call or 0
                    for user in self.recording.users(gradient)
                    if user.id > call.id and len(user.args) > 1 and user.args[1] is gradient
                }
            givers |= before
        if not givers.isdisjoint(makers) and not givers <= makers:
            raise self._unclear(value)
        return givers <= makers

    def _owners(self, gradient: Value) -> set[int]:
        return self.owners.get(gradient.id, set())

    def _accumulates(self, call: Call, shared: set[int]) -> bool:
        """Whether a call sums up shares of a gradient, one of them the gradient of the values in `shared`.

        A sum is made while the node runs that gives its second term, and so it seems to belong to that node.
        It does not if the node's call read one of the values that are handed the very gradient.
        """
        if call.forward_call is None:
            return True
        if call.name not in ("add", "add_"):
            return False
        forward = self.recording.calls[call.forward_call]
        return forward.name in _HAND_ON or any(
            value.id in shared for value in values_in((forward.args, forward.kwargs))
        )

    def _ends_in(self, call: Call, inside: set[int], makers: set[int], shared: set[int]) -> bool:
        """Whether a call that sums gradients up, or puts one in place, does it for one of these values."""
        for output in call.outputs:
            if not self._owners(output).isdisjoint(inside):
                return True
            for user in self.recording.users(output):
                if user.phase != "backward":
                    continue
                if self._accumulates(user, shared):
                    if user.id > call.id and self._ends_in(user, inside, makers, shared):
                        return True
                elif user.forward_call in makers:
                    return True
        return False

    def saved(self, value: Value) -> list[Call]:
        """The calls that read a value as what its maker saved of its own result, for its backward."""
        made = self.recording.maker(value)
        if made is None:
            return []
        mine = {call.id for call in self.tied.get(made[0].id, ())}
        found = []
        for call in self.recording.users(value):
            if call.id in mine:
                found.append(call)
            elif call.name == "detach" and call.id == made[0].id + 1:
                users = {user.id for output in call.outputs for user in self.recording.users(output)}
                if users <= mine:
                    found.append(call)
        return found


def _sums(call: Call) -> bool:
    """Whether a call may be autograd's own, which sums gradients up or puts a leaf's in its place.

    A sum is made while the node runs that gives its second term, and so it seems to belong to that node.
    """
    return call.forward_call is None or call.name in ("add", "add_")


_KNOWN: WeakKeyDictionary[Recording, Backward] = WeakKeyDictionary()


def backward_of(recording: Recording) -> Backward:
    """The backward pass of a recording, by what it belongs to; found once."""
    known = _KNOWN.get(recording)
    if known is None:
        known = _KNOWN[recording] = _backward(recording)
    return known


def _backward(recording: Recording) -> Backward:
    backward = Backward(ref(recording), twins=twins_of(recording))
    twins = backward.twins
    for call in recording.calls:
        if call.phase == "backward" and call.forward_call is not None and call.id not in twins.calls:
            backward.tied.setdefault(call.forward_call, []).append(call)
    names = recording._named.values
    for name, value in names.items():
        if name.endswith(".grad") and value.id not in twins.values:
            owner = names.get(name[: -len(".grad")])
            if owner is not None:
                backward.owners.setdefault(value.id, set()).add(owner.id)
                backward.gradients.setdefault(owner.id, value)
    return backward
