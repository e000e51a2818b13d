"""Writing by index: sums, products and extremes over the sources whose index says "here".

A place that several sources overwrite holds the last of them: PyTorch leaves the order open, and its CPU
kernels go through the sources in row-major order. Another order shows as a disagreement, not as a lie.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from openheart.formula.expr import (
    Expr,
    Index,
    Leaf,
    Number,
    Operand,
    Ref,
    both,
    count,
    expr,
    largest,
    named,
    product,
    smallest,
    total,
    where,
)
from openheart.formula.expr import index as index_variable
from openheart.formula.functions import accumulated, maximum, minimum, to_bool
from openheart.rules.indexing import chosen, first_dimension, index_shape, is_mask
from openheart.rules.linear import factor
from openheart.rules.masks import before, flat
from openheart.rules.rearrange_backward import stepwise
from openheart.rules.registry import rule, value_of
from openheart.rules.rows import held
from openheart.rules.strides import reshaped
from openheart.rules.views import dimension, replaced


def as_held(self: Any, x: Expr) -> Expr:
    """A sum as a tensor holds it: of truth values, whether any of them is true."""
    return to_bool(x) if self.kind == "bool" else x


def as_element(value: Any, self: Any) -> Expr:
    """A number as an element of a tensor: rounded to its format, or cut to a whole one."""
    if hasattr(value, "shape"):
        return value[()]
    number = value_of(value)
    return expr(value) if isinstance(number, bool) else Number(held(number, self.dtype), value.name)


# -- scatter: index has the shape of the source --------------------------------------------------------


Source = Callable[[Expr], tuple[Expr, ...]]
"""The indices of source k."""


def _sources(index: Any, dim: int, at: Sequence[Index]) -> tuple[Index, Source, Expr]:
    """The sources k that may write to `at`: k, the source's indices, and whether it writes here."""
    if not at:
        k = index_variable("k", math.prod(index.shape))
        return k, lambda k: (k,) * index.ndim, Ref(index, (k,) * index.ndim) == 0
    if 0 in index.shape:  # it may then have any rank, and no source writes anywhere
        return index_variable("k", 0), lambda k: (k,) * index.ndim, Number(False)
    d = dimension(dim, len(at))
    k = index_variable("k", index.shape[d] if index.ndim else 1)

    def source(k: Expr) -> tuple[Expr, ...]:
        return replaced(at, d, k)

    here: Operand = (index[source(k)] if index.ndim else index[()]) == at[d]
    for a, i in enumerate(at):
        if a != d and index.ndim and index.shape[a] < i.extent:
            here = both(here, i < index.shape[a])
    return k, source, expr(here)


def _overwritten(k: Index, here: Expr, source: Callable[[Expr], Expr], otherwise: Expr) -> Expr:
    """The last source that writes here; `otherwise` where none does."""
    last = named("last", largest(k, k, where=here))
    return where(last >= 0, source(last), otherwise)


@rule("scatter.src", "scatter_.src", "scatter.src_out")
def scatter(self: Any, dim: int, index: Any, src: Any, *, at: Any) -> Expr:
    # out[index[k]] = src[k], the last k where several write to one place
    k, place, here = _sources(index, dim, at)
    return _overwritten(k, here, lambda last: Ref(src, place(last)[: src.ndim]), Ref(self, tuple(at)))


@rule("scatter.value", "scatter_.value", "scatter.value_out")
def scatter_value(self: Any, dim: int, index: Any, value: Any, *, at: Any) -> Expr:
    k, _, here = _sources(index, dim, at)
    return where(count(k, where=here) > 0, as_element(value, self), self[at])


@rule("scatter_add", "scatter_add_", "scatter_add.out")
def scatter_add(self: Any, dim: int, index: Any, src: Any, *, at: Any, stored: Any) -> Expr:
    # out[i] = self[i] + Σₖ src[k] over all k with index[k] = i
    k, place, here = _sources(index, dim, at)
    added = accumulated(self[at], total(k, Ref(src, place(k)[: src.ndim]), where=here))
    return as_held(self, stepwise(stored, added))


