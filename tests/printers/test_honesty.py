"""Honest digits: what is printed is read back by `reading`, recomputed, and held against its own result."""

from __future__ import annotations

import math
import random
import re
from contextlib import suppress
from functools import cache
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.printers import reading

import openheart as oh
from openheart.formula.expr import Expr, Number, apply
from openheart.formula.instance import Line, Rest, Slot, Terms
from openheart.patients import patient, patients
from openheart.printers import parts
from openheart.printers.explanation import LABELS, latex, mathml, text
from openheart.printers.honesty import recompute, relation
from openheart.printers.intervals import Interval
from openheart.printers.json import explanation_dict
from openheart.printers.latex import latex as latex_of
from openheart.printers.mathml import mathml as mathml_of
from openheart.printers.parts import style_for
from openheart.printers.text import plain
from openheart.recording import Element

# ---------------------------------------------------------------------------- made-up lines

NUMBERS = st.one_of(
    st.floats(-100, 100, width=32),
    st.floats(-(2.0**-10), 2.0**-10, width=32),
    st.integers(-9, 9).map(float),
    st.sampled_from([0.5, -0.25, 1e6, 1e10, 1e-8, -0.0]),
)
SLOTS = NUMBERS.map(lambda v: Slot(v, "x[0]"))
RESTS = st.builds(Rest, st.integers(1, 9999), NUMBERS)


def compound(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    binary = st.sampled_from(["add", "sub", "mul", "div", "max", "min"])
    unary = st.sampled_from(["neg", "abs", "exp", "sqrt", "tanh", "erf", "log1p", "floor", "sign"])
    several = st.lists(inner, min_size=1, max_size=5).map(tuple)
    kinds = st.sampled_from(["sum", "mean", "product", "max", "min"])
    return st.one_of(
        st.builds(apply, binary, inner, inner),
        st.builds(apply, unary, inner),
        st.builds(lambda x, n: apply("pow", x, Number(n)), inner, st.sampled_from([2, 3, -1, 0.5])),
        st.builds(
            lambda k, i, r: Terms(k, i, r, len(i) + (0 if r is None else r.count)),
            kinds,
            several,
            st.none() | RESTS,
        ),
    )


INSTANCES = st.recursive(
    SLOTS | st.sampled_from([Number(0.9, "beta1"), Number(1e-8, "eps"), Number(2)]), compound, max_leaves=8
)


def value_of(node: Expr) -> float:
    """The value of an instance in float64, from its full numbers."""
    from openheart.formula.functions import FUNCTIONS

    if isinstance(node, (Slot, Rest, Number)):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, Terms):
        values = [value_of(n) for n in (*node.items, *([] if node.rest is None else [node.rest]))]
        folds: dict[str, Any] = {"sum": sum, "product": math.prod, "max": max, "min": min}
        return sum(values) / node.count if node.kind == "mean" else float(folds[node.kind](values))
    return float(FUNCTIONS[node.function].compute(*(value_of(a) for a in node.args)))  # type: ignore[attr-defined]


def agree(right: str, said: str, result: str, digits: int) -> None:
    """A printed `=` must hold; a line of exact arithmetic that holds must not be weakened to `≈`."""
    try:
        true, sure, exact = reading.holds(right, result, digits)
    except (ArithmeticError, ValueError, TypeError, reading.Unreadable):
        assert said == "≈", f"{right} {said} {result}: `=` where the reader finds no value"
        return
    if sure and (said == "=" or exact):
        assert (said == "=") == true, f"{right} {said} {result} at {digits} digits"


@settings(max_examples=400, deadline=None)
@given(INSTANCES, st.integers(0, 17), st.sampled_from(["es", "en"]))
def test_a_printed_line_is_what_its_own_digits_give(instance: Expr, digits: int, lang: str) -> None:
    try:
        with np.errstate(all="ignore"):
            value = value_of(instance)
    except (ArithmeticError, ValueError):
        return
    if not math.isfinite(value) or abs(value) > 1e300:
        return
    line = Line("y", instance, instance, value)
    for flat in (True, False):
        style = style_for(digits, lang, flat=flat)
        e = parts.equation(line, style)
        if e.result is None:
            continue
        if flat:
            agree(plain(e.right, style), e.relation, plain(e.result, style), digits)
        else:
            agree(
                *(
                    reading.from_latex(p)
                    for p in (latex_of(e.right, style), e.relation, latex_of(e.result, style))
                ),
                digits,
            )
            agree(
                from_xml(mathml_of(e.right, style)), e.relation, from_xml(mathml_of(e.result, style)), digits
            )


