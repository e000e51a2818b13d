"""The numbers of one line, side by side: those that have decimals have equally many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from openheart.printers.digits import decimals, padded
from openheart.printers.notation import Box, Figure, Mark

__all__ = ["side_by_side"]

AnyBox = TypeVar("AnyBox", bound="Box")


def side_by_side(left: Box, right: Figure) -> tuple[Box, Figure]:
    """Both sides of an equation, every number with as many decimals as the one that has most.

    Constants of the law stay as the law has them, and a power of ten as it is.
    """
    numbers = [number for number in (right, *_figures(left)) if not number.constant]
    most = max(decimals(number.shown) for number in numbers)
    return _with_decimals(left, most), _with_decimals(right, most)


def _figures(item: Any) -> Iterator[Figure]:
    if isinstance(item, Figure):
        yield item
    elif isinstance(item, tuple):
        for part in item:
            yield from _figures(part)
    elif is_dataclass(item) and not isinstance(item, Mark):
        for entry in fields(item):
            yield from _figures(getattr(item, entry.name))


def _with_decimals(item: Any, most: int) -> Any:
    if isinstance(item, Figure):
        return item if item.constant else replace(item, shown=padded(item.shown, most))
    if isinstance(item, tuple):
        return tuple(_with_decimals(part, most) for part in item)
    if isinstance(item, Mark) or not is_dataclass(item):
        return item
    made = {entry.name: _with_decimals(getattr(item, entry.name), most) for entry in fields(item)}
    return cast("Any", item).__class__(**made)
