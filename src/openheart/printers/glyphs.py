"""How things are written: glyphs, precedence and names, as data. The walkers hold no glyph of their own.

The glyph of a thing is its Unicode one; LaTeX has a table from glyphs to its commands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from openheart.formula.functions import TRANSPARENT

# ---------------------------------------------------------------------------------- precedence
# A part is fenced where it binds less than its place asks for.
OR, AND, COMPARE, SUM, BIG, PRODUCT, FRACTION, POWER, ATOM = range(1, 10)


@dataclass(frozen=True, slots=True)
class Infix:
    """A binary operator: how it looks, how it binds, and how its right side must bind."""

    glyph: str
    level: int
    right: int


INFIX = {
    "or": Infix("∨", OR, OR),
    "xor": Infix("⊻", OR, AND),
    "and": Infix("∧", AND, AND),
    "lt": Infix("<", COMPARE, SUM),
    "le": Infix("≤", COMPARE, SUM),
    "gt": Infix(">", COMPARE, SUM),
    "ge": Infix("≥", COMPARE, SUM),
    "eq": Infix("=", COMPARE, SUM),
    "ne": Infix("≠", COMPARE, SUM),
    "add": Infix("+", SUM, PRODUCT),
    "sub": Infix("−", SUM, PRODUCT),
    "mul": Infix("·", PRODUCT, PRODUCT),
    "div": Infix("/", PRODUCT, FRACTION),
    "mod": Infix("mod", SUM, FRACTION),
}

FENCES = {"abs": ("|", "|"), "floor": ("⌊", "⌋"), "ceil": ("⌈", "⌉")}

UNSEEN = TRANSPARENT
"""Functions that say in which precision something is computed: they change no digit that is printed."""

FUNCTION_NAMES = {
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "real": "Re",
    "imag": "Im",
    "lgamma": "logΓ",
    "digamma": "ψ",
    "zeta": "ζ",
    "log2": "log₂",
    "log10": "log₁₀",
    "log_ndtr": "logΦ",
    "ndtri": "Φ⁻¹",
    "erfinv": "erf⁻¹",
}
"""Names that differ from the function's own; all others are printed as they are called."""

BIG_GLYPHS = {
    "sum": "Σ",
    "mean": "Σ",
    "product": "Π",
    "max": "max",
    "min": "min",
    "argmax": "argmax",
    "argmin": "argmin",
    "any": "∃",
    "all": "∀",
    "rank": "#",
}

# --------------------------------------------------------------------------------------- names
GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eps": "ε", "zeta": "ζ",
    "eta": "η", "theta": "θ", "kappa": "κ", "lambda": "λ", "lambd": "λ", "mu": "μ", "nu": "ν", "xi": "ξ",
    "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
    "Phi": "Φ", "Sigma": "Σ",
}  # fmt: skip

SYMBOLS = {
    "lr": ("η", "", ""),
    "momentum": ("μ", "", ""),
    "weight_decay": ("λ", "", ""),
    "dampening": ("τ", "", ""),
    "sigma2": ("σ", "", "2"),
    "m_hat": ("m̂", "", ""),
    "v_hat": ("v̂", "", ""),
}
"""Names with a customary symbol: its letter, subscript and superscript."""

_NUMBERED = re.compile(r"([A-Za-z]+?)_?(\d+)")


def symbol(name: str) -> tuple[str, str, str]:
    """The letter, subscript and superscript for a name: beta1 → (β, 1, ''); other names stay as they are."""
    known = SYMBOLS.get(name)
    if known is not None:
        return known
    if len(name) > 1 and name.endswith("²"):
        letter, sub, _ = symbol(name[:-1])
        return letter, sub, "2"
    if name in GREEK:
        return GREEK[name], "", ""
    numbered = _NUMBERED.fullmatch(name)
    if numbered and numbered[1] in GREEK:
        return GREEK[numbered[1]], numbered[2], ""
    return name, "", ""


# --------------------------------------------------------------------------- plain Unicode text
SUBSCRIPTS = dict(zip("0123456789aehijklmnoprstuvxβγρφχ", "₀₁₂₃₄₅₆₇₈₉ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ", strict=True))
SUPERSCRIPTS = dict(zip("0123456789−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻", strict=True))

# --------------------------------------------------------------------------------------- LaTeX
LATEX = {
    "·": r"\cdot ", "−": "-", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∨": r"\lor ",
    "∧": r"\land ", "⊻": r"\veebar ", "¬": r"\lnot ", "∞": r"\infty ", "Σ": r"\sum", "Π": r"\prod",
    "∃": r"\exists", "∀": r"\forall", "#": r"\#", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ",
    "⌉": r"\rceil ", "max": r"\max", "min": r"\min", "{": r"\{", "}": r"\}", "α": r"\alpha ",
    "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\varepsilon ", "ζ": r"\zeta ", "η": r"\eta ",
    "θ": r"\theta ", "κ": r"\kappa ", "λ": r"\lambda ", "μ": r"\mu ", "ν": r"\nu ", "ξ": r"\xi ",
    "π": r"\pi ", "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\varphi ", "χ": r"\chi ",
    "ψ": r"\psi ", "ω": r"\omega ", "Φ": r"\Phi ", "Γ": r"\Gamma ", "m̂": r"\hat{m}", "v̂": r"\hat{v}",
    "exp": r"\exp", "log": r"\log", "sin": r"\sin", "cos": r"\cos", "tan": r"\tan", "sinh": r"\sinh",
    "cosh": r"\cosh", "tanh": r"\tanh", "arcsin": r"\arcsin", "arccos": r"\arccos", "arctan": r"\arctan",
    "Re": r"\operatorname{Re}", "Im": r"\operatorname{Im}", "log₂": r"\log_{2}", "log₁₀": r"\log_{10}",
    "logΓ": r"\log\Gamma", "logΦ": r"\log\Phi", "Φ⁻¹": r"\Phi^{-1}", "erf⁻¹": r"\operatorname{erf}^{-1}",
    "mod": r"\bmod ", "‖": r"\| ", "∂": r"\partial ", "√": r"\surd ", "Δ": r"\Delta ",
    "argmax": r"\operatorname*{arg\,max}", "argmin": r"\operatorname*{arg\,min}",
}  # fmt: skip
