"""One file, whole or not at all, and never a wrong number from a damaged one."""

from __future__ import annotations

import os
import pickletools
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recording.programs import PROGRAMS, Program
from torch import nn

import openheart as oh
from openheart.recording import Recording, Value, values_in
from openheart.recording.encoding import UnknownOp, decode, encode, find_op


def _small() -> Recording:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with oh.recording(model) as rec:
        model(torch.randn(2, 2)).square().mean().backward()
        optimizer.step()
    return rec


def _plain(item: Any) -> Any:
    """Arguments with values as ids, to compare those of two recordings."""
    if isinstance(item, Value):
        return ("value", item.id)
    if isinstance(item, (list, tuple)):
        return [_plain(part) for part in item]
    if isinstance(item, dict):
        return {key: _plain(part) for key, part in item.items()}
    return repr(item)


def assert_same(one: Recording, other: Recording) -> None:
    assert len(one.values) == len(other.values)
    for mine, theirs in zip(one.values, other.values, strict=True):
        assert (mine.id, mine.shape, mine.dtype, mine.version, mine.origin, mine.geometry) == (
            theirs.id, theirs.shape, theirs.dtype, theirs.version, theirs.origin, theirs.geometry,
        )  # fmt: skip
        assert mine.kept == theirs.kept
        if mine.kept:
            assert (
                torch.equal(
                    torch.view_as_real(mine.data.resolve_conj())
                    if mine.dtype.is_complex
                    else mine.data.contiguous(),
                    torch.view_as_real(theirs.data.resolve_conj())
                    if mine.dtype.is_complex
                    else theirs.data.contiguous(),
                )
                or torch.isnan(mine.data).any()
            )
    assert len(one.calls) == len(other.calls)
    for call, same in zip(one.calls, other.calls, strict=True):
        assert call.op is same.op
        assert _plain(call.args) == _plain(same.args)
        assert _plain(call.kwargs) == _plain(same.kwargs)
        assert _plain(call.arguments) == _plain(same.arguments)
        for name in ("id", "name", "slots", "phase", "scope", "visit", "source", "forward_call", "step"):
            assert getattr(call, name) == getattr(same, name)
    assert one.addresses() == other.addresses()
    for value, same in zip(one.values, other.values, strict=True):
        assert one.name(value) == other.name(same)
        assert [call.id for call in one.users(value)] == [call.id for call in other.users(same)]
        maker, twin = one.maker(value), other.maker(same)
        assert (maker and (maker[0].id, maker[1])) == (twin and (twin[0].id, twin[1]))
    assert list(one._named.values) == list(other._named.values)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_saved_recording_is_the_recording(program: Program, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = program.build()
    with oh.recording(model) as rec:
        program.train(model, program.optimizer(model.parameters()))
    rec.save(tmp_path / "run.oh")
    loaded = oh.load(tmp_path / "run.oh")
    assert loaded.model is None
    assert_same(rec, loaded)
    loaded.save(tmp_path / "again.oh")
    assert_same(loaded, oh.load(tmp_path / "again.oh"))
    assert list(tmp_path.glob(".*")) == []


def test_a_file_is_mapped_not_read(tmp_path: Path) -> None:
    data = torch.randn(4000, 4000)
    with oh.recording() as rec:
        (data + 1).sum()
    path = tmp_path / "run.oh"
    rec.save(path)
    code = (
        "import sys, openheart as oh, openheart.recording.saving\n"
        "peak = lambda: int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0]) * 1024\n"
        "before = peak()\n"
        "rec = oh.load(sys.argv[1])\n"
        "total = float(rec.values[1].data.sum())\n"
        "print(peak() - before, total)\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    taken, total = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(taken) < 1.5 * path.stat().st_size
    assert float(total) == float(rec.values[1].data.sum())


def test_a_file_without_alignment_is_read_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from openheart.recording import container, saving

    rec = _small()
    with monkeypatch.context() as as_before:
        as_before.setattr(container, "ALIGNED", 1)
        as_before.setattr(saving, "ALIGNED", 1)
        rec.save(tmp_path / "run.oh")
    loaded = oh.load(tmp_path / "run.oh")
    assert_same(rec, loaded)
    assert all(value.data.data_ptr() % value.data.itemsize == 0 for value in loaded.values if value.kept)


def test_views_are_stored_once(tmp_path: Path) -> None:
    data = torch.randn(1000, 1000)
    with oh.recording() as rec:
        (data[:2].view(-1).unsqueeze(0).expand(50, 2000).t() + 0).sum()
    rec.save(tmp_path / "run.oh")
    assert (tmp_path / "run.oh").stat().st_size < 2000 * 4 + 50 * 2000 * 4 + 20_000 + 1000 * 1000 * 4


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run.oh"
    _small().save(path)
    content = bytearray(path.read_bytes())
    places = list(range(120)) + random.Random(0).sample(range(120, len(content)), 400)
    for place in places:
        for bit in range(8) if place < 60 else (place % 8,):
            content[place] ^= 1 << bit
            path.write_bytes(content)
            with pytest.raises(oh.RecordingFileError, match=r"run\.oh"):
                oh.load(path)
            content[place] ^= 1 << bit
    path.write_bytes(content)
    oh.load(path)


def test_every_truncation_and_every_addition_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "run.oh"
    _small().save(path)
    content = path.read_bytes()
    for length in [*range(80), *range(80, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(oh.RecordingFileError):
            oh.load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(oh.RecordingFileError, match="after its end"):
        oh.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 200, b"\x80\x04K\x01.", b"opnheart"]
)
def test_a_foreign_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.oh"
    path.write_bytes(content)
    with pytest.raises(oh.RecordingFileError):
        oh.load(path)


def test_a_missing_file_and_folder_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(oh.RecordingFileError, match="No such file"):
        oh.load(tmp_path / "none.oh")
    with pytest.raises(oh.RecordingFileError, match="cannot read"):
        oh.load(tmp_path)
    with pytest.raises(oh.RecordingFileError, match="cannot write"):
        _small().save(tmp_path / "none" / "run.oh")


def test_a_newer_version_says_so(tmp_path: Path) -> None:
    import hashlib

    from openheart.recording import container

    path = tmp_path / "run.oh"
    _small().save(path)
    content = path.read_bytes()
    _, _, size = container.FIXED.unpack_from(content)
    fixed = container.FIXED.pack(container.MAGIC, container.VERSION + 1, size)
    header = content[len(fixed) + 32 :][:size]
    path.write_bytes(fixed + hashlib.sha256(fixed + header).digest() + content[len(fixed) + 32 :])
    with pytest.raises(oh.RecordingFileError, match="newer openheart"):
        oh.load(path)


def test_there_is_no_pickle_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.oh"
    _small().save(path)
    with pytest.raises(ValueError):
        list(pickletools.genops(path.read_bytes()))
    source = Path(oh.recording.__globals__["__file__"]).parent
    for file in (source / "recording").glob("*.py"):
        assert "import pickle" not in file.read_text()
        assert "torch.load" not in file.read_text()


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.oh"
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(oh.RecordingFileError, match="No space left"):
        _small().save(path)
    assert path.read_bytes() == b"old"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["run.oh"]


KILLED = """
import sys, torch, openheart as oh
rec = oh.record(torch.nn.Linear(300, 300), torch.randn(300, 300))
rec.save(sys.argv[1])
print("ready", flush=True)
while True:
    rec.save(sys.argv[1])
"""


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "run.oh"
    for delay in (0.001, 0.004, 0.009):
        with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            signal.sigtimedwait([], delay)
            process.kill()
        oh.load(path)


def test_arguments_survive() -> None:
    numbers = [True, 3, -0.5, float("inf"), -float("inf"), 1e-45, 2j, 1 + 2j]
    kinds = [torch.float32, torch.device("cpu"), torch.strided, torch.channels_last]
    item: Any = [None, "mean", [1, [2]], (1, 2), {"a": 1}, *numbers, *kinds]
    assert decode(encode(item), []) == item
    assert decode(encode(float("nan")), []) != decode(encode(float("nan")), [])
    assert repr(decode(encode(torch.Generator()), [])).startswith("<torch._C.Generator")


def test_an_operator_that_is_not_here_still_loads(tmp_path: Path) -> None:
    rec = _small()
    unknown = find_op("nowhere::nothing.default")
    assert isinstance(unknown, UnknownOp)
    object.__setattr__(rec.calls[2], "op", unknown)
    rec.save(tmp_path / "run.oh")
    loaded = oh.load(tmp_path / "run.oh")
    assert loaded.calls[2].op.name() == "nowhere::nothing.default"
    assert list(values_in(loaded.calls[2].arguments))
