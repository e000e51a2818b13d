"""Forged recordings, checksums and all: one error, or a recording with which everything works or says no."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import openheart as oh
from openheart.errors import OpenheartError
from openheart.live import to_javascript
from openheart.recording.computing import computes
from openheart.recording.container import FIXED, MAGIC, VERSION
from openheart.recording.encoding import UnknownOp, find_op

Path_ = tuple[Any, ...]


def taken_apart(content: bytes) -> tuple[Any, bytes]:
    """The JSON of a file's run, and its values."""
    _, _, length = FIXED.unpack_from(content)
    start = FIXED.size + 32
    header = json.loads(content[start : start + length])
    start += length
    end = start + header["run"]["length"]
    return json.loads(content[start:end]), content[end:]


def put_together(run: bytes, values: bytes, header: Any = None) -> bytes:
    """A file around these parts, every checksum right."""
    about = {
        name: {"length": len(part), "sha256": hashlib.sha256(part).hexdigest()}
        for name, part in (("run", run), ("values", values))
    }
    text = header if isinstance(header, bytes) else json.dumps(about if header is None else header).encode()
    fixed = FIXED.pack(MAGIC, VERSION, len(text))
    return fixed + hashlib.sha256(fixed + text).digest() + text + run + values


@cache
def _honest() -> bytes:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 2, 2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, foreach=True)
    with oh.recording(model) as rec:
        x = torch.randn(2, 1, 4)
        loss = nn.functional.cross_entropy(model(x), torch.tensor([0, 2]))
        (loss + torch.view_as_complex(torch.ones(1, 2)).abs().sum()).backward()
        optimizer.step()
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        rec.save(Path(folder) / "run.oh")
        return (Path(folder) / "run.oh").read_bytes()


def use(path: Path) -> bool:
    """Loads a file and does with it what can be done; whether it loaded. Only our own errors may come."""
    try:
        rec = oh.load(path)
    except oh.RecordingFileError:
        return False
    work: list[Callable[[], Any]] = [
        lambda: rec.verify().text(),
        lambda: rec.replay().verify(sample=1),
        lambda: rec.save(path.with_suffix(".again")),
        lambda: to_javascript(rec),
        lambda: repr(rec) + repr(rec.calls) + repr(rec.values),
    ]
    some = rec.values[:: max(1, len(rec.values) // 6)]
    work.extend(partial(explained, rec, value) for value in some)
    for each in work:
        with contextlib.suppress(OpenheartError):
            each()
    return True


def explained(rec: Any, value: Any) -> None:
    assert rec.value(rec.name(value)) is value
    if 0 not in value.shape:
        found = rec.explain(oh.Element(value, (0,) * len(value.shape)))
        for said in (found.text(), found.html(), found.latex(), json.dumps(found.to_dict())):
            assert said


def places(item: Any, here: Path_ = ()) -> Iterator[Path_]:
    yield here
    if isinstance(item, dict):
        for key in item:
            yield from places(item[key], (*here, key))
    elif isinstance(item, list):
        for number in range(len(item)):
            yield from places(item[number], (*here, number))


STRANGE: list[Any] = [
    None, True, -1, 0, 1, 2, 7, 10**6, 2**31, 2**63, 10**30, 0.5, 1e308, "", "x", "\n\x1b\u2028", "\ud800",
    [], [0], [-1], [2**40], [2**40, 2**40], {}, {"value": 0}, {"value": 10**6}, {"value": -1}, {"tuple": [1]},
    {"float": "x"}, {"dtype": "hub"}, {"dtype": "float64"}, {"device": "nowhere:7"}, {"unknown": "?"},
    {"dict": [[[], 1]]}, "aten::from_file.default", "aten::zeros.default", "aten::as_strided.default",
    "prim::device.default", "load_library::__call__.__call__", "openheart::reread.default",
    "aten::mul.Tensor", "complex64", "bool",
]  # fmt: skip


def mutated(run: Any, chance: random.Random) -> Any:
    """The same with one field, or a few, made into something else."""
    made = json.loads(json.dumps(run))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        path = chance.choice([p for p in places(made) if p])
        holder = _at(made, path[:-1])
        kind = chance.random()
        if kind < 0.1:
            del holder[path[-1]]
        elif kind < 0.2 and isinstance(holder, list):
            holder.append(chance.choice(holder))
        elif kind < 0.45:
            other = chance.choice([p for p in places(run) if p])
            holder[path[-1]] = json.loads(json.dumps(_at(run, other)))
        elif kind < 0.7 and isinstance(holder[path[-1]], int):
            holder[path[-1]] += chance.choice((-1, 1, 2, 10))
        else:
            holder[path[-1]] = chance.choice(STRANGE)
    return made


def exchanged(run: Any, chance: random.Random) -> Any:
    """The same with what stands in two like places exchanged, or a number moved."""
    made = json.loads(json.dumps(run))
    kinds: dict[Any, list[Path_]] = {}
    for path in places(made):
        if path and path[0] in ("calls", "values", "optimizers"):
            item = _at(made, path)
            key = next((part for part in reversed(path) if isinstance(part, str)), "")
            kinds.setdefault((key, len(path), type(item).__name__), []).append(path)
    for _ in range(chance.choice((1, 1, 2, 3))):
        one, other = (chance.choice(alike) for alike in [chance.choice(list(kinds.values()))] * 2)
        with contextlib.suppress(KeyError, IndexError, TypeError):  # an exchange before has moved it
            mine, theirs = _at(made, one), _at(made, other)
            if type(mine) is int and chance.random() < 0.5:
                theirs = mine + chance.choice((-1, 1, 3))
            _at(made, one[:-1])[one[-1]] = json.loads(json.dumps(theirs))
    for value in made["values"]:  # a value's two descriptions agree
        if chance.random() < 0.9 and isinstance(value[3], list) and isinstance(value[2], list):
            value[3][2:4] = value[2][:2]
    return made


def _at(item: Any, path: Path_) -> Any:
    for key in path:
        item = item[key]
    return item


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 12))])
def test_a_recording_with_any_field_forged_is_refused_or_works(seed: int, tmp_path: Path) -> None:
    run, values = taken_apart(_honest())
    chance = random.Random(seed)
    before = set(os.listdir())
    for number in range(24):
        path = tmp_path / f"{number}.oh"
        path.write_bytes(
            put_together(json.dumps(chance.choice((mutated, exchanged))(run, chance)).encode(), values)
        )
        use(path)
        path.unlink()
    assert set(os.listdir()) == before


