"""From edits to a plan: which numbers, which calls, and what becomes of the gradients."""

# The parts of a recording know each other's insides.

from __future__ import annotations

from collections.abc import Callable

import torch

from openheart.errors import InterventionError, OpaqueError
from openheart.recording import Call, Recording, Value
from openheart.recording.addresses import Part
from openheart.recording.seat import aside
from openheart.recording.storages import Life, strided
from openheart.surgery.aliases import earlier_names, refuse_partial, step_of
from openheart.surgery.edits import Edit
from openheart.surgery.fitting import change_tensor, like_recorded
from openheart.surgery.gradients import Backward, backward_of
from openheart.surgery.hyperparameters import edit_option, option_of
from openheart.surgery.operations import Operation, operation_of
from openheart.surgery.optimizing import rerun_from_state
from openheart.surgery.plan import Graft, Plan, Spot
from openheart.surgery.program import Program, part_of
from openheart.surgery.running import Run
from openheart.wiring import Arrival, Place
from openheart.wiring.asking import places_in

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
    rerun_from_state(recording, plan, set(by_value))


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
        with torch.no_grad(), aside():
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
        followed = call.phase in ("forward", "loss")
        turned = followed and not all(operation.keeps_gradient for operation in chain)
        arrivals = self.backward.arrivals(value) if turned else []
        before = plan.fresh()
        if value.id in plan.renamed:
            raise InterventionError("error.edit.together.swapped", name=name)
        plan.renamed[value.id] = before
        plan.names[f"{name}.before"] = before
        for inner in earlier_names(self.recording, name, value):
            plan.names[inner] = before
        for reader in self.backward.saved(value):
            plan.move(reader.id, value.id, before)
        for reader in self.recording.users(value):
            if reader.step < step_of(name):  # it is what a later step finds that is edited
                plan.move(reader.id, value.id, before)
        edge = self.backward.slot(value) if turned else None
        graft = None if edge is None else Graft(edge, [edge], value.id, (before,))
        if graft is not None:
            plan.grafts.append(graft)
        elif followed:
            plan.alike[before] = value.id
        else:
            plan.put[before] = value.id

        def forward(run: Run) -> None:
            if before not in run.env:
                run.put(before, value.data)
            taken = before
            with run.noting([] if graft is None else graft.forward):
                for number, operation in enumerate(chain):
                    output = value.id if number == len(chain) - 1 else plan.fresh()
                    operation.forward(run, taken, output, call)
                    taken = output

        plan.after.setdefault(call.id, []).append(forward)
        for arrival in arrivals:
            assert graft is not None
            self.redirect(name, arrival, graft, chain, call)

    def redirect(self, name: str, arrival: Arrival, graft: Graft, chain: list[Operation], call: Call) -> None:
        """Has what takes a gradient, to hand it on, read what the operations make of it."""
        plan = self.plan
        handed_on = plan.fresh()
        gradient = self.recording.values[arrival.gradient]
        self.turn(arrival, handed_on)
        graft.turned[arrival.backward] = gradient.id, [handed_on]
        owner = self.recording.values[graft.value or 0]
        named = self.recording._named.values
        owners = self.backward.owners(arrival.edges) - {owner.id}
        names = [
            f"{other}.grad"
            for other, item in named.items()
            if item.id in owners and named.get(f"{other}.grad") is gradient
        ]
        plan.names.setdefault(f"{name}.before.grad", handed_on)
        for other in (*names, *(f"{inner}.grad" for inner in earlier_names(self.recording, name, owner))):
            plan.names.setdefault(other, handed_on)
        made = self.recording.maker(gradient)
        line = -1 if made is None else made[0].id
        like = call if made is None else made[0]

        def backward(run: Run) -> None:
            taken = gradient.id
            turning = [operation for operation in reversed(chain) if not operation.keeps_gradient]
            with run.noting(graft.backward.setdefault(arrival.backward, [])):
                for number, operation in enumerate(turning):
                    output = handed_on if number == len(turning) - 1 else plan.fresh()
                    operation.backward(run, taken, output, like)
                    taken = output

        plan.after.setdefault(line, []).append(backward)

    def turn(self, arrival: Arrival, new: int) -> None:
        """Has the calls that take a gradient read another.

        The engine may sum a gradient up with itself, and only one of the two be meant: then another sum
        stands in the place of that one.
        """
        plan = self.plan
        by_line: dict[int, set[Place]] = {}
        for line, place in arrival.readers:
            by_line.setdefault(line, set()).add(place)
        for line, places in by_line.items():
            call = self.recording.calls[line]
            read = {
                place for place, item in places_in((call.args, call.kwargs)) if item.id == arrival.gradient
            }
            if read == places and line not in plan.mixed:
                plan.move(line, arrival.gradient, new)
                continue
            if line not in plan.mixed:
                plan.mixed[line] = {}
                plan.removed.add(line)
                plan.after.setdefault(line, []).insert(0, self._instead(call))
            plan.mixed[line].update(dict.fromkeys(places, new))

    def _instead(self, call: Call) -> Callable[[Run], None]:
        """An event that makes a call with what is meant at each place."""
        plan = self.plan

        def event(run: Run) -> None:
            moved, mixed = plan.moved.get(call.id, {}), plan.mixed[call.id]
            args = tuple(
                [
                    Spot(mixed.get((place,), moved.get(item.id, item.id)))
                    if isinstance(item, Value)
                    else item
                    for place, item in enumerate(call.args)
                ]
            )
            output = call.outputs[0].id
            output = plan.renamed.get(output, output)
            plan.instead[call.id] = run.call(call.op, args, call, output, forward=call.forward_call)[1]

        return event

    def _edit_gradient(self, first: Part, value: Value, call: Call, todo: list[tuple[Edit, Part]]) -> None:
        """A gradient: of this value alone, if it is the gradient of others as well."""
        plan = self.plan
        owner = self.recording._named.values.get(first.name[: -len(".grad")])
        edge = None if owner is None else self.backward.slot(owner)
        if owner is None or edge is None:  # what a leaf has gathered
            self._insert(first.name, value, call, todo)
            return
        edge = self.backward.behind_edits(edge)
        arrivals = self.backward.arrivals(owner, edge)
        arrival = next((each for each in arrivals if each.gradient == value.id), None)
        if arrival is None:
            raise InterventionError(
                "error.edit.shares", name=first.name, value=first.name.removesuffix(".grad")
            )
        chain = [operation_of(self.recording, value, edit, part) for edit, part in todo]
        changed = plan.fresh()
        named = self.recording._named.values
        plan.names |= {
            f"{other}.grad": changed
            for other, item in named.items()
            if item is owner and named.get(f"{other}.grad") is value
        }
        self.turn(arrival, changed)
        whose = owner.id if edge == self.backward.slot(owner) else None
        graft = Graft(edge, [edge], whose, turned={arrival.backward: (value.id, [changed])})
        plan.grafts.append(graft)

        def event(run: Run) -> None:
            taken = value.id
            with run.noting(graft.backward.setdefault(arrival.backward, [])):
                for number, operation in enumerate(chain):
                    output = changed if number == len(chain) - 1 else plan.fresh()
                    operation.forward(run, taken, output, call)
                    taken = output

        plan.after.setdefault(call.id, []).append(event)


Surgeon = _Surgeon
