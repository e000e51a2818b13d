"""Where in the source a call was made."""

from __future__ import annotations

import os
from functools import lru_cache
from types import CodeType

from openheart.spelling import spelled

__all__ = ["place_of"]

# Rooms that run other people's networks: a call that they made has no place in the reader's source.
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_ROOMS = tuple(os.path.join(_PACKAGE, room) + os.sep for room in ("loading", "demo"))


@lru_cache(maxsize=16384)
def place_of(code: CodeType | None, instruction: int) -> str | None:
    """`"file.py:123"` for an instruction of a code object, None where there is none."""
    if code is None or code.co_filename.startswith(_ROOMS):
        return None
    for start, end, line in code.co_lines():
        if start <= instruction < end and line is not None:
            return f"{spelled(os.path.basename(code.co_filename))}:{line}"
    return f"{spelled(os.path.basename(code.co_filename))}:{code.co_firstlineno}"
