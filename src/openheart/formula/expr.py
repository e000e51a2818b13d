"""The formula language: what a law is made of.

A law says how one element of an operator's output is made from elements of its inputs. It is a small
tree over *index variables*: indexing a symbolic tensor yields a reference, references combine by
arithmetic, and `total`, `mean`, `largest` ... reduce over index variables of their own.

    i, j, k = index("i", 1), index("j", 3), index("k", 2)
    law = bias[j] + total(k, x[i, k] * w[k, j])

Nothing here computes: `formula.evaluate` does, and the printers and compilers walk the same tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Scalar: TypeAlias = bool | int | float | complex
Kind: TypeAlias = Literal["float", "int", "bool", "complex"]
Operand: TypeAlias = "Expr | Scalar"
ReduceKind: TypeAlias = Literal[
    "sum", "mean", "product", "max", "min", "argmax", "argmin", "any", "all", "rank"
]

Binding: TypeAlias = int | range
"""What an index variable is fixed to: an integer, or a range of them."""

NO_INDICES: frozenset[Index] = frozenset()


class Expr:
    """Anything that has a value once its free indices have one. Operators build larger expressions."""

    __slots__ = ()
    free: frozenset[Index]

    def __add__(self, other: Operand) -> Expr:
        return add(self, other)

    def __radd__(self, other: Operand) -> Expr:
        return add(other, self)

    def __sub__(self, other: Operand) -> Expr:
        return subtract(self, other)

    def __rsub__(self, other: Operand) -> Expr:
        return subtract(other, self)

    def __mul__(self, other: Operand) -> Expr:
        return multiply(self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return multiply(other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return divide(self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return divide(other, self)

    def __floordiv__(self, other: Operand) -> Expr:
        whole = is_number(other, 1) and _counts(self)
        return self if whole else apply("floordiv", self, other)

    def __rfloordiv__(self, other: Operand) -> Expr:
        return apply("floordiv", other, self)

    def __mod__(self, other: Operand) -> Expr:
        return apply("mod", self, other)

    def __rmod__(self, other: Operand) -> Expr:
        return apply("mod", other, self)

    def __pow__(self, other: Operand) -> Expr:
        return power(self, other)

    def __rpow__(self, other: Operand) -> Expr:
        return apply("pow", other, self)

    def __neg__(self) -> Expr:
        return negate(self)

    def __abs__(self) -> Expr:
        return apply("abs", self)

    def __lt__(self, other: Operand) -> Expr:
        return apply("lt", self, other)

    def __le__(self, other: Operand) -> Expr:
        return apply("le", self, other)

    def __gt__(self, other: Operand) -> Expr:
        return apply("gt", self, other)

    def __ge__(self, other: Operand) -> Expr:
        return apply("ge", self, other)

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return apply("eq", self, other)  # type: ignore[arg-type]

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return apply("ne", self, other)  # type: ignore[arg-type]

    def __and__(self, other: Operand) -> Expr:
        return both(self, other)

    def __or__(self, other: Operand) -> Expr:
        return apply("or", self, other)

    def __invert__(self) -> Expr:
        return apply("not", self)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError(
            "a formula has no truth value while a law is written: use where(condition, a, b), "
            "or `&`, `|`, `~` between conditions"
        )

    def __iter__(self) -> Iterator[Expr]:
        raise TypeError("a formula is not a sequence")


@dataclass(frozen=True, slots=True, eq=False)
class Index(Expr):
    """An index variable: an integer from 0 to `extent` − 1."""

    name: str
    extent: int
    free: frozenset[Index] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "free", frozenset((self,)))


@dataclass(frozen=True, slots=True, eq=False)
class Number(Expr):
    """A constant. `name` is set for a hyperparameter: the law prints the name, the instance the number."""

    value: Scalar
    name: str | None = None
    free: frozenset[Index] = field(init=False, repr=False, default=NO_INDICES)


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A symbolic tensor: an argument or an output of the call whose law is written.

    `key` tells the evaluator which one: `("mat1", None)`, `("self", 3)` for a list's member,
    `("output", 0)` for the call's own recorded output.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    key: tuple[str, int | None]
    dtype: str = ""
    """The storage format's name, "bfloat16": some kernels round to it on the way."""

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, at: Operand | Sequence[Operand]) -> Ref:
        return Ref(self, _as_index(self.name, self.shape, at))

    def broadcast(self, at: Sequence[Expr]) -> Ref:
        """The element that meets output element `at` under PyTorch's broadcasting."""
        return Ref(self, broadcast_index(self.shape, at))

    def __iter__(self) -> Iterator[Ref]:
        raise TypeError(f"the symbolic tensor '{self.name}' is indexed, not iterated")


