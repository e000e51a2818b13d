"""A recording: every call of a run, every value, and what each is called."""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import contextlib
import gc
import importlib
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch

from openheart.errors import OpenheartError
from openheart.recording import addresses
from openheart.recording.afterwards import watch_over
from openheart.recording.build import Facts, build
from openheart.recording.keeping import drop, held_bytes
from openheart.recording.log import Log
from openheart.recording.names import Names, name_values
from openheart.recording.notices import Notice
from openheart.recording.seat import aside
from openheart.recording.storages import Life
from openheart.recording.values import Call, Element, OptimizerStep, Value, values_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

__all__ = ["Recording"]


class Recording:
    """What ran: `calls`, in order, and the `values` they read and made.

    Attributes:
        model: the network that was recorded; None for plain tensor code, and after loading from a file.
        output: what the model returned (the last time it was called).
        keep: what the recording keeps, as given to `record`.
        ran: how many steps the run had, of which a flight recorder holds some; None for any other recording.
        before: for what `intervene` and `replay` give, the recording that was changed; else None.
        edits: what was changed in `before`, in order.
        notes: what there is to know about the change: a draw that was kept, a number that Python was told.

    >>> import torch, openheart as oh
    >>> rec = oh.record(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()), torch.ones(1, 2))
    >>> [call.name for call in rec.calls]
    ['t', 'addmm', 'relu']
    >>> rec.address(rec.element("1.out[0,-1]"))
    '1.out[0,2]'
    """

    def __init__(self, model: torch.nn.Module | None = None, keep: str = "all") -> None:
        self.model = model
        self.keep = keep
        self.output: Any = None
        self.ran: int | None = None
        self._file: str | None = None  # where it was loaded from, by itself or as what it was made of
        self._log: Log | None = None
        self._facts: Facts | None = None
        self._later: Callable[[], tuple[Facts, Names]] | None = (
            None  # gives the facts when they are asked for
        )
        self._names: Names | None = None
        self._users: dict[int, list[Call]] | None = None
        self.before: Recording | None = None
        self.edits: Any = ()
        self.notes: tuple[Any, ...] = ()
        self._spared: set[int] = set()  # optimizers that are known to have copied what they overwrite

    def _finish_later(self, log: Log, output: Any) -> None:
        """Takes the log of a run that has ended; it is read when something is first asked for."""
        self._log = log
        self.ran = log.steps
        self.output = output
        watch_over(self)
        if self.keep != "all":
            self._read()  # what is not kept is let go at once

    def _read(self) -> Facts:
        if self._facts is None and self._later is not None:
            self._facts, self._names = self._later()
            self._later = None
        if self._facts is None:
            if self._log is None:
                raise OpenheartError("error.running")
            with torch.no_grad(), aside(), _without_collecting():
                self._facts = build(self._log)
            self._log = None
            drop(self._facts, self.keep)
        return self._facts

    @property
    def _lives(self) -> dict[int, Life]:
        return self._read().lives

    @property
    def _named(self) -> Names:
        if self._names is None:
            facts = self._read()
            if self._names is None:  # a counterfactual's come with its facts
                with _without_collecting():
                    self._names = name_values(facts)
        if self._names.facts is None:
            self._names.facts = self._read()
        return self._names

    @property
    def calls(self) -> list[Call]:
        """Every operator call, in the order of the run."""
        return self._read().calls

    @property
    def values(self) -> list[Value]:
        """Every value, in the order in which the run met them."""
        return self._read().values

    @property
    def optimizers(self) -> list[OptimizerStep]:
        """Every step of an optimizer, with its hyperparameters and what it found, in the order of the run."""
        return self._read().optimizers

    @property
    def steps(self) -> list[int]:
        """The numbers of the training steps that are held, in order."""
        return sorted({call.step for call in self.calls})

    @property
    def nbytes(self) -> int:
        """The bytes of memory that what is held lies in; what it shares with the model is counted as well."""
        return held_bytes(self.values)

    @property
    def notices(self) -> tuple[Notice, ...]:
        """What there is to know about the recording as a whole, as where something ran another way in it."""
        return tuple([Notice(key, details) for key, details in self._read().notices.items()])

    def maker(self, value: Value) -> tuple[Call, int] | None:
        """The call that made a value and which of its outputs it is; None for a leaf."""
        return self._read().makers.get(value.id)

    def users(self, value: Value) -> list[Call]:
        """The calls that read a value, in order."""
        if self._users is None:
            self._users = {}
            for call in self.calls:
                read = {item.id for item in values_in((call.args, call.kwargs))}
                for identity in read:
                    self._users.setdefault(identity, []).append(call)
        return self._users.get(value.id, [])

    def name(self, value: Value) -> str:
        """The canonical name of a value, without an index: `0.weight.grad`."""
        return self._named.canonical[value.id]

    def has_own_name(self, value: Value) -> bool:
        """Whether a value is a leaf, an output of a module, a gradient of one; not just what some call made.

        >>> import torch, openheart as oh
        >>> rec = oh.record(torch.nn.Linear(2, 1), torch.ones(1, 2))
        >>> [(rec.name(value), rec.has_own_name(value)) for value in rec.values[-2:]]
        [('t.out', False), ('.out', True)]
        """
        name = self._named.canonical.get(value.id)
        return name is not None and "/" not in name and value.id not in self._named.nameless

    def value(self, address: str) -> Value:
        """The value with this name.

        Raises:
            AddressError: nothing has this name; `.suggestion` is the nearest.
        """
        return addresses.find_value(self._named, address)

    def get(self, name: str) -> Value | None:
        """The value with this name, or None: for a name that may well not be there.

        >>> import torch, openheart as oh
        >>> rec = oh.record(torch.nn.Linear(2, 1), torch.ones(1, 2))
        >>> rec.get("weight").shape, rec.get("weight.grad")
        ((1, 2), None)
        """
        return addresses.get_value(self._named, name)

    def element(self, address: str) -> Element:
        """The scalar at this address, `0.out[0,2]`; negative indices count from the end.

        Raises:
            AddressError: nothing has this name, or the index does not fit; `.suggestion` is the nearest.
        """
        return addresses.find_element(self._named, address)

    def address(self, element: Element) -> str:
        """The canonical address of a scalar: `0.out[0,2]`."""
        return addresses.address_of(self._named, element)

    def addresses(self) -> list[str]:
        """The canonical name of every value that has numbers to explain, in the order of the run.

        Empty ones are not among them, nor those whose numbers were not kept or that nobody ever wrote.
        """
        canonical = self._named.canonical
        return [
            canonical[value.id]
            for value in self.values
            if value.id in canonical and 0 not in value.shape and value.kept
        ]

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the recording to one file, which `openheart.load` reads; atomically.

        Raises:
            RecordingFileError: it cannot be written.
        """
        from openheart.recording.saving import save

        save(self, path)

    def explain(self, address: str | Element, depth: int = 1, **options: Any) -> Any:
        """How the number at this address was made: see `openheart.explain`."""
        from openheart.explain import explain

        return explain(self, address, depth=depth, **options)

    def verify(self, sample: int | None = None, **options: Any) -> Any:
        """Checks every scalar of the run, or `sample` of each call: see `openheart.verify`."""
        from openheart.verify import verify

        return verify(self, sample=sample, **options)

    def replay(self, edits: Any = None, **options: Any) -> Recording:
        """Runs the recorded program again, with numbers changed: see `openheart.surgery.replay`."""
        room = importlib.import_module("openheart.surgery.replay")
        return room.replay(self, edits, **options)

    def intervene(self, edits: Any, **options: Any) -> Recording:
        """What would have happened with these numbers changed: see `openheart.surgery.intervene`."""
        room = importlib.import_module("openheart.surgery.replay")
        return room.intervene(self, edits, **options)

    def undo(self, what: int | str = 1) -> Recording:
        """Takes back the last `what` interventions, or every edit of one address: see `surgery.undo`."""
        room = importlib.import_module("openheart.surgery.replay")
        return room.undo(self, what)

    def sweep(self, address: str, values: Any, **options: Any) -> Any:
        """What follows as one number takes many values: see `openheart.surgery.sweep`."""
        room = importlib.import_module("openheart.surgery.sweep")
        return room.sweep(self, address, values, **options)

    def patch_grid(self, other: Recording, **options: Any) -> Any:
        """What activations transplanted from `other` do: see `openheart.surgery.patch_grid`."""
        room = importlib.import_module("openheart.surgery.grid")
        return room.patch_grid(self, other, **options)

    def local_map(self, sample: int = 0, **options: Any) -> Any:
        """The affine map that a piecewise linear network is here: see `openheart.surgery.local_map`."""
        room = importlib.import_module("openheart.surgery.local_map")
        return room.local_map(self, sample=sample, **options)

    def to_html(self, path: str | PathLike[str], **options: Any) -> Any:
        """Writes a self-contained page of the run: see `openheart.show`."""
        room = importlib.import_module("openheart.show")
        return room.to_html(self, path, **options)

    def __repr__(self) -> str:
        if self._facts is None and self._log is None and self._later is None:
            return "Recording(running)"
        edited = f", edited by {', '.join(map(repr, self.edits))}" if self.edits else ""
        held = ""
        if self.ran is not None:
            numbers = ", ".join(_ranges(self.steps)) or "none"
            held = f", steps {numbers} of {self.ran}, {self.nbytes / 2**20:.1f} MiB"
        return f"Recording({len(self.calls)} calls, {len(self.values)} values{held}{edited})"


@contextlib.contextmanager
def _without_collecting() -> Iterator[None]:
    """Has Python not look for garbage while very many objects are made that stay."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _ranges(numbers: list[int]) -> Iterator[str]:
    """Whole numbers in order as ranges: `0`, `1997–1999`."""
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        yield f"{members[0]}–{members[-1]}" if len(members) > 1 else str(members[0])
