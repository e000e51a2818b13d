"""From edits to a plan: which numbers, which calls, and what becomes of the gradients."""

# The parts of a recording know each other's insides.

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from openheart.errors import InterventionError, OpaqueError
from openheart.recording import Call, Recording, Value
from openheart.recording.addresses import Part, find_part
from openheart.recording.storages import Life, strided
from openheart.surgery.aliases import refuse_partial
from openheart.surgery.edits import Edit
from openheart.surgery.gradients import Backward, backward_of
from openheart.surgery.hyperparameters import edit_option, option_of
from openheart.surgery.plan import Added, Plan, Spot
from openheart.surgery.program import Program, part_of
from openheart.surgery.running import Run
from openheart.surgery.tracing import Traced, applied

__all__ = ["plan_of_edits"]

aten = torch.ops.aten


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
        raise InterventionError(f"this cannot be edited in this recording: {error}") from error
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
        self._must_matter(part, edit)
        refuse_partial(self.recording, part)
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
        raise InterventionError(
            f"nothing in this recording reads {part.name!r}, so {edit!r} would change nothing else"
        )

    # Leaves -------------------------------------------------------------------------------------------------

    def edit_leaf(self, value: Value, todo: list[tuple[Edit, Part]]) -> None:
        """Gives a leaf other numbers; other views of its memory change with it."""
        tensor = like_recorded(value)
        with torch.no_grad(), torch._C._DisableTorchDispatch():
            for edit, part in todo:
                _on_tensor(self, tensor, edit, part)
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
        chain = [_operation(self, value, edit, part) for edit, part in todo]
        turned = call.phase in ("forward", "loss") and not all(
            operation.keeps_gradient for operation in chain
        )
        gradient = self.backward.gradient(value) if turned else None
        before = plan.fresh()
        if value.id in plan.renamed:
            raise InterventionError(f"{name!r} is edited and swapped or cut at once: do one after the other")
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
                f"{first.name!r} cannot be edited in this recording: what has this name is not all of the "
                f"gradient that arrives there; edit {first.name.removesuffix('.grad')!r}, or record without "
                "the checkpoint"
            )
        if owner is None or owners <= self.backward.handed(owner):
            self._insert(first.name, value, call, todo)
            return
        chain = [_operation(self, value, edit, part) for edit, part in todo]
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


# Operations -------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Operation:
    """One edit of a value that a call made, as calls: forward, and what it does to the gradient.

    `forward(run, taken, output, like)` makes the value `output` of the value `taken`; `backward` likewise.
    """

    forward: Callable[[Run, int, int, Call], None]
    backward: Callable[[Run, int, int, Call], None]
    keeps_gradient: bool = False


def _operation(surgeon: _Surgeon, value: Value, edit: Edit, part: Part) -> Operation:
    if edit.kind == "call":
        return _called(edit, part)
    mask = _mask(value, part.index)
    if edit.kind in ("scale", "add"):
        return _scaled(value, edit, part, mask)
    return _set(surgeon, value, edit, part, mask)


def _mask(value: Value, index: Any) -> torch.Tensor:
    """Where an edit applies: bools of the value's shape, laid out in memory as it is.

    What `where` makes has the layout of its mask, and views of it must be possible as they were.
    """
    like = torch.empty_strided(value.shape, value.stride, device="meta")
    mask = torch.zeros_like(like, dtype=torch.bool, device="cpu")
    mask[... if index is None else index] = True
    return mask


def _set(surgeon: _Surgeon, value: Value, edit: Edit, part: Part, mask: torch.Tensor) -> Operation:
    averaged = edit.kind == "ablate" and edit.value == "mean" and bool(value.shape)
    number = None if averaged else _numbers(surgeon, value, edit, part)
    made: list[Added] = []

    def forward(run: Run, taken: int, output: int, like: Call) -> None:
        if number is None:
            mean, _ = run.call(aten.mean.dim, (Spot(taken), [0], True), like)
            given = Spot(mean)
        else:
            given = run.constant(number, f"{part.name}.edit")
        made.append(
            run.call(
                aten.where.self,
                (run.constant(mask, f"{part.name}.edit.where"), given, Spot(taken)),
                like,
                output,
            )[1]
        )

    def backward(run: Run, taken: int, output: int, like: Call) -> None:
        run.call(
            aten.masked_fill.Scalar,
            (Spot(taken), run.constant(mask, f"{part.name}.edit.where"), 0),
            like,
            output,
            forward=made[-1],
        )

    return Operation(forward, backward)


