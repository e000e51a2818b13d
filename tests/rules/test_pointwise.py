"""The pointwise laws against PyTorch: every form, dtype, broadcast, stride and edge that a row covers."""

from __future__ import annotations

import math

import pytest
import torch
from tests.rules.harness import audit

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
WHOLES = [torch.int64, torch.int32, torch.uint8, torch.int8]
EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    1.5,
    3.0,
    20.0,
    -88.5,
    0.1,
    0.9999999,
    math.inf,
    -math.inf,
    math.nan,
]


def samples(dtype: torch.dtype) -> list[torch.Tensor]:
    """A scalar, an empty tensor, a transposed one, one longer than two vectors, and the edges."""
    generator = torch.Generator().manual_seed(3)
    edges = torch.tensor(EDGES) if dtype.is_floating_point else torch.tensor([0, 1, 2, 3, 7, 100, 127])
    drawn = [torch.randn(7, 9, generator=generator).t() * 2, torch.rand(70, generator=generator)]
    return [x.to(dtype) for x in [torch.tensor(0.7), torch.empty(0, 3), edges, *drawn]]


UNARY = [
    "neg",
    "abs",
    "sign",
    "sgn",
    "angle",
    "reciprocal",
    "sqrt",
    "rsqrt",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "acosh",
    "atanh",
    "floor",
    "ceil",
    "round",
    "trunc",
    "frac",
    "sigmoid",
    "erf",
    "erfc",
    "deg2rad",
    "rad2deg",
    "nan_to_num",
    "square",
    "positive",
    "relu",
    "isnan",
    "isinf",
    "isposinf",
    "isneginf",
    "signbit",
    "logical_not",
]


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.bool], ids=str)
def test_functions_of_one_number(name: str, dtype: torch.dtype) -> None:
    function = getattr(torch, name)
    in_place = getattr(torch.Tensor, f"{name}_", None)
    listed = getattr(torch, f"_foreach_{name}", None)
    for x in samples(dtype):
        try:
            function(x)
        except (RuntimeError, NotImplementedError):
            pytest.skip(f"PyTorch has no {name} of {dtype}")
        audit(function, x, singles=1)
        if in_place is not None and function(x).dtype == dtype:
            audit(lambda x=x: in_place(x.clone()), singles=1)
        if listed is not None and dtype.is_floating_point:
            audit(
                lambda x=x: (
                    listed([x, x[:1] if x.ndim else x]),
                    getattr(torch, f"_foreach_{name}_")([x.clone()]),
                )
            )


BINARY = [
    "add",
    "sub",
    "mul",
    "div",
    "floor_divide",
    "remainder",
    "fmod",
    "pow",
    "maximum",
    "minimum",
    "fmax",
    "fmin",
    "atan2",
    "hypot",
    "logaddexp",
    "logaddexp2",
    "xlogy",
    "copysign",
    "heaviside",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "logical_and",
    "logical_or",
    "logical_xor",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "bitwise_left_shift",
    "bitwise_right_shift",
    "gcd",
    "lcm",
    "ldexp",
]
SCALARS = (2, -3, 0.1, 2.7, True)