def from_xml(made: str) -> str:
    return reading.from_mathml(ElementTree.fromstring(f"<mrow>{made}</mrow>"))


def test_the_line_of_the_tutorial() -> None:
    instance = Slot(4.0) * Slot(0.18034) + Slot(5.0) * Slot(0.32628) + Slot(0.40108)
    assert relation(Line("y", instance, instance, 2.7538), 4) == "="
    assert relation(Line("y", instance, instance, 2.7539), 4) == "≈"


def test_a_tie_is_not_an_equality() -> None:
    instance = Slot(0.5) * Slot(0.25)
    assert relation(Line("y", instance, instance, 0.125), 2) == "≈"
    assert relation(Line("y", instance, instance, 0.125), 3) == "="


@pytest.mark.parametrize(
    ("instance", "result", "expected"),
    [
        (apply("sub", Slot(math.inf), Slot(1.0)), math.inf, "="),
        (apply("sub", Slot(math.inf), Slot(math.inf)), math.nan, "="),
        (apply("exp", Slot(-math.inf)), 0.0, "="),
        (apply("div", Slot(1.0), Slot(0.0)), math.inf, "="),
        (apply("mul", Slot(1 + 2j), Slot(1 - 2j)), 5 + 0j, "="),
        (apply("gt", Slot(0.3), Slot(0.2)), True, "="),
        (apply("zeta", Slot(2.0), Slot(1.0)), 1.6449, "≈"),
    ],
)
def test_unusual_numbers(instance: Expr, result: complex, expected: str) -> None:
    assert relation(Line("y", instance, instance, result)) == expected


# ------------------------------------------------------------------------------ every patient

NAMES = [p.name for p in patients()]
SAMPLED = 60


@cache
def explanations(name: str) -> tuple[Any, ...]:
    """Explanations of numbers drawn from every operator of two training steps."""
    subject = patient(name)
    model = subject.build()
    optimizer = subject.optimizer(model.parameters())
    loss, inputs, target = subject.loss(), subject.inputs(), subject.target()
    with oh.recording(model) as recording:
        for _ in range(2):
            optimizer.zero_grad()
            loss(model(*inputs), target).backward()
            optimizer.step()
    draw = random.Random(28)
    outputs = [(c, n) for c in recording.calls for n, v in enumerate(c.outputs) if math.prod(v.shape)]
    by_operator: dict[Any, list[Any]] = {}
    for call, n in outputs:
        by_operator.setdefault((str(call.op), n), []).append(call.outputs[n])
    chosen = [draw.choice(values) for values in by_operator.values()]
    chosen += [draw.choice(draw.choice(outputs)[0].outputs) for _ in range(SAMPLED - len(chosen))]
    made = []
    for value in chosen:
        if math.prod(value.shape):
            at = tuple(draw.randrange(n) for n in value.shape)
            # Memory that was never written holds nothing that could be explained.
            with suppress(oh.OpaqueError):
                made.append(recording.explain(recording.address(Element(value, at))))
    return tuple(made)


def number_lines(page: str, lang: str) -> list[str]:
    """The lines of the section of numbers of a printed explanation."""
    label = {"es": "números", "en": "numbers"}[lang]
    lines = page.split("\n")
    for n, line in enumerate(lines):
        if line.startswith(label):
            block = [line, *lines[n + 1 :]]
            end = next((m for m, following in enumerate(block) if m and not following.strip()), len(block))
            return [following[LABELS:] for following in block[:end]]
    return []


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("name", NAMES)
def test_text_of_every_patient(name: str, lang: str) -> None:
    read = 0
    for explanation in explanations(name):
        for digits in (4, 9):
            for line in number_lines(text(explanation, digits, lang, width=100_000), lang):
                found = reading.split(line)
                if found is not None:
                    agree(*found, digits)
                    read += 1
    assert read > 20


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("name", NAMES)
def test_latex_of_every_patient(name: str, lang: str) -> None:
    for explanation in explanations(name):
        made = latex(explanation, 4, lang).replace(" \\\\\n &\\quad ", "")
        rows = made.split("\n")[1:-1]
        for row in rows[len(rows) - len(explanation.lines) :]:
            found = reading.split(spaced(reading.from_latex(row.removesuffix(" \\\\").partition("&")[2])))
            if found is not None:
                agree(*found, 4)


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("name", NAMES)
def test_mathml_of_every_patient(name: str, lang: str) -> None:
    for explanation in explanations(name):
        table = ElementTree.fromstring(mathml(explanation, 4, lang))[0]
        for row in list(table)[len(table) - len(explanation.lines) :]:
            found = reading.split(spaced(reading.from_mathml(row[1])))
            if found is not None:
                agree(*found, 4)


