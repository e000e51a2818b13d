"""Formulas in text and LaTeX, row by row."""

import re
from pathlib import Path

import pytest

from openheart.formula.expr import (
    Expr,
    Leaf,
    Number,
    Tensor,
    apply,
    argmax,
    count,
    everywhere,
    exists,
    index,
    largest,
    mean,
    named,
    product,
    total,
    where,
)
from openheart.formula.functions import FUNCTIONS, erf, exp, floor, log, log1p, sqrt, tanh
from openheart.formula.instance import Rest, Slot, Terms
from openheart.printers.latex import latex
from openheart.printers.mathml import mathml
from openheart.printers.notation import Style, box
from openheart.printers.text import pieces, plain, spans, wrap


def tensor(name: str, ndim: int) -> Tensor:
    return Tensor(name, (3,) * ndim, "float", (name, None))


i, j, k, c = index("i", 3), index("j", 3), index("k", 3), index("c", 3)
x, w, mat1, mat2, b = (
    tensor("x", 1),
    tensor("weight", 1),
    tensor("mat1", 2),
    tensor("mat2", 2),
    tensor("self", 1),
)
alpha, beta1, lr, eps = (
    Number(v, n) for v, n in ((2.0, "alpha"), (0.9, "beta1"), (0.1, "lr"), (1e-8, "eps"))
)
mu = named("mu", mean(k, x[k]))

