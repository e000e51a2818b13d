"""What PyTorch does for a dispatch mode, and has to be asked to do for a seat, while somebody records.

PyTorch's own Python looks out for modes in a few places: where it gives a new tensor an object of another
class, where an operator calls Python back, where a mode is on already, and where its compiler decides whether
to compile; and one function does its work outside of any operator. Each is told of the seat here, as long as
a recording runs.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _python_dispatch

__all__ = ["STUB", "arrange"]


def arrange(run: Callable[..., Any], key: Any, left_alone: Callable[[], bool]) -> Callable[[], None]:
    """Makes the arrangements; returns what ends them.

    Args:
        run: what runs in the place of an operator, called with it and its arguments.
        key: the dispatch key of the seat.
        left_alone: whether the seat is taken in this thread; told that the compiler asks.
    """
    _give_classes(key)
    pool = torch.max_pool1d
    dispatch: Any = torch._ops.HigherOrderOperator.dispatch
    push, compiled = _python_dispatch._push_mode, torch.compile

    def higher_order(self: Any, place: Any, /, *args: Any, **kwargs: Any) -> Any:
        if place == key:  # an operator that calls Python back is one call, as any other
            return run(self, *args, **kwargs)
        return dispatch(self, place, *args, **kwargs)

    def push_mode(mode: Any) -> None:
        seat_below_modes(run)
        push(mode)

    torch._ops.HigherOrderOperator.dispatch = higher_order  # type: ignore[method-assign, assignment]
    _python_dispatch._push_mode = push_mode
    torch.compile = _asking(compiled, left_alone)
    torch.max_pool1d = _pool
    _tell_the_compiler(left_alone)

    def end() -> None:
        torch._ops.HigherOrderOperator.dispatch = dispatch  # type: ignore[method-assign]
        _python_dispatch._push_mode = push
        torch.compile = compiled
        torch.max_pool1d = pool
        for name in ("as_subclass", "_make_subclass"):
            delattr(torch.Tensor, name)

    if torch._C._len_torch_dispatch_stack():
        seat_below_modes(run)
    return end


# What stands in for a function is made once for it: to begin a recording must cost next to nothing.


@functools.cache
def _asking(compiled: Callable[..., Any], left_alone: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(compiled)
    def compile_and_ask(*args: Any, **kwargs: Any) -> Any:
        result = compiled(*args, **kwargs)
        _tell_the_compiler(left_alone)
        return result

    return compile_and_ask


# Objects of another class -----------------------------------------------------------------------------------


def _give_classes(key: Any) -> None:
    """Hides what gives a tensor that was just made an object: nobody may have given it one before."""
    as_subclass, make_subclass = _unheard(key)
    torch.Tensor.as_subclass = as_subclass  # type: ignore[method-assign]
    torch.Tensor._make_subclass = make_subclass  # type: ignore[method-assign]


@functools.cache
def _unheard(key: Any) -> tuple[Any, Any]:
    base: Any = torch._C.TensorBase
    seat = torch._C.DispatchKeySet(key)

    def unheard(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **kwargs: Any) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(seat):
                return make(*args, **kwargs)

        return functools.wraps(make)(made)

    return unheard(base.as_subclass), staticmethod(unheard(base._make_subclass))


# Work that is no operator -----------------------------------------------------------------------------------


def _pool(*args: Any, **kwargs: Any) -> torch.Tensor:
    """The largest of each window, by the operator that also says where it lies.

    Where no gradient is wanted PyTorch takes the same numbers by a loop that is no operator, which nobody
    could see.
    """
    return torch.max_pool1d_with_indices(*args, **kwargs)[0]


# Modes ------------------------------------------------------------------------------------------------------

_libraries: dict[str, Any] = {}
_known: set[str] = set()


class _Stub:
    """One operator's own entry at the seat; PyTorch looks for one, and not for the fallback, under a mode."""

    __slots__ = ("name", "op", "run")

    def __init__(self, name: str, run: Callable[..., Any]) -> None:
        self.name = name
        self.run = run
        self.op: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.op is None:
            space, name = self.name.split("::")
            name, _, overload = name.partition(".")
            self.op = getattr(getattr(getattr(torch.ops, space), name), overload or "default")
        return self.run(self.op, *args, **kwargs)


STUB = _Stub.__call__.__code__


def seat_below_modes(run: Callable[..., Any]) -> None:
    """Gives every operator its own entry at the seat, once somebody uses a mode in a recording (0.4 s)."""
    names = torch._C._dispatch_get_all_op_names()
    if len(names) == len(_known):
        return
    for name in names:
        if name not in _known:
            space, rest = name.split("::")
            if space not in _libraries:
                _libraries[space] = torch._C._dispatch_library("IMPL", space, "")
            _libraries[space].impl(rest, "Fake", _Stub(name, run), False)
            _known.add(name)


# The compiler -----------------------------------------------------------------------------------------------

_told = False


def _tell_the_compiler(left_alone: Callable[[], bool]) -> None:
    """Has what is compiled run as it is written where somebody records, who would not see what runs else."""
    global _told
    frames: Any = sys.modules.get("torch._dynamo.eval_frame")
    if _told or frames is None:
        return
    _told = True
    chosen, counted = frames._callback_from_stance, frames.set_fullgraph_compiled_frame_count

    def callback(given: Any) -> Any:
        return None if given not in (None, False) and left_alone() else chosen(given)

    def count(number: int) -> int:
        before: int = counted(number)
        return 1 if before == 0 and left_alone() else before  # else it is an error that nothing was compiled

    frames._callback_from_stance = callback
    frames.set_fullgraph_compiled_frame_count = count
