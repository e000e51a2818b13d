"""Telling a pickle from its first bytes: loading one runs whatever code its author put inside."""

from __future__ import annotations

import zipfile
from pathlib import Path

__all__ = ["holds_pickle"]

SUFFIXES = (".pt", ".pth", ".pkl", ".pickle", ".joblib", ".ckpt", ".bin")
_NPY = b"\x93NUMPY"


def holds_pickle(path: Path) -> bool:
    """Whether reading this file whole would unpickle something: by its content first, then by its name.

    Knows plain pickles of protocol 2 and later, PyTorch's zip files (`data.pkl` inside), TorchScript
    archives, and numpy arrays of Python objects, alone (`.npy`) or in an archive (`.npz`).
    """
    with path.open("rb") as file:
        head = file.read(2)
    if len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return True
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            # An exported program carries its own pickles' flags inside; `exported.py` reads those.
            exported = any(name.endswith("archive_format") for name in names)
            if not exported and any(name.split("/")[-1] in ("data.pkl", "constants.pkl") for name in names):
                return True
            for name in names:
                if name.endswith(".npy"):
                    with archive.open(name) as member:
                        if _object_array(member.read(512)):
                            return True
        return False
    with path.open("rb") as file:
        if _object_array(file.read(512)):
            return True
    return path.suffix.lower() in SUFFIXES


def _object_array(head: bytes) -> bool:
    """Whether a `.npy` header says that elements are Python objects (dtype `|O`, alone or in a record)."""
    header = head[:512].split(b"\n", 1)[0]
    return head.startswith(_NPY) and (b"'|O'" in header or b"'O'" in header or b'"|O"' in header)
