"""From the log to the facts: walks through it once and finds which values each call read and made."""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any

import torch

from openheart.recording.graph import Graph
from openheart.recording.leaves import Gradient, Leaves
from openheart.recording.log import (
    BEGIN,
    ENGINE,
    ENGINED,
    ENTER,
    EXIT,
    FREED,
    GAP,
    GRAD,
    POKED,
    REBIND,
    STEP,
    STEPPED,
    Gap,
    Log,
    is_plain,
    tensors_in,
)
from openheart.recording.memory import Memory
from openheart.recording.phases import Phases
from openheart.recording.places import place_of
from openheart.recording.rereads import reread
from openheart.recording.storages import Life, Undo, geometry_of
from openheart.recording.targets import CRITERIA, FUNCTIONAL
from openheart.recording.temporaries import COMPUTED
from openheart.recording.ties import Ties
from openheart.recording.values import (
    Call,
    OptimizerGroup,
    OptimizerStep,
    Origin,
    Slot,
    Value,
    values_in,
)
from openheart.spelling import spelled

__all__ = ["Facts", "Visit", "build", "name_of"]

# The code that starts autograd: what the engine does of its own accord seems to be called by it.
_AUTOGRAD = (torch.autograd.graph._engine_run_backward.__code__, None)  # None: a thread of autograd's own


@dataclass(slots=True, eq=False)
class Visit:
    """One call of a module: what went in and what came out, by position or key."""

    path: str
    number: int
    step: int
    inputs: list[tuple[str | int, Value]]
    outputs: list[tuple[str | int, Value]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Facts:
    """Everything that the log says."""

    calls: list[Call] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    makers: dict[int, tuple[Call, int]] = field(default_factory=dict)
    lives: dict[int, Life] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)
    # (step, name, value); "after" where the step has changed it
    parameters: list[tuple[int, str, Value]] = field(default_factory=list)
    parameters_after: list[tuple[int, str, Value]] = field(default_factory=list)
    states: list[tuple[int, str, Value]] = field(default_factory=list)
    states_after: list[tuple[int, str, Value]] = field(default_factory=list)
    seeds: list[tuple[int, Value, Value]] = field(
        default_factory=list
    )  # step, loss, the gradient it starts with
    leaves_after: list[tuple[int, Value, Value]] = field(
        default_factory=list
    )  # step, leaf without a name, as it leaves it
    gradients: list[Gradient] = field(default_factory=list)  # what `.grad` of each leaf held
    arrived: list[tuple[int, Value, Value]] = field(
        default_factory=list
    )  # step, leaf, what autograd left in its `.grad`
    retained: list[tuple[Value, Value]] = field(
        default_factory=list
    )  # an activation, and what its `.grad` is at the end
    asked: list[tuple[int, Value, Value]] = field(
        default_factory=list
    )  # step, value, its gradient as torch.autograd.grad returned it
    leaves: dict[int, str] = field(
        default_factory=dict
    )  # id of a leaf that the model does not have → "parameter" if it is trained, else "leaf"
    activation_grads: list[tuple[Value, Value]] = field(default_factory=list)
    graph: Graph = field(default_factory=Graph)  # autograd's own
    # calls that a function of torch.nn.functional made itself: its name if it is a loss of (output, target)
    criteria: dict[int, str] = field(default_factory=dict)
    optimizers: list[OptimizerStep] = field(default_factory=list)
    notices: dict[str, dict[str, Any]] = field(default_factory=dict)  # what there is to know: key, details
    frozen: set[int] = field(default_factory=set)  # ids of what was there and requires no gradient
    computed: list[Value] = field(default_factory=list)  # whose numbers are computed again from others
    # ids of the calls that autograd follows; None where that is not known
    followed: set[int] | None = None


def build(log: Log) -> Facts:
    """Walks the log once; the log may be dropped afterwards."""
    return _Walk(log).run()


# What autograd begins with where it copies a gradient into a leaf; it takes over what nobody else holds.
_COPIES = {"new_empty_strided", "clone"}
# The node of a region that was compiled, forward and backward, before the recording began.
_COMPILED = "CompiledFunctionBackward"


