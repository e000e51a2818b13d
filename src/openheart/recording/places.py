"""Where in the source a call was made."""

from __future__ import annotations

import os
from functools import lru_cache
from types import CodeType

__all__ = ["place_of"]


def place_of(code: CodeType | None, instruction: int) -> str | None:
    """`"file.py:123"` for an instruction of a code object, None where there is none."""
    if code is None:
        return None
    for start, end, line in _lines(code):
        if start <= instruction < end and line is not None:
            return f"{os.path.basename(code.co_filename)}:{line}"
    return f"{os.path.basename(code.co_filename)}:{code.co_firstlineno}"


@lru_cache(maxsize=4096)
def _lines(code: CodeType) -> tuple[tuple[int, int, int | None], ...]:
    return tuple(code.co_lines())
