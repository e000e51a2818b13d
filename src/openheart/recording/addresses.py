"""Addresses: `0.out[0,2]`, `@3 0.weight.grad[2,1]`, `loss`; and the error for one that leads nowhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from openheart.errors import AddressError
from openheart.i18n import Message
from openheart.nearest import nearest
from openheart.recording.absence import absence
from openheart.recording.names import Names
from openheart.recording.values import Element, Value
from openheart.spelling import spelled

__all__ = ["Part", "address_of", "find_element", "find_part", "find_value", "get_value", "split"]

_FIRST_VISIT = re.compile(r":1(?=[./])")  # `0:1.out` is `0.out`
_STEP_0 = re.compile(r"\s*@0+\s")
_INDEXED = re.compile(r"^(?P<name>.*)\[(?P<index>[^\[\]]*)\]\s*$", re.DOTALL)


def split(address: str) -> tuple[str, tuple[int, ...] | None]:
    """The name and the index of an address; the index is None if there are no brackets.

    >>> split("0.out[0, -1]")
    ('0.out', (0, -1))

    Raises:
        AddressError: what stands between the brackets is not a list of whole numbers.
    """
    name, index = _apart(address)
    return _tidy(name), index


def _apart(address: str) -> tuple[str, tuple[int, ...] | None]:
    """The same, the name as it was given."""
    match = _INDEXED.match(address)
    if match is None:
        return address, None
    name, inside = match["name"], match["index"].strip()
    try:
        parts = inside.split(",") if inside else []
        if parts and not parts[-1].strip():
            parts.pop()
        return name, tuple(int(part) for part in parts)
    except ValueError:
        raise AddressError("error.address.list", _tidy(name), address=address, name=_tidy(name)) from None


def _tidy(name: str) -> str:
    name = _FIRST_VISIT.sub("", name.strip())
    if name.startswith("@"):
        step, _, rest = name[1:].partition(" ")
        if step.isdigit():
            return rest.strip() if int(step) == 0 else f"@{int(step)} {rest.strip()}"
    return name


def find_value(names: Names, address: str) -> Value:
    """The value with this name.

    Raises:
        AddressError: nothing has this name, or the address has an index.
    """
    value = _found(names, address)
    if value is not None:
        return value
    name, index = _apart(address)
    value = _named(names, name, index)
    if index is not None:
        raise AddressError("error.address.whole", name, address=address, name=name)
    return value


def find_element(names: Names, address: str) -> Element:
    """The scalar at this address; negative indices count from the end.

    Raises:
        AddressError: nothing has this name, or the index does not fit its shape.
    """
    whole = _found(names, address)
    if whole is not None and whole.shape == ():
        return Element(whole, ())
    name, index = _apart(address)
    value = _named(names, name, index)
    shape = value.shape
    given = index or ()
    fits = len(given) == len(shape) and all(-size <= at < size for at, size in zip(given, shape, strict=True))
    if fits:
        return Element(value, tuple(at % size for at, size in zip(given, shape, strict=True)))
    if 0 in shape:
        raise AddressError("error.address.empty", address=address, name=name, shape=shape)
    nearest = _written(name, _nearest_index(given, shape))
    if index is None:
        raise AddressError("error.address.many", nearest, name=name, shape=shape)
    if len(given) != len(shape):
        reason = Message("error.address.reason.count", {"given": len(given), "wanted": len(shape)})
    else:
        axis = next(
            axis for axis, (at, size) in enumerate(zip(given, shape, strict=True)) if not -size <= at < size
        )
        told = {"index": given[axis], "axis": axis, "size": shape[axis]}
        reason = Message("error.address.reason.range", told)
    raise AddressError("error.address.index", nearest, address=address, reason=reason, shape=shape)


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the numbers of a value: `value.data[index]`; all of them where `index` is None."""

    name: str
    value: Value
    index: tuple[Any, ...] | None
    shape: tuple[int, ...]


