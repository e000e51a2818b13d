"""Which numbers of a run are explained on its page: all of a tiny one, of a larger one those that matter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from openheart.explain import explain
from openheart.origins import moved_from
from openheart.printers.parts import sources
from openheart.recording import Element, Recording, Value

if TYPE_CHECKING:
    from openheart.explain import Explanation

__all__ = ["main_output", "named_values", "selected"]

TINY = 120
"""Up to this many computed numbers, each is explained."""
BUDGET = 160
"""A larger run gets this many explanations."""


def selected(rec: Recording) -> dict[str, Explanation]:
    """Explanations by address, in the order of the run.

    Of a larger run: the outputs, the largest number of each module, gradient and update, and then the numbers
    that these are made of, as far as the budget goes, so that one can walk on.
    """
    values = [(name, value) for name, value in named_values(rec) if _computed(rec, value)]
    found: dict[str, Explanation] = {}
    if sum(math.prod(value.shape) for _, value in values) <= TINY:
        _explain(
            rec, (Element(value, index) for _, value in values for index in np.ndindex(value.shape)), found
        )
    else:
        output = main_output(rec)
        first = [] if output is None else [Element(output, index) for index in _first_row(output.shape)]
        inside = _explain(rec, first, found)
        _explain(rec, inside[: BUDGET // 3], found)
        queue: list[Element | str] = [e for name, value in values for e in _foremost(rec, name, value)]
        while queue and len(found) < BUDGET:
            queue = _explain(rec, queue[: BUDGET - len(found)], found)
    place = {id(value): n for n, value in enumerate(rec.values)}
    return dict(
        sorted(found.items(), key=lambda row: (place[id(row[1].element.value)], row[1].element.index))
    )


def named_values(rec: Recording) -> Iterator[tuple[str, Value]]:
    """Every value with its name, once, in the order of the run."""
    seen: set[str] = set()
    for name in rec.addresses():
        if name not in seen:
            seen.add(name)
            yield name, rec.value(name)


def _computed(rec: Recording, value: Value) -> bool:
    made = rec.maker(value)
    if made is None or not value.kept or 0 in value.shape:
        return False
    return rec.has_own_name(value) or moved_from(rec, *made, (0,) * len(value.shape)) is None


def main_output(rec: Recording) -> Value | None:
    """What the network returned; for plain code, the last tensor of the forward pass."""
    output = rec.get("output")
    if output is not None:
        return output
    made = [c.outputs[0] for c in rec.calls if c.phase == "forward" and c.outputs]
    return made[-1] if made else None


def _first_row(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The places of the last dimension's first numbers, of the first sample."""
    if not shape:
        return [()]
    return [(*(0,) * (len(shape) - 1), n) for n in range(min(12, shape[-1]))]


def _foremost(rec: Recording, name: str, value: Value) -> Iterator[Element]:
    """A tensor's largest number; of a gradient's parameter, the same place after the step too."""
    if "/" in name:
        return
    largest = _largest(value)
    yield largest
    if name.endswith(".grad"):
        after = rec.get(f"{name.removesuffix('.grad')}.after")
        if after is not None and after.shape == value.shape:
            yield Element(after, largest.index)


def _largest(value: Value) -> Element:
    array: Any = value.array
    with np.errstate(all="ignore"):
        size = np.abs(array)
    place = int(np.argmax(np.where(np.isfinite(size), size, 0))) if value.shape else 0
    return Element(value, tuple(int(i) for i in np.unravel_index(place, value.shape)) if value.shape else ())


def _explain(
    rec: Recording, wanted: Iterable[Element | str], found: dict[str, Explanation]
) -> list[Element | str]:
    """Explains what some call made; returns the addresses that these are made of."""
    inside: list[Element | str] = []
    for item in wanted:
        if isinstance(item, str) and item in found:
            continue
        explanation = explain(rec, item)
        if explanation.call is not None and explanation.address not in found:
            found[explanation.address] = explanation
            largest = (a for term in explanation.terms[:8] for a, _ in term.factors if a is not None)
            inside.extend(dict.fromkeys([*largest, *list(sources(explanation))[:8]]))
    return inside
