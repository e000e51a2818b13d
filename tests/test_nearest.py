"""What is suggested is near; where nothing is, nothing is suggested, and it takes no time."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn

import openheart as oh
from openheart.nearest import nearest

NAMES = [
    "input",
    "0.weight",
    "0.bias",
    "0.out",
    "1.out",
    "2.in.grad",
    "2.weight",
    "loss",
    "loss.grad",
    "@1 0.weight",
]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("0.wieght", "0.weight"),
        ("0.outt", "0.out"),
        ("1.ot", "1.out"),
        ("2.out", "1.out"),
        ("9.out", "1.out"),
        ("3.weight", "2.weight"),
        ("LOSS", "loss"),
        ("losss", "loss"),
        ("in.grad", "2.in.grad"),
        ("2.in", "2.in.grad"),
        ("nada", None),
        ("x", None),
        ("", None),
        ("momentum_buffer", None),
        ("2.in.grad.something.else.entirely", "2.in.grad"),
    ],
)
def test_what_is_near(name: str, meant: str | None) -> None:
    assert nearest(name, NAMES) == meant


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("explian", ["explain", "export"], "explain"),
        ("seed", ["show", "demo", "explain"], None),
        ("sed", ["seed", "xor"], "seed"),
        ("adamm", ["adam", "sgd"], "adam"),
        ("net", ["net.py", "other.py"], "net.py"),
        ("ñandu", ["ñandú"], "ñandú"),
    ],
)
def test_of_other_names_too(name: str, known: list[str], meant: str | None) -> None:
    assert nearest(name, known) == meant


def test_it_is_linear_in_the_names() -> None:
    def seconds(count: int) -> float:
        names = [f"transformer.h.{n % 97}.attn.c_attn/backward/mul_{n}.out" for n in range(count)]
        began = time.perf_counter()
        nearest("transformer.h.3.attn.c_atn/backward/mul_77777777.out", names)
        return time.perf_counter() - began

    seconds(100)
    assert min(seconds(40_000) for _ in range(3)) < 40 * min(seconds(4_000) for _ in range(3))


def test_a_recording_suggests_what_is_near_or_where_to_look() -> None:
    rec = oh.record(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.ones(1, 2))
    with pytest.raises(oh.AddressError) as near:
        rec.explain("0.outt[0,1]")
    assert near.value.suggestion == "0.out[0,1]"
    for lang in ("en", "es"):
        oh.set_language(lang)
        try:
            with pytest.raises(oh.AddressError, match=r"nada.*rec\.addresses\(\)") as far:
                rec.explain("nada")
        finally:
            oh.set_language(None)
        assert far.value.suggestion is None
