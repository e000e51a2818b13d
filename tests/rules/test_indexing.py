"""Reading and writing by index: gather, scatter, masks, embeddings, counting."""

import pytest
import torch
from tests.rules.harness import audit, gradients
from torch.nn import functional as F

from openheart.check import check
from openheart.record import recording

DTYPES = [torch.float32, torch.float64, torch.bfloat16]
PLACES = torch.tensor([0, 2, -1, 2])
J = torch.tensor([[1], [3]])
M = torch.tensor([[1, 0, 0, 1, 1, 0], [0] * 6, [0, 1, 0, 0, 0, 0], [1] * 6, [0, 0, 0, 0, 0, 1]]).bool()
Q = torch.tensor([4, 0, 0, 2])
FOUR = torch.arange(96.0).reshape(4, 6, 4)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(5, 6, 4)


READS = {
    "one": lambda x: x[PLACES],
    "another dimension": lambda x: x[:, PLACES],
    "two apart": lambda x: x[PLACES, :, PLACES],
    "two that broadcast": lambda x: (x[J, PLACES], x[:, J, PLACES]),
    "no dimension": lambda x: torch.ops.aten.index.Tensor(x, [torch.tensor(-1)]),
    "empty": lambda x: x[PLACES[:0]],
    "mask": lambda x: (x[M], x[:, M[0]], x[M.any(1)]),
    "whole mask": lambda x: x[x > 0],
    "mask of nothing": lambda x: x[x > 99],
    "mask and index": lambda x: (x[J, M[0]], x[J, M[2]]),
}


@pytest.mark.parametrize("name", READS)
def test_index(name: str, x: torch.Tensor) -> None:
    assert audit(READS[name], x, covers="index.Tensor").worst == 0


WRITES = {
    "value": lambda x: x.index_put((PLACES[:3],), torch.tensor(1.0)),
    "last of several": lambda x: x.index_put((PLACES,), FOUR),
    "mask": lambda x: x.index_put((M,), torch.randn(int(M.sum()), 4)),
    "mask, one row": lambda x: x.index_put((M,), torch.randn(4)),
    "mask, one value": lambda x: x.index_put((x > 0,), torch.tensor(2.0)),
    "mask, added": lambda x: x.index_put((M,), torch.randn(4), accumulate=True),
    "added": lambda x: x.index_put((PLACES,), torch.randn(4, 6, 4), accumulate=True),
    "added, broadcast": lambda x: x.index_put((J, PLACES), torch.randn(4), accumulate=True),
    "two": lambda x: x.index_put((PLACES, PLACES), torch.randn(4, 1)),
}


@pytest.mark.parametrize("name", WRITES)
def test_index_put(name: str, x: torch.Tensor) -> None:
    audit(WRITES[name], x, covers="index_put")


@pytest.mark.parametrize("dtype", DTYPES)
def test_gather_and_scatter(dtype: torch.dtype, x: torch.Tensor) -> None:
    x, k = x.to(dtype), torch.randint(0, 5, (3, 6, 4))
    src = torch.randn(3, 6, 4).to(dtype)
    assert audit(lambda: x.gather(0, k), covers="gather").worst == 0
    assert audit(lambda: x.scatter(0, k, src), covers="scatter.src").worst == 0
    assert audit(lambda: x.scatter(-1, k[:, :2, :3] % 4, src), covers="scatter.src").worst == 0
    audit(lambda: x.scatter(0, k, 2.0), covers="scatter.value")
    audit(lambda: x.scatter_add(0, k, src), covers="scatter_add")
    audit(lambda: x.scatter_add(1, k[:, :2, :2], src), covers="scatter_add")
    audit(gradients(lambda a, b: a.scatter_add(0, k, b), x, src), covers="scatter_add")
    audit(gradients(lambda a: a.gather(0, k), x), covers="gather")


