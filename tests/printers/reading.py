"""Reads printed lines back, with nothing of the printers in it: a page, a pencil and a calculator.

`evaluate("4·0.1803 + 5·(−0.3263)")` follows the arithmetic that is written, in exact fractions where there is
only arithmetic, in float64 where there is an exp or a root. `from_latex` and `from_mathml` write those
formats in the same notation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

Value = Any  # Fraction | float | bool | complex


class Unreadable(Exception):
    """A function this reader does not know."""


SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789−")
TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?(?:e[+-]\d+)?)|(?P<name>[A-Za-zΓΦψζ]+[₀-₉]*(?:⁻¹)?)"
    r"|(?P<sup>[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)|(?P<mark>.))"
)
FUNCTIONS: dict[str, Callable[..., float]] = {
    "exp": math.exp,
    "log": math.log,
    "log₂": math.log2,
    "log₁₀": math.log10,
    "sqrt": math.sqrt,
    "√": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "tanh": math.tanh,
    "asinh": math.asinh,
    "acosh": math.acosh,
    "atanh": math.atanh,
    "erf": math.erf,
    "erfc": math.erfc,
    "logΓ": math.lgamma,
}
EXACT: dict[str, Callable[..., Value]] = {
    "max": lambda *xs: max(xs),
    "min": lambda *xs: min(xs),
    "sign": lambda x: Fraction((x > 0) - (x < 0)),
    "round": lambda x: Fraction(round(x)),
    "trunc": lambda x: Fraction(math.trunc(x)),
    "int": lambda x: Fraction(math.trunc(x)),
    "bool": lambda x: x != 0,
    "argmax": lambda *xs: Fraction(max(range(len(xs)), key=lambda n: (xs[n], -n))),
    "argmin": lambda *xs: Fraction(min(range(len(xs)), key=lambda n: (xs[n], n))),
}
COMPARE: dict[str, Callable[[Value, Value], bool]] = {
    "<": lambda a, b: a < b,
    "≤": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "≥": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
    "≠": lambda a, b: a != b,
}


@dataclass
class Reader:
    """A recursive descent over the tokens of one expression."""

    tokens: list[tuple[str, str]]
    at: int = 0
    exact: bool = True
    """Whether only exact arithmetic was met."""

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if expected is not None and token != expected:
            raise SyntaxError(f"expected {expected!r}, found {token!r} in {[t for _, t in self.tokens]}")
        self.at += 1
        return token

    def disjunction(self) -> Value:
        made = self.conjunction()
        while self.peek() == "∨":
            self.take()
            other = self.conjunction()
            made = bool(made) or bool(other)
        return made

    def conjunction(self) -> Value:
        made = self.comparison()
        while self.peek() == "∧":
            self.take()
            other = self.comparison()
            made = bool(made) and bool(other)
        return made

    def comparison(self) -> Value:
        if self.peek() == "¬":
            self.take()
            return not self.atom()
        made = self.sum()
        while self.peek() in COMPARE:
            made = COMPARE[self.take()](made, self.sum())
        return made

    def sum(self) -> Value:
        made = self.product()
        while self.peek() in ("+", "−"):
            made = made + self.product() if self.take() == "+" else made - self.product()
        return made

    def product(self) -> Value:
        if self.peek() == "−":
            self.take()
            return -self.product()
        made = self.power()
        while self.peek() in ("·", "/", "mod"):
            mark, other = self.take(), self.power()
            made = made * other if mark == "·" else made / other if mark == "/" else made % other
        return made

    def power(self) -> Value:
        made = self.atom()
        if self.at < len(self.tokens) and self.tokens[self.at][0] == "sup":
            return self.raised(made, Fraction(self.take().translate(SUPERSCRIPTS).replace("−", "-")))
        if self.peek() == "^":
            self.take()
            return self.raised(made, self.atom())
        return made

    def raised(self, base: Value, exponent: Value) -> Value:
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return base ** int(exponent)
        self.exact = False
        return math.pow(base, exponent)

    def atom(self) -> Value:
        kind, token = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        if kind == "number":
            self.take()
            value: Value = Fraction(token)
            if self.peek() == "i":
                self.take()
                return complex(0, float(value))
            return value
        closing = {"(": ")", "|": "|", "⌊": "⌋", "⌈": "⌉"}.get(token)
        if closing is not None:
            self.take()
            inside = self.disjunction()
            self.take(closing)
            return {"(": lambda x: x, "|": abs, "⌊": floor, "⌈": ceiling}[token](inside)
        if token == "√":
            self.take()
            return self.called("sqrt", [self.atom()])
        if token in ("True", "False"):
            self.take()
            return token == "True"
        if token in ("nan", "∞"):
            self.take()
            return math.nan if token == "nan" else math.inf
        if kind == "name":
            self.take()
            if self.peek() != "(":
                raise Unreadable(token)
            self.take("(")
            args = [self.disjunction()]
            while self.peek() in (",", ";"):
                self.take()
                args.append(self.disjunction())
            self.take(")")
            return self.called(token, args)
        raise SyntaxError(f"unexpected {token!r} in {[t for _, t in self.tokens]}")

    def called(self, name: str, args: list[Value]) -> Value:
        if name in EXACT:
            return EXACT[name](*args)
        if name not in FUNCTIONS:
            raise Unreadable(name)
        self.exact = False
        return FUNCTIONS[name](*(float(a) for a in args))


def floor(x: Value) -> Fraction:
    return Fraction(math.floor(x))


def ceiling(x: Value) -> Fraction:
    return Fraction(math.ceil(x))


def evaluate(text: str) -> tuple[Value, bool]:
    """The value of what is written, and whether it is exact."""
    text = re.sub(r" \[[^\[\]]*\d[^\[\]]*\]", "", text)  # [1016 more]
    tokens = [(str(m.lastgroup), str(m.group(str(m.lastgroup)))) for m in TOKEN.finditer(text.strip())]
    reader = Reader(tokens)
    value = reader.disjunction()
    if reader.at != len(tokens):
        raise SyntaxError(f"{tokens[reader.at :]} left over in {text!r}")
    return value, reader.exact


def split(line: str) -> tuple[str, str, str] | None:
    """A line's right side, its last relation and its result; None for a line that only names a number."""
    body = line.split(" = ", 1)[1] if " = " in line else line
    found = re.fullmatch(r"(.*) ([=≈]) (.*)", body)
    return (found[1], found[2], found[3]) if found else None


