"""Open any PyTorch network and see every number being made, checked.

>>> import openheart as oh
>>> rec = oh.record(model, x)                 # doctest: +SKIP
>>> rec.explain("0.out[0,0]")                 # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

# Nothing is imported until it is asked for: `import openheart` costs a few milliseconds, and PyTorch's
# compiler (dynamo, sympy) is never loaded by it.
_HOMES = {
    "record": "record",
    "recording": "record",
    "load": "recording.saving",
    "Value": "recording",
    "Call": "recording",
    "Element": "recording",
    "Recording": "recording",
    "explain": "explain",
    "Explanation": "explain",
    "verify": "verify",
    "Audit": "verify",
    "show": "show",
    "to_html": "show",
    "to_javascript": "live",
    "intervene": "surgery.replay",
    "replay": "surgery.replay",
    "Edit": "surgery",
    "set": "surgery",
    "scale": "surgery",
    "add": "surgery",
    "ablate": "surgery",
    "cut": "surgery",
    "patch": "surgery",
    "swap": "surgery",
    "freeze": "surgery",
    "read_edits": "surgery",
    "write_edits": "surgery",
    "compare": "surgery.compare",
    "Comparison": "surgery",
    "collapse": "surgery.collapse",
    "count_regions": "surgery",
    "Sweep": "surgery",
    "PatchGrid": "surgery",
    "set_language": "i18n",
    "set_decimal_mark": "i18n",
    "AddressError": "errors",
    "InputError": "errors",
    "InterventionError": "errors",
    "OpaqueError": "errors",
    "OpenheartError": "errors",
    "PatientError": "errors",
    "RecordingFileError": "errors",
    "RuleError": "errors",
}

__all__ = [name for name in _HOMES if name != "set"]  # a star import keeps Python's own `set`


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'openheart' has no attribute {name!r}")
    thing = getattr(importlib.import_module(f"openheart.{home}"), name)
    globals()[name] = thing
    return thing


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


class _Face(types.ModuleType):
    """The package's public face: `oh.recording` is the verb, never the subpackage that shares its name."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Python's import binds every submodule in its package; a verb of the face keeps its name.
        if not (name in _HOMES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
