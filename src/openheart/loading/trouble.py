"""Errors as sentences of the catalogues, and the words that name what somebody gave us."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from openheart.errors import InputError, PatientError
from openheart.i18n import message
from openheart.nearest import nearest

__all__ = ["bad_input", "bad_model", "did_you_mean", "reason", "shape_of", "where_raised"]


def bad_input(key: str, **params: Any) -> InputError:
    """The error for an input, target, loss or optimizer that cannot be used: the sentence `cli.error.KEY`."""
    return InputError(f"cli.error.{key}", **params)


def bad_model(key: str, **params: Any) -> PatientError:
    """The error for a network that cannot be found or built: the sentence `cli.error.KEY`."""
    return PatientError(f"cli.error.{key}", **params)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The sentence "did you mean X?" with a space before it, or nothing when nothing is near.

    >>> did_you_mean("adamm", ["adam", "sgd"])
    ' Did you mean "adam"?'
    """
    near = nearest(name, known)
    return "" if near is None else " " + message("cli.did_you_mean", name=near)


def reason(error: BaseException) -> str:
    """An error's kind and the first line of what it says: `ValueError: no such thing`."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said and said[0] else type(error).__name__


def where_raised(error: BaseException, file: str | None = None) -> str:
    """`net.py:12`, the traceback's last line that is in `file`, or else outside of PyTorch and openheart."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).resolve().parents[1])
    for frame in reversed(frames):
        theirs = "/torch/" in frame.filename.replace("\\", "/") or frame.filename.startswith(ours)
        if (file is not None and frame.filename == file) or (file is None and not theirs):
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return ""


def shape_of(tensor: Any) -> str:
    """A tensor in words: `(1, 3) float32`."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
