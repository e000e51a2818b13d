"""Matrix products and their relatives."""

from __future__ import annotations

from typing import Any

from openheart.formula.expr import Expr, Leaf, Number, count, expr, index, named, total, where
from openheart.formula.functions import accumulated, computed_in, conj, to_bool
from openheart.formula.precision import FLOAT32
from openheart.rules.registry import rule, value_of
from openheart.rules.rows import HALVES, held, stored


def factor(scalar: Any, result: Any) -> Any:
    """A scalar as the kernel multiplies by it: of a tensor of whole numbers by its whole part."""
    if result.kind in ("int", "bool") and type(value_of(scalar)) is float:
        return Number(held(value_of(scalar), "int64" if result.kind == "int" else "bool"), scalar.name)
    return scalar


def scaled_sum(beta: Any, start: Expr, alpha: Any, terms: Expr, result: Any) -> Expr:
    """β·start + α·terms; with β = 0 `start` is not read, and in half precision β·start is stored first."""
    added = factor(alpha, result) * terms
    if value_of(factor(beta, result)) == 0:
        whole = expr(added)
    else:
        whole = accumulated(stored(factor(beta, result) * start, result), added)
    return to_bool(whole) if result.kind == "bool" else whole


@rule("mm", "mm.out")
def mm(self: Any, mat2: Any, *, at: Any) -> Expr:
    # out = A B
    i, j = at
    k = index("k", self.shape[1])
    return total(k, self[i, k] * mat2[k, j])


@rule("addmm", "addmm_", "addmm.out")
def addmm(self: Any, mat1: Any, mat2: Any, beta: Any, alpha: Any, *, at: Any, result: Any) -> Expr:
    # out = β b + α A B
    i, j = at
    k = index("k", mat1.shape[1])
    return scaled_sum(beta, self.broadcast(at), alpha, total(k, mat1[i, k] * mat2[k, j]), result)


@rule("bmm", "bmm.out")
def bmm(self: Any, mat2: Any, *, at: Any) -> Expr:
    # one matrix product for each b
    b, i, j = at
    k = index("k", self.shape[2])
    return total(k, self[b, i, k] * mat2[b, k, j])


@rule("baddbmm", "baddbmm_", "baddbmm.out")
def baddbmm(self: Any, batch1: Any, batch2: Any, beta: Any, alpha: Any, *, at: Any, result: Any) -> Expr:
    b, i, j = at
    k = index("k", batch1.shape[2])
    product = total(k, batch1[b, i, k] * batch2[b, k, j])
    return scaled_sum(beta, self.broadcast(at), alpha, product, result)


@rule("addbmm", "addbmm_")
def addbmm(self: Any, batch1: Any, batch2: Any, beta: Any, alpha: Any, *, at: Any, result: Any) -> Expr:
    # out = β b + α Σ_b A_b B_b; in half precision the running sum is stored after every product
    i, j = at
    b, k = index("b", batch1.shape[0]), index("k", batch1.shape[2])
    term = batch1[b, i, k] * batch2[b, k, j]
    products = total((b, k), term)
    if result.dtype in HALVES:
        products = total(b, computed_in(FLOAT32, total(k, term)))
    return stored(scaled_sum(beta, self.broadcast(at), alpha, products, result), result)


@rule("mv")
def mv(self: Any, vec: Any, *, at: Any, result: Any, geometry: Any) -> Expr:
    # in half precision the plain loop, which takes vectors with gaps, adds up in the tensor's own format
    (i,) = at
    k = index("k", self.shape[1])
    made = total(k, self[i, k] * vec[k])
    return made if geometry["vec"].stride == (1,) else stored(made, result)


@rule("addmv", "addmv_")
def addmv(self: Any, mat: Any, vec: Any, beta: Any, alpha: Any, *, at: Any, result: Any) -> Expr:
    (i,) = at
    k = index("k", mat.shape[1])
    # in half precision the plain loop adds up in the tensor's own format; the quick one does where α = 1
    return stored(scaled_sum(beta, self.broadcast(at), alpha, total(k, mat[i, k] * vec[k]), result), result)


@rule("addr", "addr_", "addr.out")
def addr(self: Any, vec1: Any, vec2: Any, beta: Any, alpha: Any, *, at: Any, result: Any) -> Expr:
    # out = β C + α a bᵀ; in half precision each step is rounded
    i, j = at
    product = factor(alpha, result) * vec1[i] * vec2[j]
    return stored(scaled_sum(beta, self.broadcast(at), 1, product, result), result)


@rule("dot")
def dot(self: Any, tensor: Any) -> Expr:
    k = index("k", self.shape[0])
    return total(k, self[k] * tensor[k])


@rule("vdot", "vdot.out")
def vdot(self: Any, other: Any) -> Expr:
    # Σ a̅ b
    k = index("k", self.shape[0])
    return total(k, (conj(self[k]) if self.kind == "complex" else self[k]) * other[k])


@rule("_grouped_mm")
def grouped_mm(self: Any, mat2: Any, offs: Any, *, at: Any) -> Expr:
    # One product for each group; `offs` says where the groups end. Rows, columns or summed numbers are
    # grouped, whichever the two-dimensional operands share (aten/src/ATen/native/GroupedMMUtils.h).
    k = index("k", self.shape[-1])
    if offs is None:
        b, i, j = at
        return total(k, self[b, i, k] * mat2[b, k, j])
    if self.ndim == mat2.ndim:
        g, i, j = at
        first = where(g == 0, 0, offs[g - 1])
        return total(k, self[i, k] * mat2[k, j], where=(k >= first) & (k < offs[g]))
    i, j = at
    n = index("n", offs.shape[0])
    g = named("g", count(n, offs[n] <= (i if self.ndim == 2 else j)))
    left, right = (self[i, k], mat2[g, k, j]) if self.ndim == 2 else (self[g, i, k], mat2[k, j])
    return where(g < offs.shape[0], total(k, left * right), Leaf("uninitialized"))


@rule("ger", "outer")
def outer(self: Any, vec2: Any, *, at: Any) -> Expr:
    i, j = at
    return self[i] * vec2[j]
