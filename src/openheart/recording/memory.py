"""Which value a tensor object holds at each moment of the run.

A tensor object is not a value: autograd hands saved tensors back as new objects on the same storage, views
share one, and an in-place call changes the numbers under all of them. So a value is known by its storage, its
geometry in it, and how many writes the storage has seen.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from openheart.recording.log import GAP, REBIND, Gap, Log, is_plain, unwrapped
from openheart.recording.storages import Geometry, Life, Undo, geometry_of
from openheart.recording.thrift import Again
from openheart.recording.values import Origin, Value

__all__ = ["Memory", "Story", "shape_of"]


class Known(NamedTuple):
    """A value, and the last version of its storage for which it holds."""

    value: Value
    through: int


class Story:
    """One storage as the walk goes along: its version, who wrote it, what is known of each geometry."""

    __slots__ = ("first", "known", "life", "made", "since", "version", "writes")

    def __init__(self, life: Life, made: bool) -> None:
        self.life = life
        self.made = made  # by a recorded call; otherwise it was there before
        self.version = 0
        self.since = 0  # what was there before was there at this version
        self.writes: list[Any] = []  # writes[v] is the value whose write ended version v
        self.known: dict[Geometry, Known] = {}
        self.first: dict[Geometry, Value] = {}


class Memory:
    """The values of a run, found by tensor object while the log is walked; `position`: where the walk is."""

    def __init__(
        self,
        log: Log,
        reread: Callable[[Value | None, Value, Value], None],
        began: Callable[[torch.Tensor, Value], None],
    ) -> None:
        self.values: list[Value] = []
        self.stories: dict[int, Story] = {}
        self.position = 0
        self._reread = reread
        self._began = began
        self._objects: dict[int, tuple[Value, Story, int]] = {}
        self._odd: dict[int, Story] = {}  # tensors without a storage of their own, by object
        self._before: dict[int, list[tuple[int, torch.Tensor]]] = {}
        for position, entry in enumerate(log.entries):
            if len(entry) > 5:
                changed = entry[5]
            elif entry[0] == GAP:
                changed = entry[1].aliases.values()
            else:
                changed = entry[1] if entry[0] == REBIND else None
            for tensor, alias in changed or ():
                if alias is not None:
                    self._before.setdefault(id(tensor), []).append((position, alias))

    def read(self, tensor: torch.Tensor, origin: Origin = "constant") -> Value:
        """The value that `tensor` holds now; `origin` is what it is if it was never met before."""
        met = self._objects.get(id(tensor))
        if met is not None and met[1].version == met[2]:
            return met[0]
        place, geometry, story = self._find(tensor)
        value = self._current(place, geometry, story, origin)
        self._objects[id(tensor)] = (value, story, story.version)
        return value

    def first(self, tensor: torch.Tensor) -> Value:
        """The first value that was ever known with this tensor's geometry."""
        value = self.read(tensor)
        _, geometry, story = self._find(tensor)
        return story.first.get(geometry, value)

    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether this tensor object was met before."""
        return id(tensor) in self._objects

    def story(self, tensor: torch.Tensor) -> Story:
        return self._find(tensor)[2]

    def made(self, tensor: torch.Tensor) -> Value:
        """A new value: what a call has just returned, in memory of its own or as a view."""
        place, geometry, story = self._find(tensor, made=True, after=True)
        value = self._new(place, geometry, story, "call")
        known = story.known.get(geometry)
        if known is None or known.through < story.version:
            story.known[geometry] = Known(value, story.version)
        self._objects[id(tensor)] = (value, story, story.version)
        return value

    def write(
        self, tensor: torch.Tensor, content: torch.Tensor | Again | None, origin: Origin = "call"
    ) -> Value:
        """A new value: what a call has just written to `tensor`; `content` is what was there before."""
        place, old, _ = self._find(tensor)
        place, geometry, story = self._find(tensor, after=True)
        story.life.undos.append(Undo(old if content is not None else geometry, content))
        story.version += 1
        value = self._new(place, geometry, story, origin)
        story.writes.append(value)
        story.known[geometry] = Known(value, story.version)
        self._objects[id(tensor)] = (value, story, story.version)
        return value

    def forget(self, tensor: torch.Tensor) -> None:
        """The object was given other memory: it is no longer what it was."""
        self._objects.pop(id(tensor), None)

    def freed(self, key: int, nbytes: int) -> None:
        """A storage has given its memory back: what it held is gone."""
        story = self.stories.get(key)
        if story is not None:
            story.life.undos.append(Undo(Geometry(torch.uint8, (nbytes,), (1,), 0), None, freed=True))
            story.writes.append(None)
            story.version += 1
            story.since = story.version
            story.known.clear()
            story.first.clear()

    def skip(self, gap: Gap) -> set[Life]:
        """Steps that are not held went by: what they wrote to begins anew; those are returned."""
        for tensor, _ in gap.aliases.values():
            self.forget(tensor)
        skipped = set()
        for key, undos in gap.undos.items():
            story = self.stories.get(key)
            if story is None:
                continue
            for geometry, content in undos.items():
                story.life.undos.append(Undo(geometry, content))
                story.writes.append(None)
            story.version += len(undos)
            story.since = story.version
            story.made = False
            story.known.clear()
            story.first.clear()
            skipped.add(story.life)
        return skipped

    # --------------------------------------------------------------------------------------------------------

    def _find(
        self, tensor: torch.Tensor, made: bool = False, after: bool = False
    ) -> tuple[torch.Tensor, Geometry, Story]:
        """The tensor as it was at this moment, its geometry, and its storage's story."""
        for position, alias in self._before.get(id(tensor), ()):
            if position > self.position or (position == self.position and not after):
                tensor = alias
                break
        if not is_plain(tensor):
            inside = unwrapped(tensor)
            if inside is not tensor:  # calls read and make what is inside
                return self._find(inside, made, after)
            story = self._odd.get(id(tensor))
            if story is None:
                story = self._odd[id(tensor)] = Story(Life(), made)
            return tensor, _odd_geometry(tensor), story
        key = tensor.untyped_storage()._cdata
        story = self.stories.get(key)
        if story is None:
            story = self.stories[key] = Story(Life(), made)
        return tensor, geometry_of(tensor), story

    def _new(
        self,
        tensor: torch.Tensor,
        geometry: Geometry,
        story: Story,
        origin: Origin,
        version: int | None = None,
    ) -> Value:
        value = Value(
            id=len(self.values),
            shape=geometry.shape,
            dtype=geometry.dtype,
            version=story.version if version is None else version,
            origin=origin,
            geometry=geometry,
            _life=story.life,
            _tensor=_detached(tensor),
        )
        self.values.append(value)
        story.first.setdefault(geometry, value)
        return value

    def _current(self, tensor: torch.Tensor, geometry: Geometry, story: Story, origin: Origin) -> Value:
        known = story.known.get(geometry)
        if known is None:
            known = self._unknown(tensor, geometry, story, origin)
        value, through = known
        while through < story.version:
            written = story.writes[through]
            through += 1
            if _meet(written.geometry, geometry):
                old, value = value, self._new(tensor, geometry, story, "call", through)
                self._reread(old, written, value)
        story.known[geometry] = Known(value, story.version)
        return value

    def _unknown(self, tensor: torch.Tensor, geometry: Geometry, story: Story, origin: Origin) -> Known:
        """A geometry that no recorded call made: a leaf, or a view that was made out of our sight."""
        if not story.made:
            value = self._new(tensor, geometry, story, origin, story.since)
            story.known[geometry] = known = Known(value, story.since)
            if is_plain(tensor):
                self._began(tensor, value)
            return known
        low, high = geometry.span()
        for value, through in story.known.values():
            start, stop = value.geometry.span()
            if through == story.version and start <= low and high <= stop:
                seen = self._new(tensor, geometry, story, "call")
                self._reread(None, value, seen)
                return Known(seen, story.version)
        return Known(self._new(tensor, geometry, story, origin), story.version)


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """A tensor's shape as values have it: none for one that has no shape of numbers."""
    try:
        return tuple([int(size) for size in tensor.shape])
    except (RuntimeError, TypeError, AttributeError):  # a nested tensor has no shape, or one of symbols
        return ()


def _odd_geometry(tensor: torch.Tensor) -> Geometry:
    shape = shape_of(tensor)
    return Geometry(tensor.dtype, shape, (0,) * len(shape), 0)


def _detached(tensor: torch.Tensor) -> torch.Tensor | None:
    """The same numbers without the graph that made them; None if the tensor has no numbers to read."""
    if tensor.is_meta or tensor.is_quantized or not is_plain(tensor):
        return None
    tensor = tensor.detach()
    return tensor if type(tensor) is torch.Tensor else tensor.as_subclass(torch.Tensor)


def _meet(one: Geometry, other: Geometry) -> bool:
    low, high = one.span()
    start, stop = other.span()
    return low < stop and start < high
