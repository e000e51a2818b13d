"""Laws as JavaScript: a function that fills one output's array from the arrays of what the law reads.

A law becomes one loop nest over the output's indices. A reduction becomes loops inside it, or, where it does
not depend on some of the indices around it, an array of its own that is filled first: a softmax's denominator
costs one sum a row. A sum over matches becomes one scatter pass; a recurrence is filled step by step. What is
used twice, or does not change in the loops around it, gets a name.

With `bounds` the function carries the pair (value, error) by the rules of `formula.evaluate`: the error
bounds how far an honest computation in the call's precision, from inputs as far off as their own errors
say, may lie from the stored value.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from openheart.formula.expr import (
    Apply,
    Definition,
    Expr,
    Index,
    Leaf,
    Named,
    Number,
    Reduce,
    Ref,
    Tensor,
    children,
    walk,
)
from openheart.formula.folds import FOLDS, matches
from openheart.formula.functions import ASIDE, COMPUTED_IN, ULPS
from openheart.formula.javascript_rows import (
    ATOM,
    COMPARE,
    SUM,
    NoJavaScript,
    Operand,
    error_of,
    total_of,
    truth,
    within,
    write,
)
from openheart.formula.precision import Precision
from openheart.formula.strided import affine

__all__ = ["Function", "NoJavaScript", "function_of"]


@dataclass(frozen=True, slots=True)
class Function:
    """One law as a JavaScript function.

    Attributes:
        source: its parameters and body, without `function` and a name: `(out, x) { … }`. With bounds each
            array is followed by that of its errors.
        tensors: what the arrays after the output's own stand for, in order.
        scalars: the hyperparameters after them.
        terms: how many terms of sums, and elements, one call of it computes.
    """

    source: str
    tensors: tuple[Tensor, ...]
    scalars: tuple[Number, ...]
    terms: int


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
class Writer:
    """Writes one function; `block` is where its lines go."""

    precision: Precision
    bounds: bool
    own: Tensor
    root: Block = field(default_factory=lambda: Block(base=True))
    tensors: dict[tuple[str, int | None], tuple[Tensor, str]] = field(default_factory=dict)
    scalars: dict[tuple[str, object], tuple[Number, str]] = field(default_factory=dict)
    definitions: dict[int, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=lambda: set(RESERVED))
    loops: set[str] = field(default_factory=set)
    uses: dict[int, int] = field(default_factory=dict)
    flat: tuple[Index, ...] | None = None
    arrays: int = 0
    terms: int = 0
    stepping: tuple[Definition, ...] = ()
    keep: list[Expr] = field(default_factory=list)
    block: Block = field(init=False)

    def __post_init__(self) -> None:
        self.block = self.root

    # -- names, blocks ---------------------------------------------------------------------------

    def fresh(self, wish: str) -> str:
        """A name that nothing else in the function has."""
        base, n = identifier(wish), 1
        name = base
        while name in self.names or name in self.loops:
            n += 1
            name = f"{base}{n}"
        self.names.add(name)
        return name

    def home(self, free: Iterable[Index]) -> Block:
        """The innermost block around here on which something with these free indices depends."""
        wanted = {i for i in free if i.extent != 1}
        inner: Block | None = None  # the innermost condition right inside of the loop, if there is one
        for block in self.block.up():
            if not block.bound:
                inner = block if inner is None and block is not self.root else inner
            elif wanted.isdisjoint(block.bound):
                inner = None
            else:
                return inner or block
        return inner or self.root

    def variable(self, i: Index) -> str:
        for block in self.block.up():
            if i in block.bound:
                return block.bound[i]
        if i.extent == 1:
            return "0"
        raise NoJavaScript(f"the index {i.name} outside of its loop")

    def let(self, source: str, wish: str = "t", where: Block | None = None) -> str:
        name = self.fresh(wish)
        (self.block if where is None else where).lines.append(f"const {name} = {source};")
        return name

    def open(
        self, i: Index, *, backward: bool = False, base: bool = False, also: Sequence[Index] = ()
    ) -> Block:
        """Steps into a loop over an index; one of extent 1 has no loop."""
        around = {name for block in self.block.up() for name in block.bound.values()}
        wish = identifier(i.name)
        name, n = wish, 1
        while name in self.names or name in around:
            n += 1
            name = f"{wish}{n}"
        self.loops.add(name)
        header = (
            f"for (let {name} = {i.extent - 1}; {name} >= 0; {name}--)"
            if backward
            else f"for (let {name} = 0; {name} < {i.extent}; {name}++)"
        )
        made = Block(header, self.block, dict.fromkeys((i, *also), name), base, self.block.times * i.extent)
        self.block = made
        return made

    def nest(self, indices: Sequence[Index], before: Block) -> None:
        """Steps into loops over all of these, starting in `before`."""
        self.block = before
        for i in indices:
            if i.extent != 1:
                self.open(i)

    def close(self, to: Block) -> None:
        """Steps back out to a block, adding each loop to the one around it."""
        while self.block is not to:
            done = self.block
            assert done.parent is not None
            done.parent.lines.append(done)
            self.block = done.parent

    # -- nodes -----------------------------------------------------------------------------------

    def of(self, node: Expr) -> Operand:
        """A node's value (and error) as source, valid where the loops stand."""
        if isinstance(node, Named) and not self._simple(node.body):
            return self._bound(node, node.name)
        if isinstance(node, Named):
            return self.of(node.body)
        if isinstance(node, Index):
            return Operand(self.variable(node), None, "i")
        if isinstance(node, Number):
            return self._number(node)
        if isinstance(node, (Reduce, Ref)) or self.bounds:
            return self._bound(node, "")
        home = self.home(node.free)
        if self.uses.get(id(node), 0) > 1 or (home is not self.block and not self._cheap(node)):
            return self._bound(node, "")
        return self._write(node)

    def operand(self, node: Expr) -> Operand:
        """The same, where a double constant is rounded to the call's precision."""
        made = self.of(node)
        if not (self.bounds and made.constant and made.kind == "f") or self.precision.name == "float64":
            return made
        if re.fullmatch(r"-?\d+(\.\d+)?", made.value) and self.precision.holds(float(made.value)):
            return made
        unit = UNITS[self.precision.name][0]
        error = f"{unit} * Math.abs({made.value})"
        if self.precision.name == "float32":
            error = f"held({made.value})"
        return Operand(made.value, error, made.kind, made.level, False)

    def _simple(self, node: Expr) -> bool:
        return isinstance(node, (Number, Index)) or (isinstance(node, Named) and self._simple(node.body))

    def _cheap(self, node: Expr) -> bool:
        """Arithmetic of constants and places, which is not worth a name."""
        return not node.free or (
            all(isinstance(n, (Number, Index, Apply)) for n in walk(node))
            and not any(isinstance(n, Apply) and n.function in ("mod", "floordiv") for n in walk(node))
        )

    def _bound(self, node: Expr, wish: str) -> Operand:
        home = self.home(node.free)
        key = (id(node), self.precision.name if self.bounds else "")
        for block in self.block.up():
            if key in block.known:
                return block.known[key]
            if not node.free.isdisjoint(block.bound):
                break
        staged = self._stage(node, home) if isinstance(node, Reduce) else None
        if staged is not None:
            return staged
        here, self.block = self.block, home
        made = self._write(node.body if isinstance(node, Named) else node)
        if (made.level < ATOM or "[" in made.value or "(" in made.value) and not made.constant:
            made = Operand(self.let(made.value, wish or self._wish(node)), made.error, made.kind)
        if made.error and not re.fullmatch(r"\w+", made.error):
            made = Operand(
                made.value, self.let(made.error, "e_" + identifier(wish or "t")), made.kind, made.level
            )
        assert self.block is home
        self.block = here
        home.known[key] = made
        return made

    def _wish(self, node: Expr) -> str:
        if isinstance(node, Ref):
            parts = [p.name for p in node.index if isinstance(p, Index)]
            return "_".join([node.tensor.name, *parts]) if len(parts) == len(node.index) else node.tensor.name
        return "t"

    def _number(self, node: Number) -> Operand:
        kind = {bool: "b", int: "i", float: "f"}.get(type(node.value))
        if kind is None:
            raise NoJavaScript(f"the number {node.value!r} (complex)")
        if node.name is None or kind != "f":
            text = literal(node.value)
            return Operand(text, None, kind, SUM if text.startswith("-") else ATOM, True)
        key = (node.name, node.value)
        if key not in self.scalars:
            self.scalars[key] = (node, self.fresh(node.name))
        return Operand(self.scalars[key][1], None, kind, ATOM, True)

    def _write(self, node: Expr) -> Operand:
        if isinstance(node, Named):
            return self.of(node.body)
        if isinstance(node, Ref):
            return self._ref(node)
        if isinstance(node, Reduce):
            return self._reduce(node)
        if isinstance(node, Apply):
            return self._apply(node)
        if isinstance(node, Leaf):
            raise NoJavaScript(node.kind)
        return self.of(node)

    # -- references ------------------------------------------------------------------------------

    def array(self, tensor: Tensor) -> str:
        """The name of the array that holds a tensor."""
        if tensor.kind == "complex":
            raise NoJavaScript("complex numbers")
        if tensor.key == self.own.key:
            return "out"
        if tensor.key not in self.tensors:
            self.tensors[tensor.key] = (tensor, self.fresh(tensor.name))
        return self.tensors[tensor.key][1]

    def _ref(self, node: Ref) -> Operand:
        made = node.tensor
        if isinstance(made, Definition):
            name, kind = self.defined(made), {"float": "f", "int": "i", "bool": "b"}[made.kind]
        else:
            name, kind = self.array(made), {"float": "f", "int": "i", "bool": "b"}[made.kind]
        doubts: list[str] = []
        place = self._place(node, doubts)
        value = f"{name}[{place}]"
        if kind == "b":
            value = f"({value} != 0)"
        if not self.bounds:
            return Operand(value, None, kind)
        error = f"{name}E[{place}]"
        if doubts:
            error = f"({' || '.join(f'{d} > 0' for d in doubts)}) ? Infinity : {error}"
        return Operand(value, error, kind)

    def _place(self, node: Ref, doubts: list[str]) -> str:
        """The place of an element in its array, row by row; what is known further out is added up there."""
        shape = node.tensor.shape
        if self.flat is not None and any(part is i for part in node.index for i in self.flat):
            return self.variable(self.flat[0])
        steps: dict[Index, int] = {}
        rest: list[tuple[int, Expr]] = []
        offset, stride = 0, 1
        for size, part in zip(reversed(shape), reversed(node.index), strict=True):
            form = affine(part)
            if size == 1 and form is None and all(i.extent == 1 for i in part.free):
                form = None
            if form is not None:
                offset += stride * form.offset
                for i, step in form.steps.items():
                    steps[i] = steps.get(i, 0) + stride * step
            else:
                rest.append((stride, part))
            stride *= size
        groups: list[tuple[Block, str, str]] = []  # where it is known, its text, its sign
        for i, step in steps.items():
            if step and i.extent != 1:
                name = self.variable(i)
                times = "" if abs(step) == 1 else f" * {abs(step)}"
                groups.append((self.home((i,)), f"{name}{times}", "-" if step < 0 else "+"))
        for steps_of, part in rest:
            made = self.of(part)
            if made.error:
                doubts.append(made.error)
            text = made.value if made.level >= SUM else f"({made.value})"
            if steps_of != 1:
                text = f"{within(made, 13)} * {steps_of}"
            groups.append((self.home(part.free), text, "+"))
        order = {id(block): n for n, block in enumerate(reversed(list(self.block.up())))}
        groups.sort(key=lambda g: (order[id(g[0])], g[2] == "-"))
        return self._added(groups, offset, order)

    def _added(self, groups: list[tuple[Block, str, str]], offset: int, order: dict[int, int]) -> str:
        sofar, simple = "", True
        for n, (block, text, sign) in enumerate(groups):
            if sofar:
                sofar, simple = f"{sofar} {sign} {text}", False
            elif sign == "-":
                sofar, simple = f"{offset} - {text}", False
                offset = 0
            else:
                sofar, simple = text, " " not in text
            last = n + 1 == len(groups)
            deeper = self.block if last else groups[n + 1][0]
            if order[id(deeper)] > order[id(block)] and not simple:
                if offset:
                    sofar, offset = f"{sofar} {'-' if offset < 0 else '+'} {abs(offset)}", 0
                if sofar not in block.offsets:
                    block.offsets[sofar] = self.let(sofar, "at", block)
                sofar, simple = block.offsets[sofar], True
        if not sofar:
            return str(offset)
        return f"{sofar} {'-' if offset < 0 else '+'} {abs(offset)}" if offset else sofar

    # -- definitions -----------------------------------------------------------------------------

    def scratch(self, size: int, wish: str) -> str:
        """An array of the function's own, with one for its errors."""
        name = self.fresh(wish)
        where = self.root.lines
        where.append(f"const {name} = scratch({self.arrays}, {size});")
        self.arrays += 1
        if self.bounds:
            self.names.add(f"{name}E")
            where.append(f"const {name}E = scratch({self.arrays}, {size});")
            self.arrays += 1
        return name

    def defined(self, made: Definition) -> str:
        """The array of a tensor that the law defines, filled before it is read."""
        if id(made) in self.definitions:
            return self.definitions[id(made)]
        if made.order != "any":
            group = made.group or (made,)
            for member in group:
                self.definitions[id(member)] = self.scratch(math.prod(member.shape), member.name)
            self._steps(group, made.order == "backward", None)
            return self.definitions[id(made)]
        name = self.definitions[id(made)] = self.scratch(math.prod(made.shape), made.name)
        here = self.block
        self._fill(name, made, self.root)
        self.block = here
        return name

    def _fill(self, name: str, made: Definition, base: Block, skip: int = 0) -> None:
        self.nest(made.indices[skip:], base)
        self.count_uses(made.body)
        self._store(name, self._flat_place(made.indices), self.operand(made.body))
        self.close(base)

    def _steps(
        self, group: Sequence[Definition], backward: bool, own: tuple[Sequence[Index], Expr] | None
    ) -> None:
        """Fills tensors step by step along their first indices; `own` is the output itself, step by step."""
        here = self.block
        self.block = self.root
        firsts = [member.indices[0] for member in group]
        if own is not None:
            firsts.append(own[0][0])
        loop = self.open(firsts[0], backward=backward, base=True, also=firsts[1:])
        for member in group:
            self._fill(self.definitions[id(member)], member, loop, skip=1)
        if own is not None:
            self.nest(own[0][1:], loop)
            self._out(own[0], own[1])
        self.close(self.root)
        self.block = here

    def _flat_place(self, indices: Sequence[Index]) -> str:
        return self._place(
            Ref(Tensor("", tuple(i.extent for i in indices), "float", ("", None)), tuple(indices)), []
        )

    def _store(self, name: str, place: str, made: Operand) -> None:
        value = made.value
        self.block.lines.append(f"{name}[{place}] = {value};")
        if self.bounds:
            self.block.lines.append(f"{name}E[{place}] = {made.error or 0};")

    # -- reductions ------------------------------------------------------------------------------

    def _stage(self, node: Reduce, home: Block) -> Operand | None:
        """A reduction as an array of its own: a scatter, or one that the loops around would repeat."""
        found = matches(node, {i: 0 for i in node.free if i.extent == 1}) if node.kind in FOLDS else None
        around = [b for b in home.up() if b.bound]
        base = next(b for b in home.up() if b.base)
        outside = {i for b in base.up() for i in b.bound}
        free = sorted((i for i in node.free if i not in outside and i.extent != 1), key=lambda i: i.name)
        repeats = math.prod(
            b.times // (b.parent.times if b.parent else 1)
            for b in around
            if not b.base and not any(i in node.free for i in b.bound)
        )
        if found is None and repeats <= 1:
            return None
        if found is not None and any(out in outside for out, _ in found[0]):
            return None
        key = (id(node), self.precision.name if self.bounds else "", "staged")
        at = tuple(free)
        if key not in base.known:
            here = self.block
            name = self.scratch(math.prod(i.extent for i in at), node.kind)
            if found is not None:
                self._scatter(node, found, name, at, base)
            else:
                self.nest(at, base)
                self._store(name, self._flat_place(at), self._reduce(node))
                self.close(base)
            self.block = here
            base.known[key] = Operand(name, None, self._kind_of(node))
        held = base.known[key]
        shape = tuple(i.extent for i in at)
        place = self._place(Ref(Tensor("", shape, "float", ("", None)), at), [])
        here, self.block = self.block, home
        value = (
            self.let(f"{held.value}[{place}]", f"{node.kind}_at") if self.bounds else f"{held.value}[{place}]"
        )
        error = self.let(f"{held.value}E[{place}]", "e_t") if self.bounds else None
        self.block = here
        return Operand(value, error, held.kind)

    def _kind_of(self, node: Expr) -> str:
        """The kind of number of a node, by its form."""
        if isinstance(node, Reduce):
            if node.kind in ("any", "all"):
                return "b"
            if node.kind in ("rank", "argmax", "argmin"):
                return "i"
            body = self._kind_of(node.body)
            return "f" if body == "f" or node.kind == "mean" else "i"
        if isinstance(node, Named):
            return self._kind_of(node.body)
        if isinstance(node, Number):
            return {bool: "b", int: "i"}.get(type(node.value), "f")
        if isinstance(node, Index):
            return "i"
        if isinstance(node, Ref):
            return {"float": "f", "int": "i", "bool": "b"}.get(node.tensor.kind, "f")
        if isinstance(node, Apply):
            if node.function in COMPUTED_IN or node.function in ASIDE:
                return self._kind_of(node.args[0])
            return write(node.function, [Operand("x", None, self._kind_of(a)) for a in node.args]).kind
        return "f"

    def _guarded(self, over: Sequence[Index], where: Expr | None) -> Guard:
        """Opens loops over these indices; each condition is asked as far out as can be."""
        waiting, guard = conjuncts(where), Guard()
        left = [i for i in over if i.extent != 1]
        for i in [*left, None]:
            if i is not None:
                self.open(i)
                left = left[1:]
            for part in [part for part in waiting if part.free.isdisjoint(left)]:
                waiting.remove(part)
                self._ask(part, guard)
        return guard

    def _ask(self, part: Expr, guard: Guard) -> None:
        made = self.of(part)
        holds = truth(made, COMPARE)
        if made.error:
            guard.holds.append(self.let(holds, "holds"))
            guard.doubts.append(f"{made.error} > 0")
            holds = f"{guard.holds[-1]} || {made.error} > 0"
        self.block = Block(
            f"if ({made.value if not made.error else holds})", self.block, times=self.block.times
        )

    def _reduce(self, node: Reduce) -> Operand:
        """A reduction as loops where the writer stands; its result is known after them."""
        hull, count = self.block, math.prod(k.extent for k in node.over)
        if node.kind in ("sum", "mean", "product", "rank"):
            made = self._folded(node, count)
        elif node.kind in ("any", "all"):
            made = self._quantified(node)
        elif node.kind in ("max", "min"):
            made = self._extreme(node)
        else:
            made = self._place_of_extreme(node)
        assert self.block is hull
        return made

    def _variable(self, wish: str, start: str) -> str:
        name = self.fresh(wish)
        self.block.lines.append(f"let {name} = {start};")
        return name

    def _add(self, *lines: str) -> None:
        self.block.lines.extend(lines)

    def _folded(self, node: Reduce, count: int) -> Operand:
        kind = self._kind_of(node)
        product = node.kind == "product"
        sum_ = self._variable(
            {"rank": "count", "mean": "sum"}.get(node.kind, node.kind), "1" if product else "0"
        )
        carried = self.bounds and (kind == "f" or node.kind == "rank")
        size = self._variable("size", "1" if product else "0") if carried and kind == "f" else ""
        spread = self._variable("spread", "0") if carried else ""
        terms = self._variable("terms", "0") if carried and node.where is not None else str(count)
        hull = self.block
        guard = self._guarded(node.over, node.where)
        self.terms += self.block.times
        if node.kind == "rank":
            x, e = "1", None
        else:
            body = self.operand(node.body)
            x, e = within(body, SUM + (not product)), body.error
            if self.bounds and not re.fullmatch(r"[\w.]+", x):
                x = self.let(x, "x")
            elif body.kind == "b":
                x = f"+({body.value})"
        if self.bounds and e is None and node.kind != "rank" and kind != "f":
            e = None
        if guard.doubts:
            here = " && ".join(guard.holds)
            neutral = "1" if product else "0"
            self._add(f"{sum_} {'*' if product else '+'}= {here} ? {x} : {neutral};")
            if carried and size:
                self._add(
                    f"{size} += {here} ? Math.abs({x}) : 0;",
                    f"{spread} += {here} ? {e or 0} : Math.abs({x}) + {e or 0};",
                )
                self._add(
                    f"if (!({here}) || {' || '.join(guard.doubts)}) {spread} += Math.abs({x});", f"{terms}++;"
                )
            elif carried:
                self._add(f"{spread} += {' || '.join(guard.doubts)} ? 1 : 0;")
        elif product:
            self._add(f"{sum_} *= {x};")
            if size:
                self._add(f"{size} *= Math.abs({x}) + {e or 0};")
                if node.where is not None:
                    self._add(f"{terms}++;")
        else:
            self._add(f"{sum_} += {x};")
            if carried:
                if size:
                    self._add(f"{size} += Math.abs({x});")
                if e:
                    self._add(f"{spread} += {e};")
                if node.where is not None:
                    self._add(f"{terms}++;")
        self.close(hull)
        value = f"{sum_} / {count}" if node.kind == "mean" else sum_
        if node.kind == "mean":
            value = self.let(value, "mean")
        if not carried:
            return Operand(value, None, kind)
        if node.kind == "rank" or not size:
            return Operand(value, spread, kind)
        unit, tiny = UNITS[self.precision.name]
        if product:
            lost = f"({size} < {tiny} ? {terms} * {tiny} : 0)"
            error = f"{size} * (1 + gamma({terms}, {unit})) - Math.abs({value}) + {lost}"
            if guard.doubts:
                error = f"{spread} > 0 ? Infinity : {error}"
        elif node.kind == "mean":
            error = f"(gamma({count - 1}, {unit}) + 2 * {unit}) * ({size} / {count}) + {spread} / {count}"
        else:
            error = f"gamma({terms} - 1, {unit}) * {size} + {spread}"
        return Operand(value, self.let(f"settle({value}, {error})", "e_" + node.kind), kind)

    def _quantified(self, node: Reduce) -> Operand:
        found = self._variable(node.kind, "false" if node.kind == "any" else "true")
        doubt = self._variable("doubt", "0") if self.bounds else None
        hull = self.block
        guard = self._guarded(node.over, node.where)
        self.terms += self.block.times
        body = self.of(node.body)
        sign = "||" if node.kind == "any" else "&&"
        if guard.holds:
            self._add(f"if ({' && '.join(guard.holds)}) {found} = {found} {sign} {truth(body, 6)};")
        else:
            self._add(f"{found} = {found} {sign} {truth(body, 6)};")
        if body.error:
            self._add(f"if ({body.error} > 0) {doubt} = 1;")
        if guard.doubts:
            self._add(f"{doubt} = 1;")
        self.close(hull)
        return Operand(found, doubt, "b")

    def _extreme(self, node: Reduce) -> Operand:
        sign, worst = (">", "-Infinity") if node.kind == "max" else ("<", "Infinity")
        best = self._variable(node.kind, worst)
        spread = self._variable("spread", "0") if self.bounds else None
        hull = self.block
        guard = self._guarded(node.over, node.where)
        self.terms += self.block.times
        body = self.operand(node.body)
        x = body.value if re.fullmatch(r"\w+", body.value) else self.let(body.value, "x")
        if body.error:
            self._add(f"{spread} = Math.max({spread}, {body.error});")
        if guard.doubts:
            self._add(f"if ({' || '.join(guard.doubts)}) {spread} = Infinity;")
        self._add(f"if ({guard.asked(f'{x} {sign} {best} || {x} !== {x}')}) {best} = {x};")
        self.close(hull)
        return Operand(best, spread, body.kind)

    def _place_of_extreme(self, node: Reduce) -> Operand:
        sign, worst = (">", "-Infinity") if node.kind == "argmax" else ("<", "Infinity")
        place, best = self._variable("place", "0"), self._variable("best", worst)
        hull = self.block
        more = (
            [self._variable(w, s) for w, s in (("near", "0"), ("spread", "0"), ("next", worst))]
            if self.bounds
            else []
        )
        guard = self._guarded(node.over, node.where)
        self.terms += self.block.times
        body = self.operand(node.body)
        x = body.value if re.fullmatch(r"\w+", body.value) else self.let(body.value, "x")
        at = self._flat_place(node.over)
        better = guard.asked(f"{x} {sign} {best} || ({x} !== {x} && {best} === {best})")
        if not more:
            self._add(f"if ({better}) {{ {best} = {x}; {place} = {at}; }}")
            self.close(hull)
            return Operand(place, None, "i")
        near, spread, following = more
        e, plus, pick = body.error or "0", "+" if sign == ">" else "-", "max" if sign == ">" else "min"
        self._add(f"{spread} = Math.max({spread}, {e});")
        if guard.doubts:
            self._add(f"if ({' || '.join(guard.doubts)}) {spread} = Infinity;")
        self._add(
            f"if ({better}) {{",
            f"  {following} = Math.{pick}({following}, {best} {plus} {near});",
            f"  {best} = {x}; {place} = {at}; {near} = {e};",
            f"}} else {following} = Math.{pick}({following}, {x} {plus} {e});",
        )
        self.close(hull)
        minus = "-" if plus == "+" else "+"
        doubtful = f"{spread} > 0 && {following} {sign}= {best} {minus} {near}"
        return Operand(place, self.let(f"{doubtful} ? Infinity : 0", "e_place"), "i")

    def _scatter(
        self,
        node: Reduce,
        found: tuple[list[tuple[Index, Expr]], Expr | None],
        name: str,
        at: tuple[Index, ...],
        base: Block,
    ) -> None:
        """Σ over matches in one pass: each term is added where its place says."""
        pairs, rest = found
        taken = {out for out, _ in pairs}
        size = math.prod(i.extent for i in at)
        first = {"product": "1", "all": "1", "max": "-Infinity", "min": "Infinity"}.get(node.kind, "0")
        base.lines.append(f"{name}.fill({first}, 0, {size});")
        sizes = self.scratch(size, "sizes") if self.bounds else ""
        if self.bounds:
            base.lines += [
                f"{name}E.fill(0, 0, {size});",
                f"{sizes}.fill({1 if node.kind == 'product' else 0}, 0, {size});",
                f"{sizes}E.fill(0, 0, {size});",
            ]
        self.nest([i for i in at if i not in taken], base)
        guard = self._guarded(node.over, rest)
        self.terms += self.block.times
        body = self.operand(node.body)
        marks: list[str] = list(guard.doubts)
        spots = dict[Index, str]()
        found_places = [(out, self.of(place)) for out, place in pairs]
        marks += [f"{made.error} > 0" for _, made in found_places if made.error]
        astray = ""
        if marks:  # a term whose place is in doubt may belong anywhere
            astray = self.fresh("astray")
            base.lines.append(f"let {astray} = 0;")
            self._add(f"if ({' || '.join(marks)}) {astray} += Math.abs({body.value}) + {body.error or 0};")
        if guard.holds:
            self.block = Block(f"if ({' && '.join(guard.holds)})", self.block, times=self.block.times)
        for out, made in found_places:
            spot = self.let(made.value, "at")
            spots[out] = spot
            self.block = Block(
                f"if ({spot} >= 0 && {spot} < {out.extent})", self.block, times=self.block.times
            )
        stride, parts = 1, []
        for i in reversed(at):
            part = spots[i] if i in taken else self.variable(i)
            parts.append(part if stride == 1 else f"{part} * {stride}")
            stride *= i.extent
        to = " + ".join(reversed(parts)) or "0"
        to = to if re.fullmatch(r"\w+", to) else self.let(to, "to")
        x, e = within(body, SUM), body.error or "0"
        spot = f"{name}[{to}]"
        line = {
            "sum": f"{spot} += {x};",
            "rank": f"{spot} += 1;",
            "product": f"{spot} *= {x};",
            "max": f"{spot} = larger({spot}, {x});",
            "min": f"{spot} = smaller({spot}, {x});",
            "any": f"if ({x}) {spot} = 1;",
            "all": f"if (!({x})) {spot} = 0;",
        }[node.kind]
        self._add(line)
        if self.bounds:
            if node.kind in ("max", "min"):
                self._add(f"{name}E[{to}] = Math.max({name}E[{to}], {e});")
            elif node.kind == "product":
                self._add(f"{sizes}[{to}] *= Math.abs({x}) + {e};", f"{sizes}E[{to}]++;")
            else:
                self._add(f"{name}E[{to}] += {e};", f"{sizes}[{to}] += Math.abs({x});", f"{sizes}E[{to}]++;")
        self.close(base)
        if self.bounds:
            unit = UNITS[self.precision.name][0]
            error = f"{name}E[at]"
            if node.kind == "sum" and self._kind_of(node.body) == "f":
                error += f" + gamma({sizes}E[at] - 1, {unit}) * {sizes}[at]"
            if node.kind == "product" and self._kind_of(node.body) == "f":
                error = f"{sizes}[at] * (1 + gamma({sizes}E[at], {unit})) - Math.abs({name}[at])"
            if astray:
                error += (
                    f" + {astray}" if node.kind in ("sum", "rank") else f" + ({astray} > 0 ? Infinity : 0)"
                )
            if error != f"{name}E[at]":
                base.lines.append(f"for (let at = 0; at < {size}; at++) {name}E[at] = {error};")

    # -- pointwise -------------------------------------------------------------------------------

    def _apply(self, node: Apply) -> Operand:
        name = node.function
        if name in COMPUTED_IN:
            return self._within(node.args[0], COMPUTED_IN[name])
        if name in ASIDE:
            return self._aside(name, node.args[0])
        args = [self.of(arg) for arg in node.args]
        constant = not node.free and all(a.constant for a in args)
        if self.bounds and not constant:
            args = [self.operand(arg) for arg in node.args]
        whole = all(self._counting(arg) for arg in node.args)
        made = write(name, args, whole)
        if constant or not self.bounds:
            return Operand(made.value, None, made.kind, made.level, constant)
        args = [
            a if re.fullmatch(r"[\w.]+", a.value) else Operand(self.let(a.value), a.error, a.kind)
            for a in args
        ]
        made = write(name, args, whole)
        if made.kind == "i" and not any(a.error for a in args):
            return made
        value = self.let(made.value)
        unit, tiny = UNITS[self.precision.name]
        error = error_of(name, value, made.kind, args, unit, tiny, lambda text: self.let(text, "e_t"))
        if name == "float" and args[0].kind != "f":
            error = total_of(error, f"whole({value}, {unit})")
        return Operand(value, error, made.kind)

    def _counting(self, node: Expr) -> bool:
        """Whether a node is a place: whole and never negative, by its form."""
        if isinstance(node, Index):
            return True
        if isinstance(node, Number):
            return type(node.value) is int and 0 <= node.value < 1 << 31
        return (
            isinstance(node, Apply)
            and node.function in ("add", "mul", "floordiv", "mod")
            and all(map(self._counting, node.args))
        )

    def _within(self, node: Expr, inner: Precision) -> Operand:
        outer = self.precision
        if outer is inner or not self.bounds:
            return self.of(node)
        self.precision = inner
        try:
            made = self.operand(node)
        finally:
            self.precision = outer
        if outer.unit > inner.unit:
            unit, tiny = UNITS[outer.name]
            value = made.value if re.fullmatch(r"\w+", made.value) else self.let(made.value)
            rounding = f"({value} === 0 ? 0 : {unit} * Math.abs({value}) + {tiny} * {unit})"
            if made.constant and outer.name == "float32":
                rounding = f"held({value})"
            error = self.let(f"settle({value}, {total_of(made.error, rounding)})", "e_t")
            return Operand(value, error, made.kind)
        return Operand(made.value, made.error, made.kind, made.level)

    def _aside(self, name: str, node: Expr) -> Operand:
        made = self.of(node)
        if not self.bounds:
            return made
        unit = UNITS[self.precision.name][0]
        if name == "accumulated":
            terms = next((n for n in walk(node) if isinstance(n, Reduce)), None)
            if terms is None or not (isinstance(node, Apply) and node.function == "add"):
                return made
            start = self.of(node.args[0])
            count = max(math.prod(k.extent for k in terms.over) - 1, 0)
            if made.error is None:
                return made
            own = f"{count} * {unit} * Math.abs({within(start, ATOM)})"
        else:
            own = (
                f"{2.0**-13 if name == 'cubic' else 40 - ULPS:g} * {'' if name == 'cubic' else unit + ' * '}"
            )
            own += f"Math.abs({within(made, ATOM)})"
        value = made.value if re.fullmatch(r"\w+", made.value) else self.let(made.value)
        return Operand(value, self.let(f"settle({value}, {total_of(made.error, own)})", "e_t"), made.kind)

    # -- the whole function ----------------------------------------------------------------------

    def count_uses(self, body: Expr) -> None:
        """How often each node under `body` is used."""
        for node in walk(body):
            for child in children(node):
                self.uses[id(child)] = self.uses.get(id(child), 0) + 1

    def _out(self, indices: Sequence[Index], body: Expr) -> None:
        """Stores the output's element where the loops stand, rounded to its dtype."""
        made = self.operand(body)
        place = self.variable(indices[0]) if self.flat is not None else self._flat_place(indices)
        rounding = {"bfloat16": "toBfloat16", "float16": "toFloat16"}.get(self.own.dtype)
        value = made.value
        if self.bounds:
            value = value if re.fullmatch(r"\w+", value) else self.let(value)
            self._add(f"out[{place}] = {f'{rounding}({value})' if rounding else value};")
            stored, tiny = UNITS.get(self.own.dtype, ("", ""))
            if not stored:
                self._add(f"outE[{place}] = {made.error or 0};")
            else:
                finer = str(UNITS[self.precision.name][0] != stored and self.own.dtype != "float64").lower()
                about = f"{value}, {made.error or 0}, out[{place}], {stored}, {tiny}, {finer}"
                self._add(f"outE[{place}] = storeError({about});")
        else:
            self._add(f"out[{place}] = {f'{rounding}({value})' if rounding else value};")


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


