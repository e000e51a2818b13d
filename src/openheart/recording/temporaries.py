"""What an optimizer's step makes and lets go: computed again when asked for, its memory given back.

AdamW written in PyTorch takes the root of the second moment, divides it and adds ε, for each parameter. The
step lets go of these tensors at once; only the recording would hold them, and a copy of what ε is added to.
Each is one IEEE operation in each place, a root, or a product, quotient or sum with a number: the same
operator on the same numbers gives the same bits. That holds for real floating numbers; all else is held.

Memory is given back only where nobody but the log has the tensor: no variable, no view, no other recorder.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from openheart.recording.log import tensors_in

__all__ = ["COMPUTED", "Temporaries"]

LARGE = 2**14  # bytes; smaller ones are held, as it costs more to find out

_aten = torch.ops.aten
_MAKES = {_aten.sqrt.default, _aten.div.Tensor, _aten.mul.Tensor, _aten.add.Tensor}
_WRITES = {_aten.div_.Tensor, _aten.mul_.Tensor, _aten.add_.Tensor}
_READS = {_aten.addcdiv_.default, _aten.addcdiv.default}  # not as the first argument
COMPUTED = _MAKES | _WRITES
"""The operators whose results are computed again."""

_REAL = (torch.float32, torch.float64)
_storage: Any = torch._C.StorageBase  # what `rebinding` watches is that of the class below
_uses = torch._C._storage_Use_Count


@dataclass(slots=True, eq=False)
class _Temporary:
    """A tensor that the step has made, and how many references the log has to it."""

    tensor: torch.Tensor
    through: int = 0  # so many writes to it can be made again
    references: int = 1


class Temporaries:
    """Follows what an optimizer's step makes.

    Attributes:
        known: the storages of what it made, and up to which version their values are computed again.
    """

    def __init__(self) -> None:
        self.known: list[tuple[StorageWeakRef, int]] = []
        self._live: dict[int, _Temporary] = {}
        self._room = 1024

    def spares(self, op: Any, args: tuple[Any, ...], tensor: torch.Tensor) -> bool:
        """Whether a call is about to write what need not be copied before."""
        return (
            id(tensor) in self._live
            and op in _WRITES
            and len(args) == 2
            and args[0] is tensor
            and type(args[1]) is float
        )

    def hear(self, op: Any, args: Any, kwargs: Any, result: Any, undos: Any) -> None:
        """A call of the step has run."""
        if self._live:
            self._count(op, args, kwargs, result, undos)
        if (
            op in _MAKES
            and not kwargs
            and type(result) is torch.Tensor
            and result.nbytes >= LARGE
            and result.dtype in _REAL
            and _is_computed(args, result)
        ):
            self._sweep()
            self._live[id(result)] = _Temporary(result)

    def end(self) -> None:
        """The step has ended."""
        self._sweep()
        for temporary in list(self._live.values()):
            self._note(temporary)
        self._live.clear()

    def _count(self, op: Any, args: Any, kwargs: Any, result: Any, undos: Any) -> None:
        """Counts what the log refers to, and leaves alone what is used in a way that is not known."""
        for item in tensors_in((args, kwargs)):
            temporary = self._live.get(id(item))
            if temporary is None:
                continue
            if op in _WRITES and args[0] is item and result is item and len(undos or ()) == 1:
                if undos[0][3] is None:
                    temporary.through += 1
                    temporary.references += 3  # argument, result, and what was written
                else:
                    self._leave(temporary)
            elif (op in _READS and args[0] is not item) or (op in COMPUTED and len(args) == 2 and not undos):
                temporary.references += 1
            else:
                self._leave(temporary)

    def _sweep(self) -> None:
        """Gives back the memory of what only the log has."""
        for key in list(self._live):
            temporary = self._live[key]
            tensor: Any = temporary.tensor
            # beside the log: `temporary`, the variable here, the argument of `getrefcount`
            if sys.getrefcount(tensor) != temporary.references + 3 or tensor._use_count() != 1:
                continue
            if weakref.getweakrefcount(tensor):
                continue  # who follows it so may find it as long as the log has it
            storage = tensor.untyped_storage()
            if _uses(storage._cdata) == 2:  # the tensor's, and the object just made
                self._leave(temporary)
                _storage.resize_(storage, 0)

    def _leave(self, temporary: _Temporary) -> None:
        self._note(temporary)
        del self._live[id(temporary.tensor)]

    def _note(self, temporary: _Temporary) -> None:
        self.known.append((StorageWeakRef(temporary.tensor.untyped_storage()), temporary.through))
        if len(self.known) > self._room:  # a flight recorder lets go of most
            self.known = [item for item in self.known if not item[0].expired()]
            self._room = 2 * len(self.known) + 1024


def _is_computed(args: tuple[Any, ...], result: torch.Tensor) -> bool:
    """Whether a result is one operation in each place on one tensor like it, in memory of its own."""
    first = args[0]
    return (
        isinstance(first, torch.Tensor)
        and first.dtype is result.dtype
        and first.shape == result.shape
        and first.stride() == result.stride()
        and not (first.is_neg() or result.is_neg() or result.is_inference() or first.is_inference())
        and (len(args) == 1 or (len(args) == 2 and type(args[1]) is float))
        and result.untyped_storage().nbytes() == result.nbytes
        and result.untyped_storage()._cdata != first.untyped_storage()._cdata
    )