class _Walk:
    def __init__(self, log: Log) -> None:
        self.log = log
        self.facts = Facts()
        self.held: dict[int, tuple[int, ...]] = {}  # id of a leaf → the values that it has held
        self.places: dict[Any, list[int]] = {}  # storage and geometry → the values that lay there
        self.names: dict[int, str] = {}
        for _, name, tensor in log.named:
            self.names.setdefault(id(tensor), name)
        self.memory = Memory(log, self.reread, self.began)
        self.phases = Phases(log.has_model, marked=log.steps is not None)
        self.leaves = Leaves(self.memory, self.names, log.stale, self.phases.gradient)
        self.ties = Ties(log.sequence)
        self.open: list[tuple[Visit, bool]] = []  # running modules; True: inside a backward pass, run again
        self.visits: dict[tuple[str, int], int] = {}
        self.at_begin: list[tuple[str, torch.Tensor, Value]] = []
        self.followed: set[int] = set()
        self.nameless: dict[int, tuple[torch.Tensor, Value, Value]] = {}  # leaves with a gradient and no name
        self.state_tensors: dict[int, tuple[str, torch.Tensor]] = {}
        self.state_last: dict[str, Value] = {}
        # first call, groups, the parameters themselves
        self.stepping_now: list[tuple[int, tuple[OptimizerGroup, ...], list[torch.Tensor]]] = []
        self.know_states(log.states.values())

    def run(self) -> Facts:
        facts = self.facts
        facts.followed = self.followed
        if self.log.steps is None:
            self.begin_step()
        for position, entry in enumerate(self.log.entries):
            self.memory.position = position
            if len(entry) > 5:
                self.call(*entry)
            elif entry[0] == ENTER:
                self.enter(*entry[1:])
            elif entry[0] == EXIT:
                self.exit(*entry[1:])
            elif entry[0] == STEP:
                self.stepping(*entry[1:])
            elif entry[0] == STEPPED:
                self.stepped(*entry[1:])
            elif entry[0] == GRAD:
                self.assigned(*entry[1:])
            elif entry[0] == ENGINE:
                self.phases.inner.append("backward")
                self.ties.begins(self.arrivals(entry[1]), *entry[2:])
            elif entry[0] == ENGINED:
                self.engined(*entry[1:])
            elif entry[0] == REBIND:
                for tensor, _ in entry[1]:
                    self.memory.forget(tensor)
                if not self.open:
                    self.phases.updated = self.leaves.any
            elif entry[0] == POKED:
                self.memory.write(entry[1], entry[2], "constant")
            elif entry[0] == FREED:
                self.memory.freed(*entry[1:])
            elif entry[0] == BEGIN:
                self.begin_held(entry[1])
            elif entry[0] == GAP:
                self.skip(entry[1])
        self.memory.position = len(self.log.entries)
        self.end_step()
        for _, name, tensor in self.log.named_later:
            if id(tensor) not in self.names and is_plain(
                tensor
            ):  # a lazy module has made its parameters on the way
                facts.parameters.append((0, name, self.memory.read(tensor)))
        facts.gradients = self.leaves.found
        facts.arrived = self.leaves.arrived
        facts.retained = [
            (self.memory.read(tensor), self.memory.read(gradient))
            for tensor, gradient in self.log.retained
            if is_plain(tensor) and is_plain(gradient)
        ]
        facts.activation_grads, facts.graph = self.ties.read(facts.calls, facts.makers, self.leaf_ids)
        if facts.graph.passes and any(node.name == _COMPILED for node in facts.graph.nodes):
            self.log.notices["recording.notice.kernels"] = {}
        self.tell_leaves()
        facts.values = self.memory.values
        facts.notices = self.log.notices
        facts.lives = {key: story.life for key, story in self.memory.stories.items()}
        self.settle()
        self.promise()
        return facts

    # Calls --------------------------------------------------------------------------------------------------

    def call(
        self, op: Any, args: Any, kwargs: Any, result: Any, undos: Any, _aliases: Any,
        sequence: int, node: Any, caller: Any, code: Any, instruction: int,
    ) -> None:  # fmt: skip
        schema = getattr(op, "_schema", None)
        if schema is not None and schema.name.startswith("profiler::"):
            return  # a label for the profiler, not a number
        sequence -= 1  # autograd tells the next node's number
        memory, phases, ties = self.memory, self.phases, self.ties
        new_args = tuple([self.argument(item) for item in args])
        new_kwargs = {name: self.argument(item) for name, item in kwargs.items()} if kwargs else {}
        reads = [value for item in (*new_args, *new_kwargs.values()) for value in values_in(item)]
        fresh = ties.fresh(sequence)
        phase = phases.of_call(caller, node, bool(self.open), fresh, reads)
        if phases.begins_step(phase, fresh):
            self.next_step()
        written: dict[int, tuple[Value, str, int | None]] = {}
        for name, place, tensor, content in undos or ():
            written[id(tensor)] = (memory.write(tensor, content), name, place)
        lives = [value._life for value, _, _ in written.values()]
        updates = any(self.leaves.updates(life) for life in lives)
        outputs: list[Value] = []
        slots: list[Slot] = []
        results: list[tuple[torch.Tensor, Value]] = []
        for slot, tensor in _results(result, schema):
            known = written.pop(id(tensor), None)
            outputs.append(memory.made(tensor) if known is None else known[0])
            slots.append(slot)
            results.append((tensor, outputs[-1]))
        for value, name, place in written.values():
            outputs.append(value)
            slots.append((name, place))
        name = name_of(op)
        identity = len(self.facts.calls)
        if fresh:
            self.followed.add(identity)
        tie = ties.of_call(
            identity, name, sequence, node, any(again for _, again in self.open), reads, results, bool(undos)
        )
        if phases.is_seed and reads and (made := self.facts.makers.get(reads[0].id)):
            tie = made[0].id if made[0].phase != "backward" else made[0].forward_call
        if self.open:
            scope, visit = self.open[-1][0].path, self.open[-1][0].number
        elif tie is not None:
            scope, visit = self.facts.calls[tie].scope, self.facts.calls[tie].visit
        else:
            scope, visit = "", 0
        copies = ties.accumulates is not None and caller in _AUTOGRAD and name in _COPIES
        call = self.add(op, name, new_args, new_kwargs, outputs, slots, phase, scope, visit,
                        place_of(code, instruction), tie, own=copies)  # fmt: skip
        phases.after_call(call, reads, updates)
        if caller is not None and caller.co_filename == FUNCTIONAL:
            self.facts.criteria[identity] = CRITERIA.get(id(caller), "")
        if phases.is_seed and name == "ones_like" and reads and outputs:
            self.facts.seeds.append((phases.step, reads[0], outputs[0]))
        if copies:
            copied = self.log.notices.setdefault("recording.notice.copied", {"count": 0})
            copied["count"] += 1
        if ties.accumulates is not None and caller in _AUTOGRAD:  # and not a hook of the leaf's
            self.accumulated(ties.accumulates, name, reads, result)
        elif lives:
            self.leaves.written(lives, by_hand=not phases.optimizing)

    def add(
        self, op: Any, name: str, args: Any, kwargs: Any, outputs: list[Value], slots: list[Slot],
        phase: Any, scope: str, visit: int, source: str | None, tie: int | None, own: bool = False,
    ) -> Call:  # fmt: skip
        call = Call(
            id=len(self.facts.calls),
            op=op,
            name=name,
            args=args,
            kwargs=kwargs,
            outputs=tuple(outputs),
            slots=tuple(slots),
            phase=phase,
            scope=scope,
            visit=visit,
            source=source,
            forward_call=tie,
            step=self.phases.step,
            own=own,
        )
        self.facts.calls.append(call)
        for number, value in enumerate(outputs):
            self.facts.makers[value.id] = (call, number)
        return call

    def reread(self, old: Value | None, new: Value, value: Value) -> None:
        """A tensor holds other numbers once another view of its memory was written."""
        made = self.facts.makers.get(new.id)
        phase = made[0].phase if made else "forward"
        scope, visit = (self.open[-1][0].path, self.open[-1][0].number) if self.open else ("", 0)

        def add(op: Any, name: str, args: tuple[Any, ...], output: Value) -> None:
            self.add(op, name, args, {}, [output], [(0, None)], phase, scope, visit, None, None)

        reread(old, new, value, self.memory.values, add)

    def argument(self, item: Any) -> Any:
        if isinstance(item, torch.Tensor):
            return self.memory.read(item)
        if isinstance(item, list):
            return [self.argument(part) for part in item]
        if isinstance(item, tuple):
            return tuple([self.argument(part) for part in item])
        if isinstance(item, dict):
            return {key: self.argument(part) for key, part in item.items()}
        return item

    # Gradients ----------------------------------------------------------------------------------------------

    def began(self, tensor: torch.Tensor, value: Value) -> None:
        """A value was met that no recorded call made."""
        if value.origin in ("input", "constant") and not tensor.requires_grad:
            self.facts.frozen.add(value.id)
        self.leaves.began(tensor, value)

    def accumulated(self, variable: torch.Tensor, name: str, reads: list[Value], result: Any) -> None:
        """A call that autograd makes to put a gradient into a leaf."""
        self.leaves.accumulated(self.phases.step, variable, name, reads, result)
        if id(variable) not in self.names:
            leaf = self.memory.first(variable)
            self.nameless.setdefault(leaf.id, (variable, leaf, self.memory.read(variable)))

    def assigned(self, variable: torch.Tensor, gradient: torch.Tensor | None) -> None:
        if gradient is None or id(variable) in self.names or self.memory.knows(variable):
            self.leaves.assigned(variable, gradient)

    def arrivals(self, items: Any) -> list[tuple[Any, int, Value]]:
        """(node or leaf, which of its gradients, gradient) for each gradient that there is."""
        return [
            (node, slot, self.memory.read(item))
            for node, slot, item in items
            if isinstance(item, torch.Tensor)
        ]

    def leaf_ids(self, variable: torch.Tensor) -> tuple[int, ...]:
        """The values that a leaf has held, from step to step."""
        if id(variable) not in self.held:
            first = self.memory.first(variable)
            if not self.places:
                for value in self.memory.values:
                    self.places.setdefault((id(value._life), value.geometry), []).append(value.id)
            self.held[id(variable)] = tuple(self.places.get((id(first._life), first.geometry), (first.id,)))
        return self.held[id(variable)]

    def engined(self, inputs: tuple[Any, ...], results: Any, taken: Any) -> None:
        """Autograd has run; `torch.autograd.grad` returns what it was asked for."""
        self.phases.leave()
        self.ties.ends(self.arrivals(taken))
        for asked, gradient in zip(inputs, results or (), strict=False):
            if not (_is_plain_tensor(asked) and _is_plain_tensor(gradient)):
                continue
            value = self.memory.read(gradient)
            self.phases.gradient(value)
            self.facts.asked.append((self.phases.step, self.memory.read(asked), value))
            if asked.is_leaf:
                self.leaves.wanted(asked)
                if id(asked) not in self.names:
                    leaf = self.memory.first(asked)
                    self.nameless.setdefault(leaf.id, (asked, leaf, self.memory.read(asked)))

    # Modules ------------------------------------------------------------------------------------------------

    def enter(self, path: str, args: Any, kwargs: Any) -> None:
        if self.phases.may_end() and not self.open:
            self.next_step()
        origin: Origin = "constant" if path else "input"
        inputs: list[tuple[str | int, Value]] = [
            (number, self.memory.read(tensor, origin)) for number, tensor in enumerate(tensors_in(args))
        ]
        for key, item in kwargs.items():
            for number, tensor in enumerate(tensors_in(item)):
                inputs.append((f"{key}_{number}" if number else key, self.memory.read(tensor, origin)))
        number = self.visits.get((path, self.phases.step), 0)
        self.visits[(path, self.phases.step)] = number + 1
        visit = Visit(path, number, self.phases.step, inputs)
        self.open.append((visit, self.ties.running))

    def exit(self, _path: str, result: Any, returned: bool) -> None:
        visit, _ = self.open.pop()
        if returned:
            visit.outputs = [(key, self.memory.read(tensor)) for key, tensor in _keyed_tensors(result)]
        self.facts.visits.append(visit)
        if not self.open:
            self.phases.modelled = True

    # Steps --------------------------------------------------------------------------------------------------

    def next_step(self) -> None:
        self.end_step()
        self.phases.next_step()
        self.begin_step()

    def begin_held(self, step: Any) -> None:
        """A step begins that a flight recorder has held."""
        self.end_step()
        self.phases.next_step(step.number)
        self.ties.newest = max(self.ties.newest, step.sequence)
        self.leaves.begin_step(step.number, step.stale)
        self.begin_step()

    def skip(self, gap: Gap) -> None:
        """Here stood steps that a flight recorder has let go."""
        self.end_step()
        skipped = self.memory.skip(gap)
        self.leaves.skip()
        for name, value in list(self.state_last.items()):
            if value._life in skipped:
                del self.state_last[name]
        for key, (tensor, leaf, value) in list(self.nameless.items()):
            if value._life in skipped:
                self.nameless[key] = (tensor, leaf, self.memory.read(tensor))

    def begin_step(self) -> None:
        self.at_begin = []
        for origin, name, tensor in self.log.named:
            value = self.memory.read(tensor, origin)  # type: ignore[arg-type]
            self.facts.parameters.append((self.phases.step, name, value))
            self.at_begin.append((name, tensor, value))
            if not tensor.requires_grad:
                self.facts.frozen.add(value.id)

    def end_step(self) -> None:
        self.leaves.end_step(self.phases.step)
        for name, tensor, value in self.at_begin:
            now = self.memory.read(tensor)
            if now is not value:
                self.facts.parameters_after.append((self.phases.step, name, now))
        self.at_begin = []
        for key, (tensor, leaf, value) in self.nameless.items():
            now = self.memory.read(tensor)
            if now is not value:
                self.facts.leaves_after.append((self.phases.step, leaf, now))
                self.nameless[key] = (tensor, leaf, now)

    def stepping(self, _optimizer: Any, groups: Any, sequence: int) -> None:
        """Notes what an optimizer's step finds.

        Another recording may have been read just before it, and reading can make autograd count.
        """
        self.ties.newest = max(self.ties.newest, sequence - 1)
        self.phases.inner.append("optimizer")
        found = []
        stepped: list[torch.Tensor] = []
        for options, members in groups:
            plain = [member for member in members if is_plain(member[0])]
            stepped += [parameter for parameter, _, _ in plain]
            found.append(
                OptimizerGroup(
                    options={name: self.argument(option) for name, option in options.items()},
                    names=tuple([self.names.get(id(parameter)) for parameter, _, _ in plain]),
                    parameters=tuple([self.memory.read(parameter) for parameter, _, _ in plain]),
                    gradients=tuple([self.argument(gradient) for _, gradient, _ in plain]),
                    states=tuple(
                        [
                            {str(name): self.argument(item) for name, item in kept.items()}
                            for _, _, kept in plain
                        ]
                    ),
                )
            )
            self.leaves.stepping((parameter, gradient) for parameter, gradient, _ in plain)
        self.stepping_now.append((len(self.facts.calls), tuple(found), stepped))

    def stepped(self, optimizer: Any, states: Any) -> None:
        """Names what the optimizer keeps for each parameter: as the step found it, and as it leaves it."""
        self.phases.leave()
        self.phases.updated = True
        if self.stepping_now:
            first, groups, members = self.stepping_now.pop()
            self.leaves.stepped(members)
            kind = spelled(f"{type(optimizer).__module__}.{type(optimizer).__qualname__}")
            calls = range(first, len(self.facts.calls))
            self.facts.optimizers.append(OptimizerStep(kind, self.phases.step, calls, groups))
        self.know_states(states)
        for name, tensor in self.state_tensors.values():
            last = self.memory.read(tensor)
            self.facts.states.append(
                (self.phases.step, name, self.state_last.get(name) or self.memory.first(tensor))
            )
            self.facts.states_after.append((self.phases.step, name, last))
            self.state_last[name] = last

    def tell_leaves(self) -> None:
        """Tells what is trained from what is only given a gradient, among leaves that the model has not."""
        updated = {leaf.id for _, leaf, _ in self.facts.leaves_after}
        for variable, leaf, _ in self.nameless.values():
            if leaf.origin == "constant":
                trained = leaf.id in updated or isinstance(variable, torch.nn.Parameter)
                self.facts.leaves[leaf.id] = "parameter" if trained else "leaf"
                object.__setattr__(leaf, "origin", "parameter" if trained else "leaf")

    def know_states(self, states: Iterable[tuple[Any, str, torch.Tensor]]) -> None:
        for parameter, name, tensor in states:
            owner = self.names.get(id(parameter))
            if owner is not None and is_plain(tensor):
                self.state_tensors[id(tensor)] = (f"{owner}.{spelled(str(name))}", tensor)

    # The end ------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Hands the copies and version counters that were taken as the recording ended to the storages."""
        for tensor, copy in self.log.kept:
            story = self.memory.stories.get(tensor.untyped_storage()._cdata)
            if story is not None:
                story.life.undos.append(Undo(geometry_of(tensor), copy))
        watched: set[int] = set()
        for tensor, version in self.log.versions:
            if id(tensor) not in watched and is_plain(tensor):
                watched.add(id(tensor))
                story = self.memory.stories.get(tensor.untyped_storage()._cdata)
                if story is not None:
                    story.life.watched.append((tensor.detach(), version))

    def promise(self) -> None:
        """Finds the values of which the recorder has let go because they can be computed again."""
        lives = {
            story.life: through
            for storage, through in self.log.computed
            if (story := self.memory.stories.get(storage.cdata)) is not None
        }
        if not lives:
            return
        for value_id, (call, _) in self.facts.makers.items():
            value = self.facts.values[value_id]
            if value.version <= lives.get(value._life, -1) and call.op in COMPUTED:  # type: ignore[arg-type]
                self.facts.computed.append(value)