def test_a_large_number_that_small_ones_are_added_to() -> None:
    """Each addition rounds the large number, so the bound grows with how many there are."""
    small = torch.full((1000,), 0.1)
    audit(
        lambda: torch.full((1,), 1e6).scatter_add(0, torch.zeros(1000, dtype=torch.long), small),
        covers="scatter_add",
    )


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("include_self", [True, False])
def test_scatter_reduce(reduce: str, include_self: bool, x: torch.Tensor) -> None:
    k, src = torch.randint(0, 5, (3, 6, 4)), torch.randn(3, 6, 4)
    for a, b in ((x, src), (x.double(), src.double()), ((9 * x).long(), (9 * src).long())):
        audit(
            lambda a=a, b=b: a.scatter_reduce(0, k, b, reduce, include_self=include_self),
            covers="scatter_reduce.two",
        )
    if reduce != "sum":
        source = torch.randn(4, 6, 4)
        audit(lambda: x.index_reduce(0, Q, source, reduce, include_self=include_self), covers="index_reduce")


@pytest.mark.parametrize("dtype", DTYPES)
def test_index_select_and_kin(dtype: torch.dtype, x: torch.Tensor) -> None:
    x, source = x.to(dtype), torch.randn(4, 6, 4).to(dtype)
    audit(lambda: x.index_select(1, Q), covers="index_select")
    audit(lambda: x.index_add(0, Q, source), covers="index_add")
    audit(lambda: x.index_add(0, Q, source, alpha=0.3), covers="index_add")
    audit(lambda: x.index_copy(0, Q, source), covers="index_copy")
    audit(lambda: x.index_fill(1, Q, 3.0), covers="index_fill.int_Scalar")
    audit(lambda: x.take(torch.tensor([[0, -1], [7, 7]])), covers="take")
    places = torch.tensor([0, -1, 7, 7])
    audit(lambda: x.put(places, source.reshape(-1)[:4]), covers="put")
    audit(lambda: x.put(places, source.reshape(-1)[:4], accumulate=True), covers="put")
    audit(gradients(lambda a: a.index_select(1, Q), x), covers=[])


def test_masks(x: torch.Tensor) -> None:
    mask = M[..., None]
    audit(lambda: x.nonzero(), covers="nonzero")
    audit(lambda: (torch.tensor(3).nonzero(), torch.zeros(3).nonzero(), M.nonzero()), covers="nonzero")
    audit(lambda: x.masked_select(mask), covers="masked_select")
    audit(lambda: x.masked_scatter(mask, torch.randn(300)), covers="masked_scatter")
    source = torch.randn(120)
    audit(gradients(lambda a, b: a.masked_scatter(mask, b), x, source), covers="masked_scatter_backward")


def test_counting_is_one_pass() -> None:
    """The n-th place of a mask of 200,000 is found by running sums, not by comparing all pairs."""
    big = torch.randn(200_000)
    assert audit(lambda: big[big > 0], covers="index.Tensor", singles=0).worst == 0


def test_search_and_count() -> None:
    edges, v = torch.tensor([-1.0, 0.0, 0.5]), torch.tensor([[torch.nan, 1.0, 0.0], [-1.0, -torch.inf, 0.5]])
    rows = torch.randn(2, 5)
    for right in (False, True):
        audit(lambda r=right: torch.bucketize(v, edges, right=r), covers="bucketize.Tensor")
        audit(lambda r=right: torch.searchsorted(rows.sort()[0], v, right=r), covers="searchsorted.Tensor")
        audit(
            lambda r=right: torch.searchsorted(rows, v, right=r, sorter=rows.argsort()),
            covers="searchsorted.Tensor",
        )
        audit(lambda r=right: torch.isin(Q, PLACES, invert=r), covers="isin.Tensor_Tensor")
    audit(lambda: (torch.bincount(Q), torch.bincount(Q, torch.rand(4), 8)), covers="bincount")
    audit(lambda: torch.unique(Q, return_inverse=True, return_counts=True), covers="_unique2")
    audit(lambda: torch.unique(rows), covers="_unique2")
    audit(
        lambda: torch.unique_consecutive(Q, return_inverse=True, return_counts=True),
        covers="unique_consecutive",
    )
    audit(lambda: (torch.tril_indices(4, 5, 1), torch.tril_indices(3, 3, -1)), covers="tril_indices")
    audit(lambda: torch.triu_indices(4, 5, -1), covers="triu_indices")
    audit(lambda: torch.repeat_interleave(rows, torch.tensor([3, 0]), 0), covers="repeat_interleave.Tensor")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "options", [{}, {"padding_idx": 2}, {"padding_idx": -1}, {"scale_grad_by_freq": True}]
)
def test_embedding(options: dict, dtype: torch.dtype) -> None:
    weight, words = torch.randn(7, 3).to(dtype), torch.randint(0, 7, (4, 5))
    audit(
        gradients(lambda w: F.embedding(words, w, **options), weight),
        covers=["embedding", "embedding_dense_backward"],
    )