def spaced(row: str) -> str:
    """` = right side = result`, with the spaces that `split` looks for."""
    first, *rest = re.split(r"\s*([=≈])\s*", row.strip())
    return " ".join([first, *rest]) if first else " ".join(["", *rest])


@pytest.mark.parametrize("name", NAMES)
def test_json_of_every_patient(name: str) -> None:
    """The tree with its texts, recomputed, gives the text of its result where it says `=`."""
    for explanation in explanations(name):
        made = explanation_dict(explanation, 4)
        for line in made["lines"]:
            written = from_tree(line["instance"])
            if written is not None and line["result"]["text"] != written:
                agree(written, line["relation"], line["result"]["text"], 4)


@pytest.mark.parametrize("name", NAMES)
def test_every_line_is_true_with_all_its_digits(name: str) -> None:
    """`≈` speaks of printed digits only: from its full numbers, every line gives its result."""
    for explanation in explanations(name):
        for line in explanation.lines:
            with suppress(ArithmeticError, ValueError):
                made = recompute(line.instance, 17)
                if isinstance(made, Interval) and math.isfinite(line.result):
                    slack = 1e-4 * abs(line.result) + 1e-6 + (explanation.bound or 0.0)
                    assert made.low - slack <= line.result <= made.high + slack, (
                        explanation.address,
                        line.name,
                    )


INFIX = {"add": "+", "sub": "−", "mul": "·", "div": "/", "mod": " mod ", "and": "∧", "or": "∨"}
INFIX |= {"lt": "<", "le": "≤", "gt": ">", "ge": "≥", "eq": "=", "ne": "≠"}


def from_tree(node: dict[str, Any]) -> str | None:
    """A JSON tree as the reader's notation, every part in parentheses."""
    if "text" in node:
        return f"({node['text']})"
    if node["node"] == "terms":
        items = [from_tree(n) for n in (*node["items"], *([node["rest"]] if node["rest"] else []))]
        glyph = {"sum": "+", "mean": "+", "product": "·", "any": "∨", "all": "∧"}.get(node["kind"])
        if node["kind"] == "rank":
            return str(node["count"])
        if glyph is None or not items:
            return (
                f"{node['kind']}({','.join(map(str, items))})"
                if items and not (node["rest"] and "arg" in node["kind"])
                else None
            )
        return (
            f"(({glyph.join(map(str, items))}){'/' + str(node['count']) if node['kind'] == 'mean' else ''})"
        )
    if node["node"] != "apply":
        return None
    args = [from_tree(arg) for arg in node["args"]]
    if None in args:
        return None
    name = node["function"]
    known = {
        "neg": "(−{})",
        "abs": "|{}|",
        "floor": "⌊{}⌋",
        "ceil": "⌈{}⌉",
        "not": "(¬{})",
        "log1p": "log(1+{})",
    }
    known |= {
        "expm1": "(exp({})−1)",
        "pow": "({}^{})",
        "sqrt": "√{}",
        "floordiv": "⌊{}/{}⌋",
        "exp2": "(2^{})",
    }
    if name in known:
        return known[name].format(*args)
    if name in INFIX:
        return f"({args[0]}{INFIX[name]}{args[1]})"
    from openheart.printers.glyphs import FUNCTION_NAMES, UNSEEN

    return args[0] if name in UNSEEN else f"{FUNCTION_NAMES.get(name, name)}({','.join(map(str, args))})"
