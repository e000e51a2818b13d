"""Small random formulas, for property tests: where, windows, matches, nested reductions, gathers."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from openheart.formula.expr import (
    Expr,
    Index,
    Number,
    Tensor,
    argmax,
    argmin,
    count,
    exists,
    index,
    largest,
    mean,
    named,
    product,
    smallest,
    total,
    where,
)
from openheart.formula.functions import exp, log1p, maximum, minimum, sin, sqrt, tanh

ROWS, COLUMNS = 3, 4
X = Tensor("x", (ROWS, COLUMNS), "float", ("x", None))
U = Tensor("u", (ROWS,), "float", ("u", None))
V = Tensor("v", (COLUMNS,), "float", ("v", None))
N = Tensor("n", (COLUMNS,), "int", ("n", None))
B = Tensor("b", (ROWS, COLUMNS), "bool", ("b", None))


def numbers(seed: int) -> dict[str, np.ndarray]:
    """Numbers for the tensors, all of them float32 numbers."""
    draw = np.random.default_rng(seed)
    made = {t.name: draw.normal(size=t.shape).astype(np.float32).astype(np.float64) for t in (X, U, V)}
    made["n"] = draw.integers(0, ROWS, COLUMNS)
    made["b"] = draw.random((ROWS, COLUMNS)) < 0.5
    return made


def _one_of(draw, scope, extent):
    """An index of the scope with this extent, or a fixed place."""
    fit = [i for i in scope if i.extent == extent]
    return (
        draw(st.sampled_from(fit))
        if fit and draw(st.integers(0, 4))
        else Number(draw(st.integers(0, extent - 1)))
    )


def _row(draw, scope):
    if draw(st.integers(0, 4)) == 0:  # a gather
        return N[_one_of(draw, scope, COLUMNS)]
    return _one_of(draw, scope, ROWS)


def _read(draw, scope) -> Expr:
    kind = draw(st.sampled_from("xuv"))
    if kind == "x":
        return X[_row(draw, scope), _one_of(draw, scope, COLUMNS)]
    return U[_row(draw, scope)] if kind == "u" else V[_one_of(draw, scope, COLUMNS)]


def _condition(draw, scope) -> Expr:
    """A condition that rounding cannot change: of recorded numbers, places and truth values."""
    kind = draw(st.sampled_from(["read", "place", "bool", "match"]))
    if kind == "read":
        return _read(draw, scope) < _read(draw, scope)
    if kind == "bool":
        return B[_one_of(draw, scope, ROWS), _one_of(draw, scope, COLUMNS)]
    if kind == "match":
        return N[_one_of(draw, scope, COLUMNS)] == _one_of(draw, scope, ROWS)
    a = draw(st.sampled_from(scope))
    return draw(st.sampled_from([a <= 1, a % 2 == 0, a != draw(st.sampled_from(scope)), ~(a >= 2)]))


def _conditions(draw, scope) -> Expr | None:
    found = [_condition(draw, scope) for _ in range(draw(st.integers(0, 2)))]
    if not found:
        return None
    return found[0] if len(found) == 1 else draw(st.sampled_from([found[0] & found[1], found[0] | found[1]]))


def _window(draw, scope, depth) -> Expr:
    """A sum over a sliding window, with its conditions at the border."""
    j = next((i for i in scope if i.extent == COLUMNS), None)
    if j is None:
        return _read(draw, scope)
    k = index("w", draw(st.integers(1, 3)))
    stride, dilation, padding = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(0, 2))
    seen = j * stride + k * dilation - padding
    inside = (seen >= 0) & (seen < COLUMNS)
    fold = draw(st.sampled_from([total, product]))
    return fold(k, X[_row(draw, scope), seen] * _expression(draw, [*scope, k], depth - 2), where=inside)


def _matches(draw, scope, depth) -> Expr:
    """A sum over the places whose index names this one."""
    i = next((i for i in scope if i.extent == ROWS), None)
    if i is None:
        return _read(draw, scope)
    k = index("m", COLUMNS)
    others = [s for s in scope if s is not i]
    body = _expression(draw, [*others, k], depth - 2)
    extra = _condition(draw, [*others, k]) if draw(st.booleans()) else None
    here = N[k] == i
    return total(k, body, where=here if extra is None else here & extra)


def _running(draw, scope, depth) -> Expr:
    """A reduction over all places up to this one."""
    i = draw(st.sampled_from(scope))
    k = index("r", i.extent)
    others = [s for s in scope if s is not i]
    fold = draw(st.sampled_from([total, product, largest, smallest]))
    reach = (
        draw(st.sampled_from([k <= i, k >= i]))
        if fold in (largest, smallest)
        else draw(st.sampled_from([k <= i, k < i]))
    )
    return fold(k, _expression(draw, [*others, k], depth - 2), where=reach)


def _reduced(draw, scope, depth) -> Expr:
    over = [
        index(name, draw(st.sampled_from([1, 2, ROWS, COLUMNS])))
        for name in draw(st.sampled_from(["k", "kl"]))
    ]
    inner = [*scope, *over]
    kind = draw(st.sampled_from(["sum", "sum", "mean", "product", "max", "min", "place", "count", "exists"]))
    if kind == "place":
        fold = draw(st.sampled_from([argmax, argmin]))
        return fold(over, _read(draw, inner))
    if kind == "count":
        return count(over, _condition(draw, inner)) + 0.5
    if kind == "exists":
        return where(exists(over, _condition(draw, inner)), _read(draw, scope), 1.0)
    body = _expression(draw, inner, depth - 1)
    if kind == "mean":
        return mean(over, body)
    if kind in ("max", "min"):  # never of nothing: −∞ would spread
        return (largest if kind == "max" else smallest)(over, body)
    return (total if kind == "sum" else product)(over, body, where=_conditions(draw, inner))


def _expression(draw, scope: list[Index], depth: int) -> Expr:
    if depth <= 0:
        return draw(
            st.sampled_from(
                [
                    _read(draw, scope),
                    _read(draw, scope),
                    Number(draw(st.sampled_from([2, -1.5, 0.1]))),
                    scope[0] + 0,
                ]
            )
        )
    kind = draw(
        st.sampled_from(
            ["add", "sub", "mul", "div", "smooth", "where", "extreme", "reduce", "window", "match", "running"]
        )
    )
    if kind == "reduce":
        return _reduced(draw, scope, depth)
    if kind == "window":
        return _window(draw, scope, depth)
    if kind == "match":
        return _matches(draw, scope, depth)
    if kind == "running":
        return _running(draw, scope, depth)
    a = _expression(draw, scope, depth - 1)
    if kind == "smooth":
        return draw(
            st.sampled_from(
                [exp(tanh(a)), sqrt(abs(a)), log1p(abs(a)), sin(a), -a, named("part", a), tanh(a) ** 2]
            )
        )
    b = _expression(draw, scope, depth - 1)
    if kind == "where":
        return where(_condition(draw, scope), a, b)
    if kind == "extreme":
        return draw(st.sampled_from([maximum(a, b), minimum(a, b)]))
    return {"add": a + b, "sub": a - b, "mul": a * b, "div": a / (abs(b) + 1)}[kind]


@st.composite
def formulas(draw, depth: int = 4) -> tuple[Expr, tuple[Index, Index]]:
    """A formula over an output of ROWS × COLUMNS elements, and the output's indices."""
    i, j = index("i", ROWS), index("j", COLUMNS)
    return _expression(draw, [i, j], draw(st.integers(1, depth))), (i, j)
