"""A recording as one file: safetensors for numbers, JSON for the rest, checksums on everything, no pickle.

`container` says what the file looks like. The checksums are taken first, so that the file is written from its
beginning to its end: into a FIFO as well.
"""

# What a recorder needs, PyTorch offers only under underscored names.

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from openheart.errors import OpaqueError, RecordingFileError
from openheart.i18n import Message
from openheart.recording.build import Facts, name_of
from openheart.recording.container import (
    ALIGNED,
    FIXED,
    MAGIC,
    PARTS,
    VERSION,
    Pieces,
    read_parts,
    safetensors_header,
)
from openheart.recording.encoding import decode, encode, find_op, op_name
from openheart.recording.graph import Graph
from openheart.recording.log import is_plain
from openheart.recording.names import Names
from openheart.recording.seat import aside
from openheart.recording.soundness import False_, check_call, check_run
from openheart.recording.storages import Geometry, Life, geometry_of, strided
from openheart.recording.values import Call, OptimizerGroup, OptimizerStep, Value
from openheart.spelling import shown_whole
from openheart.writing import open_file, replacing

if TYPE_CHECKING:
    from openheart.recording.recording import Recording

__all__ = ["load", "save"]


def save(recording: Recording, path: str | os.PathLike[str]) -> None:
    """Writes `recording` to `path`, whole or not at all.

    Raises:
        RecordingFileError: the folder does not exist or cannot be written to.
    """
    path = Path(path)
    with torch.no_grad(), aside():
        pieces, places = _pieces(recording.values)
        run = json.dumps(_describe(recording, places), separators=(",", ":"), allow_nan=False).encode()
        try:
            with replacing(path) as file:
                _write(file, run, pieces)
        except OSError as error:
            raise RecordingFileError("error.file.write", file=str(path), reason=error.strerror) from error