@pytest.mark.parametrize(
    "header",
    [
        b"", b"[]", b"7", b"null", b"{", b"\xff", b'{"run": 1}', b'{"run": {"length": -1, "sha256": ""}}',
        b'{"run": {"length": "a", "sha256": 1}, "values": {}}', b"[" * 100_000, b'{"a":' * 100_000,
        b'{"run": {"length": 1e30, "sha256": ""}}',
    ],
    ids=range(12),
)  # fmt: skip
def test_a_forged_header_is_one_error(header: bytes, tmp_path: Path) -> None:
    run, values = taken_apart(_honest())
    path = tmp_path / "run.oh"
    path.write_bytes(put_together(json.dumps(run).encode(), values, header))
    with pytest.raises(oh.RecordingFileError, match=r"run\.oh"):
        oh.load(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"1" * 10_000,
        b'{"values": []}',
    ],
    ids=range(9),
)
def test_a_forged_run_is_one_error(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.oh"
    path.write_bytes(put_together(text, taken_apart(_honest())[1]))
    with pytest.raises(oh.RecordingFileError, match=r"run\.oh"):
        oh.load(path)


@pytest.mark.parametrize(
    "values",
    [
        b"", b"1234567", struct.pack("<Q", 2**60),
        struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 50_000) + b"[" * 50_000,
        *(
            struct.pack("<Q", len(t)) + t
            for t in (
                b'{"0":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}', b'{"0":{"data_offsets":[-8,0]}}',
                b'{"0":{"data_offsets":["a",null]}}', b'{"0":[]}',
            )
        ),
    ],
    ids=range(10),
)  # fmt: skip
def test_forged_values_are_one_error(values: bytes, tmp_path: Path) -> None:
    run, _ = taken_apart(_honest())
    path = tmp_path / "run.oh"
    path.write_bytes(put_together(json.dumps(run).encode(), values))
    with pytest.raises(oh.RecordingFileError, match=r"run\.oh"):
        oh.load(path)


def _forged(tmp_path: Path, change: Callable[[Any], None]) -> Path:
    run, values = taken_apart(_honest())
    change(run)
    path = tmp_path / "run.oh"
    path.write_bytes(put_together(json.dumps(run).encode(), values))
    return path


def _first(run: Any, op: str) -> Any:
    return next(call for call in run["calls"] if call["op"] == op)


def test_replay_makes_no_file(tmp_path: Path) -> None:
    target = tmp_path / "made"

    def change(run: Any) -> None:
        call = _first(run, "aten::relu_.default")
        call["op"] = "aten::from_file.default"
        call["args"], call["kwargs"] = [str(target), True, 12], {}
        call["slots"] = [[0, None]]

    rec = oh.load(_forged(tmp_path, change))
    again = rec.replay()
    assert not target.exists()
    assert any("from_file" in note.text() for note in again.notes)
    for note in again.notes:
        assert note.text(lang="es") != note.text(lang="en")
    with contextlib.suppress(OpenheartError):
        rec.intervene({"0.weight": 0.5})
    assert not target.exists()


@pytest.mark.parametrize(
    "name",
    [
        "load_library::__call__.__call__",
        "__class__::__init__.__globals__",
        "aten::__class__.__init__",
        "x::y",
    ],
)
def test_what_hangs_on_torch_ops_is_no_operator(name: str) -> None:
    assert isinstance(find_op(name), UnknownOp)
    assert not computes(find_op(name))