def _scaled(value: Value, edit: Edit, part: Part, mask: torch.Tensor) -> Operation:
    whole = part.index is None
    op = aten.mul.Tensor if edit.kind == "scale" else aten.add.Tensor
    amount = edit.value
    if not isinstance(amount, (int, float, complex)) or isinstance(amount, bool):
        given = fitting(amount, part, value, edit)
        amount = torch.zeros(value.shape, dtype=value.dtype)
        amount[part.index if part.index is not None else ...] = given
    elif not value.dtype.is_floating_point and not value.dtype.is_complex and not isinstance(amount, int):
        raise InterventionError(f"{edit!r}: {part.name!r} holds {value.dtype}, which has no fractions")
    made: list[Added] = []

    def apply(run: Run, taken: int, output: int, like: Call, forward: Added | None) -> Added:
        operand = run.constant(amount, f"{part.name}.edit") if isinstance(amount, torch.Tensor) else amount
        changed, call = run.call(op, (Spot(taken), operand), like, output if whole else None, forward=forward)
        if whole:
            return call
        parts = (run.constant(mask, f"{part.name}.edit.where"), Spot(changed), Spot(taken))
        return run.call(aten.where.self, parts, like, output, forward=forward)[1]

    def forward(run: Run, taken: int, output: int, like: Call) -> None:
        made.append(apply(run, taken, output, like, None))

    def backward(run: Run, taken: int, output: int, like: Call) -> None:
        apply(run, taken, output, like, made[-1])

    return Operation(forward, backward, keeps_gradient=edit.kind == "add")


def _called(edit: Edit, part: Part) -> Operation:
    traced: list[Traced] = []

    def function(tensor: torch.Tensor) -> torch.Tensor:
        given = tensor if part.index is None else tensor[part.index]
        result = applied(edit, given)
        result = fitting(result, part, part.value, edit)
        if part.index is None:
            return result.to(tensor.dtype).expand(tensor.shape)
        changed = tensor.clone()
        changed[part.index] = result.to(tensor.dtype)
        return changed

    def forward(run: Run, taken: int, output: int, like: Call) -> None:
        traced.append(Traced(function, [taken], like, output))
        traced[-1].forward(run)

    def backward(run: Run, taken: int, output: int, _like: Call) -> None:
        traced[-1].backward(run, taken, [output])

    return Operation(forward, backward)


def _on_tensor(surgeon: _Surgeon, tensor: torch.Tensor, edit: Edit, part: Part) -> None:
    """Changes a leaf's numbers, in place."""
    at: Any = ... if part.index is None else part.index
    now = tensor[at]
    if edit.kind == "call":
        tensor[at] = fitting(applied(edit, now.clone()), part, part.value, edit)
    elif edit.kind in ("scale", "add"):
        amount = edit.value
        if not isinstance(amount, (int, float, complex)):
            amount = fitting(amount, part, part.value, edit)
        tensor[at] = _kept(now * amount if edit.kind == "scale" else now + amount, tensor, edit, part)
    elif edit.kind == "ablate" and edit.value == "mean" and tensor.dim():
        tensor[at] = tensor.mean(0, keepdim=True).expand_as(tensor)[at]
    else:
        numbers = _numbers(surgeon, part.value, edit, part)
        tensor[at] = numbers[at] if numbers.dim() else numbers


def _kept(result: torch.Tensor, tensor: torch.Tensor, edit: Edit, part: Part) -> torch.Tensor:
    if result.dtype != tensor.dtype and not tensor.dtype.is_floating_point:
        raise InterventionError(f"{edit!r}: {part.name!r} holds {tensor.dtype}, which cannot hold the result")
    return result