def half_unit(result: str, digits: int) -> Fraction:
    """Half a unit of the last digit that counts: `digits` decimals, of the mantissa in a power of ten."""
    mantissa, _, exponent = result.lstrip("−").partition("e")
    decimals = max(len(mantissa.partition(".")[2]), digits)
    return Fraction(10) ** (int(exponent or 0) - decimals) / 2


def holds(right: str, result: str, digits: int) -> tuple[bool, bool, bool]:
    """Whether the written result is what the written right side gives; whether that is beyond doubt; and
    whether only exact arithmetic was needed.

    Beyond doubt: not within float64's own error of the limit.
    """
    made, exact = evaluate(right)
    said, _ = evaluate(result)
    if isinstance(made, complex) or isinstance(said, complex):
        parts = [(complex(made).real, complex(said).real), (complex(made).imag, complex(said).imag)]
        off = max(abs(a - b) for a, b in parts)
        return off < 0.5 * 10.0**-digits, abs(off - 0.5 * 10.0**-digits) > 1e-12, False
    if not (math.isfinite(made) and math.isfinite(said)):
        return (made == said or (math.isnan(made) and math.isnan(said))), True, False
    off, half = abs(Fraction(made) - Fraction(said)), half_unit(result, digits)
    doubt = Fraction(0) if exact else abs(Fraction(made)) * Fraction(1, 10**13) + Fraction(1, 10**15)
    return off < half, abs(off - half) > doubt, exact


