"""From edits to a plan: which numbers, which calls, and what becomes of the gradients."""

# The parts of a recording know each other's insides.

from __future__ import annotations

import torch

from openheart.errors import InterventionError, OpaqueError
from openheart.recording import Call, Recording, Value
from openheart.recording.addresses import Part
from openheart.recording.storages import Life, strided
from openheart.surgery.aliases import refuse_partial
from openheart.surgery.edits import Edit
from openheart.surgery.fitting import change_tensor, like_recorded
from openheart.surgery.gradients import Backward, backward_of
from openheart.surgery.hyperparameters import edit_option, option_of
from openheart.surgery.operations import Operation, operation_of
from openheart.surgery.plan import Plan
from openheart.surgery.program import Program, part_of
from openheart.surgery.running import Run

__all__ = ["plan_of_edits"]


def plan_of_edits(recording: Recording, program: Program, edits: tuple[Edit, ...]) -> Plan:
    """Everything that these edits do to the program.

    Raises:
        AddressError: nothing has an edit's address.
        InterventionError: an edit cannot be; the message says why.
    """
    plan = Plan(next_id=len(program.values))
    try:
        _plan(_Surgeon(recording, program, plan), edits)
    except OpaqueError as error:
        raise InterventionError("error.edit.there", reason=error) from error
    return plan


def _plan(surgeon: Surgeon, edits: tuple[Edit, ...]) -> None:
    recording, plan = surgeon.recording, surgeon.plan
    by_value: dict[int, tuple[Part, list[tuple[Edit, Part]]]] = {}
    for edit in edits:
        if edit.kind == "cut":
            from openheart.surgery.grafts import cut_edge

            cut_edge(surgeon, edit)
            continue
        if edit.kind == "swap":
            from openheart.surgery.grafts import swap_calls

            swap_calls(surgeon, edit)
            continue
        assert edit.address is not None
        option = option_of(recording, edit.address)
        if option is not None:
            edit_option(recording, plan, edit, option)
            continue
        for target in surgeon.targets(edit):
            by_value.setdefault(target.value.id, (target, []))[1].append((edit, target))
    # Gradients first: what an edit in the forward pass hands on is the edited gradient.
    for first, todo in sorted(
        by_value.values(), key=lambda item: surgeon.phase_of(item[0].value) != "backward"
    ):
        if recording.maker(first.value) is None:
            surgeon.edit_leaf(first.value, todo)
        else:
            surgeon.edit_made(first, todo)


