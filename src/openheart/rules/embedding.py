"""Embeddings: rows of a table looked up by number, alone or summed up in bags, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openheart.formula.expr import (
    Definition,
    Expr,
    Index,
    Number,
    Operand,
    Ref,
    argmax,
    both,
    count,
    define,
    index,
    largest,
    named,
    total,
    where,
)
from openheart.formula.functions import computed_in, double
from openheart.formula.precision import FLOAT32
from openheart.rules import rows
from openheart.rules.rearrange_backward import stepwise
from openheart.rules.registry import rule

SUM, MEAN, MAX = 0, 1, 2


@rule("embedding", "embedding.out")
def embedding(weight: Any, indices: Any, *, at: Any) -> Expr:
    # out[…, d] = weight[indices[…], d]
    *n, d = at
    return Ref(weight, (indices[n], d))


@rule("embedding_dense_backward")
def embedding_dense_backward(
    grad_output: Any,
    indices: Any,
    num_weights: int,
    padding_idx: int,
    scale_grad_by_freq: bool,
    *,
    at: Any,
    stored: Any,
) -> Expr:
    # row v gets the gradients of all places that looked it up, divided by how often it was, if so asked
    v, d = at
    n = _positions(indices.shape)
    used: Operand = indices[n] == v
    if padding_idx >= 0:
        used = both(used, indices[n] != padding_idx)
    gradient = grad_output[(*n, d)]
    if scale_grad_by_freq:
        gradient = gradient * double(1 / _times(indices, num_weights)[indices[n]])
    return stepwise(stored, total(n, gradient, where=used))


def _positions(shape: Sequence[int]) -> tuple[Index, ...]:
    names = (
        ("n",) if len(shape) == 1 else ("b", "n") if len(shape) == 2 else [f"n{a}" for a in range(len(shape))]
    )
    return tuple(index(name, size) for name, size in zip(names, shape, strict=True))


def _times(indices: Any, num_weights: int) -> Definition:
    """times[v]: how often v is looked up."""
    n, v = _positions(indices.shape), index("v", num_weights)
    return define("times", (v,), count(n, where=indices[n] == v), kind="int")


# -- bags --------------------------------------------------------------------------------------------


def _bags(indices: Any, offsets: Any, bags: int) -> Definition:
    """bag[p]: in which bag place p is, the last one that begins at p or before."""
    p, b = index("p", indices.shape[0]), index("b", bags)
    return define("bag", (p,), count(b, where=offsets[b] <= p) - 1, kind="int")


def _counted(indices: Any, p: Expr, padding_idx: int, here: Operand) -> Operand:
    return both(here, indices[p] != padding_idx) if padding_idx >= 0 else here


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(
    weight: Any,
    indices: Any,
    offsets: Any,
    mode: int,
    per_sample_weights: Any,
    padding_idx: int,
    *,
    at: Any,
    result: Any,
) -> Expr:
    # the sum, the mean or the largest of the rows of bag i; 0 for an empty bag
    i, d = at
    p = index("p", indices.shape[0])
    here = _counted(indices, p, padding_idx, _bags(indices, offsets, result.shape[0])[p] == i)
    row = weight[indices[p], d]
    if mode == SUM:
        return total(p, row if per_sample_weights is None else per_sample_weights[p] * row, where=here)
    size = named("size", count(p, where=here))
    if mode == MEAN:  # the sum is kept in the output before it is divided
        whole = total(p, row, where=here)
        combined = (
            rows.stored(computed_in(FLOAT32, whole) / size, result)
            if result.dtype in rows.HALVES
            else whole / size
        )
    else:
        combined = largest(p, row, where=here)
    return where(size > 0, combined, 0)


@rule("_embedding_bag", "_embedding_bag_forward_only", output=1)
def embedding_bag_bags(indices: Any, offsets: Any, include_last_offset: bool, *, at: Any) -> Expr:
    # in which bag each place is
    return _bags(indices, offsets, offsets.shape[0] - include_last_offset)[at[0]]


@rule("_embedding_bag", "_embedding_bag_forward_only", output=2)
def embedding_bag_sizes(
    indices: Any, offsets: Any, mode: int, padding_idx: int, *, at: Any, result: Any
) -> Expr:
    # how many places each bag has; a sum needs no count, and the kernel gives 0
    if mode == SUM:
        return Number(0)
    p = index("p", indices.shape[0])
    bag = _bags(indices, offsets, result.shape[0])[p]
    return count(p, where=_counted(indices, p, padding_idx, bag == at[0]))


@rule("_embedding_bag", "_embedding_bag_forward_only", output=3)
def embedding_bag_largest(
    weight: Any, indices: Any, offsets: Any, mode: int, padding_idx: int, *, at: Any, out: Any, result: Any
) -> Expr:
    # whose row gave the largest; for a mean the sizes once more
    if mode != MAX:
        return Ref(out[2], tuple(at))
    i, d = at
    p, q = index("p", indices.shape[0]), index("q", indices.shape[0])
    bag = _bags(indices, offsets, result.shape[0])
    here = _counted(indices, p, padding_idx, bag[p] == i)
    first = argmax(p, weight[indices[p], d], where=here)
    there = _counted(indices, q, padding_idx, bag[q] == i)
    return where(count(q, where=there) > 0, indices[first], 0)


@rule("_embedding_bag_backward")
def embedding_bag_backward(
    grad: Any,
    indices: Any,
    offsets: Any,
    bag_size: Any,
    maximum_indices: Any,
    num_weights: int,
    scale_grad_by_freq: bool,
    mode: int,
    per_sample_weights: Any,
    padding_idx: int,
    *,
    at: Any,
    stored: Any,
) -> Expr:
    # row v gets the gradient of every bag that it was in, scaled as it was there
    v, d = at
    if mode == MAX:
        b = index("b", grad.shape[0])
        held = (maximum_indices[b, d] == v) & (bag_size[b] > 0)
        return stepwise(stored, total(b, grad[b, d], where=held))
    p = index("p", indices.shape[0])
    bag = _bags(indices, offsets, grad.shape[0])[p]
    used = _counted(indices, p, padding_idx, indices[p] == v)
    scale: Operand = 1 if per_sample_weights is None else per_sample_weights[p]
    if scale_grad_by_freq:
        scale = scale / _times(indices, num_weights)[indices[p]]
    if mode == MEAN:
        scale = scale / bag_size[bag]
    shared = double(scale) * grad[bag, d] if isinstance(scale, Expr) else grad[bag, d]
    return stepwise(stored, total(p, shared, where=used))


@rule("_embedding_bag_per_sample_weights_backward")
def embedding_bag_per_sample_weights_backward(
    grad: Any, weight: Any, indices: Any, offsets: Any, padding_idx: int, *, at: Any
) -> Expr:
    # Σ_d grad[bag, d] · weight[v, d] for the row v that this place looked up
    (p,) = at
    d = index("d", grad.shape[1])
    bag = _bags(indices, offsets, grad.shape[0])[p]
    product = total(d, grad[bag, d] * weight[indices[p], d])
    return where(indices[p] != padding_idx, product, 0) if padding_idx >= 0 else product