# ------------------------------------------------------------------------------------- LaTeX

COMMANDS = {
    r"\cdot": "·", r"\le": "≤", r"\ge": "≥", r"\ne": "≠", r"\approx": "≈", r"\lor": "∨", r"\land": "∧",
    r"\lnot": "¬", r"\infty": "∞", r"\lfloor": "⌊", r"\rfloor": "⌋", r"\lceil": "⌈", r"\rceil": "⌉",
    r"\bmod": " mod ", r"\left": "", r"\right": "", r"\quad": " ", r"\log\Gamma": "logΓ", r"\,": "",
}  # fmt: skip


def group(text: str, at: int) -> tuple[str, int]:
    """The braced group that starts at `at`, and where it ends."""
    depth = 0
    for n in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[n], 0)
        if depth == 0:
            return text[at + 1 : n], n + 1
    raise SyntaxError(f"unbalanced braces in {text!r}")


def from_latex(text: str) -> str:
    """LaTeX math as the reader's notation."""
    text = text.replace(r"\{", "⦃").replace(r"\}", "⦄").replace("{,}", ".")
    text = re.sub(r"(?<![\d.t])10\^\{(-?\d+)\}", lambda m: f"1e{int(m[1]):+03d}", text)
    text = re.sub(r"\\cdot10\^\{(-?\d+)\}", lambda m: f"e{int(m[1]):+03d}", text)
    text = text.replace(r"\log_{2}", "log₂").replace(r"\log_{10}", "log₁₀")
    out, at = "", 0
    while at < len(text):
        command = re.compile(r"\\(?:[A-Za-z]+|.)").match(text, at)
        if text.startswith("^{", at):
            body, at = group(text, at + 1)
            out = (
                f"{out[:-1]}exp({from_latex(body)})"
                if re.search(r"(^|[^A-Za-z0-9])e$", out)
                else (f"{out}^({from_latex(body)})")
            )
        elif text.startswith("{", at):
            body, at = group(text, at)
            out += f"({from_latex(body)})"
        elif command is None:
            out += "−" if text[at] == "-" and not re.search(r"\de$", out) else text[at]
            at += 1
        else:
            name, at = command[0], command.end()
            if name == r"\frac":
                top, at = group(text, at)
                bottom, at = group(text, at)
                out += f"(({from_latex(top)})/({from_latex(bottom)}))"
            elif name == r"\sqrt":
                body, at = group(text, at)
                out += f"√({from_latex(body)})"
            elif name in (r"\text", r"\operatorname", r"\mathrm", r"\texttt"):
                body, at = group(text, at)
                out += body
            elif name == r"\underbrace":
                body, at = group(text, at)
                _, at = group(text, at + 1)
                out += from_latex(body)
            else:
                out += COMMANDS.get(name, name[1:])
    return out


# ------------------------------------------------------------------------------------- MathML


def from_mathml(node: ElementTree.Element) -> str:
    """A MathML element as the reader's notation."""
    written = re.sub(r"(?<![\d.·])10\^\((−?)(\d+)\)", r"1·10^(\1\2)", _mathml(node))
    return re.sub(r"(?<=\d)·10\^\((−?)(\d+)\)", lambda m: f"e{'-' if m[1] else '+'}{int(m[2]):02d}", written)


def _mathml(node: ElementTree.Element) -> str:
    tag = node.tag.rpartition("}")[2]
    parts = [_mathml(child) for child in node]
    if tag == "mfrac":
        return f"(({parts[0]})/({parts[1]}))"
    if tag == "msqrt":
        return f"√({''.join(parts)})"
    if tag == "msup":
        return f"exp({parts[1]})" if parts[0] == "e" else f"{parts[0]}^({parts[1]})"
    if tag == "munder":
        return parts[0]
    if not parts:
        text = node.text or ""
        return f" {text} " if text in ("=", "≈", "mod") else text
    return "".join(parts)
