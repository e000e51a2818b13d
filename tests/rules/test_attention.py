"""Fused attention and its gradients."""

import pytest
import torch
from tests.rules.harness import audit, gradients
from torch.nn import functional as F

from openheart.rules.attention import FLASH
from openheart.rules.attention_backward import BACKWARD

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
BOTH = [FLASH, BACKWARD]


def heads(
    batch: int, count: int, queries: int, keys: int, size: int, shared: int | None = None
) -> list[torch.Tensor]:
    """Queries, keys and values."""
    few = shared or count
    return [
        torch.randn(batch, count, queries, size),
        torch.randn(batch, few, keys, size),
        torch.randn(batch, few, keys, size),
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"scale": 0.3}, {"is_causal": True, "scale": 1.5}]
)
def test_attention(options: dict, dtype: torch.dtype) -> None:
    given = [x.to(dtype) for x in heads(2, 3, 7, 7, 8)]
    audit(gradients(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options), *given), covers=BOTH)


@pytest.mark.parametrize("dtype", DTYPES)
def test_more_keys_than_queries_and_other_strides(dtype: torch.dtype) -> None:
    q, k, v = (x.to(dtype) for x in heads(1, 2, 5, 9, 4))
    audit(
        gradients(
            lambda q, k, v: F.scaled_dot_product_attention(
                q.transpose(1, 2).contiguous().transpose(1, 2), k, v
            ),
            q,
            k,
            v,
        ),
        covers=BOTH,
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks(dtype: torch.dtype) -> None:
    given = [x.to(dtype) for x in heads(2, 2, 6, 5, 4)]
    bias = torch.randn(6, 5).to(dtype)
    audit(
        gradients(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=bias), *given),
        covers=BOTH,
    )
    allowed = torch.rand(2, 1, 6, 5) > 0.4
    allowed[..., 2, :] = False  # a query that sees nothing
    audit(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=allowed), *given, covers=FLASH)
    unknown = torch.full((6, 5), torch.nan).to(dtype)
    audit(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=unknown), *given, covers=FLASH)


@pytest.mark.parametrize("dtype", DTYPES)
def test_query_heads_that_share_a_key_head(dtype: torch.dtype) -> None:
    given = [x.to(dtype) for x in heads(2, 4, 6, 5, 4, shared=2)]
    audit(
        gradients(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), *given),
        covers=BOTH,
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("queries", "keys"), [(700, 48), (40, 1100), (200, 200)])
def test_blocks(queries: int, keys: int, dtype: torch.dtype) -> None:
    """More queries or keys than the kernel takes at once; half precision adds gradients up by blocks."""
    given = [x.to(dtype) for x in heads(1, 1, queries, keys, 8)]

    def run() -> None:
        leaves = [x.detach().requires_grad_() for x in given]
        out = F.scaled_dot_product_attention(*leaves, is_causal=queries == keys)
        out.backward(torch.rand_like(out) + 0.5)  # of one sign, so that rounding does not cancel

    audit(run, covers=BOTH)