def _numbers(surgeon: _Surgeon, value: Value, edit: Edit, part: Part) -> torch.Tensor:
    """What is put into a value, as a tensor of its shape (what lies outside of the part does not matter)."""
    if edit.kind == "ablate":
        return torch.zeros(value.shape, dtype=value.dtype)
    if edit.kind == "freeze":
        first = surgeon.recording._named.values.get(part.name)
        if first is not None and first.origin == "parameter":
            return first.data
        return value.data
    if edit.kind == "patch":
        return _transplant(value, edit, part)
    given = fitting(edit.value, part, value, edit)
    if given.dim() == 0:
        return given
    numbers = torch.zeros(value.shape, dtype=value.dtype)
    numbers[... if part.index is None else part.index] = given
    return numbers


def _transplant(value: Value, edit: Edit, part: Part) -> torch.Tensor:
    other = edit.other
    if isinstance(other, str):
        from openheart.recording.saving import load

        other = load(other)
    if not isinstance(other, Recording):
        raise InterventionError(f"a patch takes its numbers from a Recording or a file of one, not {other!r}")
    source = find_part(other._named, edit.value if edit.value is not None else edit.address or "")
    if edit.value is None:
        numbers = source.value.data
        if tuple(numbers.shape) != value.shape or numbers.dtype != value.dtype:
            raise InterventionError(
                f"{part.name!r} has the shape {value.shape} ({value.dtype}) here and {tuple(numbers.shape)} "
                f"({numbers.dtype}) in the other recording: they must be the same"
            )
        return numbers
    taken = source.value.data[... if source.index is None else source.index]
    numbers = torch.zeros(value.shape, dtype=value.dtype)
    numbers[... if part.index is None else part.index] = fitting(taken, part, value, edit)
    return numbers


def fitting(given: Any, part: Part, value: Value, edit: Edit) -> torch.Tensor:
    """A number or tensor of the value's dtype that fits the part.

    Raises:
        InterventionError: its shape or its dtype does not fit.
    """
    if (
        type(given) is float
        and value.dtype == torch.float32
        and (abs(given) < 1e38 or not math.isfinite(given))
    ):
        return torch.tensor(given)
    try:
        tensor = given if isinstance(given, torch.Tensor) else torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InterventionError(
            f"{part.name!r} is set to numbers, and {given!r} is none (a number, a list or a tensor is)"
        ) from error
    if not isinstance(given, torch.Tensor) and tensor.dtype.is_floating_point:
        tensor = torch.as_tensor(given, dtype=torch.float64)
    shape = tuple(tensor.shape)
    if not _broadcasts(shape, part.shape):
        raise InterventionError(
            f"numbers of shape {shape} do not fit {edit.address!r}, which has the shape {part.shape}"
        )
    kinds = (_rank(tensor.dtype), _rank(value.dtype))
    if kinds[0] > kinds[1]:
        whole = tensor.dtype.is_floating_point and kinds[1] == 1 and bool((tensor == tensor.trunc()).all())
        if not whole:
            raise InterventionError(
                f"{part.name!r} holds {value.dtype}, which cannot hold {given!r} ({tensor.dtype})"
            )
    fitted = tensor.to(value.dtype)
    if value.dtype.is_floating_point and bool((torch.isinf(fitted) & ~torch.isinf(tensor)).any()):
        raise InterventionError(
            f"{part.name!r} holds {value.dtype}, which has no number as large as {given!r}"
        )
    return fitted


def _rank(dtype: torch.dtype) -> int:
    if dtype == torch.bool:
        return 0
    return 3 if dtype.is_complex else 2 if dtype.is_floating_point else 1


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    if math.prod(shape) == 1 and len(shape) <= len(target):
        return True
    if len(shape) > len(target):
        return False
    return all(size in (1, wide) for size, wide in zip(reversed(shape), reversed(target), strict=False))


def like_recorded(value: Value) -> torch.Tensor:
    """A copy of a value's numbers, laid out in memory as they were."""
    try:
        data = value.data
    except OpaqueError as error:
        raise InterventionError(f"a value cannot be edited whose numbers are not there: {error}") from error
    return data.detach().clone()