def function_of(
    body: Expr, indices: Sequence[Index], output: Tensor, precision: Precision, bounds: bool = False
) -> Function:
    """The law `output[indices] = body` as a JavaScript function.

    `precision` is that in which the recorded number was computed; `bounds` asks for the errors as well.

    **Raises** `NoJavaScript` where the law holds something that has no JavaScript form, or reaches a leaf
    that no law makes.
    """
    if output.kind == "complex":
        raise NoJavaScript("complex numbers")
    writer = Writer(precision, bounds, output)
    writer.count_uses(body)
    if _elementwise(body, indices, output):
        writer.flat = tuple(indices)
        name = "i"
        writer.block = Block("for (let i = 0; i < n; i++)", writer.root, dict.fromkeys(indices, name))
        writer.root.lines.append("const n = out.length;")
        writer.names.add("n")
        writer.loops.add("i")
        writer.terms += math.prod(output.shape)
        writer._out(indices, body)
        writer.close(writer.root)
    elif _reads_itself(body, output):
        _step_by_step(writer, body, indices, output)
    else:
        writer.terms += math.prod(output.shape)
        writer.nest(indices, writer.root)
        writer._out(indices, body)
        writer.close(writer.root)
    arrays = ["out", *(name for _, name in writer.tensors.values())]
    if bounds:
        arrays = [part for name in arrays for part in (name, f"{name}E")]
    parameters = [*arrays, *(name for _, name in writer.scalars.values())]
    source = f"({', '.join(parameters)}) {{\n{writer.root.text('  ')}\n}}"
    return Function(
        source,
        tuple(tensor for tensor, _ in writer.tensors.values()),
        tuple(number for number, _ in writer.scalars.values()),
        writer.terms,
    )