WORDS, BAGS = torch.tensor([1, 2, 4, 5, 4, 3, 2, 0]), torch.tensor([0, 3, 3, 6])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}, {"include_last_offset": True}])
def test_embedding_bag(mode: str, options: dict) -> None:
    bags = torch.tensor([0, 3, 3, 8]) if options.get("include_last_offset") else BAGS
    weight = torch.randn(7, 3)

    def look(w: torch.Tensor) -> torch.Tensor:
        return F.embedding_bag(WORDS, w, bags, mode=mode, **options)

    audit(gradients(look, weight), covers=["_embedding_bag", "_embedding_bag_backward"])
    audit(look, weight, covers="_embedding_bag_forward_only")


def test_embedding_bag_weighted() -> None:
    audit(
        gradients(
            lambda w, p: F.embedding_bag(WORDS, w, BAGS, mode="sum", per_sample_weights=p),
            torch.randn(7, 3),
            torch.rand(8),
        ),
        covers=["_embedding_bag_backward", "_embedding_bag_per_sample_weights_backward"],
    )


def test_embedding_bag_scaled_by_frequency_is_not_what_pytorch_says() -> None:
    """PyTorch divides by another word's count here; the law follows the documentation, and says so."""
    weight = torch.randn(7, 3, requires_grad=True)
    with recording() as run:
        F.embedding_bag(WORDS, weight, BAGS, mode="sum", scale_grad_by_freq=True).sum().backward()
    call = next(c for c in run.calls if c.name == "embedding_bag_backward")
    held = check(call, 0)
    assert held is not None
    assert held.verdict() == "disagrees"


@pytest.mark.filterwarnings("ignore:The reduce argument")
def test_in_place(x: torch.Tensor) -> None:
    k, src = torch.randint(0, 5, (3, 6, 4)), torch.randn(3, 6, 4)
    source = torch.randn(4, 6, 4)
    audit(lambda: x.clone().index_put_((PLACES,), torch.randn(4, 6, 4)), covers="index_put_")
    audit(lambda: x.clone().scatter_(0, k, src), covers="scatter_.src")
    audit(lambda: x.clone().scatter_(0, k, 1.5), covers="scatter_.value")
    audit(lambda: x.clone().scatter_(0, k, src, reduce="add"), covers="scatter_.reduce")
    audit(lambda: x.clone().scatter_(0, k, 1.5, reduce="multiply"), covers="scatter_.value_reduce")
    audit(lambda: x.clone().scatter_add_(0, k, src), covers="scatter_add_")
    audit(lambda: x.clone().scatter_reduce_(0, k, src, "amax"), covers="scatter_reduce_.two")
    audit(lambda: x.clone().index_add_(0, Q, source), covers="index_add_")
    audit(lambda: x.clone().index_copy_(0, Q, source), covers="index_copy_")
    audit(lambda: x.clone().index_fill_(1, Q, torch.tensor(3.0)), covers="index_fill_.int_Tensor")
    audit(lambda: x.clone().put_(torch.tensor([0, -1]), torch.randn(2)), covers="put_")
    audit(lambda: x.clone().masked_scatter_(M[..., None], torch.randn(300)), covers="masked_scatter_")


def test_into_a_given_tensor(x: torch.Tensor) -> None:
    k, src = torch.randint(0, 5, (3, 6, 4)), torch.randn(3, 6, 4)
    audit(lambda: torch.gather(x, 0, k, out=torch.zeros(3, 6, 4)), covers="gather.out")
    audit(lambda: torch.index_select(x, 1, Q, out=torch.zeros(5, 4, 4)), covers="index_select.out")
    audit(lambda: torch.scatter_add(x, 0, k, src, out=torch.zeros(5, 6, 4)), covers="scatter_add.out")
