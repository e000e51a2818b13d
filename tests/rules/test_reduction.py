"""Reductions, moments, norms and running sums, against PyTorch."""

import inspect
import math

import pytest
import torch
from tests.rules.harness import audit

SHAPES = [(4, 5, 3), (7,), (1, 6), (3, 4, 5, 2), (40, 300), (2, 8, 16, 16)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(5)


def whole(*shape):
    return torch.randint(-2, 3, shape)


def edges(*shape):
    x = whole(*shape).float()
    x.view(-1)[::5] = math.nan
    x.view(-1)[1::7] = -math.inf
    x.view(-1)[3::11] = math.inf
    return x


def zeros(*shape):
    x = whole(*shape).float()
    x.view(-1)[::6] = -0.0
    return x


def transposed(*shape):
    return torch.randn(shape[::-1]).permute(*reversed(range(len(shape))))


KINDS = {
    "float32": torch.randn,
    "float32 far from zero": lambda *s: torch.randn(s) + 20,
    "float32 transposed": transposed,
    "float64": lambda *s: torch.randn(s).double(),
    "bfloat16": lambda *s: torch.randn(s).bfloat16(),
    "bfloat16 transposed": lambda *s: transposed(*s).bfloat16(),
    "float16": lambda *s: torch.randn(s).half(),
    "int64": whole,
    "uint8": lambda *s: whole(*s).abs().to(torch.uint8),
    "bool": lambda *s: whole(*s) > 1,
    "NaN and infinities": edges,
    "NaN and infinities in bfloat16": lambda *s: edges(*s).bfloat16(),
    "zeros": zeros,
}
REDUCTIONS = [
    lambda x: x.sum(),
    lambda x: x.sum(0),
    lambda x: x.sum(-1, keepdim=True),
    lambda x: x.sum((0, 2)),
    lambda x: x.sum((-1, 0), keepdim=True),
    lambda x: x.sum(0, dtype=torch.float64),
    lambda x: x.sum(0, dtype=torch.bfloat16),
    lambda x: x.sum((0, 2, 3)),
    lambda x: x.mean(),
    lambda x: x.mean((0, -1), keepdim=True),
    lambda x: x.mean(dtype=torch.float32),
    lambda x: x.prod(),
    lambda x: x.prod(-1, keepdim=True),
    lambda x: x.nansum(),
    lambda x: x.nansum(0),
    lambda x: x.amax(),
    lambda x: x.amax((0, 1)),
    lambda x: x.amin(-1, keepdim=True),
    lambda x: x.max(),
    lambda x: x.min(),
    lambda x: x.max(0),
    lambda x: x.min(-1, keepdim=True),
    lambda x: torch.aminmax(x),
    lambda x: torch.aminmax(x, dim=0, keepdim=True),
    lambda x: x.argmax(),
    lambda x: x.argmax(0),
    lambda x: x.argmin(-1, keepdim=True),
    lambda x: x.any(),
    lambda x: x.any(0),
    lambda x: x.all(-1, keepdim=True),
    lambda x: torch.any(x, dim=(0, 1)),
    lambda x: torch.all(x, dim=(0, 1)),
    lambda x: x.count_nonzero(),
    lambda x: x.count_nonzero((0, 1)),
    lambda x: x.trace(),
]
MOMENTS = [
    lambda x: x.var(),
    lambda x: x.std(0),
    lambda x: x.var((0, -1), keepdim=True),
    lambda x: torch.var_mean(x, 1, correction=0),
    lambda x: torch.std_mean(x, correction=2),
    lambda x: x.var(0, correction=3),
    lambda x: x.norm(),
    lambda x: x.norm(dim=0),
    lambda x: x.norm(1, dim=-1, keepdim=True),
    lambda x: torch.linalg.vector_norm(x, 3.0),
    lambda x: torch.linalg.vector_norm(x, math.inf, dim=0),
    lambda x: torch.linalg.vector_norm(x, -math.inf),
    lambda x: torch.linalg.vector_norm(x, 0),
    lambda x: torch.linalg.vector_norm(x, 0.5, dim=0),
    lambda x: torch.linalg.vector_norm(x, 2, dim=0, dtype=torch.float64),
    lambda x: x.logsumexp(0),
    lambda x: x.logsumexp((0, 1), keepdim=True),
]
SCANS = [
    lambda x: x.cumsum(0),
    lambda x: x.cumsum(-1),
    lambda x: x.cumsum(0, dtype=torch.float64),
    lambda x: x.clone().cumsum_(0),
    lambda x: x.cumprod(-1),
    lambda x: x.logcumsumexp(0),
    lambda x: x.cummax(0),
    lambda x: x.cummin(-1),
]


def legal(function, x):
    """Whether PyTorch has the operator for this kind of tensor and shape."""
    try:
        function(x)
    except (RuntimeError, IndexError, NotImplementedError):
        return False
    return True


def named(function):
    return inspect.getsource(function).strip().removeprefix("lambda x: ").rstrip(",")


@pytest.mark.filterwarnings("ignore:.*degrees of freedom.*")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", REDUCTIONS + MOMENTS + SCANS, ids=named)
def test_reduction(function, kind):
    for shape in SHAPES:
        x = KINDS[kind](*shape)
        if legal(function, x):
            audit(function, x)


ODD = [
    (lambda x: x.sum(), ()),
    (lambda x: x.sum(0), ()),
    (lambda x: x.max(0), ()),
    (lambda x: x.argmax(0), ()),
    (lambda x: x.cumsum(0), ()),
    (lambda x: x.cummax(0), ()),
    (lambda x: x.logcumsumexp(0), ()),
    (lambda x: x.norm(), ()),
    (lambda x: x.logsumexp(0), ()),
    (lambda x: x.sum(0), (0, 3)),
    (lambda x: x.mean(0), (0, 3)),
    (lambda x: x.prod(), (0, 3)),
    (lambda x: x.sum(), (0,)),
    (lambda x: x.any(), (0,)),
    (lambda x: x.all(0), (0, 2)),
    (lambda x: x.amax(1), (0, 2)),
]


@pytest.mark.parametrize(("function", "shape"), ODD)
def test_scalars_and_empty_tensors(function, shape):
    audit(function, torch.randn(shape))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_that_threads_share(dtype):
    x = torch.randn(70_000).to(dtype)
    audit(lambda: (x.sum(), x.mean(), x.norm(), x.std()), singles=1)


def test_a_product_that_underflows_on_its_way():
    audit(torch.prod, torch.tensor([1e-30, 1e-30, 1e30, 1e30]))


def test_whether_all_or_any_hold():
    for x in (
        torch.tensor([[True, False]]),
        torch.ones(2, 3, dtype=torch.bool),
        torch.ones(0, dtype=torch.bool),
    ):
        audit(torch._is_all_true, x, covers="_is_all_true")
        audit(torch._is_any_true, x, covers="_is_any_true")
