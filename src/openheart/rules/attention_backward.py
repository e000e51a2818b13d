"""The gradients of fused attention, from the recorded output and logsumexp.

With g the output's gradient, for query l and key n of one head:

    p = e^(s − logsumexp[l])      δ = Σ_d g[l, d]·out[l, d]      ds = p · (Σ_d g[l, d]·v[n, d] − δ)
    grad_v[n, d] = Σ_l p·g[l, d]
    grad_q[l, c] = scale · Σₙ ds·k[n, c]
    grad_k[n, c] = scale · Σ_l ds·q[l, c]

Source: Dao et al., *FlashAttention* (2022), appendix B.2. In bfloat16 and float16, p and ds are rounded to
that format before they meet the other factor, and the gradients are added up block by block in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from openheart.formula.expr import Expr, Index, Named, Operand, both, index, named, total
from openheart.formula.functions import computed_in, exp
from openheart.formula.precision import FLOAT32, PRECISIONS
from openheart.rules.attention import FLASH, Scores, narrowed, scores_of
from openheart.rules.registry import rule

BACKWARD = f"{FLASH}_backward"
KEY_BLOCK = 512


def query_block(queries: int) -> int:
    """How many queries the kernel takes at a time."""
    return 256 if queries >= 768 else 64 if queries >= 192 else 32


def _summed(
    tensor: Any,
    over: Sequence[Index],
    name: str,
    extent: int,
    block: int,
    term: Callable[[Expr], Expr],
    seen: Callable[[Expr], Expr | None],
) -> Expr:
    """Σ of the terms over `over` and an index of its own; in half precision, block by block.

    Each block's sum is computed in float32 and added to the gradient, which is stored in half precision.
    """
    stored = PRECISIONS[tensor.dtype]
    if stored.unit <= FLOAT32.unit or (extent <= block and not over):
        whole = index(name, extent)
        return total((*over, whole), term(whole), where=seen(whole))
    t, u = index("t", -(-extent // block)), index("u", min(block, extent))
    k = t * block + u
    known = seen(k)
    held: Operand = True if known is None else known
    if extent % u.extent:
        held = both(held, k < extent)
    return computed_in(stored, total((*over, t), computed_in(FLOAT32, total(u, term(k), where=held))))


def _weight(scores: Scores, logsumexp: Any, b: Expr, h: Expr, l: Expr, n: Expr) -> Named:  # noqa: E741
    """p, the weight that query l gives to key n."""
    return named("p", exp(scores.at(b, h, l, n) - logsumexp[b, h, l]))


def _score_gradient(
    scores: Scores,
    grad_out: Any,
    value: Any,
    out: Any,
    logsumexp: Any,
    b: Expr,
    h: Expr,
    l: Expr,  # noqa: E741
    n: Expr,
) -> Named:
    """ds, the gradient of the score of query l and key n."""
    d, e = index("d", value.shape[3]), index("d", value.shape[3])
    p = _weight(scores, logsumexp, b, h, l, n)
    delta = named("δ", total(e, grad_out[b, h, l, e] * out[b, h, l, e]))
    return named("ds", p * (total(d, grad_out[b, h, l, d] * value[b, scores.shared(h), n, d]) - delta))


@rule(BACKWARD)
def grad_query(
    grad_out: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    logsumexp: Any,
    is_causal: bool,
    attn_mask: Any,
    scale: Any,
    *,
    at: Any,
) -> Expr:
    b, h, l, c = at  # noqa: E741
    scores = scores_of(query, key, attn_mask, scale, is_causal)

    def term(n: Expr) -> Expr:
        ds = _score_gradient(scores, grad_out, value, out, logsumexp, b, h, l, n)
        return narrowed(query, ds) * key[b, scores.shared(h), n, c]

    return scores.scale * _summed(query, (), "n", key.shape[2], KEY_BLOCK, term, lambda n: scores.seen(l, n))


@rule(BACKWARD, output=1)
def grad_key(
    grad_out: Any,
    query: Any,
    key: Any,
    value: Any,
    out: Any,
    logsumexp: Any,
    is_causal: bool,
    attn_mask: Any,
    scale: Any,
    *,
    at: Any,
) -> Expr:
    b, g, n, c = at
    scores = scores_of(query, key, attn_mask, scale, is_causal)
    h, over = scores.sharing(g)

    def term(l: Expr) -> Expr:  # noqa: E741
        ds = _score_gradient(scores, grad_out, value, out, logsumexp, b, h, l, n)
        return narrowed(query, ds) * query[b, h, l, c]

    queries = query.shape[2]
    block = query_block(queries)
    return scores.scale * _summed(
        query, over, "l", queries, block, term, lambda query_: scores.seen(query_, n)
    )


@rule(BACKWARD, output=2)
def grad_value(
    grad_out: Any,
    query: Any,
    key: Any,
    logsumexp: Any,
    is_causal: bool,
    attn_mask: Any,
    scale: Any,
    *,
    at: Any,
) -> Expr:
    b, g, n, d = at
    scores = scores_of(query, key, attn_mask, scale, is_causal)
    h, over = scores.sharing(g)

    def term(l: Expr) -> Expr:  # noqa: E741
        return narrowed(query, _weight(scores, logsumexp, b, h, l, n)) * grad_out[b, h, l, d]

    queries = query.shape[2]
    return _summed(
        query, over, "l", queries, query_block(queries), term, lambda query_: scores.seen(query_, n)
    )