@dataclass(slots=True, eq=False)
class Definition:
    """A tensor that the law itself defines, element by element: `name[indices] = body`.

    With `order` "forward" or "backward" the body may refer to the definition's own element one step
    earlier (or later) along its first index: a recurrence. The members of a `group` take their steps
    together, in their order, and may refer to each other.
    """

    name: str
    indices: tuple[Index, ...]
    order: Literal["any", "forward", "backward"] = "any"
    body: Expr = field(default_factory=lambda: Number(0))
    kind: Kind = "float"
    group: tuple[Definition, ...] = field(default=(), repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(i.extent for i in self.indices)

    @property
    def ndim(self) -> int:
        return len(self.indices)

    def __getitem__(self, at: Operand | Sequence[Operand]) -> Ref:
        return Ref(self, _as_index(self.name, self.shape, at))


@dataclass(frozen=True, slots=True, eq=False)
class Ref(Expr):
    """One element of a tensor. Its index expressions may hold references to integer tensors (gather)."""

    tensor: Tensor | Definition
    index: tuple[Expr, ...]
    free: frozenset[Index] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "free", _free(self.index))


@dataclass(frozen=True, slots=True, eq=False)
class Apply(Expr):
    """A pointwise function of its arguments; the functions are the rows of `formula.functions`."""

    function: str
    args: tuple[Expr, ...]
    free: frozenset[Index] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "free", _free(self.args))


@dataclass(frozen=True, slots=True, eq=False)
class Reduce(Expr):
    """A reduction of `body` over index variables, over the places where `where` holds.

    "rank" counts how many places hold: order statistics are tests of it. "argmax" and "argmin" give the
    row-major position in `over` of the first extreme element, as PyTorch breaks ties.
    """

    kind: ReduceKind
    over: tuple[Index, ...]
    body: Expr
    where: Expr | None = None
    free: frozenset[Index] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        inside = self.body.free if self.where is None else self.body.free | self.where.free
        object.__setattr__(self, "free", inside - frozenset(self.over))


@dataclass(frozen=True, slots=True, eq=False)
class Named(Expr):
    """A part of a law with a name of its own (μ, σ², Z): printed as a line of its own."""

    name: str
    body: Expr
    free: frozenset[Index] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "free", self.body.free)


@dataclass(frozen=True, slots=True, eq=False)
class Leaf(Expr):
    """A number that no law makes: drawn at random, or memory that nobody has written yet."""

    kind: Literal["random", "uninitialized", "external"]
    free: frozenset[Index] = field(init=False, repr=False, default=NO_INDICES)


def _free(parts: Sequence[Expr]) -> frozenset[Index]:
    if not parts:
        return NO_INDICES
    return parts[0].free.union(*(part.free for part in parts[1:]))


def _as_index(name: str, shape: tuple[int, ...], at: Operand | Sequence[Operand]) -> tuple[Expr, ...]:
    index = tuple(expr(a) for a in at) if isinstance(at, (tuple, list)) else (expr(at),)  # type: ignore[arg-type]
    if len(index) != len(shape):
        raise TypeError(f"'{name}' has {len(shape)} dimensions {shape}, and was given {len(index)} indices")
    return index


def broadcast_index(shape: tuple[int, ...], at: Sequence[Expr]) -> tuple[Expr, ...]:
    """The indices into `shape` that meet output element `at` when shapes align at the right.

    A dimension of size 1 gives 0 whatever the output index is (PyTorch's broadcasting rule).
    """
    if len(shape) > len(at) and any(size != 1 for size in shape[: len(shape) - len(at)]):
        raise TypeError(f"a tensor of shape {shape} does not broadcast to {len(at)} dimensions")
    last = list(at)[max(0, len(at) - len(shape)) :]
    last = [Number(0)] * (len(shape) - len(last)) + last
    return tuple(Number(0) if size == 1 else i for size, i in zip(shape, last, strict=True))