def _is_plain_tensor(item: Any) -> bool:
    return isinstance(item, torch.Tensor) and is_plain(item)


@lru_cache(maxsize=4096)
def name_of(op: Any) -> str:
    """An operator's name without leading underscores: `addmm`, `foreach_add_`."""
    schema = getattr(op, "_schema", None)
    name = schema.name.split("::")[-1] if schema is not None else str(getattr(op, "__name__", op))
    return spelled(name.lstrip("_"))


def _results(result: Any, schema: Any) -> Iterator[tuple[Slot, torch.Tensor]]:
    if isinstance(result, torch.Tensor):
        yield (0, None), result
    elif isinstance(result, (tuple, list)):
        one_list = schema is not None and len(schema.returns) == 1
        for number, item in enumerate(result):
            if isinstance(item, torch.Tensor):
                yield ((0, number) if one_list else (number, None)), item
            elif isinstance(item, (tuple, list)):
                for place, part in enumerate(item):
                    if isinstance(part, torch.Tensor):
                        yield (number, place), part


def _keyed_tensors(item: Any) -> Iterator[tuple[str | int, torch.Tensor]]:
    """The tensors in what a module was given or returned, by position, and by key where they have one."""
    if isinstance(item, torch.Tensor):
        yield 0, item
    elif isinstance(item, dict):
        for key, part in item.items():
            for number, (_, tensor) in enumerate(_keyed_tensors(part)):
                yield spelled(f"{key}_{number}" if number else str(key)), tensor
    elif isinstance(item, (tuple, list)):
        names = getattr(item, "_fields", None)
        position = 0
        for place, part in enumerate(item):
            for _, tensor in _keyed_tensors(part):
                yield (names[place] if names else position), tensor
                position += 1
    elif is_dataclass(item) and not isinstance(item, type):
        yield from _keyed_tensors({entry.name: getattr(item, entry.name) for entry in fields(item)})
