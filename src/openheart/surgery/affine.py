"""A law cut in two: the part that is linear in some of its tensors, and the constant part.

A law is a tree over references. Of a sum the parts are the sums of the parts; of a product with a number
that does not move, the products; of a selection, those of the branch that was taken. So whether an operator
is affine is read from its law, and its linear part is a law like any other: it is evaluated, with its
rounding bound, by `formula.evaluate`.

Where a law chooses by a number that moves (max, where, |x|), the choice is the recorded one, and the place
at which it would change is a `Kink`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

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
    apply,
    both,
    negate,
    walk,
    where,
)
from openheart.formula.functions import TRANSPARENT

__all__ = ["Cut", "Kink", "Parts", "Refusal", "bare", "rewrite"]

Parts: TypeAlias = "tuple[Expr | None, Expr]"
"""The linear part (None: nothing moves) over the column and the law's indices, and the constant part."""

ORDERS = frozenset({"lt", "le", "gt", "ge"})
JOINS = frozenset({"and", "or", "xor", "not"})


class Refusal(Exception):
    """Raised where a law is not affine; `reason` is the end of a catalogue key, `function` what was met."""

    def __init__(self, reason: str, function: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.function = function


@dataclass(frozen=True, slots=True, eq=False)
class Kink:
    """A choice of a law: it changes where `plain`, the gap between the two sides, passes through 0.

    `linear` and `constant` are the parts of the gap, `indices` the places it stands at, `inside` the
    condition under which a place counts; `unit` is the one moving reference in it, where there is just one.
    Of a choice among the places of a reduction, `winner` is the one that was taken.
    """

    plain: Expr
    linear: Expr
    constant: Expr
    indices: frozenset[Index]
    inside: Expr | None
    unit: Ref | None
    winner: Expr | None


@dataclass(slots=True)
class Cut:
    """Cuts one law in two.

    Attributes:
        column: the index variable along which the linear parts of the moving tensors lie.
        moving: for each moving tensor, by its key, its linear and its constant part as tensors.
        piecewise: whether choices by moving numbers are taken as recorded; else they are refused.
        by_row: whether the parts of the moving tensors are those of one sample alone: of the size 1 along
            the first index, whatever that is.
        kinks: the choices that were met.
    """

    column: Index
    moving: Mapping[tuple[str, int | None], tuple[Definition, Definition]]
    piecewise: bool = False
    by_row: bool = False
    kinks: list[Kink] = field(default_factory=list)
    _memo: dict[int, Parts] = field(default_factory=dict)
    _moves: dict[int, bool] = field(default_factory=dict)
    _made: dict[int, tuple[Definition | None, Definition]] = field(default_factory=dict)
    _held: list[Expr] = field(default_factory=list)
    _within: list[Expr] = field(default_factory=list)

    def moves(self, node: Expr) -> bool:
        """Whether a moving tensor is read under a node."""
        known = self._moves.get(id(node))
        if known is None:
            known = self._moves[id(node)] = self._reads(node)
            self._held.append(node)  # an id is a node's as long as the node lives
        return known

    def _reads(self, node: Expr) -> bool:
        if isinstance(node, Ref):
            if any(map(self.moves, node.index)):
                return True
            if isinstance(node.tensor, Tensor):
                return node.tensor.key in self.moving
            return (node.tensor.order == "any" and self.moves(node.tensor.body)) or self._recurs(node.tensor)
        if isinstance(node, Apply):
            return any(map(self.moves, node.args))
        if isinstance(node, Reduce):
            return self.moves(node.body) or (node.where is not None and self.moves(node.where))
        return isinstance(node, Named) and self.moves(node.body)

    def _recurs(self, made: Definition) -> bool:
        if made.order == "any":
            return False
        return any(_reads_any(member.body, self.moving) for member in made.group or (made,))

    def of(self, node: Expr) -> Parts:
        """The linear and the constant part of a node.

        **Raises** `Refusal` where it is not affine.
        """
        known = self._memo.get(id(node))
        if known is None:
            known = self._memo[id(node)] = self._cut(node) if self.moves(node) else (None, bare(node))
            self._held.append(node)
        return known

    def _cut(self, node: Expr) -> Parts:
        if isinstance(node, Named):
            return self.of(node.body)
        if isinstance(node, Ref):
            return self._ref(node)
        if isinstance(node, Reduce):
            return self._reduced(node)
        assert isinstance(node, Apply), node
        name = node.function
        if name in TRANSPARENT:
            return self.of(node.args[0])
        if name == "where":
            return self._chosen(*node.args)
        if name in ("max", "min"):
            return self._extreme(node)
        if name == "abs":
            return self._size(node.args[0])
        if name in ORDERS or name in JOINS or name in ("isnan", "isinf"):
            self._condition(node)
            return None, node
        return self._arithmetic(node)

    def _ref(self, node: Ref) -> Parts:
        if any(map(self.moves, node.index)):
            raise Refusal("place")
        if isinstance(node.tensor, Tensor):
            linear, constant = self.moving[node.tensor.key]
            index = (Number(0), *node.index[1:]) if self.by_row else node.index
            return Ref(linear, (self.column, *index)), Ref(constant, index)
        if node.tensor.order != "any":
            raise Refusal("recurrence")
        first, second = self._defined(node.tensor)
        return None if first is None else Ref(first, (self.column, *node.index)), Ref(second, node.index)

    def _defined(self, made: Definition) -> tuple[Definition | None, Definition]:
        known = self._made.get(id(made))
        if known is None:
            linear, constant = self.of(made.body)
            known = self._made[id(made)] = (
                None
                if linear is None
                else Definition(made.name, (self.column, *made.indices), body=linear, kind=made.kind),
                Definition(made.name, made.indices, body=constant, kind=made.kind),
            )
        return known

    def _arithmetic(self, node: Apply) -> Parts:
        name = node.function
        pairs = [self.of(arg) for arg in node.args]
        linear = [a for a, _ in pairs]
        constant = apply(name, *(c for _, c in pairs))
        if all(a is None for a in linear):
            return None, constant
        if name == "neg" and linear[0] is not None:
            return negate(linear[0]), constant
        if name == "add":
            return _sum(linear[0], linear[1]), constant
        if name == "sub":
            return _difference(linear[0], linear[1]), constant
        if name == "mul":
            a, b = linear
            if a is not None and b is not None:
                raise Refusal("product")
            return (a * pairs[1][1] if a is not None else pairs[0][1] * b), constant  # type: ignore[operator]
        if name == "div":
            if linear[1] is not None:
                raise Refusal("quotient")
            assert linear[0] is not None
            return linear[0] / pairs[1][1], constant
        raise Refusal("function", name)

    # -- choices -----------------------------------------------------------------------------------

    def _chosen(self, condition: Expr, then: Expr, otherwise: Expr) -> Parts:
        self._condition(condition)
        (a, ca), (b, cb) = self.of(then), self.of(otherwise)
        if a is None and b is None:
            return None, where(condition, ca, cb)
        return where(condition, a if a is not None else 0.0, b if b is not None else 0.0), where(
            condition, ca, cb
        )

    def _condition(self, node: Expr) -> None:
        """Notes the gaps that decide a condition.

        **Raises** `Refusal` for one that is no order of two affine numbers.
        """
        if not self.moves(node):
            return None
        if isinstance(node, Named):
            return self._condition(node.body)
        if not self.piecewise:
            raise Refusal("choice")
        if isinstance(node, Apply):
            if node.function in ("isnan", "isinf"):
                return None  # of a finite number, as all are near a recorded one
            if node.function in JOINS:
                for arg in node.args:
                    self._condition(arg)
                return None
            if node.function in ORDERS:
                return self._note(apply("sub", *node.args))
        raise Refusal("choice")

    def _note(self, gap: Expr) -> None:
        linear, constant = self.of(gap)
        if linear is None:
            return
        inside: Expr | None = None
        for condition in self._within:
            inside = condition if inside is None else both(inside, condition)
        free = gap.free if inside is None else gap.free | inside.free
        refs = _moving_refs(gap, self.moving)
        unit = refs[0] if len(refs) == 1 else None
        self.kinks.append(Kink(bare(gap), linear, constant, free, inside, unit, None))

    def _extreme(self, node: Apply) -> Parts:
        # max(a, b) is a where a > b, else b
        a, b = node.args
        return self._chosen(apply("gt" if node.function == "max" else "lt", a, b), a, b)

    def _size(self, x: Expr) -> Parts:
        # |x| is −x where x < 0, else x
        return self._chosen(apply("lt", x, 0), negate(x), x)

    def _reduced(self, node: Reduce) -> Parts:
        if node.where is not None and self.moves(node.where):
            raise Refusal("choice")
        if node.kind in ("sum", "mean"):
            if node.where is not None:
                self._within.append(node.where)
            linear, constant = self.of(node.body)
            if node.where is not None:
                self._within.pop()
            whole = Reduce(node.kind, node.over, constant, node.where)
            return None if linear is None else Reduce(node.kind, node.over, linear, node.where), whole
        if node.kind in ("max", "min"):
            return self._first(node)
        raise Refusal("function", node.kind)

    def _first(self, node: Reduce) -> Parts:
        """The largest (smallest) of many: the first of them, as recorded."""
        if not self.piecewise:
            raise Refusal("choice")
        linear, constant = self.of(node.body)
        if linear is None:
            return None, Reduce(node.kind, node.over, constant, node.where)
        place: Expr = node.over[0]
        for k in node.over[1:]:
            place = place * k.extent + k
        first = Reduce("argmax" if node.kind == "max" else "argmin", node.over, bare(node.body), node.where)
        here = apply("eq", place, first)
        a = Reduce("sum", node.over, linear, here)
        c = Reduce("sum", node.over, constant, here)
        others = apply("ne", place, first)
        inside = others if node.where is None else both(node.where, others)
        gap = apply("sub", Reduce(node.kind, node.over, bare(node.body), node.where), bare(node.body))
        parts = apply("sub", a, linear), apply("sub", c, constant)
        self.kinks.append(Kink(gap, *parts, gap.free | inside.free, inside, None, first))
        return a, c


def _sum(a: Expr | None, b: Expr | None) -> Expr | None:
    return b if a is None else a if b is None else a + b


def _difference(a: Expr | None, b: Expr | None) -> Expr | None:
    if b is None:
        return a
    return negate(b) if a is None else a - b


def _reads_any(node: Expr, moving: Mapping[tuple[str, int | None], object]) -> bool:
    return bool(_moving_refs(node, moving))


def _moving_refs(node: Expr, moving: Mapping[tuple[str, int | None], object]) -> list[Ref]:
    """The references under a node to tensors that move."""
    return [
        here
        for here in walk(node, into_definitions=True)
        if isinstance(here, Ref) and isinstance(here.tensor, Tensor) and here.tensor.key in moving
    ]


# Rewriting ------------------------------------------------------------------------------------------


def rewrite(node: Expr, change: Callable[[Expr], Expr | None]) -> Expr:
    """The tree with every node for which `change` gives another one replaced by that; parts stay shared."""
    memo: dict[int, Expr] = {}
    made: dict[int, Definition] = {}

    def definition(tensor: Tensor | Definition) -> Tensor | Definition:
        if isinstance(tensor, Tensor) or tensor.order != "any":
            return tensor
        if id(tensor) not in made:
            made[id(tensor)] = Definition(tensor.name, tensor.indices, body=of(tensor.body), kind=tensor.kind)
        return made[id(tensor)]

    def of(here: Expr) -> Expr:
        known = memo.get(id(here))
        if known is None:
            changed = change(here)
            known = memo[id(here)] = inside(here) if changed is None else changed
        return known

    def inside(here: Expr) -> Expr:
        if isinstance(here, (Number, Index, Leaf)):
            return here
        if isinstance(here, Ref):
            return Ref(definition(here.tensor), tuple(map(of, here.index)))
        if isinstance(here, Apply):
            return Apply(here.function, tuple(map(of, here.args)))
        if isinstance(here, Reduce):
            condition = None if here.where is None else of(here.where)
            return Reduce(here.kind, here.over, of(here.body), condition)
        assert isinstance(here, Named)
        return Named(here.name, of(here.body))

    return of(node)


def bare(node: Expr) -> Expr:
    """The formula without what it says about precision: as mathematics has it."""

    def change(here: Expr) -> Expr | None:
        if isinstance(here, Apply) and here.function in TRANSPARENT and here.function != "float":
            return bare(here.args[0])
        return None

    return rewrite(node, change)
