"""Fused attention: scores, softmax and values in one call (PyTorch's flash attention for the CPU).

For query l and key n of one head, with the kernel's own subtraction of the row's largest score:

    s = scale · Σ_c q[l, c]·k[n, c] (+ mask)      m = maxₙ s      p = e^(s − m)      Z = Σₙ p
    out[l, d] = Σₙ p·v[n, d] / Z                  logsumexp[l] = m + log Z

Causal attention sees the keys n ≤ l. A row whose keys are all masked (m = −∞) gives 0. The kernel takes the
scores in blocks of 512 keys and rescales as it goes; its exponential is a fast one (20 units in the last
place; a cubic for bfloat16 and float16, where p is also rounded to that format before it meets v).
Source: Dao et al., *FlashAttention* (2022), §3.1; PyTorch's `FlashAttentionKernel.cpp`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from openheart.formula.expr import Expr, Index, Named, Number, index, largest, named, total, where
from openheart.formula.functions import cubic, exp, fast, log, rounded_to
from openheart.formula.precision import FLOAT32, FLOAT64, PRECISIONS
from openheart.rules.registry import rule


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of one call: what meets what, and which keys a query sees."""

    query: Any
    key: Any
    attn_mask: Any
    scale: Expr
    is_causal: bool

    def at(self, b: Expr, h: Expr, l: Expr, n: Expr) -> Named:  # noqa: E741
        """s, the score of query l and key n in head h of sample b."""
        c = index("c", self.query.shape[-1])
        score = self.scale * total(c, self.query[b, h, l, c] * self.key[b, self.shared(h), n, c])
        return named("s", score if self.attn_mask is None else score + self.attn_mask.broadcast((b, h, l, n)))

    def shared(self, h: Expr) -> Expr:
        """The key's and value's head that query head h uses: several may share one."""
        group = self.query.shape[1] // self.key.shape[1]
        return h if group == 1 else h // group

    def sharing(self, g: Expr) -> tuple[Expr, tuple[Index, ...]]:
        """The query heads that share the key's head g: one, or g · group + r with r to be summed over."""
        group = self.query.shape[1] // self.key.shape[1]
        if group == 1:
            return g, ()
        r = index("r", group)
        return g * group + r, (r,)

    def seen(self, l: Expr, n: Expr) -> Expr | None:  # noqa: E741
        """Whether query l sees key n; None where it sees them all."""
        return n <= l if self.is_causal else None

    def keys(self) -> Index:
        return index("n", self.key.shape[2])


def scores_of(query: Any, key: Any, attn_mask: Any, scale: Any, is_causal: bool) -> Scores:
    """The scores of a call; the scale is 1/√E where none is given."""
    if scale is None:
        scale = Number(1 / math.sqrt(query.shape[-1]), "scale")
    return Scores(query, key, attn_mask, scale, is_causal)


def narrowed(tensor: Any, x: Expr) -> Expr:
    """x, stored in the tensor's own format on the way when that is narrower than the arithmetic."""
    stored = PRECISIONS[tensor.dtype]
    return rounded_to(stored, x, FLOAT32) if stored.unit > FLOAT32.unit else x


def exponential(tensor: Any, x: Expr) -> Expr:
    """eˣ as the kernel computes it for the tensor's format."""
    stored = PRECISIONS[tensor.dtype]
    return exp(x) if stored is FLOAT64 else fast(exp(x)) if stored is FLOAT32 else cubic(exp(x))


FLASH = "_scaled_dot_product_flash_attention_for_cpu"


@rule(FLASH)
def attention(
    query: Any,
    key: Any,
    value: Any,
    is_causal: bool,
    attn_mask: Any,
    scale: Any,
    *,
    at: Any,
) -> Expr:
    b, h, l, d = at  # noqa: E741
    scores = scores_of(query, key, attn_mask, scale, is_causal)
    n = scores.keys()
    seen = scores.seen(l, n)
    s = scores.at(b, h, l, n)
    m = named("m", largest(n, s, where=seen))
    p = named("p", exponential(query, s - m))
    z = named("Z", total(n, p, where=seen))
    weighted = total(n, narrowed(query, p) * value[b, scores.shared(h), n, d], where=seen) / z
    return weighted if attn_mask is None else where(m == -math.inf, 0, weighted)


@rule(FLASH, output=1)
def attention_logsumexp(
    query: Any, key: Any, is_causal: bool, attn_mask: Any, scale: Any, *, at: Any
) -> Expr:
    b, h, l = at  # noqa: E741
    scores = scores_of(query, key, attn_mask, scale, is_causal)
    n = scores.keys()
    seen = scores.seen(l, n)
    s = scores.at(b, h, l, n)
    m = named("m", largest(n, s, where=seen))
    z = named("Z", total(n, named("p", exponential(query, s - m)), where=seen))
    return m + log(z) if attn_mask is None else where(m == -math.inf, 0, m + log(z))
