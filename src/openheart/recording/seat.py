"""A recorder's seat in PyTorch's dispatcher: below autograd, above every kernel, and seen by nobody.

A dispatch mode would sit there too. But PyTorch's own kernels ask whether a mode is on and then take
another path, and under a mode lazy conjugates stay unresolved inside of an operator: other numbers than
without it. So the seat is a dispatch key that PyTorch leaves free, switched on in the threads that record,
and what runs is what would have run.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch

from openheart.recording.arrangements import arrange

__all__ = [
    "KEY",
    "SOLE",
    "Sitting",
    "aside",
    "beside",
    "hidden",
    "is_taken_here",
    "leave",
    "recorders",
    "switch",
    "take",
    "taken_by",
    "unseen",
]


class Sitting(Protocol):
    """Somebody who has the seat.

    Attributes:
        ended: it has left.
        task: it sits in an asynchronous task, and hears only what this task and its children do.
    """

    ended: bool
    task: bool

    def made(self, tensors: Any) -> bool:
        """Whether one of these tensors was made while it listened."""

    def left_alone(self) -> None:
        """Hears that PyTorch's compiler runs a region as it is written, because of the recording."""


KEY: Any = torch._C._dispatch_key_parse("Fake")
switch = torch._C._dispatch_tls_set_dispatch_key_included
_is_on = torch._C._dispatch_tls_is_dispatch_key_included
_is_excluded = torch._C._dispatch_tls_is_dispatch_key_excluded
_K: Any = torch._C.DispatchKey
_Keys: Any = torch._C.DispatchKeySet
_SEAT = _Keys(KEY)
_BELOW = _SEAT
for _key in (_K.Python, _K.PythonTLSSnapshot, _K.ADInplaceOrView, _K.AutogradOther, _K.AutogradNestedTensor,
             _K.AutogradFunctionality):  # fmt: skip
    _BELOW = _BELOW | _Keys(_key)

# What is kept under this name in a thread goes along to autograd's own threads, as the switch does.
_NAME = "openheart.recorders"
_task: ContextVar[tuple[Sitting, ...]] = ContextVar(_NAME, default=())
_lock = threading.Lock()
_sitting: list[Sitting] = []
# The only one who has the seat anywhere, if there is just one: then it hears everything that is heard.
SOLE: list[Any] = [None]
_strayed = False  # somebody has left in another thread than he came in, where the switch may still be on
_library: Any = None
_run: Any = None
_restore: list[Callable[[], None]] = []


def unseen() -> Any:
    """A context in which what runs is tracked by no autograd and seen by no recorder and no mode."""
    return torch._C._ExcludeDispatchKeyGuard(_BELOW)


class aside:  # noqa: N801  (it reads as the context managers of PyTorch do)
    """A context for work of our own, which is no part of anybody's run: no mode and no recorder sees it."""

    __slots__ = ("_modes", "_seat")

    def __enter__(self) -> None:
        self._modes = torch._C._DisableTorchDispatch()
        self._modes.__enter__()
        self._seat = torch._C._ExcludeDispatchKeyGuard(_SEAT)
        self._seat.__enter__()

    def __exit__(self, *_error: object) -> None:
        self._seat.__exit__(None, None, None)
        self._modes.__exit__(None, None, None)


def hidden() -> bool:
    """Whether PyTorch hides what runs now from everyone who looks on, as it does while it builds a tensor."""
    return _is_excluded(_K.Python)


def is_taken_here() -> bool:
    """Whether somebody hears the operators of this thread."""
    return _is_on(KEY)


def recorders() -> list[Sitting]:
    """Who has the seat in this thread and task, the first to take it first."""
    here = torch._C._get_obj_in_tls(_NAME) if torch._C._is_key_in_tls(_NAME) else ()
    here = [sitting for sitting in here if not sitting.ended]
    return [sitting for sitting in here if not sitting.task or sitting in _task.get()]


def taken_by(run: Callable[..., Any]) -> None:
    """Has PyTorch call `run(operator, *args, **kwargs)` for every operator where the seat is taken."""
    global _library, _run
    _run = run
    _library = torch.library.Library("_", "IMPL")
    _library.fallback(run, "Fake")


def take(sitting: Sitting) -> None:
    """Takes the seat in this thread."""
    sitting.task = _in_a_task()
    if sitting.task:
        _task.set((*_task.get(), sitting))
    with _lock:
        if not _sitting:
            _restore.append(arrange(_run, KEY, _left_alone))
        _sitting.append(sitting)
        _look_around()
    here = torch._C._get_obj_in_tls(_NAME) if torch._C._is_key_in_tls(_NAME) else ()
    torch._C._stash_obj_in_tls(_NAME, (*[item for item in here if not item.ended], sitting))
    switch(KEY, True)


def leave(sitting: Sitting) -> None:
    """Leaves the seat, whoever else still has it; in whatever thread and order."""
    global _strayed
    sitting.ended = True
    here = torch._C._get_obj_in_tls(_NAME) if torch._C._is_key_in_tls(_NAME) else ()
    with _lock:
        _strayed = _strayed or sitting not in here
        _sitting.remove(sitting)
        _look_around()
        if not _sitting:
            while _restore:
                _restore.pop()()
    here = tuple([item for item in here if not item.ended])
    torch._C._stash_obj_in_tls(_NAME, here)
    if not here:
        switch(KEY, False)


@contextmanager
def beside(tensors: Any) -> Iterator[bool]:
    """Gives whoever heard these tensors being made the seat in this thread too; False if nobody did."""
    guests = tuple([sitting for sitting in list(_sitting) if sitting.made(tensors)])
    if not guests:
        yield False
        return
    torch._C._stash_obj_in_tls(_NAME, guests)
    switch(KEY, True)
    try:
        yield True
    finally:
        switch(KEY, False)
        torch._C._stash_obj_in_tls(_NAME, ())


def _left_alone() -> bool:
    here = recorders() if _is_on(KEY) else []
    for sitting in here:
        sitting.left_alone()
    return bool(here)


def _look_around() -> None:
    alone = len(_sitting) == 1 and not _sitting[0].task and not _strayed
    SOLE[0] = _sitting[0] if alone else None


def _in_a_task() -> bool:
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None
