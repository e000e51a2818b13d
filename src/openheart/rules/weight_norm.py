"""Weight normalization: a weight as a direction and a length, w = g·v/‖v‖."""

from __future__ import annotations

from typing import Any

from openheart.formula.expr import Expr, Index, Number, Ref, Tensor, expr, index, named, total
from openheart.formula.functions import sqrt
from openheart.rules.registry import rule


def others_of(x: Tensor, dim: int, i: Expr) -> tuple[list[Index], Ref]:
    """Index variables over all other dimensions, and the element of `x` there."""
    d = dim % x.ndim
    over = [index("k" + "′" * n, size) for n, size in enumerate((*x.shape[:d], *x.shape[d + 1 :]))]
    return over, Ref(x, (*over[:d], i, *over[d:]))


def kept(x: Tensor, dim: int, i: Expr) -> tuple[Expr, ...]:
    """The place of slice i in a tensor that has one number a slice."""
    d = dim % x.ndim
    return tuple(i if a == d else Number(0) for a in range(x.ndim))


@rule("_weight_norm_interface")
def weight_norm(v: Any, g: Any, dim: Any, *, at: Any, out: Any) -> Expr:
    # w = v·(g/‖v‖)
    place = kept(v, dim, at[dim % v.ndim])
    return expr(v[at]) * named("g/‖v‖", Ref(g, place) / Ref(out[1], place))


@rule("_weight_norm_interface", output=1)
def weight_norms(v: Any, dim: Any, *, at: Any) -> Expr:
    # ‖v‖ = √Σ v²
    over, x = others_of(v, dim, at[dim % v.ndim])
    return sqrt(total(over, x * x))


@rule("_weight_norm_interface_backward")
def weight_norm_backward(
    grad_w: Any, saved_v: Any, saved_g: Any, saved_norms: Any, dim: Any, *, at: Any
) -> Expr:
    # ∂L/∂v = (g/‖v‖)·∂L/∂w − v·g·Σ(v·∂L/∂w)/‖v‖³
    i = at[dim % saved_v.ndim]
    place = kept(saved_v, dim, i)
    over, x = others_of(saved_v, dim, i)
    dot = named("Σv·∂L/∂w", total(over, x * grad_w[x.index]))
    norm, g = Ref(saved_norms, place), Ref(saved_g, place)
    return g / norm * expr(grad_w[at]) - expr(saved_v[at]) * (g * dot / (norm * norm * norm))


@rule("_weight_norm_interface_backward", output=1)
def length_gradient(grad_w: Any, saved_v: Any, saved_norms: Any, dim: Any, *, at: Any) -> Expr:
    # ∂L/∂g = Σ(v·∂L/∂w)/‖v‖
    i = at[dim % saved_v.ndim]
    over, x = others_of(saved_v, dim, i)
    return total(over, x * grad_w[x.index]) / Ref(saved_norms, kept(saved_v, dim, i))