class _Surgeon:
    """Writes a plan, edit by edit."""

    def __init__(self, recording: Recording, program: Program, plan: Plan) -> None:
        self.recording = recording
        self.program = program
        self.plan = plan
        self._backward: Backward | None = None

    @property
    def backward(self) -> Backward:
        if self._backward is None:
            self._backward = backward_of(self.recording)
        return self._backward

    def phase_of(self, value: Value) -> str:
        made = self.recording.maker(value)
        return made[0].phase if made is not None else "leaf"

    def targets(self, edit: Edit) -> list[Part]:
        """The numbers that an edit means; more than one value only for a parameter that is frozen."""
        assert edit.address is not None
        part = part_of(self.recording, edit.address)
        if edit.kind == "freeze" and part.value.origin == "parameter":
            steps = sorted({call.step for call in self.recording.calls})
            names = [f"@{step} {part.name}.after" if step else f"{part.name}.after" for step in steps]
            found = [self.recording._named.values[n] for n in names if n in self.recording._named.values]
            return [Part(part.name, value, part.index, part.shape) for value in found]
        if part.name not in self.program.sound:
            self._must_matter(part, edit)
            refuse_partial(self.recording, part)
            self.program.sound.add(part.name)
        return [part]

    def _must_matter(self, part: Part, edit: Edit) -> None:
        value = part.value
        if self.recording.users(value) or any(
            value.id == output.id for visit in self.recording._read().visits for _, output in visit.outputs
        ):
            return
        names = self.recording._named.values
        if names.get("output") is value or names.get("loss") is value:
            return
        raise InterventionError("error.edit.unread", name=part.name, edit=edit)

    # Leaves -------------------------------------------------------------------------------------------------

    def edit_leaf(self, value: Value, todo: list[tuple[Edit, Part]]) -> None:
        """Gives a leaf other numbers; other views of its memory change with it."""
        tensor = like_recorded(value)
        with torch.no_grad(), torch._C._DisableTorchDispatch():
            for edit, part in todo:
                change_tensor(self.recording, tensor, edit, part)
        self.plan.leaves[value.id] = tensor
        peers = [
            other
            for other in self.program.values
            if other is not value
            and other._life is value._life
            and isinstance(value._life, Life)
            and self.recording.maker(other) is None
            and other.version == value.version
        ]
        if peers:
            storage = value.data.untyped_storage().clone()
            device = value.data.device
            strided(storage, value.geometry, 0, device).copy_(tensor)
            for other in peers:
                self.plan.leaves[other.id] = strided(storage, other.geometry, 0, device)

    # What a call made ---------------------------------------------------------------------------------------

    def edit_made(self, first: Part, todo: list[tuple[Edit, Part]]) -> None:
        """Puts calls after the one that made a value, which make of it what the edits say."""
        value = first.value
        made = self.recording.maker(value)
        assert made is not None
        call = made[0]
        self.backward.twins.refuse(first.name, call)
        if call.phase == "backward" and first.name.endswith(".grad"):
            self._edit_gradient(first, value, call, todo)
        else:
            self._insert(first.name, value, call, todo)

    def _insert(self, name: str, value: Value, call: Call, todo: list[tuple[Edit, Part]]) -> None:
        plan = self.plan
        chain = [operation_of(self.recording, value, edit, part) for edit, part in todo]
        turned = call.phase in ("forward", "loss") and not all(
            operation.keeps_gradient for operation in chain
        )
        gradient = self.backward.gradient(value) if turned else None
        before = plan.fresh()
        if value.id in plan.renamed:
            raise InterventionError("error.edit.together.swapped", name=name)
        plan.renamed[value.id] = before
        plan.names[f"{name}.before"] = before
        for inner in self._inner_names(name, value):
            plan.names[inner] = before
        for reader in self.backward.saved(value):
            plan.move(reader.id, value.id, before)

        def forward(run: Run) -> None:
            if before not in run.env:
                run.put(before, value.data)
            taken = before
            for number, operation in enumerate(chain):
                output = value.id if number == len(chain) - 1 else plan.fresh()
                operation.forward(run, taken, output, call)
                taken = output

        plan.after.setdefault(call.id, []).append(forward)
        if gradient is not None:
            self.redirect(name, value, gradient, chain, call)

    def _inner_names(self, name: str, value: Value) -> list[str]:
        """What modules inside of the edited one call the same value: they returned it before the edit."""
        step, _, bare = name.rpartition(" ")
        path, _, side = bare.rpartition(".out")
        if side:
            return []
        start = f"{step} {path}.".lstrip() if path else step
        return [
            other
            for other, item in self.recording._named.values.items()
            if item is value and other.endswith(".out") and other != name and other.startswith(start)
        ]

    def redirect(self, name: str, value: Value, gradient: Value, chain: list[Operation], call: Call) -> None:
        """Has what hands the gradient on to the value's maker read what the operations make of it."""
        plan = self.plan
        takers = self.backward.takers(value, gradient)
        others = self.backward.handed(value) - {value.id}
        named = self.recording._named.values
        names = [
            f"{other}.grad"
            for other, item in named.items()
            if item.id in others and named.get(f"{other}.grad") is gradient
        ]
        if not takers and not names:
            return
        handed_on = plan.fresh()
        for taker in takers:
            plan.move(taker.id, gradient.id, handed_on)
        plan.names[f"{name}.before.grad"] = handed_on
        for other in (*names, *(f"{inner}.grad" for inner in self._inner_names(name, value))):
            plan.names[other] = handed_on
        made = self.recording.maker(gradient)
        line = -1 if made is None else made[0].id
        like = call if made is None else made[0]

        def backward(run: Run) -> None:
            taken = gradient.id
            turning = [operation for operation in reversed(chain) if not operation.keeps_gradient]
            for number, operation in enumerate(turning):
                output = handed_on if number == len(turning) - 1 else plan.fresh()
                operation.backward(run, taken, output, like)
                taken = output

        plan.after.setdefault(line, []).append(backward)

    def _is_gradient(self, owner: Value, value: Value) -> bool:
        """Whether a value is the gradient that it is named to be."""
        try:
            gradient = self.backward.gradient(owner)
        except InterventionError:
            return False
        return gradient is value

    def _edit_gradient(self, first: Part, value: Value, call: Call, todo: list[tuple[Edit, Part]]) -> None:
        """A gradient: of this value alone, if it is the gradient of others as well."""
        plan = self.plan
        owner = self.recording._named.values.get(first.name[: -len(".grad")])
        owners = self.backward.owners.get(value.id, set())
        if owner is not None and not self._is_gradient(owner, value):
            raise InterventionError(
                "error.edit.shares", name=first.name, value=first.name.removesuffix(".grad")
            )
        if owner is None or owners <= self.backward.handed(owner):
            self._insert(first.name, value, call, todo)
            return
        chain = [operation_of(self.recording, value, edit, part) for edit, part in todo]
        changed = plan.fresh()
        plan.names[first.name] = changed
        for taker in self.backward.takers(owner, value):
            plan.move(taker.id, value.id, changed)

        def event(run: Run) -> None:
            taken = value.id
            for number, operation in enumerate(chain):
                output = changed if number == len(chain) - 1 else plan.fresh()
                operation.forward(run, taken, output, call)
                taken = output

        plan.after.setdefault(call.id, []).append(event)


Surgeon = _Surgeon
