"""Writes the lines of one JavaScript function: what stands in which loop, and what has a name."""

from __future__ import annotations

import math
import re
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
from openheart.formula.javascript_blocks import RESERVED, UNITS, Block, identifier, literal
from openheart.formula.javascript_folds import reduced, staged
from openheart.formula.javascript_pointwise import applied
from openheart.formula.javascript_rows import (
    ATOM,
    SUM,
    NoJavaScript,
    Operand,
    within,
)
from openheart.formula.precision import Precision
from openheart.formula.strided import affine


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
        core = node
        while isinstance(core, Named):
            core = core.body
        held = staged(self, core, home) if isinstance(core, Reduce) else None
        if held is not None:
            return held
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
        if isinstance(node, Ref) and self.flat is not None:
            return f"{node.tensor.name}_i"
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
            return reduced(self, node)
        if isinstance(node, Apply):
            return applied(self, node)
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

    def _variable(self, wish: str, start: str) -> str:
        name = self.fresh(wish)
        self.block.lines.append(f"let {name} = {start};")
        return name

    def _add(self, *lines: str) -> None:
        self.block.lines.extend(lines)

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
