"""The container of a recording's file: what it looks like, and its parts read without holding them twice.

    magic (8 bytes) · version (4) · length of the header (8) · SHA-256 of all that and the header (32)
    header: JSON, the length and SHA-256 of each part
    run:    JSON, calls with their arguments, values, names
    values: a safetensors file; each tensor is a piece of storage, as bytes, that one or more values lie in

Checksums are taken as the file streams by; the values are then mapped, so that of a file that is larger than
memory only what is looked at is ever read. Each piece begins at a multiple of `ALIGNED` in the file.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import torch

from openheart.errors import RecordingFileError
from openheart.i18n import Message

__all__ = ["ALIGNED", "FIXED", "MAGIC", "PARTS", "VERSION", "Pieces", "read_parts", "safetensors_header"]

MAGIC = b"opnheart"
VERSION = 1
FIXED = struct.Struct("<8sIQ")
PARTS = ("run", "values")
ALIGNED = 64
_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of storage of a file: one tensor of all its bytes, and where in it each begins and ends."""

    content: torch.Tensor
    spans: dict[str, tuple[int, int]]
    _copies: dict[int, Any] = field(default_factory=dict)

    def take(self, number: int) -> tuple[Any, int]:
        """A storage that holds piece `number`, and the byte at which the piece begins in it."""
        start, end = self.spans[str(number)]
        if start % ALIGNED:  # of a file that was written without alignment: a copy has it
            if number not in self._copies:
                self._copies[number] = self.content[start:end].clone().untyped_storage()
            return self._copies[number], 0
        return self.content.untyped_storage(), start


def safetensors_header(sizes: list[int], begins: int) -> bytes:
    """The table of pieces of these sizes, padded so that after it comes a multiple of `ALIGNED` in the file.

    Args:
        sizes: of each piece, in bytes.
        begins: where in the file the table will begin.
    """
    entries: dict[str, Any] = {}
    start = 0
    for number, size in enumerate(sizes):
        entries[str(number)] = {"dtype": "U8", "shape": [size], "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(begins + 8 + len(text)) % ALIGNED)
    return struct.pack("<Q", len(text)) + text


def read_parts(file: BinaryIO, path: str) -> tuple[bytes, Pieces]:
    """The JSON of the run and the pieces of its values, every checksum verified.

    Raises:
        RecordingFileError: the file is damaged, cut short, foreign, or from a newer version.
    """
    size = os.fstat(file.fileno()).st_size
    fixed = file.read(FIXED.size)
    if fixed[: len(MAGIC)] != MAGIC[: len(fixed)] or not fixed:
        raise RecordingFileError("error.file.foreign", file=path)
    checksum = file.read(32)
    if len(fixed) + len(checksum) < FIXED.size + 32:
        raise _damaged(path, "header_end")
    _, version, length = FIXED.unpack(fixed)
    header = file.read(min(length, size))
    intact = hashlib.sha256(fixed + header).digest() == checksum
    if intact and version > VERSION:
        raise RecordingFileError("error.file.newer", file=path, version=version, known=VERSION)
    if not intact or version != VERSION:
        raise _damaged(path, "header_sum")
    about = json.loads(header)
    run = b""
    start = FIXED.size + 32 + length
    places: dict[str, tuple[int, int]] = {}
    for name, part in about.items():
        digest = hashlib.sha256()
        left = part["length"]
        chunks = []
        while left > 0 and (chunk := file.read(min(left, _CHUNK))):
            digest.update(chunk)
            left -= len(chunk)
            if name == "run":
                chunks.append(chunk)
        if left or digest.hexdigest() != part["sha256"]:
            raise _damaged(path, "part_sum", part=name)
        if name == "run":
            run = b"".join(chunks)
        places[name] = (start, start + part["length"])
        start += part["length"]
    if start != size:
        raise _damaged(path, "after_end")
    return run, _pieces(_mapped(file, size), *places["values"])


def _damaged(path: str, reason: str, **about: Any) -> RecordingFileError:
    return RecordingFileError(
        "error.file.damaged", file=path, reason=Message(f"error.file.damaged.{reason}", about)
    )


def _mapped(file: BinaryIO, size: int) -> torch.Tensor:
    """The file as a tensor of bytes; what is written to it stays in this process."""
    try:
        content: Any = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    except (OSError, ValueError):  # a file system that maps nothing
        file.seek(0)
        content = bytearray(size)
        file.readinto(content)  # type: ignore[attr-defined]
    return torch.frombuffer(content, dtype=torch.uint8)


def _pieces(content: torch.Tensor, start: int, end: int) -> Pieces:
    """Finds the pieces in the safetensors file that lies between these bytes."""
    (length,) = struct.unpack("<Q", content[start : start + 8].numpy().tobytes())
    first = start + 8 + length
    if end - start < 8 or first > end:
        raise ValueError("the table of its values is longer than they are")
    spans = {}
    for number, entry in json.loads(content[start + 8 : first].numpy().tobytes()).items():
        low, high = entry["data_offsets"]
        if not 0 <= low <= high <= end - first:
            raise ValueError(f"its piece {number} lies outside of the file")
        spans[number] = (first + low, first + high)
    return Pieces(content, spans)