@rule("scatter.reduce", "scatter_.reduce", "scatter.reduce_out")
def scatter_by(self: Any, dim: int, index: Any, src: Any, reduce: str, *, at: Any, stored: Any) -> Expr:
    k, place, here = _sources(index, dim, at)
    by = "sum" if reduce == "add" else "prod"
    return _combined(by, self, at, k, Ref(src, place(k)[: src.ndim]), here, True, stored)


@rule("scatter.value_reduce", "scatter_.value_reduce", "scatter.value_reduce_out")
def scatter_value_by(
    self: Any, dim: int, index: Any, value: Any, reduce: str, *, at: Any, stored: Any
) -> Expr:
    k, _, here = _sources(index, dim, at)
    by = "sum" if reduce == "add" else "prod"
    return _combined(by, self, at, k, as_element(value, self), here, True, stored)


@rule("scatter_reduce.two", "scatter_reduce_.two", "scatter_reduce.two_out")
def scatter_reduce(
    self: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool, *, at: Any, stored: Any
) -> Expr:
    k, place, here = _sources(index, dim, at)
    return _combined(reduce, self, at, k, Ref(src, place(k)[: src.ndim]), here, include_self, stored)


def _combined(
    reduce: str,
    self: Any,
    at: Sequence[Index],
    k: Index,
    source: Operand,
    here: Expr,
    include_self: bool,
    stored: Any,
) -> Expr:
    """The sources that write here, combined, with what was there unless they replace it.

    They are combined one by one in place, so that in half precision each step is rounded.
    """
    own = self[at]
    if reduce in ("sum", "mean"):
        added = total(k, source, where=here)
        sources: Expr = count(k, where=here)
        if reduce == "sum":
            made = accumulated(own, added) if include_self else added
        else:
            terms = sources + 1 if include_self else sources
            whole = accumulated(own, added) if include_self else added
            made = whole // terms if self.kind == "int" else whole / terms
    elif reduce in ("prod", "product"):
        multiplied = product(k, source, where=here)
        made = own * multiplied if include_self else multiplied
    else:
        extreme = (largest if reduce == "amax" else smallest)(k, source, where=here)
        made = (maximum if reduce == "amax" else minimum)(own, extreme) if include_self else extreme
    made = as_held(self, stepwise(stored, made))
    return made if include_self else where(count(k, where=here) > 0, made, own)


# -- index_add and its kin: one index for a whole slice ------------------------------------------------


def _slices(self: Any, dim: int, index: Any, at: Sequence[Index]) -> tuple[Index, Source, Expr]:
    """As `_sources`, for an index of one dimension that holds for whole slices."""
    k = index_variable("k", math.prod(index.shape))
    place = index[k] if index.ndim else index[()]
    if not at:
        return k, lambda k: (k,), place % 1 == 0
    d = dimension(dim, len(at))
    return k, lambda k: replaced(at, d, k), place % self.shape[d] == at[d]


def _source(source: Any, place: tuple[Expr, ...]) -> Ref:
    return Ref(source, place[: source.ndim] if source.ndim <= len(place) else (*place, Number(0)))


@rule("index_add", "index_add_", "index_add.out")
def index_add(self: Any, dim: int, index: Any, source: Any, alpha: Any, *, at: Any, stored: Any) -> Expr:
    # out[i, …] = self[i, …] + α Σₖ source[k, …] over all k with index[k] = i
    k, place, here = _slices(self, dim, index, at)
    added = accumulated(self[at], total(k, factor(alpha, self) * _source(source, place(k)), where=here))
    return as_held(self, stepwise(stored, added))


@rule("index_copy", "index_copy_", "index_copy.out")
def index_copy(self: Any, dim: int, index: Any, source: Any, *, at: Any) -> Expr:
    k, place, here = _slices(self, dim, index, at)
    return _overwritten(k, here, lambda last: _source(source, place(last)), self[at])


