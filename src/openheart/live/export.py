"""The text of a live program: an ES module without dependencies, for Node, a browser or a worker."""

from __future__ import annotations

import base64
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from openheart.errors import InputError
from openheart.i18n import message
from openheart.live.plan import Made, Plan, matters, plan_of, readable
from openheart.recording import Recording
from openheart.recording.soundness import sound
from openheart.spelling import shown_whole
from openheart.writing import utf8, write_files

__all__ = ["LIMIT", "LiveProgram", "to_javascript"]

LIMIT = 200_000
"""How many multiply-adds a recording may take to be exported, unless another limit is asked for."""


@dataclass(frozen=True, slots=True)
class LiveProgram:
    """A recording as JavaScript.

    Attributes:
        source: the ES module.
        data: the numbers it starts from, raw and little-endian, where they are not in `source`; else None.
        terms: how many multiply-adds (terms of sums, and computed elements) one run takes.
        frozen: the addresses of what is kept as recorded, each with the reason.
        refused: why the training step cannot be repeated; None where it can.
        options: the hyperparameters that can be set, with their values.
        notes: what else one should know.
    """

    source: str
    data: bytes | None
    terms: int
    frozen: dict[str, str]
    refused: str | None
    options: dict[str, float]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        return self.source

    def __repr__(self) -> str:
        data = "" if self.data is None else f", {len(self.data):,} bytes of numbers beside it"
        step = "no training step" if self.refused or not self.options else "a training step"
        return f"LiveProgram({len(self.source):,} characters{data}, {self.terms:,} multiply-adds, {step})"


@sound
def to_javascript(
    recording: Recording,
    path: str | os.PathLike[str] | None = None,
    *,
    bounds: bool = False,
    separate: bool = False,
    limit: int = LIMIT,
) -> LiveProgram:
    """The program of a recording in JavaScript, written from its laws; also to a file where `path` is given.

    The module exports `create()`; its face is described in the module itself. Forward pass, loss, backward
    pass and optimizer's step are computed in float64, call by call, and rounded to each value's dtype. Random
    draws, what no law makes, and complex numbers stay as recorded, and the program says so.

    **Arguments**: `bounds` carries beside each number how far an honest computation from the same leaves, in
    the precisions of the recorded calls, may lie from it. `separate` leaves the numbers out of the module;
    with a path they are written beside it (`program.bin` for `program.js`); `create({ data })` takes them.

    **Raises** `InputError` when the recording takes more than `limit` multiply-adds, or holds no call, and
    `OSError` where a file cannot be written: then no file has changed.

    >>> import torch, openheart as oh
    >>> rec = oh.record(torch.nn.Linear(2, 1), torch.ones(1, 2))
    >>> oh.to_javascript(rec).terms
    3
    """
    if not isinstance(recording, Recording):
        raise InputError("error.recording.wanted", verb="to_javascript", kind=type(recording).__name__)
    if not recording.calls:
        raise InputError("error.live.empty")
    plan = plan_of(recording, bounds)
    if plan.terms > limit:
        raise InputError("error.live.large", terms=plan.terms, limit=limit)
    data = _Data()
    values = [data.row(plan, value.id) for value in recording.values]
    raw = bytes(data.raw)
    source = _module(plan, values, None if separate else raw)
    settable = [o for o in plan.constants.options if o.name not in plan.constants.fixed]
    made = LiveProgram(
        source,
        raw if separate else None,
        plan.terms,
        {recording.name(m.value): m.frozen for _, outs in plan.calls for m in outs if m.frozen is not None},
        plan.step.refused,
        {o.name: o.value for o in reversed(settable)},
        tuple(plan.notes),
    )
    if path is not None:
        write_files(_files(Path(path), source, made.data))
    return made


def _files(path: Path, source: str, data: bytes | None) -> dict[Path, bytes]:
    found = {path: utf8(source)}
    if data is not None:
        beside = path.with_suffix(".bin")
        if beside == path:
            raise InputError(message("live.program_over_numbers", file=path))
        found[beside] = data
    return found


