"""Where a recorded number comes from: the call that computed it, and its name as a person would say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from openheart.check import fetcher, held
from openheart.formula.expr import Definition, Ref, Tensor
from openheart.formula.places import Definitions, places
from openheart.recording import Call, Element, Value
from openheart.rules.registry import Law, law_of

if TYPE_CHECKING:
    from openheart.recording import Recording

_LAWS: WeakKeyDictionary[Recording, dict[tuple[int, int], Law | None]] = WeakKeyDictionary()


_PLACES: WeakKeyDictionary[Recording, dict[tuple[int, int], Definitions]] = WeakKeyDictionary()
"""What laws of moves work out once: the positions of a mask's elements, say."""


def law_at(recording: Recording, call: Call, output: int) -> Law | None:
    """The law of a call's output, built once a recording."""
    laws = _LAWS.setdefault(recording, {})
    key = call.id, output
    if key not in laws:
        laws[key] = law_of(call, output)
    return laws[key]


def made_by(recording: Recording, element: Element) -> tuple[Call, int, tuple[int, ...]] | None:
    """The call that computed a scalar, its output and the place there; None when no call did.

    A number that was only moved (transposed, reshaped, detached) is followed back to the call that
    computed it, unless it has a name of its own on the way.
    """
    value, index = element.value, element.index
    made = recording.maker(value)
    while made is not None:
        source = moved_from(recording, made[0], made[1], index)
        if source is None or has_own_name(recording, source.value):
            break
        further = recording.maker(source.value)
        if further is None:
            break
        made, index = further, source.index
    return None if made is None else (*made, index)


def moved_from(recording: Recording, call: Call, output: int, index: tuple[int, ...]) -> Element | None:
    """The element that an output element is a mere copy of; None when the call computed it."""
    law = law_at(recording, call, output)
    if law is None or not isinstance(law.expr, Ref) or isinstance(law.expr.tensor, Definition):
        return None
    source = held(call, law.expr.tensor)
    if source.dtype != call.outputs[output].dtype:
        return None
    known = _PLACES.setdefault(recording, {}).setdefault((call.id, output), {})
    return Element(source, places(law.expr, dict(zip(law.indices, index, strict=True)), fetcher(call), known))


def moves(recording: Recording, value: Value, origin: Value) -> list[str]:
    """The operators that moved `origin` to where `value` is, in the order in which they ran."""
    found: list[str] = []
    while value is not origin:
        made = recording.maker(value)
        source = None if made is None else moved_from(recording, *made, (0,) * len(value.shape))
        if made is None or source is None:
            break
        found.append(made[0].name)
        value = source.value
    return found[::-1]


def has_own_name(recording: Recording, value: Value) -> bool:
    """Whether a value is a parameter, an input, a module's output, a gradient: not just a call's output."""
    return recording.has_own_name(value)


@dataclass(frozen=True, slots=True)
class Names:
    """Names for the numbers that a call reads, as a person would say them."""

    recording: Recording
    call: Call

    def element(self, tensor: Tensor, at: tuple[int, ...]) -> str:
        """The address of a tensor's element: of the number's origin, where it was only moved."""
        value, index = held(self.call, tensor), at
        while not has_own_name(self.recording, value):
            made = self.recording.maker(value)
            source = None if made is None else moved_from(self.recording, made[0], made[1], index)
            if source is None:
                break
            value, index = source.value, source.index
        return self.recording.address(Element(value, index))

    def tensor(self, tensor: Tensor) -> str:
        return self._described(held(self.call, tensor), 0)

    def _described(self, value: Value, deep: int) -> str:
        name = self.recording.name(value)
        made = self.recording.maker(value)
        source = None
        if not self.recording.has_own_name(value) and made is not None and deep < 6 and 0 not in value.shape:
            source = moved_from(self.recording, *made, (0,) * len(value.shape))
        if source is None or made is None:
            return name
        call, inner = made[0], self._described(source.value, deep + 1)
        if source.value.shape == value.shape and call.name not in ("flip", "roll", "index", "gather"):
            return inner
        if call.name == "t" or (call.name == "transpose" and len(value.shape) == 2):
            return inner[:-1] if inner.endswith("ᵀ") else f"{inner}ᵀ"
        return f"{call.name}({inner})"