def _elementwise(body: Expr, indices: Sequence[Index], output: Tensor) -> bool:
    """Whether each element is made from the elements at the same place of tensors of the same shape."""
    if math.prod(output.shape) <= 1:
        return False
    shape = [n for n in output.shape if n != 1]

    def fits(node: Expr) -> bool:
        if isinstance(node, Ref):
            if not node.free or all(i.extent == 1 for i in node.free):
                return not isinstance(node.tensor, Definition) and not node.free
            if isinstance(node.tensor, Definition) or [n for n in node.tensor.shape if n != 1] != shape:
                return False
            if node.tensor.key == output.key:
                return False
            parts = [p for p, n in zip(node.index, node.tensor.shape, strict=True) if n != 1]
            return _same(parts, indices)
        return not isinstance(node, (Reduce, Index)) and all(map(fits, children(node)))

    return fits(body)


def _same(parts: Sequence[Expr], indices: Sequence[Index]) -> bool:
    wanted = [i for i in indices if i.extent != 1]
    return len(parts) == len(wanted) and all(a is b for a, b in zip(parts, wanted, strict=True))


def _own(node: Expr, output: Tensor) -> bool:
    return isinstance(node, Ref) and isinstance(node.tensor, Tensor) and node.tensor.key == output.key


def _reads_itself(body: Expr, output: Tensor) -> bool:
    return any(_own(node, output) for node in walk(body, into_definitions=True))


