"""Matrix products and their relatives."""

from __future__ import annotations

from typing import Any

from openheart.formula.expr import Expr, index, total
from openheart.formula.functions import accumulated, computed_in
from openheart.formula.precision import FLOAT32, Precision
from openheart.rules.registry import rule


@rule("mm", "mm.out")
def mm(self: Any, mat2: Any, *, at: Any) -> Expr:
    # out = A B
    i, j = at
    k = index("k", self.shape[1])
    return total(k, self[i, k] * mat2[k, j])


@rule("addmm", "addmm_", "addmm.out")
def addmm(self: Any, mat1: Any, mat2: Any, beta: Any, alpha: Any, *, at: Any) -> Expr:
    # out = β b + α A B
    i, j = at
    k = index("k", mat1.shape[1])
    return accumulated(beta * self.broadcast(at), alpha * total(k, mat1[i, k] * mat2[k, j]))


@rule("bmm", "bmm.out")
def bmm(self: Any, mat2: Any, *, at: Any) -> Expr:
    # one matrix product for each b
    b, i, j = at
    k = index("k", self.shape[2])
    return total(k, self[b, i, k] * mat2[b, k, j])


@rule("baddbmm", "baddbmm_", "baddbmm.out")
def baddbmm(self: Any, batch1: Any, batch2: Any, beta: Any, alpha: Any, *, at: Any) -> Expr:
    b, i, j = at
    k = index("k", batch1.shape[2])
    return accumulated(beta * self.broadcast(at), alpha * total(k, batch1[b, i, k] * batch2[b, k, j]))


@rule("addbmm", "addbmm_")
def addbmm(self: Any, batch1: Any, batch2: Any, beta: Any, alpha: Any, *, at: Any, stored: Precision) -> Expr:
    # out = β b + α Σ_b A_b B_b; in half precision the running sum is stored after every product
    i, j = at
    b, k = index("b", batch1.shape[0]), index("k", batch1.shape[2])
    term = batch1[b, i, k] * batch2[b, k, j]
    if stored.unit > FLOAT32.unit:
        products = total(b, computed_in(FLOAT32, total(k, term)))
        return computed_in(stored, accumulated(beta * self.broadcast(at), alpha * products))
    return accumulated(beta * self.broadcast(at), alpha * total((b, k), term))


@rule("mv")
def mv(self: Any, vec: Any, *, at: Any) -> Expr:
    (i,) = at
    k = index("k", self.shape[1])
    return total(k, self[i, k] * vec[k])


@rule("addmv", "addmv_")
def addmv(self: Any, mat: Any, vec: Any, beta: Any, alpha: Any, *, at: Any) -> Expr:
    (i,) = at
    k = index("k", mat.shape[1])
    return accumulated(beta * self.broadcast(at), alpha * total(k, mat[i, k] * vec[k]))


@rule("dot")
def dot(self: Any, tensor: Any) -> Expr:
    k = index("k", self.shape[0])
    return total(k, self[k] * tensor[k])


@rule("ger", "outer")
def outer(self: Any, vec2: Any, *, at: Any) -> Expr:
    i, j = at
    return self[i] * vec2[j]
