"""`module.forward(x)`, called directly: PyTorch's `__call__` does not run, and so nobody hears of the module.

So the classes' own `forward` is watched as well, only while a recording runs. A module that is being called
is passed through; a compiler that reads `forward` finds what was there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch

__all__ = ["watch_forwards"]

Through = Callable[[Callable[..., Any], torch.nn.Module, Any, Any], Any]

_compiling = torch.compiler.is_dynamo_compiling
_watched: dict[type, tuple[Any, Any, int]] = {}  # class → its forward, what stands there now, for how many


def watch_forwards(
    modules: Iterable[torch.nn.Module], called: Callable[[torch.nn.Module], bool], through: Through
) -> Callable[[], None]:
    """Has `through(run, module, args, kwargs)` run each `forward` of these modules that is not `called`.

    Returns what ends it.
    """
    classes = {owner for kind in set(map(type, modules)) if (owner := _owner(kind)) is not None}
    for owner in classes:
        original, watcher, count = _watched.get(owner, (None, None, 0))
        if not count:
            original = vars(owner)["forward"]
            watcher = _watcher(original, called, through)
            owner.forward = watcher  # type: ignore[attr-defined]
        _watched[owner] = original, watcher, count + 1

    def end() -> None:
        for owner in classes:
            original, watcher, count = _watched.pop(owner)
            if count > 1:
                _watched[owner] = original, watcher, count - 1
            elif vars(owner).get("forward") is watcher:
                owner.forward = original  # type: ignore[attr-defined]

    return end


def _owner(kind: type) -> type | None:
    """The class that says what `forward` is, where it says so in Python and no compiler made it."""
    for owner in kind.__mro__:
        if "forward" in vars(owner):
            known = owner is not torch.nn.Module and not owner.__module__.startswith(
                ("torch.jit", "torch._dynamo", "torch.fx", "torch._functorch", "torch.export")
            )
            return owner if known and hasattr(vars(owner)["forward"], "__code__") else None
    return None


@functools.lru_cache(maxsize=1024)
def _watcher(
    original: Callable[..., Any], called: Callable[[torch.nn.Module], bool], through: Through
) -> Callable[..., Any]:
    @functools.wraps(original)
    def forward(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if _compiling() or called(self):
            return original(self, *args, **kwargs)
        return through(original, self, args, kwargs)

    return forward