@rule("index_fill.int_Scalar", "index_fill_.int_Scalar", "index_fill.int_Tensor", "index_fill_.int_Tensor")
def index_fill(self: Any, dim: int, index: Any, value: Any, *, at: Any) -> Expr:
    k, _, here = _slices(self, dim, index, at)
    return where(count(k, where=here) > 0, as_element(value, self), self[at])


@rule("index_reduce", "index_reduce_", "index_reduce.out")
def index_reduce(
    self: Any, dim: int, index: Any, source: Any, reduce: str, include_self: bool, *, at: Any, stored: Any
) -> Expr:
    k, place, here = _slices(self, dim, index, at)
    return _combined(reduce, self, at, k, _source(source, place(k)), here, include_self, stored)


# -- index_put: x[indices] = values -------------------------------------------------------------------


@rule("index_put", "index_put_", "index_put.out", "_unsafe_index_put", "_index_put_impl_")
def index_put(self: Any, indices: Any, values: Any, accumulate: bool, *, at: Any, stored: Any) -> Expr:
    # out[indices[b]] = values[b], or out[i] = self[i] + Σ values[b] over all b with indices[b] = i
    given = [t for t in indices if t is not None]
    if len(given) == 1 and is_mask(given[0]):
        return _masked_put(self, indices, values, accumulate, at)
    if any(is_mask(t) for t in given):
        return Leaf("external")  # how often a mask holds is not known where the law is written
    shape = index_shape(indices, None)
    b = tuple(index_variable(f"b{n}" if len(shape) > 1 else "b", size) for n, size in enumerate(shape))
    parts = chosen(self, indices, b, None)
    first = first_dimension(indices)
    here: Operand = True
    for i, part in zip(at, parts, strict=True):
        if part is not None:
            here = both(here, part == i)
    rest = [i for i, part in zip(at, parts, strict=True) if part is None]
    if here is True:
        return _value(values, (*rest,), self[at], accumulate)

    def source(place: Sequence[Expr]) -> Expr:
        return values.broadcast((*rest[:first], *place, *rest[first:]))

    if accumulate:
        return as_held(self, stepwise(stored, accumulated(self[at], total(b, source(b), where=here))))
    order = reshaped(b, shape, (math.prod(shape),))[0] if shape else Number(0)
    last = named("last", largest(b, order, where=here)) if b else None
    if last is None:
        return where(here, source(()), self[at])
    return where(last >= 0, source(reshaped((last,), (math.prod(shape),), shape)), self[at])


def _value(values: Any, place: Sequence[Expr], own: Expr, accumulate: bool) -> Expr:
    put = values.broadcast(place)
    return as_held(values, own + put) if accumulate else put


def _masked_put(self: Any, indices: Any, values: Any, accumulate: bool, at: Sequence[Expr]) -> Expr:
    """x[…, mask, …] = values: the n-th place where the mask holds gets the n-th value."""
    start = next(n for n, t in enumerate(indices) if t is not None)
    mask = indices[start]
    inner = at[start : start + mask.ndim]
    if values.ndim > self.ndim - mask.ndim - start and values.shape[-(self.ndim - mask.ndim - start) - 1] > 1:
        n: Expr = before(mask)[reshaped(inner, mask.shape, (math.prod(mask.shape),))[0]]
    else:
        n = Number(0)  # one value for all
    put = values.broadcast((*at[:start], n, *at[start + mask.ndim :]))
    written = as_held(self, self[at] + put) if accumulate else put
    return where(Ref(mask, tuple(inner)) != 0, written, self[at])


@rule("put", "put_")
def put(self: Any, index: Any, source: Any, accumulate: bool, *, at: Any, stored: Any) -> Expr:
    # self as if it were flat
    k = index_variable("k", math.prod(index.shape))
    (place,) = reshaped(at, self.shape, (math.prod(self.shape),))
    here = flat(index, k) % math.prod(self.shape) == place
    if accumulate:
        return as_held(self, stepwise(stored, accumulated(self[at], total(k, flat(source, k), where=here))))
    return _overwritten(k, here, lambda last: flat(source, last), self[at])