def _shift(node: Expr) -> int:
    """How many steps away, along the first index, a reference reads; 0 where that is not known."""
    form = affine(node.index[0]) if isinstance(node, Ref) and node.index else None
    plain = form is not None and list(form.steps.values()) == [1]
    return form.offset if form is not None and plain else 0


def _step_by_step(writer: Writer, body: Expr, indices: Sequence[Index], output: Tensor) -> None:
    """A law that reads its own output one step before: all that depends on it takes its steps with it."""
    met: list[Definition] = []

    def visit(node: Expr) -> bool:
        own = False
        for part in walk(node):
            own = own or _own(part, output)
            if isinstance(part, Ref) and isinstance(part.tensor, Definition):
                made = part.tensor
                if made in met:
                    own = True
                elif id(made) not in seen:
                    seen.add(id(made))
                    if visit(made.body):
                        met.append(made)
                        own = True
        return own

    seen: set[int] = set()
    visit(body)
    first = indices[0]
    shifts = {_shift(node) for node in walk(body, into_definitions=True) if _own(node, output)}
    together = bool(met) and all(made.shape[0] == first.extent for made in met)
    if not together or shifts not in ({-1}, {1}):
        raise NoJavaScript("a law that asks of its own numbers whether they are right")
    backward = shifts == {1}
    for made in met:
        writer.definitions[id(made)] = writer.scratch(math.prod(made.shape), made.name)
    writer.terms += math.prod(output.shape)
    writer._steps(met, backward, (indices, body))