def partners(dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(5)
    small = torch.randn(5, 7, generator=generator) * 3
    edges = torch.tensor(EDGES) if dtype.is_floating_point else torch.tensor([0.0, 1, 2, 3, 7, 100])
    pairs = [
        (edges.repeat_interleave(len(edges)), edges.repeat(len(edges))),
        (small, torch.randn(7, 5, generator=generator).t() * 2),
        (small, torch.rand(7, generator=generator) * 5),
        (torch.empty(0), torch.empty(0)),
        (torch.tensor(3.7), small),
        (torch.rand(4, 17, generator=generator) * 9, torch.rand(4, 17, generator=generator) * 5 + 1),
    ]
    made = [(a.to(dtype), b.to(dtype)) for a, b in pairs]
    return made if dtype.is_floating_point else [(a.abs(), b.abs()) for a, b in made]


def accepts(function: object, *args: object) -> bool:
    try:
        function(*args)  # type: ignore[operator]
    except (RuntimeError, NotImplementedError, TypeError):
        return False
    return True


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", [*FLOATS, *WHOLES, torch.bool], ids=str)
def test_functions_of_two_numbers(name: str, dtype: torch.dtype) -> None:
    if name == "ldexp" and dtype in (torch.float16, torch.uint8):
        pytest.skip("2²⁰ overflows on the way, and no law says so")
    function, in_place = getattr(torch, name), getattr(torch.Tensor, f"{name}_", None)
    ran = 0
    for a, b in partners(dtype) if dtype != torch.bool else [(torch.tensor([0, 1, 1, 0]) > 0,) * 2]:
        if not dtype.is_floating_point and name in ("floor_divide", "remainder", "fmod"):
            b = torch.where(b == 0, torch.ones_like(b), b)
        if accepts(function, a, b):
            ran += 1
            audit(function, a, b, singles=1)
            if in_place is not None and accepts(lambda a=a, b=b: in_place(a.clone(), b)):
                audit(lambda a=a, b=b: in_place(a.clone(), b), singles=1)
        for scalar in SCALARS:
            # a negative power of whole numbers is an error, and unsigned ones wrap a negative scalar
            if not dtype.is_floating_point and (name == "pow" or dtype == torch.uint8) and scalar == -3:
                continue
            if accepts(function, a, scalar):
                audit(function, a, scalar, singles=1)
    if not ran:
        pytest.skip(f"PyTorch has no {name} of {dtype}")


@pytest.mark.parametrize("dtype", [*FLOATS, torch.int64, torch.uint8], ids=str)
@pytest.mark.parametrize("mode", ["floor", "trunc", None])
def test_division_in_every_rounding_mode(dtype: torch.dtype, mode: str | None) -> None:
    for a, b in partners(dtype):
        divisor = b if dtype.is_floating_point else torch.where(b == 0, torch.ones_like(b), b)
        audit(lambda a=a, b=divisor: torch.div(a, b, rounding_mode=mode))
        audit(lambda a=a: torch.div(a, 3, rounding_mode=mode))
        audit(lambda a=a: torch.div(a, 0.3, rounding_mode=mode))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_three_numbers_and_scalars(dtype: torch.dtype) -> None:
    for a, b in partners(dtype):
        b = b.expand_as(a) if b.ndim <= a.ndim else b
        c = torch.linspace(0.1, 1, b.numel()).reshape(b.shape).to(dtype)
        audit(lambda a=a, b=b: torch.add(a, b, alpha=3))
        audit(lambda a=a, b=b: torch.sub(a, b, alpha=0.7))
        audit(lambda a=a, b=b: torch.rsub(a, b, alpha=2))
        audit(lambda a=a: 3 - a)
        for weight in (0.1, 0.5, 0.9, 2.0):
            audit(lambda a=a, b=b, w=weight: torch.lerp(a, b, w))
        audit(lambda a=a, b=b, c=c: torch.lerp(a, b, c))
        for value in (1, 0.3):
            audit(lambda a=a, b=b, c=c, v=value: torch.addcmul(a, b, c, value=v))
            audit(lambda a=a, b=b, c=c, v=value: torch.addcdiv(a, b, c, value=v))
        for low, high in ((-1, 1), (0.1, None), (None, 0.5), (2, -2)):
            audit(lambda a=a, low=low, high=high: torch.clamp(a, low, high))
        audit(lambda a=a, b=b: torch.clamp(a, b, b + 1))
        audit(lambda a=a, b=b: (torch.clamp_min(a, b), torch.clamp_max(a, 1)))
        audit(lambda a=a: (torch.round(a, decimals=2), torch.round(a, decimals=-1)))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_lists_of_tensors(dtype: torch.dtype) -> None:
    left = [torch.linspace(-2, 3, 40).to(dtype), torch.rand(3, 4).to(dtype)]
    right = [torch.linspace(1, 4, 40).to(dtype), torch.rand(3, 4).to(dtype) + 1]

    def copies() -> list[torch.Tensor]:
        return [x.clone() for x in left]

    for name in ["add", "sub", "mul", "div", "maximum", "minimum", "clamp_min", "clamp_max", "pow"]:
        plain, in_place = getattr(torch, f"_foreach_{name}"), getattr(torch, f"_foreach_{name}_")
        for other in (right, 0.3, 2, [0.3, 2.0]):
            audit(lambda f=plain, y=other: f(left, y), singles=1)
            audit(lambda f=in_place, y=other: f(copies(), y), singles=1)
    audit(lambda: torch._foreach_mul(left, torch.tensor(0.7).to(dtype)))
    audit(lambda: torch._foreach_pow(2.0, right))
    for name in ("addcmul", "addcdiv"):
        plain, in_place = getattr(torch, f"_foreach_{name}"), getattr(torch, f"_foreach_{name}_")
        for value in (0.3, [0.3, 2.0], torch.tensor([0.7, 3.0])):
            audit(lambda f=plain, v=value: f(left, right, right, v), singles=1)
            audit(lambda f=in_place, v=value: f(copies(), right, right, v), singles=1)
    audit(lambda: (torch._foreach_lerp(left, right, 0.3), torch._foreach_lerp(left, right, right)))
    audit(lambda: torch._foreach_lerp_(copies(), right, 0.7))
    audit(lambda: (torch._foreach_zero_(copies()), torch._foreach_copy_(copies(), right)))
    for order in (2, 1, 0, 3, math.inf):
        audit(lambda p=order: torch._foreach_norm(left, p))
    audit(lambda: torch._foreach_max(left))


def test_complex_numbers() -> None:
    generator = torch.Generator().manual_seed(1)
    for dtype in (torch.complex64, torch.complex128):
        a, b = (torch.randn(4, 5, generator=generator, dtype=dtype) for _ in range(2))
        audit(lambda a=a, b=b: (a + b, a - 2 * b, a * b, a / b, -a, 1 / a, a * (2 + 1j), a == b))
        audit(lambda a=a: (a.abs(), a.angle(), torch.sgn(a), torch.conj_physical(a)))
        r, t = torch.rand(2, 4, generator=generator)
        audit(lambda r=r, t=t: (torch.polar(r, t), torch.complex(r, t)))