def test_operators_that_do_more_than_compute() -> None:
    aten = torch.ops.aten
    good = [aten.addmm.default, aten._foreach_add_.List, aten.zeros.default, aten.gelu.default]
    good += [aten.div.Tensor_mode, aten.add.out, aten.as_strided.default, aten.native_batch_norm.default]
    bad = [aten.from_file.default, aten.from_file.out, aten.resize_.default, aten.set_.source_Tensor]
    bad += [aten.record_stream.default, aten.set_data.default, aten._print.default]
    bad += [torch.ops.prim.device.default, torch.ops.profiler._record_function_enter_new.default]
    assert [op for op in good if not computes(op)] == []
    assert [op for op in bad if computes(op)] == []


def test_a_custom_library_is_not_run_for_a_file(tmp_path: Path) -> None:
    ran: list[int] = []
    with torch.library._scoped_library("openheart_test", "FRAGMENT") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: (ran.append(1), x * 2)[1], "CompositeExplicitAutograd")
        x = torch.ones(2)
        with oh.recording() as rec:
            made = torch.ops.openheart_test.twice(x) + 1
        rec.replay()
        rec.save(tmp_path / "run.oh")
        known = len(ran)
        assert known == 2  # our own recording runs it again
        loaded = oh.load(tmp_path / "run.oh")
        again = loaded.replay()
        assert len(ran) == known
        assert torch.equal(again.values[-1].data, made)
        with pytest.raises(OpenheartError, match="twice"):
            loaded.intervene({rec.name(rec.values[0]): 2.0})


def test_a_tensor_larger_than_memory_is_refused(tmp_path: Path) -> None:
    def huge(run: Any) -> None:
        for value in run["values"]:
            if value[3] is not None:
                value[2][1:3] = value[3][3:5] = [2**40], [0]
                return

    with pytest.raises(oh.RecordingFileError, match="values"):
        oh.load(_forged(tmp_path, huge))

    def asked(run: Any) -> None:
        call = run["calls"][3]
        call["op"], call["args"], call["kwargs"] = "aten::zeros.default", [[2**20, 2**20]], {}

    with pytest.raises(oh.RecordingFileError, match="size"):
        oh.load(_forged(tmp_path, asked))


def test_a_number_that_explains_itself_is_refused(tmp_path: Path) -> None:
    def circle(run: Any) -> None:
        call = _first(run, "aten::addmm.default")
        call["args"][1] = {"value": call["outputs"][0]}

    with pytest.raises(oh.RecordingFileError):
        oh.load(_forged(tmp_path, circle))


def test_a_strangers_names_are_shown_whole(tmp_path: Path) -> None:
    def change(run: Any) -> None:
        for pair in run["names"]:
            pair[0] = pair[0].replace("weight", "we\nglobalThis.boom=1//\u2028\x1b[2J")
        for pair in run["canonical"]:
            pair[1] = pair[1].replace("weight", "we\nglobalThis.boom=1//\u2028\x1b[2J")
        for call in run["calls"]:
            call["scope"] += "\n\x1b"
            call["source"] = "\u202efile.py:1"

    rec = oh.load(_forged(tmp_path, change))
    assert all(name.isprintable() for name in rec.addresses())
    assert all(call.scope.isprintable() and (call.source or "").isprintable() for call in rec.calls)
    source = to_javascript(rec).source
    assert not [line for line in source.splitlines() if line.startswith("globalThis")]
    assert rec.verify().ok


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), tmp_path):
        with pytest.raises(oh.RecordingFileError):
            oh.load(path)


def test_the_honest_one_works(tmp_path: Path) -> None:
    path = tmp_path / "run.oh"
    path.write_bytes(_honest())
    rec = oh.load(path)
    assert rec.verify().ok
    assert rec.replay().notes == ()
    assert use(path)


@pytest.mark.parametrize(
    "edits",
    [
        b"[" * 100_000, b"\xff", b"7", b'{"openheart": "edits", "edits": [7]}',
        b'{"openheart": "edits", "version": "x", "edits": []}',
        *(
            json.dumps({"openheart": "edits", "edits": [{"address": "0.weight", **edit}]}).encode()
            for edit in (
                {"edit": ["set"]}, {"edit": "set", "value": {"tensor": [1], "dtype": "hub"}},
                {"edit": "set", "value": {"tensor": [[1], [1, 2]]}}, {"edit": "set", "value": {"float": []}},
                {"edit": "set", "address": 7, "value": 1}, {"edit": "ablate", "value": []},
            )
        ),
    ],
    ids=range(11),
)  # fmt: skip
def test_forged_edits_are_one_error(edits: bytes, tmp_path: Path) -> None:
    from openheart.surgery import read_edits

    (tmp_path / "edits.json").write_bytes(edits)
    with pytest.raises(oh.InterventionError):
        read_edits(tmp_path / "edits.json")