def find_part(names: Names, address: str) -> Part:
    """The numbers that an address with slices means: `0.out[:,2]`, `0.out[...,-1]`, `0.bias`, `0.bias[1]`.

    Fewer indices than dimensions mean all of the rest, as in PyTorch.

    Raises:
        AddressError: nothing has this name, the index does not fit its shape, or it means no number at all.
    """
    whole = _found(names, address)
    if whole is not None:
        return Part(_tidy(address), whole, None, whole.shape)
    match = _INDEXED.match(address)
    value = _named(names, match["name"] if match else address, None)
    name = _tidy(match["name"] if match else address)
    if match is None:
        return Part(name, value, None, value.shape)
    shape = value.shape
    inside = match["index"].strip()
    texts = [text.strip() for text in inside.split(",")] if inside else []
    if texts and not texts[-1]:
        texts.pop()
    parts = [_index_part(address, name, text) for text in texts]
    if parts.count(Ellipsis) > 1 or len(parts) - parts.count(Ellipsis) > len(shape):
        raise AddressError(
            "error.address.indices", name, address=address, given=len(parts), name=name, shape=shape
        )
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    parts += [slice(None)] * (len(shape) - len(parts))
    found: list[Any] = []
    sizes: list[int] = []
    for axis, (part, size) in enumerate(zip(parts, shape, strict=True)):
        if isinstance(part, slice):
            chosen = range(size)[part]
            if not chosen:
                raise AddressError(
                    "error.address.nothing", name, address=address, axis=axis, name=name, size=size
                )
            sizes.append(len(chosen))
            found.append(part)
        elif -size <= part < size:
            found.append(part % size)
        else:
            nearest = _written(name, (max(-size, min(part, size - 1)) % size,) if len(shape) == 1 else ())
            raise AddressError(
                "error.address.range",
                nearest,
                address=address,
                index=part,
                axis=axis,
                size=size,
                name=name,
                shape=shape,
            )
    return Part(name, value, tuple(found), tuple(sizes))


def _index_part(address: str, name: str, text: str) -> Any:
    if text == "...":
        return Ellipsis
    pieces = text.split(":")
    try:
        numbers = [int(piece) if piece.strip() else None for piece in pieces]
        if len(pieces) == 1 and numbers[0] is not None:
            return numbers[0]
        if 2 <= len(pieces) <= 3 and (len(pieces) < 3 or numbers[2] is None or numbers[2] > 0):
            return slice(*numbers)
    except ValueError:
        pass
    raise AddressError("error.address.slice", name, address=address, part=text, name=name)


def address_of(names: Names, element: Element) -> str:
    """The canonical address of a scalar."""
    return _written(names.canonical[element.value.id], element.index)


def _written(name: str, index: tuple[int, ...]) -> str:
    return f"{name}[{','.join(map(str, index))}]" if index else name


def _nearest_index(given: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    padded = (*given, *([0] * len(shape)))[: len(shape)]
    return tuple(max(-size, min(at, size - 1)) % size for at, size in zip(padded, shape, strict=True))


def get_value(names: Names, name: str) -> Value | None:
    """The value with this name; None where nothing has it, without looking for its like."""
    return _found(names, name)


def _found(names: Names, name: str) -> Value | None:
    """The value of a name: as it stands, or as addresses are written."""
    if names.first and _STEP_0.match(name):  # without a number a name means the first step that is held
        return None
    value = names.values.get(name)
    if value is None:
        for spelling in _spellings(name):
            value = names.values.get(spelling)
            if value is not None:
                return value
    return value


def _spellings(name: str) -> Iterator[str]:
    tidy = _tidy(name)
    yield tidy
    step, _, rest = tidy.rpartition(" ")
    yield f"{step} .{rest}".lstrip()  # `out` of a network without modules of its own is written `.out`
    # A name with a line break in it, or another character that addresses spell out.
    yield spelled(name)
    step, space, rest = tidy.partition(" ") if tidy.startswith("@") else ("", "", tidy)
    yield f"{step}{space}{spelled(rest)}"


def _named(names: Names, name: str, index: tuple[int, ...] | None) -> Value:
    value = _found(names, name)
    if value is not None:
        return value
    name = name.strip() if names.first else _tidy(name)
    if names.facts is not None and (error := absence(names.facts, names, name)) is not None:
        raise error
    if not names.values:
        raise AddressError("error.address.nothing_recorded", name=name)
    suggestion = nearest(name, names.values)
    if suggestion is None:
        raise AddressError("error.address.far", name=name)
    other = names.values[suggestion]
    if other.shape and 0 not in other.shape:
        suggestion = (
            _written(suggestion, _nearest_index(index or (), other.shape))
            if index is not None
            else suggestion
        )
    raise AddressError("error.address.unknown", suggestion, name=name, shape=other.shape)
