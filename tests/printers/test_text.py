"""A line that is broken loses nothing but the spaces where it breaks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import openheart as oh
from openheart.printers.text import Piece, wrap

PIECES = st.lists(
    st.builds(
        Piece,
        st.one_of(st.just(" "), st.text("abcxyz.0123", min_size=1, max_size=30)),
        st.just("name"),
        breaks=st.one_of(st.none(), st.integers(0, 3)),
    ),
    max_size=20,
)


def without_spaces(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces).replace(" ", "")


@given(run=PIECES, width=st.integers(4, 30), hang=st.integers(0, 3))
def test_nothing_is_lost_and_no_line_is_too_long(run: list[Piece], width: int, hang: int) -> None:
    lines = wrap(run, width, width - hang)
    assert "".join(without_spaces(line) for line in lines) == without_spaces(run)
    for n, line in enumerate(lines):
        assert sum(len(piece.text) for piece in line) <= (width - hang if n else width)


@pytest.mark.parametrize("width", [24, 40, 60])
def test_a_long_address_keeps_its_tail(width: int) -> None:
    inner = torch.nn.Sequential()
    inner.add_module(
        "a_module_with_a_very_long_name_that_fills_more_than_a_line_of_a_terminal", torch.nn.Linear(2, 1)
    )
    rec = oh.record(inner, torch.ones(1, 2))
    address = rec.address(rec.element("output[0,0]"))
    printed = rec.explain(address).text(lang="en", width=width)
    numbers = printed[printed.index("numbers") :].replace("\n", "").replace(" ", "")
    assert address in numbers
