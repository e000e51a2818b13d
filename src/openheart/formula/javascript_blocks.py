"""The parts that JavaScript source is built from: blocks of lines, names, literals."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field

from openheart.formula.expr import Apply, Expr, Index
from openheart.formula.javascript_rows import NoJavaScript, Operand


@dataclass(slots=True, eq=False)
class Block:
    """A loop (or the whole function) with its lines; `base` where arrays of its own may be filled."""

    header: str = ""
    parent: Block | None = None
    bound: dict[Index, str] = field(default_factory=dict)
    base: bool = False
    times: int = 1
    lines: list[str | Block] = field(default_factory=list)
    known: dict[object, Operand] = field(default_factory=dict)
    offsets: dict[str, str] = field(default_factory=dict)

    def up(self) -> Iterable[Block]:
        here: Block | None = self
        while here is not None:
            yield here
            here = here.parent

    def text(self, pad: str) -> str:
        out = []
        for line in self.lines:
            if isinstance(line, Block):
                body = line.text(pad + "  ")
                out.append(f"{pad}{line.header} {{\n{body}\n{pad}}}")
            else:
                out.append(pad + line)
        return "\n".join(out)


_WORDS = """
arguments async await break case catch class const continue debugger default delete do else enum eval export
extends false finally for function if implements import in instanceof interface let new null package private
protected public return static super switch this throw true try typeof undefined var void while with yield
Infinity Math NaN Number T16 T32 T64 U16 U32 U64 UB e o out outE scratch v
"""
RESERVED = frozenset(re.findall(r"\w+", _WORDS))
UNITS = {
    "float64": ("U64", "T64"),
    "float32": ("U32", "T32"),
    "float16": ("U16", "T16"),
    "bfloat16": ("UB", "T32"),
}
SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉", "01234567890123456789")


def identifier(name: str) -> str:
    """The name as a JavaScript identifier: `σ²` is `σ2`, `m̂` is `m_hat`, `√v̂` is `root_v_hat`."""
    name = unicodedata.normalize("NFD", name).replace("\u0302", "_hat").replace("\u0304", "_mean")
    name = name.replace("√", "root_").replace("′", "_prime").translate(SUPER)
    name = re.sub(r"[^\w]|[½¼¾]", "_", name)
    return name if name and not name[0].isdigit() else f"_{name}"


def literal(value: object) -> str:
    """A Python number in JavaScript."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        return (
            repr(int(value))
            if value == int(value) and abs(value) < 1e15 and str(value)[0] != "-"
            else repr(value)
        )
    if isinstance(value, int):
        return repr(value)
    raise NoJavaScript(f"the number {value!r} (complex)")


@dataclass(slots=True)
class Guard:
    """The conditions around a term that may be wrong about it: names of what holds, and of the doubts."""

    holds: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def asked(self, condition: str) -> str:
        """The condition, and that the term counts."""
        return " && ".join([*self.holds, f"({condition})"]) if self.holds else condition


def conjuncts(where: Expr | None) -> list[Expr]:
    """The conditions that a condition asks for, all of them."""
    if where is None:
        return []
    if isinstance(where, Apply) and where.function == "and":
        return [part for arg in where.args for part in conjuncts(arg)]
    return [where]
