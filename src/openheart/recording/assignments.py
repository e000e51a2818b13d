"""What a run does without an operator call: it assigns to `.grad`, it asks for gradients, it starts autograd.

PyTorch's dispatcher is not told of these, so they are watched where Python passes: the attribute `grad`,
the method `retain_grad`, and the one function through which `backward()` and `torch.autograd.grad` start the
engine. They are watched only while a recording runs, and what is done is what would have been done.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from openheart.recording.log import ENGINE, ENGINED, GRAD, RETAIN
from openheart.recording.seat import beside, is_taken_here

__all__ = ["watch"]


def watch(note: Callable[[tuple[Any, ...]], None]) -> Callable[[], None]:
    """Has `note` told of each, as an entry of the log, in a thread that records; returns what ends it."""
    tensor: Any = torch.Tensor
    grad, retain = tensor.grad, tensor.retain_grad
    put, drop = grad.__set__, grad.__delete__
    autograd: Any = torch.autograd
    run = autograd._engine_run_backward

    def assign(leaf: torch.Tensor, gradient: torch.Tensor | None) -> None:
        put(leaf, gradient)
        if is_taken_here():
            note((GRAD, leaf, gradient))

    def delete(leaf: torch.Tensor) -> None:
        drop(leaf)
        if is_taken_here():
            note((GRAD, leaf, None))

    def retain_grad(self: torch.Tensor) -> None:
        retain(self)
        if is_taken_here():
            note((RETAIN, self))

    def engine(*args: Any, **kwargs: Any) -> Any:
        if not is_taken_here():
            return run(*args, **kwargs)
        given = args[1] if len(args) > 1 else ()
        note((ENGINE, _arrivals(args[0], given), not _sources(args, kwargs), bool(args[3:4] and args[3])))
        result = None
        try:
            result = run(*args, **kwargs)
        finally:
            inputs = _inputs(args, kwargs)
            note((ENGINED, inputs, result, _arrivals(inputs, result)))
        return result

    backward, gradients = autograd.backward, autograd.grad

    watched = property(grad.__get__, assign, delete, "The gradient of a leaf, or one that was retained.")
    tensor.grad, tensor.retain_grad = watched, retain_grad
    autograd._engine_run_backward = engine
    autograd.backward, autograd.grad = _started(backward), _started(gradients)

    def end() -> None:
        if vars(tensor).get("grad") is watched:
            del tensor.grad
            if tensor.grad is not grad:
                tensor.grad = grad
        if vars(tensor).get("retain_grad") is retain_grad:
            del tensor.retain_grad
            if tensor.retain_grad is not retain:
                tensor.retain_grad = retain
        autograd.backward, autograd.grad = backward, gradients
        if autograd._engine_run_backward is engine:
            autograd._engine_run_backward = run

    return end


@functools.cache
def _started(start: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(start)
    def starting(roots: Any, *args: Any, **kwargs: Any) -> Any:
        if is_taken_here():
            return start(roots, *args, **kwargs)
        with beside((roots,) if isinstance(roots, torch.Tensor) else tuple(roots)):  # another thread
            return start(roots, *args, **kwargs)

    return starting


def _inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """What `torch.autograd.grad` was asked the gradients of; nothing for a `backward()`."""
    if kwargs.get("accumulate_grad", True):
        return ()
    return _sources(args, kwargs)


def _sources(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Where a backward pass is to lead; nothing: wherever the graph does."""
    return tuple(kwargs.get("inputs", args[4] if len(args) > 4 else ()))


def _arrivals(tensors: Any, gradients: Any) -> list[tuple[Any, int, Any]]:
    """Which node, or leaf, takes each gradient, as which of its gradients."""
    found: list[tuple[Any, int, Any]] = []
    for item, gradient in zip(tensors, gradients or (), strict=False):
        if isinstance(item, torch.Tensor):
            found.append((item if item.grad_fn is None else item.grad_fn, item.output_nr, gradient))
        else:
            found.append((item.node, item.output_nr, gradient))
    return found
