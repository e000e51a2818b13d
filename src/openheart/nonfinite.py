"""Where a NaN or an infinity was born: an overflow, a pole, a function outside its domain, or a number given.

A number may be exactly what its law says and still be no number to go on with. Correct is not healthy: the
audit counts such numbers apart, and an explanation says how one came about.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from openheart.check import fetcher, held
from openheart.errors import OpaqueError
from openheart.formula.evaluate import NoLaw, evaluate
from openheart.formula.expr import Apply, Definition, Expr, Index, Leaf, Named, Number, Reduce, Ref, Scalar
from openheart.formula.functions import TRANSPARENT
from openheart.formula.places import place, places
from openheart.origins import law_at
from openheart.recording import Call, Element
from openheart.rules.registry import Law, format_of

if TYPE_CHECKING:
    from openheart.recording import Recording

Cause = Literal["overflow", "pole", "undefined", "given", "written", "disagrees", "unknown"]
POLES = frozenset({"log", "log2", "log10", "log1p", "rsqrt", "reciprocal", "digamma", "lgamma"})
"""Functions that are infinite at a place of finite numbers without having overflowed."""


@dataclass(frozen=True, slots=True)
class NonFinite:
    """A recorded NaN or infinity and how it came about.

    `cause` is "overflow" (finite numbers made one too large for the format), "pole" (a division by zero, a
    logarithm of zero), "undefined" (0 ÷ 0, ∞ − ∞, the root of a negative number), "given" (it was read from
    `source`, which was so already), "written" (the program wrote it: a mask's −∞), "disagrees" (its law is
    finite: it is none of these) or "unknown" (there is no law, or the law's numbers are not all there).
    `function` is what made it, where the law says so; `computed` the law's own number.
    """

    address: str
    operator: str
    number: str
    cause: Cause
    source: str | None = None
    function: str | None = None
    computed: Any = None
    dtype: str = ""
    largest: float | None = None

    @property
    def sign(self) -> str:
        """The number as a person writes it."""
        return {"nan": "NaN", "inf": "∞", "-inf": "−∞"}[self.number]

    @property
    def note(self) -> tuple[str, dict[str, Any]]:
        """The catalogue's sentence for it, and what to fill in."""
        key = f"note.nonfinite.{self.cause}"
        if self.cause == "overflow" and self.function is not None:
            key += ".everywhere"
        if self.cause == "given" and self.source is None:
            key = "note.nonfinite.brought"
        params = {
            "operator": self.operator,
            "number": self.sign,
            "source": self.source,
            "function": self.function,
            "computed": self.computed,
            "dtype": self.dtype,
            "largest": self.largest,
        }
        return key, {name: value for name, value in params.items() if value is not None}


def is_finite(number: Scalar) -> bool:
    """Whether a recorded scalar is an ordinary number."""
    return bool(np.isfinite(number))


def count_nonfinite(array: Any) -> int:
    """How many numbers of an array are NaN or infinite."""
    if array.dtype.kind not in "fc":
        return 0
    finite = np.isfinite(array)
    return 0 if finite.all() else int(array.size - np.count_nonzero(finite))


def first_of(array: Any) -> tuple[int, ...]:
    """The place of the first NaN or infinity of an array that holds one."""
    return tuple(map(int, np.unravel_index(int(np.argmin(np.isfinite(array))), array.shape)))


def spelled(number: Scalar) -> str:
    """The word for it, "nan", "inf" or "-inf"; a complex number is NaN where either part is."""
    parts = (number.real, number.imag) if isinstance(number, complex) else (float(number),)
    if any(math.isnan(part) for part in parts):
        return "nan"
    return "-inf" if min(parts) == -math.inf and max(parts) < math.inf else "inf"


def born(
    recording: Recording, call: Call, output: int, at: tuple[int, ...], address: str | None = None
) -> NonFinite:
    """How the non-finite number at place `at` of a call's output came about."""
    value = call.outputs[output]
    number = value.array[at].item()
    target = format_of(value.dtype)
    shown = recording.address(Element(value, at)) if address is None else address
    said = NonFinite(
        shown,
        call.name,
        spelled(number),
        "unknown",
        dtype=str(value.dtype).removeprefix("torch."),
        largest=None if target is None else target.largest,
    )
    law = law_at(recording, call, output)
    if law is None or isinstance(law.expr, Leaf):
        return said
    try:
        return _Descent(recording, call, law, said).of(number, dict(zip(law.indices, at, strict=True)))
    except (NoLaw, OpaqueError, KeyError):
        return said


@dataclass(slots=True)
class _Descent:
    """Goes down a law from a non-finite number to the part of it that is the first not to be finite."""

    recording: Recording
    call: Call
    law: Law
    said: NonFinite

    def of(self, number: Scalar, env: Mapping[Index, int]) -> NonFinite:
        computed = self._value(self.law.expr, env)
        if is_finite(computed):
            limit = self.said.largest
            over = math.isinf(abs(number)) and limit is not None and abs(computed) >= limit * (1 - 2.0**-12)
            return self._say("overflow" if over else "disagrees", computed=computed)
        return self._down(self.law.expr, dict(env))

    def _say(self, cause: Cause, **more: Any) -> NonFinite:
        return replace(self.said, cause=cause, **more)

    def _value(self, node: Expr, env: Mapping[Index, int]) -> Scalar:
        made, _ = evaluate(node, (), fetcher(self.call), self.law.precision, env)
        return made.item() if isinstance(made, np.generic) else made

    def _down(self, node: Expr, env: dict[Index, int]) -> NonFinite:
        if isinstance(node, Named):
            return self._down(node.body, env)
        if isinstance(node, Number):
            return self._say("written")
        if isinstance(node, Ref):
            return self._read(node, env)
        if isinstance(node, Reduce):
            return self._reduced(node, env)
        if not isinstance(node, Apply):
            return self.said
        if node.function == "where":
            return self._down(node.args[1 if self._value(node.args[0], env) else 2], env)
        if node.function in TRANSPARENT:
            return self._down(node.args[0], env)
        for part in node.args:
            if not is_finite(self._value(part, env)):
                return self._down(part, env)
        return self._made(node, self._value(node, env), env)

    def _made(self, node: Apply, number: Scalar, env: Mapping[Index, int]) -> NonFinite:
        if spelled(number) == "nan":
            return self._say("undefined", function=node.function, computed=number)
        pole = node.function in POLES
        if node.function in ("div", "pow"):
            pole = self._value(node.args[1 if node.function == "div" else 0], env) == 0
        return self._say("pole" if pole else "overflow", function=node.function, computed=number)

    def _read(self, node: Ref, env: dict[Index, int]) -> NonFinite:
        fetch = fetcher(self.call)
        if isinstance(node.tensor, Definition):
            inside = zip(node.tensor.indices, node.index, strict=True)
            return self._down(node.tensor.body, {i: place(part, env, fetch) for i, part in inside})
        element = Element(held(self.call, node.tensor), places(node, env, fetch))
        return self._say("given", source=self.recording.address(element))

    def _reduced(self, node: Reduce, env: dict[Index, int]) -> NonFinite:
        fetch, free = fetcher(self.call), tuple(node.over)
        values = np.asarray(evaluate(node.body, free, fetch, self.law.precision, env)[0])
        strange = ~np.isfinite(values)
        if node.where is not None:
            strange &= np.asarray(evaluate(node.where, free, fetch, self.law.precision, env)[0], dtype=bool)
        if not strange.any():
            return self._say("overflow", function=node.kind)
        at = np.unravel_index(int(np.argmax(strange)), strange.shape)
        return self._down(node.body, {**env, **dict(zip(free, map(int, at), strict=True))})