def expr(value: Operand) -> Expr:
    """The value itself when it is a formula, else the constant it is."""
    return value if isinstance(value, Expr) else Number(value)


def is_number(value: Operand, equal_to: Scalar) -> bool:
    """Whether `value` is the plain constant `equal_to` (True and 1.0 count as 1)."""
    if isinstance(value, Number):
        return value.value == equal_to
    return not isinstance(value, Expr) and value == equal_to


def _counts(node: Expr) -> bool:
    """Whether the node is whole by its form: index variables, whole constants, and their arithmetic."""
    if isinstance(node, Index):
        return True
    if isinstance(node, Number):
        return type(node.value) is int
    if isinstance(node, Ref):
        return node.tensor.kind == "int"
    arithmetic = ("add", "sub", "mul", "floordiv", "mod", "neg")
    return isinstance(node, Apply) and node.function in arithmetic and all(map(_counts, node.args))


def apply(function: str, *args: Operand) -> Apply:
    """A pointwise function of its arguments, by name."""
    return Apply(function, tuple(expr(a) for a in args))


def add(a: Operand, b: Operand) -> Expr:
    """The sum a + b; adding 0 is left out."""
    if is_number(a, 0):
        return expr(b)
    if is_number(b, 0):
        return expr(a)
    return _folded("add", expr(a), expr(b))


def subtract(a: Operand, b: Operand) -> Expr:
    """The difference a − b; subtracting 0 is left out."""
    if is_number(b, 0):
        return expr(a)
    return _folded("sub", expr(a), expr(b))


def multiply(a: Operand, b: Operand) -> Expr:
    """The product a · b; a factor 1 is left out."""
    if is_number(a, 1):
        return expr(b)
    if is_number(b, 1):
        return expr(a)
    return _folded("mul", expr(a), expr(b))


def divide(a: Operand, b: Operand) -> Expr:
    """The quotient a / b; dividing by 1 is left out."""
    return expr(a) if is_number(b, 1) else apply("div", a, b)


def power(a: Operand, b: Operand) -> Expr:
    """The power aᵇ; the power 1 is left out."""
    return expr(a) if is_number(b, 1) else apply("pow", a, b)


def negate(a: Operand) -> Expr:
    """−a."""
    if isinstance(a, Apply) and a.function == "neg":
        return a.args[0]
    return apply("neg", a)


def both(a: Operand, b: Operand) -> Expr:
    """Whether both conditions hold."""
    if isinstance(a, bool) or isinstance(b, bool):
        known, other = (a, b) if isinstance(a, bool) else (b, a)
        return expr(other) if known else Number(False)
    return apply("and", a, b)


def _folded(function: str, a: Expr, b: Expr) -> Expr:
    """Fold integer constants, so that index arithmetic stays as short as one would write it."""
    if (
        isinstance(a, Number)
        and isinstance(b, Number)
        and type(a.value) is int
        and type(b.value) is int
        and a.name is None
        and b.name is None
    ):
        fold: dict[str, Callable[[int, int], int]] = {
            "add": int.__add__,
            "sub": int.__sub__,
            "mul": int.__mul__,
        }
        return Number(fold[function](a.value, b.value))
    return Apply(function, (a, b))


def index(name: str, extent: int) -> Index:
    """An index variable that runs over 0 … extent − 1."""
    return Index(name, int(extent))


Over: TypeAlias = "Index | Sequence[Index]"
NOTHING: dict[ReduceKind, Scalar] = {
    **dict.fromkeys(("sum", "rank", "any", "mean"), 0),
    **dict.fromkeys(("product", "all"), 1),
    "max": -math.inf,
    "min": math.inf,
    "argmax": 0,
    "argmin": 0,
}
"""What a reduction over nothing gives."""


def _reduce(kind: ReduceKind, over: Over, body: Operand, where: Operand | None = None) -> Expr:
    indices = (over,) if isinstance(over, Index) else tuple(over)
    condition = None if where is None or where is True else expr(where)
    if indices:
        return Reduce(kind, indices, expr(body), condition)
    if condition is None:
        return expr(body)
    return apply("where", condition, body, NOTHING[kind])