class _Data:
    """The numbers that a program starts from, one after another."""

    def __init__(self) -> None:
        self.raw = bytearray()

    def row(self, plan: Plan, value_id: int) -> list[Any]:
        """[name, shape, dtype, how its numbers are kept, where]."""
        rec = plan.recording
        value = rec.values[value_id]
        about: list[Any] = [rec.name(value), list(value.shape), str(value.dtype)[6:]]
        found = rec.maker(value)
        kept = found is None or any(
            m.frozen not in (None, "uninitialized", "empty")
            and (m.frozen != "external" or matters(plan, value_id))
            for call, outs in plan.calls
            if call is found[0]
            for m in outs
            if m.value is value
        )
        array = readable(value) if kept and not value.dtype.is_complex else None
        if array is None:
            return [*about, None, 0]
        kind, packed = _packed(array)
        if kind is None:
            return [*about, None, 0]
        self.raw += bytes(-len(self.raw) % packed.dtype.itemsize)
        offset = len(self.raw)
        self.raw += packed.tobytes()
        return [*about, kind, offset]


def _packed(array: Any) -> tuple[str | None, Any]:
    if array.dtype == np.bool_:
        return "b", np.ascontiguousarray(array, dtype=np.uint8)
    if array.dtype == np.float32:
        return "f", np.ascontiguousarray(array, dtype="<f4")
    if array.dtype.kind in "iu":
        if array.size == 0 or (array.min() >= -(2**31) and array.max() < 2**31):
            return "i", np.ascontiguousarray(array, dtype="<i4")
        if max(abs(int(array.min())), abs(int(array.max()))) > 2**53:
            return None, None
    return "d", np.ascontiguousarray(array, dtype="<f8")


# -- the module's text -----------------------------------------------------------------------------

HEAD = """// {title}
// Written by openheart from the laws of the rulebook; forward pass, loss, backward pass, optimizer's step.
//
//   import {{ create }} from "./program.js";
//   const p = create();
//   p.get({example});     p.set({leaf}, 2);     p.step(10);
"""


def _module(plan: Plan, values: list[list[Any]], raw: bytes | None) -> str:
    laws = _laws(plan)
    head = _head(plan)
    tables = _tables(plan, values, raw)
    engine = _file("engine.js")
    used = _used_functions(laws + tables)
    return "\n".join(
        [
            head,
            "// -- functions that the laws use " + "-" * 50 + "\n",
            used,
            "// -- the laws " + "-" * 69 + "\n",
            laws,
            "// -- the recording " + "-" * 64 + "\n",
            tables,
            "// -- the program's face " + "-" * 59 + "\n",
            engine,
        ]
    )


def _head(plan: Plan) -> str:
    rec = plan.recording
    title = type(rec.model).__name__ if rec.model is not None else "a recording"
    title = f"{title}: {len(rec.calls)} calls, {plan.terms:,} multiply-adds"
    last = next((v for v in reversed(rec.values) if rec.has_own_name(v)), rec.values[-1])
    leaf = rec.values[0]

    def first(value: Any) -> str:
        return rec.name(value) + (f"[{','.join('0' for _ in value.shape)}]" if value.shape else "")

    return HEAD.format(title=_line(title), example=_quoted(first(last)), leaf=_quoted(first(leaf)))


def _laws(plan: Plan) -> str:
    done = []
    for source, (name, text) in plan.functions.items():
        comment = "\n".join(f"// {_line(line)}" for line in text.split("\n"))
        done.append(f"{comment}\nfunction {name}{source}\n")
    return "\n".join(done)


