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
from collections.abc import Sequence
from dataclasses import dataclass

from openheart.formula.expr import (
    Definition,
    Expr,
    Index,
    Number,
    Reduce,
    Ref,
    Tensor,
    children,
    walk,
)
from openheart.formula.javascript_blocks import Block, identifier, literal
from openheart.formula.javascript_rows import (
    NoJavaScript,
)
from openheart.formula.javascript_writer import Writer
from openheart.formula.precision import Precision
from openheart.formula.strided import affine

__all__ = ["Function", "NoJavaScript", "function_of", "identifier", "literal"]


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
