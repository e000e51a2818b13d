"""Numbers that stand in one line have equally many decimals, in both languages and with either mark."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch

import openheart as oh
from openheart.i18n import set_decimal_mark
from openheart.printers.digits import even


@pytest.fixture(params=[".", ","])
def mark(request: pytest.FixtureRequest) -> Iterator[str]:
    set_decimal_mark(request.param)
    yield request.param
    set_decimal_mark(".")


def recorded() -> oh.Recording:
    x = torch.tensor([[-3.7, -2.5], [1.5, 0.1]])
    with oh.recording() as rec:
        torch.maximum(x[0, 0], x[0, 1])
        x.amax(1)
        x @ x
        x.sum()
        torch.softmax(x, 1)
        x * 4.0
    return rec


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize(
    "address", ["maximum.out", "amax.out[0]", "mm.out[0,0]", "sum.out", "softmax.out[1,0]", "mul.out[0,1]"]
)
def test_a_line_mixes_no_digits(mark: str, lang: str, address: str) -> None:
    explained = recorded().explain(address)
    lines = explained.text(lang=lang, width=200).split("\n")
    label = "numbers" if lang == "en" else "números"
    line = next(line for line in lines if line.startswith(label))
    line = re.sub(r"\[[^]]*\]", "", line)  # an index is no number
    lengths = {len(found) for found in re.findall(rf"\d{re.escape(mark)}(\d+)", line)}
    assert lengths == ({1} if address == "mul.out[0,1]" else {4}), line


def test_numbers_say_what_they_said() -> None:
    values = [-3.7, -2.5, 4.0, 1e-9, float("nan"), 0.125]
    assert [n.text() for n in even(values)] == ["−3.7000", "−2.5000", "4", "1.0000e-09", "nan", "0.1250"]
    assert [n.text() for n in even([0.5, 2.0, 0.25])] == ["0.50", "2", "0.25"]
    assert even([]) == []


def test_a_constant_of_the_law_stays_as_the_law_has_it() -> None:
    with oh.recording() as rec:
        torch.nn.functional.leaky_relu(torch.tensor([-3.7]), 0.01)
    text = rec.explain("leaky_relu.out[0]").text(lang="en")
    assert re.search(r"\b0\.01\b(?!0)", text) and "0.0100" not in text
