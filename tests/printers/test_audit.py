"""Audits as they are shown."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from rich.cells import cell_len

import openheart as oh
from openheart.patients import patient
from openheart.printers.audit import audit_dict, audit_html, text, total


@cache
def audit() -> Any:
    subject = patient("seed")
    model = subject.build()
    with oh.recording(model) as recording:
        subject.loss()(model(*subject.inputs()), subject.target()).backward()
    return recording.verify()


def broken() -> Any:
    """The audit as it would read with a disagreement and an operator without a law."""
    from openheart.verify import Disagreement

    found = Disagreement("1.out[0,0]", "addmm", 0.83, 0.8347164, 3.4e-07)
    return replace(audit(), disagree=1, opaque=3, disagreements=(found,), opaque_operators=("aten.mm",))


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_text_stays_within_its_width(lang: str, width: int) -> None:
    for found in (audit(), broken()):
        assert max(map(cell_len, text(found, lang, width).split("\n"))) <= width


def test_text_says_what_was_found() -> None:
    assert "every number was checked, none disagrees" in text(audit(), "en") or not audit().ok
    assert "1 número discrepa" in text(broken(), "es")
    assert "3 numbers could not be checked" in text(broken(), "en")
    assert "1.out[0,0]" in text(broken(), "en")


def test_html_is_marked_by_verdict() -> None:
    assert 'oh-verdict oh-bad">✗ 1 number disagrees' in audit_html(broken(), "en")
    assert "<script" not in audit_html(audit(), "es")


def test_total_adds_up() -> None:
    assert total(audit()).scalars == audit().scalars


def test_data_is_json() -> None:
    made = json.loads(json.dumps(audit_dict(broken()), allow_nan=False))
    assert made["disagree"] == 1
    assert made["disagreements"][0]["address"] == "1.out[0,0]"
    assert sum(row["scalars"] for row in made["by_operator"]) == made["scalars"]