def load(path: str | os.PathLike[str]) -> Recording:
    """Reads a recording that `Recording.save` wrote. Its `.model` is None; all else is as it was.

    Raises:
        RecordingFileError: the file is missing, damaged, cut short, foreign, or from a newer version.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            run, pieces = read_parts(file, str(path))
        described = json.loads(run)
        check_run(described, pieces.spans, size)
        recording = _rebuild(described, pieces)
    except OSError as error:
        reason = Message("error.file.irregular") if error.errno == errno.ESPIPE else error.strerror
        raise RecordingFileError("error.file.read", file=str(path), reason=reason) from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
            struct.error) as error:  # fmt: skip
        # The checksums hold, so these are the bytes that somebody wrote: just not a recording that we can
        # have written.
        found = error.reason if isinstance(error, False_) else repr(error)[:200]
        raise RecordingFileError("error.file.false", file=str(path), known=VERSION, reason=found) from error
    recording._file = str(path)
    return recording


# The container ----------------------------------------------------------------------------------------------


def _write(file: BinaryIO, run: bytes, pieces: list[torch.Tensor]) -> None:
    begins = FIXED.size + 32
    sizes = [-(-piece.numel() // ALIGNED) * ALIGNED for piece in pieces]
    # The table is padded by where it begins, after a header that tells its length: so the header has room.
    most = len(safetensors_header(sizes, 0)) + ALIGNED + sum(sizes)
    room = len(_header({"run": len(run), "values": most}, dict.fromkeys(PARTS, "0" * 64)))
    table = safetensors_header(sizes, begins + room + len(run))
    values = hashlib.sha256(table)
    for part in _padded(pieces, sizes):
        values.update(part)
    lengths = {"run": len(run), "values": len(table) + sum(sizes)}
    header = _header(lengths, {"run": hashlib.sha256(run).hexdigest(), "values": values.hexdigest()})
    header += b" " * (room - len(header))
    fixed = FIXED.pack(MAGIC, VERSION, len(header))
    file.write(fixed + hashlib.sha256(fixed + header).digest() + header)
    file.write(run)
    file.write(table)
    for part in _padded(pieces, sizes):
        file.write(part)


def _header(lengths: dict[str, int], sums: dict[str, str]) -> bytes:
    return json.dumps({name: {"length": lengths[name], "sha256": sums[name]} for name in PARTS}).encode()


def _padded(pieces: list[torch.Tensor], sizes: list[int]) -> Iterator[Any]:
    for piece, size in zip(pieces, sizes, strict=True):
        yield piece.cpu().numpy().data
        yield b"\0" * (size - piece.numel())


# What is in it ----------------------------------------------------------------------------------------------


def _pieces(values: list[Value]) -> tuple[list[torch.Tensor], dict[int, tuple[int, int]]]:
    """The bytes that the values lie in, each once; and for each value its piece and its place in it."""
    storages: dict[int, tuple[Any, list[tuple[int, int, Value, Geometry]]]] = {}
    for value in values:
        try:
            data = value.data
        except OpaqueError:
            continue
        if not is_plain(data) or data.is_meta or data.is_quantized:
            continue
        geometry = geometry_of(data)
        storage = data.untyped_storage()
        low, high = geometry.span()
        storages.setdefault(storage._cdata, (storage, []))[1].append((low, high, value, geometry))
    pieces: list[torch.Tensor] = []
    places: dict[int, Any] = {}
    for storage, members in storages.values():
        members.sort(key=lambda member: member[:2])
        begin, end = 0, -1
        for low, high, value, geometry in members:
            if low > end or end < 0:
                begin, end = low - low % 16, high
                pieces.append(torch.empty(0))
            end = max(end, high)
            pieces[-1] = torch.empty(0, dtype=torch.uint8, device=storage.device).set_(
                storage, begin, (end - begin,), (1,)
            )
            places[value.id] = [len(pieces) - 1, begin, *_geometry_to_json(geometry)]
    return pieces, places


def _geometry_to_json(geometry: Geometry) -> list[Any]:
    return [
        str(geometry.dtype).removeprefix("torch."),
        list(geometry.shape),
        list(geometry.stride),
        geometry.offset,
        geometry.bits,
    ]


def _geometry_from_json(item: list[Any]) -> Geometry:
    dtype, shape, stride, offset, bits = item
    return Geometry(getattr(torch, dtype), tuple(shape), tuple(stride), offset, bits)


def _describe(recording: Recording, places: dict[int, Any]) -> dict[str, Any]:
    names = recording._named
    return {
        "torch": torch.__version__,
        "keep": recording.keep,
        "ran": recording.ran,
        "values": [
            [value.version, value.origin, _geometry_to_json(value.geometry), places.get(value.id)]
            for value in recording.values
        ],
        "calls": [
            {
                "op": op_name(call.op),
                "name": call.name,
                "args": [encode(item) for item in call.args],
                "kwargs": {name: encode(item) for name, item in call.kwargs.items()},
                "outputs": [value.id for value in call.outputs],
                "slots": call.slots,
                "phase": call.phase,
                "scope": call.scope,
                "visit": call.visit,
                "source": call.source,
                "forward_call": call.forward_call,
                "step": call.step,
                **({"own": True} if call.own else {}),
            }
            for call in recording.calls
        ],
        "optimizers": [
            {
                "kind": optimizer.kind,
                "step": optimizer.step,
                "calls": [optimizer.calls.start, optimizer.calls.stop],
                "groups": [
                    {
                        "options": {name: encode(option) for name, option in group.options.items()},
                        "names": group.names,
                        "parameters": [encode(value) for value in group.parameters],
                        "gradients": [encode(value) for value in group.gradients],
                        "states": [
                            {name: encode(item) for name, item in kept.items()} for kept in group.states
                        ],
                    }
                    for group in optimizer.groups
                ],
            }
            for optimizer in recording.optimizers
        ],
        "graph": recording._read().graph.to_json(),
        "names": [[name, value.id] for name, value in names.values.items()],
        "canonical": list(names.canonical.items()),
        "nameless": sorted(names.nameless),
        "notices": [[notice.key, notice.details] for notice in recording.notices],
    }


def _rebuild(run: dict[str, Any], pieces: Pieces) -> Recording:
    from openheart.recording.recording import Recording

    facts = Facts()
    for version, origin, about, place in run["values"]:
        geometry = _geometry_from_json(about)
        tensor = None
        if place is not None:
            number, begin, *stored = place
            storage, start = pieces.take(number)
            tensor = strided(storage, _geometry_from_json(stored), begin - start, torch.device("cpu"))
        facts.values.append(
            Value(
                len(facts.values), geometry.shape, geometry.dtype, version, origin, geometry, Life(), tensor
            )
        )
    for identity, about in enumerate(run["calls"]):
        call = Call(
            id=identity,
            op=(op := find_op(about["op"])),
            name=name_of(op) if hasattr(op, "_schema") else shown_whole(about["name"]),
            args=tuple(decode(item, facts.values) for item in about["args"]),
            kwargs={name: decode(item, facts.values) for name, item in about["kwargs"].items()},
            outputs=tuple(facts.values[number] for number in about["outputs"]),
            slots=tuple((slot, place) for slot, place in about["slots"]),
            phase=about["phase"],
            scope=shown_whole(about["scope"]),
            visit=about["visit"],
            source=None if about["source"] is None else shown_whole(about["source"]),
            forward_call=about["forward_call"],
            step=about["step"],
            foreign=True,
            own="own" in about,
        )
        check_call(call)
        facts.calls.append(call)
        for number, value in enumerate(call.outputs):
            facts.makers[value.id] = (call, number)
    for about in run.get("optimizers", ()):
        groups = [
            OptimizerGroup(
                options={
                    shown_whole(name): decode(item, facts.values) for name, item in group["options"].items()
                },
                names=tuple(None if name is None else shown_whole(name) for name in group["names"]),
                parameters=tuple(decode(item, facts.values) for item in group["parameters"]),
                gradients=tuple(decode(item, facts.values) for item in group["gradients"]),
                states=tuple(
                    {shown_whole(name): decode(item, facts.values) for name, item in kept.items()}
                    for kept in group["states"]
                ),
            )
            for group in about["groups"]
        ]
        facts.optimizers.append(
            OptimizerStep(shown_whole(about["kind"]), about["step"], range(*about["calls"]), tuple(groups))
        )
    if "graph" in run:
        facts.graph = Graph.from_json(run["graph"], len(facts.values), len(facts.calls))
    facts.notices = dict(run.get("notices", ()))
    recording = Recording(keep=shown_whole(run["keep"]))
    recording.ran = run.get("ran")
    recording._facts = facts
    recording._names = Names(
        {shown_whole(name): facts.values[number] for name, number in run["names"]},
        {number: shown_whole(name) for number, name in run["canonical"]},
        set(run["nameless"]),
        first=facts.calls[0].step if facts.calls else 0,
    )
    outputs = [recording._names.values.get("output")]
    recording.output = outputs[0].data if outputs[0] is not None and outputs[0].kept else None
    return recording
