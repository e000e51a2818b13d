"""What is correct and not healthy, what a bound says nothing of, and what nobody checked: each said apart."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.printers.schema import problems
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

import openheart as oh
from openheart.check import VERDICTS
from openheart.formula import loops
from openheart.printers.parts import tone, verdict
from openheart.show.document import document

DOCS = Path(__file__).parent.parent / "docs"
AUDIT = json.loads((DOCS / "audit.schema.json").read_text(encoding="utf-8"))
EXPLANATION = json.loads((DOCS / "explanation.schema.json").read_text(encoding="utf-8"))


def recorded(run: Callable[[], object]) -> Any:
    with oh.recording() as rec:
        run()
    return rec


def said(audit: Any) -> dict[str, Any]:
    """The audit as data, held against its schema."""
    made = json.loads(json.dumps(audit.to_dict(), allow_nan=False))
    assert problems(made, AUDIT, AUDIT) == []
    return made  # type: ignore[no-any-return]


# NaN and infinity ----------------------------------------------------------------------------------


def a_loss_that_is_no_number() -> None:
    x = torch.tensor([2.0, -1.0, 4.0], requires_grad=True)
    torch.log(x).sum().backward()


def test_a_nan_is_exact_and_no_surface_is_green() -> None:
    rec = recorded(a_loss_that_is_no_number)
    audit = rec.verify()
    assert audit.ok, "ok speaks of correctness"
    assert not audit.healthy
    assert audit.nonfinite == 2  # log(−1), and the sum; the gradients are finite
    first = audit.first_nonfinite
    assert (first.address, first.number, first.cause, first.function) == (
        "log.out[1]",
        "nan",
        "undefined",
        "log",
    )
    assert said(audit)["first_nonfinite"]["address"] == "log.out[1]"
    for lang, words in (("en", "2 numbers are NaN or infinite"), ("es", "2 números son NaN o infinitos")):
        assert audit.text(lang=lang).startswith(f"! {words}")
        assert "log.out[1]" in audit.text(lang=lang)
        assert "oh-good" not in audit.html(lang=lang).partition("<article")[2]
        page = document(rec, lang, title="x", story="", labels=(), digits=4)
        head = page[page.index('<header class="oh-title">') : page.index("</header>")]
        assert f"! {words}" in head
        assert "oh-warn" in head
        assert "oh-good" not in head


def test_the_explanation_of_a_nan_says_so_and_goes_back_to_where_it_was_born() -> None:
    rec = recorded(a_loss_that_is_no_number)
    whole = rec.explain("sum.out")
    assert whole.verdict == "exact"
    assert (whole.nonfinite.cause, whole.nonfinite.source) == ("given", "log.out[1]")
    assert tone(whole) == "nonfinite"
    assert verdict(whole, "en")[:2] == ("exact, but nan", "!")
    assert "oh-good" not in whole.html(lang="en").partition("<article")[2]
    assert "✓" not in whole.text(lang="en")
    assert problems(json.loads(json.dumps(whole.to_dict(), allow_nan=False)), EXPLANATION, EXPLANATION) == []
    assert rec.explain("log.out[0]").nonfinite is None


def half() -> torch.Tensor:
    return torch.full((3,), 60000.0, dtype=torch.float16)


@pytest.mark.parametrize(
    ("run", "cause", "function"),
    [
        (lambda: half() * 2, "overflow", None),
        (lambda: torch.full((2,), 3e38).sum(), "overflow", None),
        (lambda: torch.full((2,), 3e38, dtype=torch.bfloat16) @ torch.ones(2).bfloat16(), "overflow", None),
        (lambda: torch.exp(torch.full((2,), 100.0)), "overflow", None),
        (lambda: torch.exp(torch.full((2,), 1000.0, dtype=torch.float64)), "overflow", "exp"),
        (lambda: torch.full((2,), 1e300, dtype=torch.float64) ** 2, "overflow", "pow"),
        (lambda: torch.ones(2) / torch.zeros(2), "pole", "div"),
        (lambda: torch.zeros(2).log(), "pole", "log"),
        (lambda: torch.zeros(2) ** -1.5, "pole", "pow"),
        (lambda: torch.zeros(2) / torch.zeros(2), "undefined", "div"),
        (lambda: (-torch.ones(2)).sqrt(), "undefined", "sqrt"),
        (lambda: torch.zeros(3).masked_fill(torch.ones(3) > 0, -torch.inf), "written", None),
        (lambda: torch.softmax(torch.full((2, 2), math.nan), -1), "written", None),
    ],
)
def test_where_it_was_born(run: Callable[[], object], cause: str, function: str | None) -> None:
    rec = recorded(run)
    audit = rec.verify()
    assert audit.disagree == 0
    assert audit.first_nonfinite.cause == cause
    assert audit.first_nonfinite.function == function
    words = {"overflow": "overflowed", "written": "constant", "undefined": "not defined", "pole": "zero"}
    assert words[cause] in audit.text(lang="en")
    assert words[cause] in rec.explain(audit.first_nonfinite.address).text(lang="en")


def test_a_nan_that_came_in_is_named() -> None:
    x = torch.tensor([1.0, math.nan])
    rec = oh.record(torch.nn.Linear(2, 1), x)
    assert rec.verify().first_nonfinite.source == "input[1]"
    assert rec.explain("input[1]").notes[-1].key == "note.nonfinite.brought"


# Bounds that say nothing ---------------------------------------------------------------------------


def test_what_a_bound_larger_than_the_number_lets_pass_is_unbounded() -> None:
    x = 1e6 + torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    rec = oh.record(torch.nn.InstanceNorm1d(3), x)
    audit = rec.verify()
    assert audit.disagree == 0
    assert audit.unbounded > 0
    assert not audit.healthy
    assert audit.scalars == audit.exact + audit.within + audit.unbounded + audit.leaves
    first = audit.unbounded_at[0]
    assert first.bound > abs(first.recorded)
    assert first.digits == pytest.approx(math.log10(abs(first.recorded) / first.bound))
    assert first.digits < 0
    one = rec.explain(first.address)
    assert one.verdict == "unbounded"
    assert one.digits_left == pytest.approx(first.digits)
    assert "digits left" in one.text(lang="en")
    assert "dígitos que quedan" in audit.text(lang="es")
    assert "~" in audit.text(lang="en").partition("\n")[0]
    assert said(audit)["unbounded_at"][0]["address"] == first.address


def test_a_number_that_is_exactly_right_is_exact_whatever_its_bound() -> None:
    x = torch.tensor([0.1, 0.3, 0.7])
    zero = recorded(lambda: (x - x).sum())
    assert zero.explain("sum.out").verdict == "exact"
    assert zero.verify().unbounded == 0
    lost = recorded(lambda: torch.tensor([[1e8, 1.0, -1e8]]) @ torch.ones(3, 1))
    one = lost.explain("mm.out[0,0]")
    assert one.value in (0.0, 1.0)
    assert one.verdict == ("exact" if one.value == 1.0 else "unbounded")


def test_an_infinite_bound_is_no_check() -> None:
    # 1 ÷ (what is left of a sum whose terms cancel): the divisor may be 0, the quotient anything.
    x = torch.tensor([[1e8, 3.3, -1e8]])
    rec = recorded(lambda: torch.nn.functional.normalize(torch.nn.functional.layer_norm(x, (3,)), dim=1))
    audit = rec.verify()
    assert audit.infinite <= audit.unbounded
    assert audit.ok == (audit.infinite == 0)


@pytest.mark.skipif(not loops.available(), reason="Numba is not installed")
def test_a_compiled_loop_counts_what_is_unbounded_as_arrays_do(monkeypatch: pytest.MonkeyPatch) -> None:
    x = 1e5 + torch.randn(4, 20, 600, generator=torch.Generator().manual_seed(0))
    rec = oh.record(torch.nn.InstanceNorm1d(20), x)
    monkeypatch.setattr(loops, "PAYS", 0)
    quick = rec.verify()
    monkeypatch.setattr(loops, "available", lambda: False)
    slow = rec.verify()
    assert quick.unbounded == slow.unbounded > 0
    assert quick.unbounded_at[0].address == slow.unbounded_at[0].address
    assert quick.unbounded_at[0].digits == pytest.approx(slow.unbounded_at[0].digits, rel=1e-6)


def test_a_number_with_a_useful_bound_is_not_unbounded() -> None:
    torch.manual_seed(0)
    audit = oh.record(torch.nn.Linear(64, 64), torch.randn(8, 64)).verify()
    assert audit.unbounded == 0
    assert audit.healthy
    assert "unbounded" not in audit.text(lang="en")


# What nobody checked -------------------------------------------------------------------------------


def sparse() -> object:
    return torch.eye(3).to_sparse() * 2


def quantized() -> object:
    return torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8).dequantize()


def nested() -> object:
    return torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)], layout=torch.jagged) * 2


def fake() -> object:
    with FakeTensorMode():
        return (torch.ones(3) + 1).sin()


def no_device() -> object:
    return torch.ones(3, device="meta") + 1


def half_complex() -> object:
    return torch.ones(3, dtype=torch.complex32) + 1


def tangent_of_zero() -> object:
    with forward_ad.dual_level():
        return forward_ad.make_dual(torch.ones(3), torch.ones(3)) * 2 + torch.ones(3)


def in_another_layout() -> object:
    return torch.ones(3, 3).to_mkldnn().relu()


@pytest.mark.parametrize(
    "run",
    [sparse, quantized, nested, fake, no_device, half_complex, tangent_of_zero, in_another_layout],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_read_is_not_checked(run: Callable[[], object]) -> None:
    rec = recorded(run)
    for audit in (rec.verify(), rec.verify(sample=2)):
        assert not audit.ok
        assert audit.disagree == 0
        assert "✓" not in audit.text(lang="en")
        assert said(audit)["not_checked"] == audit.not_checked
        if rec.calls:  # fake tensors may be none of the recorder's business
            assert audit.not_checked > 0
            assert audit.unchecked[0].reason in ("output", "input", "unreadable")
            assert "not checked" in audit.text(lang="en")


def test_what_was_not_kept_is_not_checked() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    rec = oh.record(net, torch.randn(2, 3), keep="1")
    audit = rec.verify()
    assert not audit.ok
    assert audit.not_checked > 0
    assert audit.opaque == 0
    assert audit.scalars == audit.exact + audit.within + audit.not_checked + audit.unbounded
    one = rec.explain("0.out[0,0]")
    assert one.verdict == "not checked"
    assert one.computed is None
    assert "not checked" in one.text(lang="en")
    assert "✓" not in one.text(lang="en")
    assert problems(json.loads(json.dumps(one.to_dict(), allow_nan=False)), EXPLANATION, EXPLANATION) == []


def test_nothing_checked_is_not_ok() -> None:
    rec = oh.record(torch.nn.Linear(3, 2), torch.randn(2, 3))
    assert rec.verify().ok
    for audit in (
        rec.verify(sample=0),
        recorded(lambda: None).verify(),
        recorded(lambda: torch.ones(0) * 2).verify(),
    ):
        assert not audit.ok
        assert not audit.healthy
        assert "✓" not in audit.text(lang="en")
        assert "oh-good" not in audit.html().partition("<article")[2]
    with pytest.raises(ValueError, match="-1"):
        rec.verify(sample=-1)


def test_every_verdict_has_words_and_a_mark() -> None:
    from openheart.printers.html import SHADES as HTML
    from openheart.printers.layout import SHADES
    from openheart.printers.parts import VERDICTS as WORDS

    assert set(VERDICTS) == set(WORDS)
    assert set(VERDICTS) <= set(SHADES)
    assert set(VERDICTS) <= set(HTML)
    assert [v for v in VERDICTS if WORDS[v][1] == "✓"] == ["exact", "within rounding"]
    assert [v for v in VERDICTS if HTML[v] == "oh-good"] == ["exact", "within rounding"]


def test_counts_add_up_under_every_verdict() -> None:
    def run() -> None:
        x = 1e6 + torch.randn(2, 3, 64)
        torch.nn.functional.instance_norm(x).log().sum()
        torch.eye(3).to_sparse() * 2
        torch.rand(5)

    audit = recorded(run).verify()
    made = said(audit)
    verdicts = ("exact", "within", "unbounded", "disagree", "opaque", "not_checked", "leaves")
    assert sum(made[name] for name in verdicts) == made["scalars"]
    for row in made["by_operator"]:
        assert sum(row[name] for name in verdicts) == row["scalars"]
    assert np.sum([row["nonfinite"] for row in made["by_operator"]]) == audit.nonfinite
