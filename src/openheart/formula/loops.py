"""Formulas compiled to loops: what `formula.evaluate` does with whole arrays, in one pass a formula.

A pointwise formula becomes one loop nest over its free indices; a reduction becomes a loop nest with the
reduced indices inside. Reductions below it are computed first and read like tensors. Every loop computes
the pair (value, error) in float64 by the rules of `formula.evaluate`. The source is written to a cache
folder and compiled by Numba, which keeps the machine code beside it: a law is compiled once a machine.

Without Numba (`pip install openheart[fast]`) nothing here is used, and the arrays do it all.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from openheart.formula.expr import Apply, Definition, Expr, Index, Named, Number, Reduce, Ref
from openheart.formula.functions import COMPARISONS, TRANSPARENT, ULPS

LOOPS = 1 << 15
"""From this many elements on, a formula is worth a compiled loop."""
FORMAT = "3"


PAYS = 2.5e8
"""A loop is compiled once its arrays would have gone over so many elements, times lines of its source.

Compiling takes about a second, and so do the arrays for this much: whoever does not know what is still to
come loses least by compiling then, and a small network's audit compiles nothing.
"""


class NotCompiled(Exception):
    """Raised where a formula holds something that has no loop form; arrays are used instead."""


@dataclass(frozen=True, slots=True)
class Operand:
    """A value in generated code: its expression, its error's (None where exact) and its kind."""

    value: str
    error: str | None
    kind: str


