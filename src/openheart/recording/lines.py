"""One recorded call as a line of a program, to be run again on other numbers.

What a call writes in place, a line writes to a copy, so that every output is a value of its own.
"""

# What a program needs, PyTorch offers only under underscored names.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from openheart.errors import OpaqueError
from openheart.recording.computing import computes
from openheart.recording.plans import plan_of
from openheart.recording.values import Call, Value, values_in

__all__ = ["Line"]

Tensors = Mapping[int, torch.Tensor]

# Their result is whatever memory holds: around their argument, or before anybody wrote there.
_BY_MEMORY = {"as_strided_", "set_", "resize_", "resize_as_", "as_strided_scatter"}
_BLANK = ("empty", "new_empty")


class Line:
    """One call, ready to be run again.

    Attributes:
        call: the recorded call.
        reads: the ids of the values that it reads.
        outputs: the ids of the values that it makes.
        random: it draws at random.
        blank: it gives memory that nobody has written yet: what was recorded stands.
        barred: it is not run at all: a file asks for it, and its operator does more than compute.
        fixed: it cannot be run on other numbers: it looks at memory beyond its arguments, or is no operator.
    """

    __slots__ = (
        "_args", "_kwargs", "_lists", "_many", "_overwrites", "_single", "_tensors", "_written",
        "barred", "blank", "call", "fixed", "outputs", "random", "reads",
    )  # fmt: skip

    def __init__(self, call: Call) -> None:
        self.call = call
        self.reads = frozenset(value.id for value in values_in((call.args, call.kwargs)))
        self.outputs = tuple(value.id for value in call.outputs)
        schema = getattr(call.op, "_schema", None)
        tags = getattr(call.op, "tags", ())
        self.random = torch.Tag.nondeterministic_seeded in tags and not _draws_nothing(call)
        self.barred = call.foreign and not computes(call.op)
        self.fixed = self.barred or schema is None or call.name in _BY_MEMORY
        self.blank = call.name.startswith(_BLANK)
        plan = plan_of(call.op) if schema is not None else None
        written = {name for _, name in plan.writes} if plan is not None else set()
        reshaped = plan is not None and plan.reshapes
        self._overwrites = plan is not None and plan.overwrites
        names = [argument.name for argument in schema.arguments] if schema is not None else []
        self._args = list(call.args)
        self._kwargs = dict(call.kwargs)
        self._tensors: list[tuple[int | str, Value, bool]] = []
        self._lists: list[tuple[int | str, Any, bool]] = []
        self._written: dict[str, int | str] = {}
        places: list[tuple[int | str, Any]] = [*enumerate(call.args), *call.kwargs.items()]
        for place, argument in places:
            name = place if isinstance(place, str) else names[place] if place < len(names) else ""
            copied = name in written or (reshaped and place == 0)
            if copied:
                self._written[name] = place
            if isinstance(argument, Value):
                self._tensors.append((place, argument, copied))
            elif isinstance(argument, (list, tuple)) and next(values_in(argument), None) is not None:
                self._lists.append((place, argument, copied))
        # An operator with several results gives a tuple, also where one of them alone is a tensor.
        self._many = schema is not None and len(schema.returns) > 1
        self._single = not self._lists and not self._many and call.slots == ((0, None),)

    def result(self, env: Tensors, moved: Mapping[int, int] | None = None) -> Any:
        """What the operator returns, tensors or not."""
        args, kwargs = self._arguments(env, None, moved)
        return self._operator(*args, **kwargs)

    def run(
        self,
        env: Tensors,
        constants: tuple[list[Any], dict[str, Any]] | None = None,
        moved: Mapping[int, int] | None = None,
    ) -> list[torch.Tensor]:
        """The outputs, from the numbers in `env`, or else from the recorded ones.

        Args:
            env: id of a value → its tensor, where it is not what was recorded.
            constants: other arguments in the place of the call's own, with the recorded `Value`s in them.
            moved: id of a value that it reads → id of the value to read instead.
        """
        args, kwargs = self._arguments(env, constants, moved)
        result = self._operator(*args, **kwargs)
        if self._single:
            return [result]
        outputs = []
        for slot, place in self.call.slots:
            if isinstance(slot, int):
                item = result[slot] if self._many else result
            else:
                at = self._written[slot]
                item = args[at] if isinstance(at, int) else kwargs[at]
            outputs.append(item if place is None else item[place])
        return outputs

    @property
    def _operator(self) -> Any:
        if self.barred:
            raise OpaqueError("error.value.barred", op=self.call.op)
        return self.call.op

    def read(self, value: Value, env: Tensors, moved: Mapping[int, int] | None) -> torch.Tensor:
        """One of the values that it reads."""
        identity = value.id if moved is None else moved.get(value.id, value.id)
        tensor = env.get(identity)
        return value.data if tensor is None else tensor

    def _copy(self, value: Value, env: Tensors, moved: Mapping[int, int] | None) -> torch.Tensor:
        """A copy of one of the values that it reads, to be written to."""
        if self._overwrites and value.id not in env and not value.kept:
            return torch.empty_strided(value.shape, value.stride, dtype=value.dtype)
        return self.read(value, env, moved).clone()

    def _arguments(self, env: Tensors, constants: Any, moved: Any) -> tuple[list[Any], dict[str, Any]]:
        args, kwargs = (self._args, self._kwargs) if constants is None else constants
        args = args.copy()
        if kwargs:
            kwargs = dict(kwargs)
        for place, value, copied in self._tensors:
            target: Any = args if isinstance(place, int) else kwargs
            target[place] = self._copy(value, env, moved) if copied else self.read(value, env, moved)
        for place, items, copied in self._lists:
            target = args if isinstance(place, int) else kwargs
            target[place] = self._list(items, env, moved, copied)
        return args, kwargs

    def _list(self, items: Any, env: Tensors, moved: Any, copied: bool) -> list[Any]:
        found: list[Any] = []
        for item in items:
            if isinstance(item, Value):
                found.append(self._copy(item, env, moved) if copied else self.read(item, env, moved))
            elif isinstance(item, (list, tuple)):
                found.append(self._list(item, env, moved, copied))
            else:
                found.append(item)
        return found


def _draws_nothing(call: Call) -> bool:
    """Whether an operator that may draw at random was called so that it does not."""
    arguments = call.arguments
    return (
        arguments.get("dropout_p") == 0
        or arguments.get("dropout") == 0
        or arguments.get("train") is False
        or arguments.get("training") is False
    )