LAWS: list[tuple[Expr, str, str]] = [
    (
        b[j] + total(k, mat1[i, k] * mat2[k, j]),
        "selfⱼ + Σₖ mat1ᵢₖ · mat2ₖⱼ",
        r"\mathrm{self}_{j}+\sum_{k} \mathrm{mat1}_{ik}\cdot \mathrm{mat2}_{kj}",
    ),
    (alpha * x[i], "α · xᵢ", r"\alpha \cdot x_{i}"),
    (x[i] - lr * (1 - beta1), "xᵢ − η · (1 − β₁)", r"x_{i}-\eta \cdot (1-\beta_{1})"),
    (
        (x[i] - mu) / sqrt(w[i] + eps),
        "(xᵢ − μ)/√(weightᵢ + ε)",
        r"\frac{x_{i}-\mu }{\sqrt{\mathrm{weight}_{i}+\varepsilon }}",
    ),
    (exp(x[i] - x[j]), "exp(xᵢ − xⱼ)", r"e^{x_{i}-x_{j}}"),
    (exp(total(k, x[k])), "exp(Σₖ xₖ)", r"\exp\left( \sum_{k} x_{k} \right)"),
    (x[i] ** 2, "xᵢ²", r"x_{i}^{2}"),
    (x[i] ** Number(-3), "xᵢ⁻³", r"x_{i}^{-3}"),
    (x[i] ** x[j], "xᵢ^(xⱼ)", r"x_{i}^{x_{j}}"),
    (x[i] ** 0.5, "√xᵢ", r"\sqrt{x_{i}}"),
    (-(x[i] + x[j]), "−(xᵢ + xⱼ)", r"-(x_{i}+x_{j})"),
    (x[i] - (x[j] - x[k]), "xᵢ − (xⱼ − xₖ)", r"x_{i}-(x_{j}-x_{k})"),
    (x[i] + -x[j], "xᵢ − xⱼ", r"x_{i}-x_{j}"),
    ((x[i] + x[j]) * x[k], "(xᵢ + xⱼ) · xₖ", r"(x_{i}+x_{j})\cdot x_{k}"),
    (x[i] / (x[j] * x[k]), "xᵢ/(xⱼ · xₖ)", r"\frac{x_{i}}{x_{j}\cdot x_{k}}"),
    (x[i] / x[j] * x[k], "(xᵢ/xⱼ) · xₖ", r"\frac{x_{i}}{x_{j}}\cdot x_{k}"),
    (total(k, x[k]) * x[i], "(Σₖ xₖ) · xᵢ", r"\left( \sum_{k} x_{k} \right)\cdot x_{i}"),
    (x[i] * total(k, x[k] + 1), "xᵢ · Σₖ (xₖ + 1)", r"x_{i}\cdot \sum_{k} (x_{k}+1)"),
    (x[i] * total(k, x[k]) / 2, "(xᵢ · Σₖ xₖ)/2", r"\frac{x_{i}\cdot \sum_{k} x_{k}}{2}"),
    (total(c, x[c]), "Σ[c] x[c]", r"\sum_{c} x_{c}"),
    (mat1[i, 2 * j + 1], "mat1[i,2·j+1]", r"\mathrm{mat1}_{i,2\cdot j+1}"),
    (
        total((j, k), x[j + k], where=(j + k >= 0) & (j + k < 3)),
        "Σ[j,k: 0 ≤ j + k < 3] x[j+k]",
        r"\sum_{\substack{j,k \\ 0\le j+k<3}} x_{j+k}",
    ),
    (mean(k, x[k]), "1/3 · Σₖ xₖ", r"\frac{1}{3}\sum_{k} x_{k}"),
    (product(k, x[k]), "Πₖ xₖ", r"\prod_{k} x_{k}"),
    (largest(k, x[k]), "maxₖ xₖ", r"\max_{k} x_{k}"),
    (argmax(k, x[k]), "argmaxₖ xₖ", r"\operatorname*{arg\,max}_{k} x_{k}"),
    (exists(k, x[k] > 0), "∃ₖ (xₖ > 0)", r"\exists_{k} (x_{k}>0)"),
    (everywhere(k, x[k] != 0), "∀ₖ (xₖ ≠ 0)", r"\forall_{k} (x_{k}\ne 0)"),
    (count(k, x[k] > x[i]), "#{k : xₖ > xᵢ}", r"\#\{k:x_{k}>x_{i}\}"),
    (
        where(x[i] > 0, x[i], 0),
        "{xᵢ if xᵢ > 0; 0 otherwise}",
        r"\begin{cases} x_{i} & \text{if }x_{i}>0 \\ 0 & \text{otherwise} \end{cases}",
    ),
    (abs(x[i]), "|xᵢ|", "|x_{i}|"),
    (floor(x[i]), "⌊xᵢ⌋", r"\lfloor x_{i}\rfloor"),
    (i // 2, "⌊i/2⌋", r"\left\lfloor \frac{i}{2} \right\rfloor"),
    (i % 2 + 1, "(i mod 2) + 1", r"(i\bmod 2)+1"),
    (erf(x[i]) * tanh(x[i]), "erf(xᵢ) · tanh(xᵢ)", r"\operatorname{erf}(x_{i})\cdot \tanh(x_{i})"),
    (log1p(x[i]), "log(1 + xᵢ)", r"\log(1+x_{i})"),
    (log(x[i]) ** 2, "log(xᵢ)²", r"\log(x_{i})^{2}"),
    (~((x[i] > 0) & (x[j] > 0)), "¬(xᵢ > 0 ∧ xⱼ > 0)", r"\lnot (x_{i}>0\land x_{j}>0)"),
    (apply("double", x[i]) + 0.044715, "xᵢ + 0.044715", r"x_{i}+0.044715"),
    (Leaf("random"), "drawn at random", r"\text{drawn at random}"),
    (named("sigma2", x[i]), "σᵢ²", r"\sigma_{i}^{2}"),
    (tensor("grad_output", 1)[i], "grad_outputᵢ", r"\mathrm{grad\_output}_{i}"),
]


@pytest.mark.parametrize(("law", "as_text", "as_latex"), LAWS, ids=[row[1] for row in LAWS])
def test_law(law: Expr, as_text: str, as_latex: str) -> None:
    flat, deep = Style(law=True), Style(law=True, flat=False)
    assert plain(box(law, flat), flat) == as_text
    assert latex(box(law, deep), deep) == as_latex


s = Slot
INSTANCES: list[tuple[Expr, str, str]] = [
    (s(4.0) * s(-0.1986), "4·(−0.1986)", r"4\cdot (-0.1986)"),
    (s(-0.1986) * s(4.0), "−0.1986·4", r"-0.1986\cdot 4"),
    (s(0.3) + s(-0.2) * s(0.1), "0.3000 + (−0.2000)·0.1000", r"0.3000+(-0.2000)\cdot 0.1000"),
    (s(0.25) - s(-0.5), "0.25 − (−0.5)", r"0.25-(-0.5)"),
    (-s(-0.5), "−(−0.5)", "-(-0.5)"),
    (s(-0.5) ** 2, "(−0.5)²", r"(-0.5)^{2}"),
    (s(1.2345e-7) ** 2, "(1.2345e-07)²", r"(1.2345\cdot10^{-7})^{2}"),
    (exp(s(-0.5)), "exp(−0.5)", r"e^{-0.5}"),
    (s(1.0) / s(-0.5), "1/(−0.5)", r"\frac{1}{-0.5}"),
    (Terms("mean", (s(1.0), s(-2.0)), None, 2), "(1 + (−2))/2", r"\frac{1+(-2)}{2}"),
    (
        Terms("max", (s(1.0), s(-2.0)), Rest(7, -3.0), 9),
        "max(1, −2, −3 [7 more])",
        r"\max\left( 1,-2,\underbrace{-3}_{\text{7 more}} \right)",
    ),
    (
        s(0.5) + Terms("sum", (s(1.0), s(2.0)), Rest(1000, 0.75), 1002),
        "0.5 + 1 + 2 + 0.75 [1000 more]",
        r"0.5+1+2+\underbrace{0.75}_{\text{1000 more}}",
    ),
    (Number(0.5) * Terms("sum", (s(1.0), s(2.0)), None, 2), "0.5·(1 + 2)", r"0.5\cdot (1+2)"),
    (Terms("sum", (), None, 0), "0", "0"),
    (Number(0.1, "lr") * s(2.0), "0.1·2", r"0.1\cdot 2"),
    (s(True), "True", r"\text{True}"),
    (s(float("inf")) - s(float("nan")), "∞ − nan", r"\infty -\text{nan}"),
    (s(1 + 2j) * s(2.0), "(1 + 2i)·2", r"(1+2\,i)\cdot 2"),
]  # fmt: skip


@pytest.mark.parametrize(("instance", "as_text", "as_latex"), INSTANCES, ids=[row[1] for row in INSTANCES])
def test_instance(instance: Expr, as_text: str, as_latex: str) -> None:
    flat, deep = Style(), Style(flat=False)
    assert plain(box(instance, flat), flat) == as_text
    assert latex(box(instance, deep), deep) == as_latex


def test_spans_give_each_address_its_place() -> None:
    style = Style()
    run = list(pieces(box(s(4.0, "x[0]") * s(-0.1986, "w[0]") + s(0.5), style), style))
    line = "".join(piece.text for piece in run)
    assert [(line[start:end], address) for start, end, address in spans(run)] == [
        ("4", "x[0]"),
        ("−0.1986", "w[0]"),
    ]


def test_mathml_slots_carry_their_addresses() -> None:
    style = Style(flat=False)
    made = mathml(box(s(4.0, 'x["a"]') * s(1.5e-9, "w[0]"), style), style)
    assert 'data-address="x[&quot;a&quot;]"' in made
    assert 'data-address="w[0]"' in made


@pytest.mark.parametrize("width", [20, 40, 80])
def test_wrap_keeps_everything_within_the_width(width: int) -> None:
    style = Style()
    long = Terms("sum", tuple(s(-0.1234 * n) * s(0.5 / (n + 1)) for n in range(12)), None, 12)
    run = list(pieces(box(long, style), style))
    lines = ["".join(p.text for p in line) for line in wrap(run, width)]
    assert all(len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == "".join(p.text for p in run).replace(" ", "")


def test_words_follow_the_language() -> None:
    style = Style(lang="es", law=True)
    assert plain(box(where(x[i] > 0, x[i], 0), style), style) == "{xᵢ si xᵢ > 0; 0 en otro caso}"
    assert plain(box(Terms("sum", (s(1.0),), Rest(3, 0.5), 4), style), style) == "1 + 0.5 [3 más]"


def test_semicolons_separate_where_commas_are_decimal() -> None:
    style = Style(decimal=",")
    assert plain(box(Terms("max", (s(0.25), s(1.5)), None, 2), style), style) == "max(0,25; 1,5)"


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_every_function_has_a_notation(function: str) -> None:
    for arity in (1, 2, 3):
        law = apply(function, *[x[i]] * arity)
        try:
            made = [plain(box(law, style), style) for style in (Style(law=True), Style(law=True, flat=False))]
        except (IndexError, TypeError):  # another number of arguments
            continue
        assert all(made)
        assert latex(box(law, Style(law=True, flat=False)), Style(flat=False))


def names_in_the_rulebook() -> list[str]:
    """The names that laws give to their parts."""
    called = re.compile(r'(?:named|define|recurrence)\(\s*"([^"]+)"')
    files = (Path(__file__).parents[2] / "src" / "openheart" / "rules").glob("*.py")
    return sorted({name for file in files for name in called.findall(file.read_text(encoding="utf-8"))})


@pytest.mark.parametrize(
    "name", ["β′", "m̂", "σ²", "‖v‖", "∂L/∂w", "sigma2", "beta1", *names_in_the_rulebook()]
)
def test_every_name_can_be_written_in_latex(name: str) -> None:
    """In ASCII, so that any engine compiles it."""
    style = Style(flat=False, law=True)
    made = latex(box(named(name, x[i]), style), style)
    assert made.isascii(), made
    assert "_{i}" in made