@dataclass(slots=True)
class Arrays:
    """The arrays that a loop reads, with the strides of each, in elements."""

    data: list[Any] = field(default_factory=list)
    strides: list[tuple[int, ...]] = field(default_factory=list)

    def add(self, array: Any) -> int:
        for n, known in enumerate(self.data):
            if known is array:
                return n
        self.data.append(array)
        self.strides.append(tuple(s // array.itemsize for s in array.strides))
        return len(self.data) - 1


def flat(array: Any) -> Any:
    """The memory of an array from its first element on, as one row."""
    if array.ndim == 0:
        return array.reshape(1)
    if array.size == 0:
        return np.zeros(1, dtype=array.dtype)
    span = 1 + sum((n - 1) * (s // array.itemsize) for n, s in zip(array.shape, array.strides, strict=True))
    return np.lib.stride_tricks.as_strided(array, (span,), (array.itemsize,), writeable=False)


@dataclass(slots=True)
class Writer:
    """Writes the body of one loop nest.

    `stage` gives, for a node that is not pointwise, its (value, error) arrays over the evaluation's axes;
    `fetch` a tensor's array; `axes` the place of each index variable in stage arrays.
    """

    fetch: Callable[[Any], Any]
    stage: Callable[[Expr], tuple[Any, Any]]
    axes: dict[Index, int]
    narrow: bool
    """Whether the call computes in float32: constants are rounded to it."""
    arrays: Arrays = field(default_factory=Arrays)
    scalars: list[float | int] = field(default_factory=list)
    lines: list[tuple[int, str]] = field(default_factory=list)
    """Each with how many loops stand around it: no more than its own indices ask for."""
    names: dict[Index, str] = field(default_factory=dict)
    depths: dict[Index, int] = field(default_factory=dict)
    last: Index | None = None
    """The index of the innermost loop."""
    known: dict[int, Operand] = field(default_factory=dict)
    count: int = 0
    depth: int = 0

    def of(self, node: Expr) -> Operand:
        found = self.known.get(id(node))
        if found is None:
            around, self.depth = self.depth, self.depth_of(node.free)
            found = self.known[id(node)] = self._write(node)
            self.depth = around
        return found

    def depth_of(self, indices: Iterable[Index]) -> int:
        """How many loops stand around what depends on these index variables."""
        return max((self.depths.get(i, 0) for i in indices), default=0)

    def at(self, depth: int) -> list[str]:
        """The lines right inside the loop number `depth`."""
        return [line for d, line in self.lines if d == depth]

    def _name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def _let(self, source: str) -> str:
        name = self._name()
        self.lines.append((self.depth, f"{name} = {source}"))
        return name

    def _write(self, node: Expr) -> Operand:
        if isinstance(node, Named):
            return self.of(node.body)
        if isinstance(node, Index):
            if node not in self.names:
                raise NotCompiled
            return Operand(self.names[node], None, "i")
        if isinstance(node, Number):
            return self._number(node.value)
        if isinstance(node, Ref) and not isinstance(node.tensor, Definition):
            return self._read(self.fetch(node.tensor), node)
        if isinstance(node, Apply) and node.function not in TRANSPARENT - {"float"}:
            if not node.free and _constant(node):
                return self._number(self.stage(node)[0])
            return self._apply(node)
        return self._staged(node)

    def _number(self, value: Any) -> Operand:
        if type(value) not in (int, float, bool):
            raise NotCompiled
        self.scalars.append(value)
        name = f"c{len(self.scalars) - 1}"
        if type(value) is float:
            exact = not self.narrow or not np.isfinite(value) or float(np.float32(value)) == value
            return Operand(name, None if exact else f"(unit*abs({name}))", "f")
        return Operand(name, None, "b" if type(value) is bool else "i")

    def _read(self, array: Any, node: Ref) -> Operand:
        kind = array.dtype.kind
        if kind not in "fiub" or any(s < 0 for s in array.strides) or 0 in array.shape:
            raise NotCompiled
        n = self.arrays.add(array)
        terms: list[str] = []
        along: list[int] = []
        for d, (part, size) in enumerate(zip(node.index, array.shape, strict=True)):
            if size == 1 or (isinstance(part, Number) and part.value == 0):
                continue
            place = self.of(part)
            if place.kind not in "ib":
                raise NotCompiled
            text = place.value
            if part is self.last and self.last.extent <= size:
                along.append(d)
                terms.append(f"s{self.depths[self.last] - 1}*a{n}_{d}")
                continue
            if not (isinstance(part, Index) and part.extent <= size):
                self.scalars.append(size - 1)
                text = f"min(max({text}, 0), c{len(self.scalars) - 1})"
            terms.append(f"({text})*a{n}_{d}")
        text = self.element(n, terms, along, [p for d, p in enumerate(node.index) if d not in along])
        # In Numba, float() leaves a float32 what it is.
        cast = {"f": f"np.float64({text})", "b": f"({text} != 0)"}.get(kind, f"int({text})")
        return Operand(self._let(cast), None, {"f": "f", "b": "b"}.get(kind, "i"))

    def over(self, n: int, axes: Mapping[Index, int]) -> str:
        """Source that reads array `n` where the loops stand, each along its own axis of it."""
        if any(i not in self.names for i in axes):
            raise NotCompiled
        others = sorted((i for i in axes if i is not self.last), key=self.depths.__getitem__)
        terms = [f"{self.names[i]}_0*a{n}_{axes[i]}" for i in others]
        along = [axes[self.last]] if self.last is not None and self.last in axes else []
        return self.element(n, terms, along, others)

    def element(self, n: int, terms: list[str], along: list[int], others: Sequence[Expr]) -> str:
        """Source that reads array `n` at the sum of `terms`, the last loop running along its axes `along`.

        What the innermost loop runs along is cut out before it starts: a row is read without multiplications
        and without asking whether a place is negative, so that the loop can be vectorized.
        """
        start = " + ".join(terms) or "0"
        if not along or self.last is None:
            return f"a{n}[{start}]"
        inner = self.depths[self.last] - 1
        if any(self.last in part.free for part in others):
            return f"a{n}[{' + '.join([start, *(f'i{inner}_0*a{n}_{d}' for d in along)])}]"
        around, self.depth = self.depth, self.depth_of(i for part in others for i in part.free)
        begin = self._let(start)
        together = sum(self.arrays.strides[n][d] for d in along)
        if together == 0:  # an expanded tensor: one number for the whole row
            held = self._let(f"a{n}[{begin}]")
            self.depth = around
            return held
        if together == 1:
            row = self._let(f"a{n}[{begin}:{begin} + n{inner}]")
        else:
            step = self._let(" + ".join(f"a{n}_{d}" for d in along))
            row = self._let(f"a{n}[{begin}:{begin} + (n{inner} - 1)*{step} + 1:{step}]")
        self.depth = around
        return f"{row}[i{inner}_0]"

    def _staged(self, node: Expr) -> Operand:
        value, error = self.stage(node)
        read = self._stage_read(np.asarray(value), node)
        if error is None:
            return read
        return Operand(read.value, self._stage_read(np.asarray(error), node).value, read.kind)

    def _stage_read(self, array: Any, node: Expr) -> Operand:
        if array.dtype.kind not in "fib" or any(s < 0 for s in array.strides):
            raise NotCompiled
        n = self.arrays.add(array)
        used = {i: self.axes[i] for i in node.free if i in self.axes} if array.ndim else {}
        text = self.over(n, {i: axis for i, axis in used.items() if array.shape[axis] != 1})
        kind = {"f": "f", "b": "b"}.get(array.dtype.kind, "i")
        return Operand(self._let(f"np.float64({text})" if kind == "f" else text), None, kind)

    # -- pointwise, by the rules of evaluate._exact_error and evaluate._rounded_error ----------------

    def _apply(self, node: Apply) -> Operand:
        name = node.function
        args = [self.of(arg) for arg in node.args]
        if name in COMPARISONS:
            return self._compare(name, *args)
        if name in ("and", "or", "not"):
            return self._logic(name, args)
        if name == "where":
            return self._where(*args)
        if name in ("add", "sub", "mul") and all(a.kind in "ib" for a in args):
            sign = {"add": "+", "sub": "-", "mul": "*"}[name]
            return Operand(self._let(f"int({args[0].value}) {sign} int({args[1].value})"), None, "i")
        if name in ("floordiv", "mod") and all(a.kind == "i" for a in args):
            sign = {"floordiv": "//", "mod": "%"}[name]
            return Operand(self._let(f"{args[0].value} {sign} {args[1].value}"), None, "i")
        if name in ("max", "min") and all(a.kind == "i" for a in args):
            return Operand(self._let(f"{name}({args[0].value}, {args[1].value})"), None, "i")
        if name == "neg":
            return Operand(self._let(f"-{args[0].value}"), args[0].error, "f" if args[0].kind == "f" else "i")
        if name == "abs":
            return Operand(self._let(f"abs({args[0].value})"), args[0].error, args[0].kind)
        if name == "float":
            return Operand(self._let(f"float({args[0].value})"), args[0].error, "f")
        if name in ("max", "min"):
            return self._extreme(name, *args)
        if name in ("add", "sub", "mul", "div"):
            return self._arithmetic(name, *args)
        if name == "pow":
            return self._power(node, *args)
        if name in SLOPES:
            return self._smooth(name, args[0])
        raise NotCompiled(name)

    def _compare(self, name: str, a: Operand, b: Operand) -> Operand:
        sign = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}[name]
        doubt = None
        if a.error or b.error:
            around = self._let(_sum(a.error, b.error))
            doubt = self._let(f"(abs({a.value} - {b.value}) <= {around}) & ({around} > 0.0)")
        return Operand(self._let(f"{a.value} {sign} {b.value}"), doubt, "b")

    def _logic(self, name: str, args: Sequence[Operand]) -> Operand:
        doubts = [a.error for a in args if a.error]
        doubt = self._let(" or ".join(f"({d})" for d in doubts)) if doubts else None
        text = f" {name} ".join(f"({a.value} != 0)" for a in args)
        text = f"not {args[0].value}" if name == "not" else text
        return Operand(self._let(text), doubt, "b")

    def _where(self, c: Operand, a: Operand, b: Operand) -> Operand:
        kind = "f" if "f" in (a.kind, b.kind) else "i" if "i" in (a.kind, b.kind) else "b"
        wrap = {"f": "float", "i": "int", "b": ""}[kind]
        value = self._let(f"{wrap}({a.value}) if {c.value} else {wrap}({b.value})")
        error = None
        if a.error or b.error:
            error = self._let(f"float({a.error or 0.0}) if {c.value} else float({b.error or 0.0})")
        if c.error:
            spread = self._let(f"abs(float({a.value}) - float({b.value})) if {c.error} else 0.0")
            error = self._let(f"{error or 0.0} + (0.0 if {spread} != {spread} else {spread})")
        return Operand(value, error, kind)

    def _extreme(self, name: str, a: Operand, b: Operand) -> Operand:
        sign = ">" if name == "max" else "<"
        x, y = a.value, b.value
        value = self._let(f"float({x}) if ({x} {sign} {y} or {x} != {x}) else float({y})")
        error = None
        if a.error or b.error:
            error = self._let(f"max({a.error or 0.0}, {b.error or 0.0})")
        return Operand(value, error, "f")

    def _arithmetic(self, name: str, a: Operand, b: Operand) -> Operand:
        x, y, ea, eb = a.value, b.value, a.error, b.error
        sign = {"add": "+", "sub": "-", "mul": "*", "div": "/"}[name]
        value = self._let(f"float({x}) {sign} float({y})")
        own = f"unit*abs({value})"
        if name in ("add", "sub"):
            return self._settled(value, _sum(own, ea, eb))
        own += " + tiny"
        if name == "mul":
            passed = [f"abs({y})*{ea}" if ea else None, f"abs({x})*{eb}" if eb else None]
            passed.append(f"{ea}*{eb}" if ea and eb else None)
            return self._settled(value, _sum(own, *passed))
        if ea is None and eb is None:
            return self._settled(value, own)
        least = self._let(f"abs({y}) - {eb or 0.0}")
        spread = self._let(f"({ea or 0.0} + abs({value})*{eb or 0.0}) / max({least}, 0.0)")
        return self._settled(value, f"{own} + (0.0 if {spread} != {spread} else {spread})")

    def _power(self, node: Apply, a: Operand, b: Operand) -> Operand:
        exponent = node.args[1]
        if not isinstance(exponent, Number) or a.kind != "f" or not exponent.value >= 1:  # type: ignore[operator]
            raise NotCompiled
        plain = exponent.value == 2 or exponent.value == 3
        text = "*".join([a.value] * int(exponent.value)) if plain else f"{a.value}**float({b.value})"  # type: ignore[arg-type]
        value = self._let(text)
        error = f"{ULPS}*unit*abs({value}) + tiny"
        if a.error:
            error += f" + {b.value}*(abs({a.value}) + {a.error})**({b.value} - 1.0)*{a.error}"
        return self._settled(value, error)

    def _smooth(self, name: str, a: Operand) -> Operand:
        function, ulps, slope = SLOPES[name]
        x = self._let(f"float({a.value})")
        value = self._let(function.format(x=x))
        own = ulps.format(x=x, v=value) if isinstance(ulps, str) else f"{ulps}*unit*abs({value})"
        error = f"{own} + tiny"
        if a.error:
            passed = self._let("(" + slope.format(x=x, e=a.error, v=value) + f")*{a.error}")
            if name == "sqrt":
                passed = self._let(f"min({passed}, math.sqrt({a.error}))")
            error += f" + (0.0 if {a.error} == 0.0 else {passed})"
        return self._settled(value, error)

    def _settled(self, value: str, error: str) -> Operand:
        return Operand(value, self._let(f"({error}) if abs({value}) < INF else 0.0"), "f")


ERF = "(4.0*unit*abs({v}) if unit < 1e-10 else 16.0*unit)"
SLOPES: dict[str, tuple[str, float | str, str]] = {
    "exp": ("math.exp({x})", ULPS, "({v}*(1.0 + 2.0*{e}) if {e} < 1.0 else math.exp({x} + {e}))"),
    "log": (
        "(math.log({x}) if {x} > 0.0 else (-INF if {x} == 0.0 else NAN))",
        ULPS,
        "1.0/max({x} - {e}, 0.0)",
    ),
    "log1p": ("math.log1p({x})", ULPS, "1.0/max(1.0 + {x} - {e}, 0.0)"),
    "sqrt": ("(math.sqrt({x}) if {x} >= 0.0 else NAN)", 2.0, "0.5/math.sqrt(max({x} - {e}, 0.0))"),
    "tanh": ("math.tanh({x})", ULPS, "(1.0 - max(abs({v}) - {e}, 0.0)**2)"),
    "erf": ("math.erf({x})", ERF, "1.1283791670955126*math.exp(-max(abs({x}) - {e}, 0.0)**2)"),
    "sin": ("math.sin({x})", 7.0, "1.0"),
    "cos": ("math.cos({x})", 7.0, "1.0"),
}
"""Smooth functions: the call, how many units in the last place it is granted, the largest slope nearby."""


def _sum(*parts: str | None) -> str:
    return " + ".join(p for p in parts if p) or "0.0"


def _constant(node: Expr) -> bool:
    """Whether the node is arithmetic of constants alone."""
    if isinstance(node, Number):
        return True
    return isinstance(node, Apply) and all(_constant(arg) for arg in node.args)


# -- loop nests ------------------------------------------------------------------------------------


def pointwise_source(writer: Writer, node: Expr, over: Sequence[Index]) -> str:
    """A loop nest that stores the value and the error of `node` at every place of `over`."""
    _nest(writer, over)
    made = writer.of(node)
    inner = len(over) - 1
    body = [f"value[i{inner}_0] = {made.value}", f"error[i{inner}_0] = {made.error or 0.0}"]
    ahead = [f"value = values[p:p + n{inner}]", f"error = errors[p:p + n{inner}]"]
    return _function(writer, over, (), ["p = 0"], body, ahead=ahead, after=[f"p += n{inner}"])


def reduction_source(writer: Writer, node: Reduce, outer: Sequence[Index]) -> str:
    """A loop nest that reduces `node` over its own indices at every place of `outer`."""
    _nest(writer, [*outer, *node.over])
    holds = None if node.where is None else writer.of(node.where)
    if holds is not None and holds.error:
        raise NotCompiled
    made = writer.of(node.body)
    if made.kind != "f":
        raise NotCompiled
    x, e = made.value, made.error or "0.0"
    if node.kind in ("sum", "mean"):
        shared = ["total", "size", "spread"] if node.kind == "mean" else []
        start = ["total = 0.0", "size = 0.0", "spread = 0.0", "n = 0"]
        add = [f"total += {x}", f"size += abs({x})", *([f"spread += {e}"] if made.error else []), "n += 1"]
        end = [
            "g = (n - 1)*unit if n > 1 else 0.0",
            "g = g/(1.0 - g) if g < 0.5 else g",
            *(f"{part} /= max(n, 1)" for part in shared),
            *(["g += 2.0*unit"] if shared else []),
            "values[p] = total",
            "errors[p] = g*size + spread if abs(total) < INF else 0.0",
            "p += 1",
        ]
    elif node.kind in ("max", "min"):
        sign, worst = (">", "-INF") if node.kind == "max" else ("<", "INF")
        start = [f"total = {worst}", "spread = 0.0"]
        add = [f"total = {x} if ({x} {sign} total or {x} != {x}) else total", f"spread = max(spread, {e})"]
        end = ["values[p] = total", "errors[p] = spread", "p += 1"]
    else:
        raise NotCompiled
    inner = add if holds is None else [f"if {holds.value}:", *(f"    {line}" for line in add)]
    return _function(writer, outer, node.over, ["p = 0"], inner, start=start, end=end)


def judge_source(writer: Writer, node: Expr, over: Sequence[Index], recorded: Any) -> str:
    """A loop nest that holds `recorded` against `node` and only counts: exact, agreeing, unbounded."""
    n = writer.arrays.add(recorded)
    _nest(writer, over)
    made = writer.of(node)
    inner = len(over) - 1
    writer.depth = inner + 1
    held = writer.over(n, {i: d for d, i in enumerate(over)})
    rounded = (
        f"np.float64(np.float32({made.value}))" if recorded.dtype == np.float32 else f"float({made.value})"
    )
    # As `check.judge` does it.
    each = [
        f"r = np.float64({held})",
        f"v = float({made.value})",
        f"e = float({made.error or 0.0})",
        f"w = {rounded}",
        "same = (r == w) | ((r != r) & (w != w))",
        "e = last*abs(v) + least if (e == 0.0) & (v != w) else e",
        "e = e if abs(v) < INF else 0.0",
        "d = abs(r - v)",
    ]
    # Almost always a row only adds to the counts. Where one does not, it is gone over again.
    count = [
        "exact += int(same)",
        "odd += 1 - int(same | (d <= e))",
        "vague += int((1 - same) & (d <= e) & (1 - (e <= abs(r))))",
        "blank += int((1 - same) & (d <= INF) & (e == INF))",
        "odd += int((d > worst*e) & (e > 0.0) & (d < INF))",
    ]
    again = [
        "if odd or (vague > 0 and first < 0):",
        f"    for i{inner}_0 in range(n{inner}):",
        f"        i{inner} = i{inner}_0 + s{inner}",
        *(f"        {line}" for line in (*writer.at(inner + 1), *each)),
        "        if not (same | (d <= e)) and not (abs(r) == INF and abs(v) + e >= largest and r*v > 0.0):",
        f"            if bad < rooms: places[bad] = p + i{inner}_0",
        "            bad += 1",
        f"        if first < 0 and not same and d <= e and not e <= abs(r): first = p + i{inner}_0",
        "        if (d > worst*e) & (e > 0.0) & (d < INF):",
        f"            worst = d/e; where = p + i{inner}_0",
        f"p += n{inner}",
    ]
    return _function(
        writer,
        over,
        (),
        [
            *("p = 0", "exact = 0", "vague = 0", "blank = 0", "bad = 0", "first = -1"),
            *("worst = 0.0", "where = 0", "rooms = len(places)"),
        ],
        [*each, *count],
        ahead=["odd = 0"],
        after=again,
        result="exact, p - bad, vague, blank, first, worst, where, min(bad, rooms)",
        extra="last, least, largest, places",
    )


def _nest(writer: Writer, over: Sequence[Index]) -> None:
    for n, i in enumerate(over):
        writer.names[i] = f"i{n}"
        writer.depths[i] = n + 1
        writer.last = i


def _function(
    writer: Writer,
    outer: Sequence[Index],
    inner: Sequence[Index],
    before: list[str],
    body: list[str],
    *,
    start: Sequence[str] = (),
    ahead: Sequence[str] = (),
    after: Sequence[str] = (),
    end: Sequence[str] = (),
    result: str = "",
    extra: str = "values, errors",
) -> str:
    """The loops around `body`; `start`, `end` around the inner ones, `ahead`, `after` around the last."""
    parameters = [f"n{n}, s{n}" for n in range(len(outer) + len(inner))]
    for n, strides in enumerate(writer.arrays.strides):
        parameters.append(", ".join([f"a{n}", *(f"a{n}_{d}" for d in range(len(strides)))]))
    parameters += [f"c{n}" for n in range(len(writer.scalars))]
    lines = [f"def kernel({', '.join([*parameters, 'unit', 'tiny', extra])}):", *(f"    {b}" for b in before)]
    pad = "    "
    lines += [f"{pad}{line}" for line in writer.at(0)]
    for n in range(len(outer) + len(inner)):
        if n == len(outer):
            lines += [f"{pad}{line}" for line in start]
        if n == len(outer) + len(inner) - 1:
            lines += [f"{pad}{line}" for line in ahead]
        lines += [f"{pad}for i{n}_0 in range(n{n}):", f"{pad}    i{n} = i{n}_0 + s{n}"]
        pad += "    "
        lines += [f"{pad}{line}" for line in writer.at(n + 1)]
    lines += [f"{pad}{line}" for line in body]
    lines += [f"{pad[4:]}{line}" for line in after]
    pad = "    " * (len(outer) + 1)
    lines += [f"{pad}{line}" for line in end]
    if result:
        lines.append(f"    return {result}")
    return "\n".join(lines) + "\n"


HEADER = '''"""A law of openheart, compiled to a loop; written by openheart.formula.loops."""
import math
import numpy as np
from numba import njit

INF, NAN = math.inf, math.nan


@njit(cache=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy", nogil=True)
'''


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether Numba is installed and loops are not switched off (OPENHEART_LOOPS=0)."""
    return os.environ.get("OPENHEART_LOOPS", "1") != "0" and importlib.util.find_spec("numba") is not None


def cache_folder() -> Path:
    """Where compiled laws are kept: $OPENHEART_CACHE, else the user's cache folder."""
    given = os.environ.get("OPENHEART_CACHE")
    users = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    base = Path(given) if given else users / "openheart"
    folder = base / f"loops-{FORMAT}-{sys.version_info[0]}.{sys.version_info[1]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except OSError:  # a read-only home: machine code then lives as long as the process
        return Path(tempfile.mkdtemp(prefix="openheart-"))


def worthwhile(source: str, elements: int) -> bool:
    """Whether a loop over so many elements is to be compiled now, if it is not yet.

    What arrays have done of it is remembered from one process to the next.
    """
    name = name_of(source)
    known = _known()
    if name in known.ready:
        return True
    known.worn[name] = known.worn.get(name, 0) + elements * source.count("\n")
    if known.worn[name] < PAYS:
        return False
    known.ready.add(name)
    return True


@dataclass(slots=True)
class Known:
    """Loops that are compiled, and how much arrays have done of the others."""

    ready: set[str]
    worn: dict[str, int]


@lru_cache(maxsize=1)
def _known() -> Known:
    folder = _folder()
    ready = {path.name.partition(".")[0] for path in folder.glob("__pycache__/*.nbi")}
    file = folder / "worn.json"
    try:
        worn = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        worn = {}
    known = Known(ready, {name: n for name, n in worn.items() if name not in ready and isinstance(n, int)})
    atexit.register(_remember, known, file)
    return known


def _remember(known: Known, file: Path) -> None:
    with contextlib.suppress(OSError):
        handle, draft = tempfile.mkstemp(dir=file.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump({name: n for name, n in known.worn.items() if name not in known.ready}, out)
        os.replace(draft, file)


def name_of(source: str) -> str:
    """What a generated loop is called in the cache folder."""
    return "law_" + hashlib.sha256((HEADER + source).encode()).hexdigest()[:24]


_TELL: ContextVar[Callable[[], None] | None] = ContextVar("tell", default=None)


@contextlib.contextmanager
def telling(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` when a loop is about to be compiled inside, which takes a second."""
    token = _TELL.set(tell)
    try:
        yield
    finally:
        _TELL.reset(token)


@cache
def compiled(source: str) -> Callable[..., Any]:
    """The machine code of a generated loop, compiled now or read from the cache folder."""
    name = name_of(source)
    known = _known()
    tell = _TELL.get()
    fresh = name not in known.ready or known.worn.pop(name, None) is not None
    if tell is not None and fresh:
        tell()
    known.ready.add(name)
    path = _folder() / f"{name}.py"
    if not path.exists():
        handle, draft = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(HEADER + source)
        os.replace(draft, path)
    spec = importlib.util.spec_from_file_location(f"openheart_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Numba looks the module up by name when it reads its cache
    spec.loader.exec_module(module)
    return module.kernel


@lru_cache(maxsize=1)
def _folder() -> Path:
    return cache_folder()


def arguments(writer: Writer, spans: Sequence[range], unit: float, tiny: float) -> list[Any]:
    """The arguments of a generated loop up to its own last ones."""
    given: list[Any] = []
    for span in spans:
        given += [len(span), span.start]
    for array, strides in zip(writer.arrays.data, writer.arrays.strides, strict=True):
        given += [flat(array), *strides]
    return [*given, *writer.scalars, unit, tiny]
