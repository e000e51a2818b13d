"""When a recording ends: make sure that what it holds by reference is not silently overwritten later.

Values are held by reference, and the run goes on: the next step of the optimizer writes to the very
parameters that the recording shows. Small leaves (parameters, buffers, inputs) are copied as the recording
ends. Larger ones are copied when an optimizer is about to write to them, if the recording is still alive
then. For all others the version counter that PyTorch keeps tells of a write, and `Value.data` then raises
instead of showing a wrong number.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from openheart.recording.log import GRAD, RETAIN, Log, is_plain
from openheart.recording.seat import aside
from openheart.recording.storages import Undo, geometry_of

if TYPE_CHECKING:
    from openheart.recording.recording import Recording

__all__ = ["settle", "watch_over"]

SMALL = 64 * 2**20  # leaves of no more than this many bytes in all are copied as the recording ends


def settle(log: Log) -> None:
    """Copies the small leaves and notes every version counter."""
    made: set[int] = set()
    leaves = {id(tensor): tensor for _, _, tensor in log.named}
    leaves.update((id(tensor), tensor) for _, _, tensor in log.named_later)
    results: list[torch.Tensor] = []
    retained: dict[int, torch.Tensor] = {}
    for entry in log.entries:
        if len(entry) < 11:
            if entry[0] == GRAD and type(entry[2]) is torch.Tensor and id(entry[2]) not in made:
                leaves[id(entry[2])] = entry[2]
            elif entry[0] == RETAIN:
                retained[id(entry[1])] = entry[1]
            continue
        # In a backward pass, what was saved comes back as new objects that only look like leaves.
        if entry[7] is None:
            for argument in entry[1]:
                if type(argument) is torch.Tensor:
                    if id(argument) not in made:
                        leaves[id(argument)] = argument
                elif type(argument) is list:
                    for item in argument:
                        if type(item) is torch.Tensor and id(item) not in made:
                            leaves[id(item)] = item
        result = entry[3]
        if type(result) is torch.Tensor:
            made.add(id(result))
            results.append(result)
        elif type(result) is tuple or type(result) is list:
            for item in result:
                if type(item) is torch.Tensor:
                    made.add(id(item))
                    results.append(item)
    retained.update((id(tensor), tensor) for tensor in leaves.values() if tensor.retains_grad)
    for tensor in retained.values():
        if not tensor.is_leaf and tensor.grad is not None:
            log.retained.append((tensor, tensor.grad))
    plain = [tensor for tensor in leaves.values() if is_plain(tensor) and not tensor.is_meta]
    for tensor in results + plain:
        if not tensor.is_inference():  # what is made in inference mode has no version counter
            log.versions.append((tensor, tensor._version))
    if plain and sum([tensor.nbytes for tensor in plain]) <= SMALL:
        with torch.no_grad(), aside():
            log.kept += zip(plain, torch._foreach_clone(plain), strict=True)


_watched: weakref.WeakSet[Recording] = weakref.WeakSet()
_lock = threading.Lock()
_hooked = False


def watch_over(recording: Recording) -> None:
    """Has an optimizer's next step copy what it is about to overwrite, while `recording` is alive."""
    global _hooked
    with _lock:
        _watched.add(recording)
        if not _hooked:
            register_optimizer_step_pre_hook(_before_step)
            _hooked = True


def _before_step(optimizer: Any, _args: Any, _kwargs: Any) -> None:
    with _lock:
        recordings = list(_watched)
    for recording in recordings:
        if id(optimizer) in recording._spared:
            continue
        recording._spared.add(id(optimizer))
        with torch.no_grad(), aside():
            if recording._log is not None:
                _copy_unread(recording._log, optimizer)
                continue
            lives = recording._lives
            for tensor in _written_by(optimizer):
                life = lives.get(tensor.untyped_storage()._cdata)
                if life is not None and life.intact():
                    life.undos.append(Undo(geometry_of(tensor), tensor.detach().clone()))


def _copy_unread(log: Log, optimizer: Any) -> None:
    """Copies what the log still shows of what is written next; the log is not read for it."""
    copied = {id(tensor) for tensor, _ in log.kept}
    threatened = [tensor for tensor in _written_by(optimizer) if id(tensor) not in copied]
    if not threatened:
        return
    shown = {id(tensor): tensor for tensor, _ in log.versions}
    changed = {id(tensor) for tensor, version in log.versions if tensor._version != version}
    storages: dict[int, bool] = {}  # whether it still holds what it held when the recording ended
    for identity, tensor in shown.items():
        if is_plain(tensor):
            key = tensor.untyped_storage()._cdata
            storages[key] = storages.get(key, True) and identity not in changed
    log.kept += [
        (tensor, tensor.detach().clone())
        for tensor in threatened
        if storages.get(tensor.untyped_storage()._cdata)
    ]


def _written_by(optimizer: Any) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if is_plain(parameter):
                yield parameter
    for state in optimizer.state.values():
        if isinstance(state, dict):
            for item in state.values():
                if isinstance(item, torch.Tensor) and is_plain(item):
                    yield item