def _tables(plan: Plan, values: list[list[Any]], raw: bytes | None) -> str:
    rec = plan.recording
    canonical = {row[0]: n for n, row in enumerate(values)}
    aliases = [
        [name, value.id]
        for name, value in rec._named.values.items()
        if name not in canonical and canonical.get(rec.name(value)) is not None
    ]
    names = list(plan.functions.values())
    law_number = {name: n for n, (name, _) in enumerate(names)}
    position = {call.id: n for n, (call, _) in enumerate(plan.calls)}
    first = next((n for n, (call, _) in enumerate(plan.calls) if call.step == plan.step.number), 0)
    step = {
        "first": first,
        "carried": [list(pair) for pair in plan.step.carried],
        "dropped": sorted(position[c] for c in plan.step.dropped),
        "refused": plan.step.refused,
    }
    calls = []
    for call, outputs in plan.calls:
        told = {"op": call.name, "phase": call.phase, "scope": call.scope, "step": call.step}
        about = ", ".join(f"{key}: {_js(said)}" for key, said in told.items())
        rows = ", ".join(_output(made, law_number) for made in outputs)
        calls.append(f"  {{ {about}, outputs: [{rows}] }},")
    fixed = plan.constants.fixed
    options = [["" if o.name in fixed else o.name, o.group, o.value] for o in plan.constants.options]
    return "\n".join(
        [
            f"const BOUNDS = {_js(plan.bounds)};",
            "// name, shape, dtype, how its first numbers are kept, where",
            "const VALUES = [",
            *(f"  {_js(row)}," for row in values),
            "];",
            f"const ALIASES = {_js(aliases)};",
            f"const OPTIONS = {_js(options)};",
            f"const STEP = {_js(step)};",
            f"const NOTES = {_js(plan.notes)};",
            f"const LAWS = {_js([text for _, text in names])};",
            "// outputs: value, what its law reads, how it is made, why it is kept as recorded, options, law",
            "const CALLS = [",
            *calls,
            "];",
            f"const DATA = {_js(None if raw is None else base64.b64encode(raw).decode())};",
            "",
        ]
    )


def _output(made: Made, law_number: dict[str, int]) -> str:
    run, law = "null", "null"
    if made.function is not None:
        run = f"(v, e, o) => {made.function}({', '.join(made.arguments)})"
        law = str(law_number[made.function])
    reads, options = _js(list(made.reads)), _js(list(made.options))
    return f"[{made.value.id}, {reads}, {run}, {_js(made.frozen)}, {options}, {law}]"


def _js(thing: Any) -> str:
    return _inside(json.dumps(thing, ensure_ascii=False, separators=(",", ":")))


def _line(text: str) -> str:
    """A text as part of one comment: what a script takes for a line break would end it and run the rest."""
    return _inside(shown_whole(text))


def _quoted(name: str) -> str:
    return _line(json.dumps(name, ensure_ascii=False))


def _inside(code: str) -> str:
    """Code whose strings and comments end no script of a page that it stands in, and begin no other."""
    code = code.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("]]>", "]]\\>")
    return re.sub(r"<(?=/|!--|script)", r"<\\", code, flags=re.IGNORECASE) if "<" in code else code


@cache
def _file(name: str) -> str:
    return files("openheart.live").joinpath(name).read_text(encoding="utf-8")


@cache
def _functions() -> dict[str, tuple[str, str]]:
    """The pieces of functions.js by each name that they define: (piece, its text)."""
    text = re.sub(r"^// -- .*\n", "", _file("functions.js"), flags=re.MULTILINE)
    pieces = re.split(r"\n\n+", text.strip())
    found: dict[str, tuple[str, str]] = {}
    for number, piece in enumerate(pieces):
        for line in piece.split("\n"):
            match = re.match(r"(?:function (\w+)|const (.*);?$)", line)
            if match is None:
                continue
            declared = [match[1]] if match[1] else re.findall(r"(?:^|, )(\w+) = ", match[2])
            for name in declared:
                found[name] = (str(number), piece)
    return found


def _used_functions(laws: str) -> str:
    known, used = _functions(), dict[str, str]()
    waiting = [laws]
    while waiting:
        for word in set(re.findall(r"\b[A-Za-z_]\w*\b", waiting.pop())):
            if word in known and known[word][0] not in used:
                used[known[word][0]] = known[word][1]
                waiting.append(known[word][1])
    return "\n\n".join(used[n] for n in sorted(used, key=int)) + "\n"