def total(over: Over, body: Operand, where: Operand | None = None) -> Expr:
    """Σ body, over the places where `where` holds."""
    return _reduce("sum", over, body, where)


def mean(over: Over, body: Operand) -> Expr:
    """(1/n) Σ body."""
    return _reduce("mean", over, body)


def product(over: Over, body: Operand, where: Operand | None = None) -> Expr:
    """Π body."""
    return _reduce("product", over, body, where)


def largest(over: Over, body: Operand, where: Operand | None = None) -> Expr:
    """The largest body; −∞ where nothing holds."""
    return _reduce("max", over, body, where)


def smallest(over: Over, body: Operand, where: Operand | None = None) -> Expr:
    """The smallest body; +∞ where nothing holds."""
    return _reduce("min", over, body, where)


def argmax(over: Over, body: Operand, where: Operand | None = None) -> Expr:
    """Row-major position, within `over`, of the first largest body."""
    return _reduce("argmax", over, body, where)


def argmin(over: Over, body: Operand, where: Operand | None = None) -> Expr:
    """Row-major position, within `over`, of the first smallest body."""
    return _reduce("argmin", over, body, where)


def count(over: Over, where: Operand) -> Expr:
    """How many places satisfy the condition, an integer."""
    return _reduce("rank", over, Number(1), where)


def exists(over: Over, body: Operand) -> Expr:
    """Whether the body holds anywhere."""
    return _reduce("any", over, body)


def everywhere(over: Over, body: Operand) -> Expr:
    """Whether the body holds everywhere."""
    return _reduce("all", over, body)


def where(condition: Operand, then: Operand, otherwise: Operand) -> Expr:
    """`then` where the condition holds, else `otherwise`; the side not taken is not read."""
    if isinstance(condition, bool):
        return expr(then) if condition else expr(otherwise)
    return apply("where", condition, then, otherwise)


def named(name: str, body: Operand) -> Named:
    """The body under a name of its own, printed as its own line."""
    return Named(name, expr(body))


def define(name: str, indices: Sequence[Index], body: Operand, kind: Kind = "float") -> Definition:
    """A tensor that the law defines: `name[indices] = body`; index it like any tensor."""
    return Definition(name, tuple(indices), body=expr(body), kind=kind)


def recurrence(
    name: str,
    indices: Sequence[Index],
    step: Callable[[Definition], Operand],
    *,
    backward: bool = False,
) -> Definition:
    """A tensor defined step by step along its first index.

    `step` receives the definition and returns its body, which may refer to the definition at the
    index before (after, with `backward`) inside a `where` that keeps it within range.
    """
    made = Definition(name, tuple(indices), order="backward" if backward else "forward")
    made.body = expr(step(made))
    return made


def recurrences(
    named_indices: Sequence[tuple[str, Sequence[Index]]],
    step: Callable[[tuple[Definition, ...]], Sequence[Operand]],
    *,
    backward: bool = False,
) -> tuple[Definition, ...]:
    """Several recurrences that take their steps together, along first indices of one extent.

    `step` receives the definitions and returns their bodies, in the same order. At each step a body may
    refer to all of them at the step before, and to those that stand before it at the same step.
    """
    order: Literal["forward", "backward"] = "backward" if backward else "forward"
    group = tuple(Definition(name, tuple(indices), order=order) for name, indices in named_indices)
    for made, body in zip(group, step(group), strict=True):
        made.body = expr(body)
        made.group = group
    return group


def children(node: Expr) -> tuple[Expr, ...]:
    """The expressions directly under a node; a reference's are its index expressions."""
    if isinstance(node, Apply):
        return node.args
    if isinstance(node, Reduce):
        return (node.body,) if node.where is None else (node.body, node.where)
    if isinstance(node, Ref):
        return node.index
    if isinstance(node, Named):
        return (node.body,)
    return ()


def walk(node: Expr, into_definitions: bool = False) -> Iterator[Expr]:
    """Every distinct node under `node`, itself included, parents first."""
    seen: set[int] = set()
    stack = [node]
    while stack:
        here = stack.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        yield here
        stack.extend(reversed(children(here)))
        if into_definitions and isinstance(here, Ref) and isinstance(here.tensor, Definition):
            stack.append(here.tensor.body)
