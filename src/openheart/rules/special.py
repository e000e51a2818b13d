"""Special functions: error functions, the gamma family, Bessel functions, the normal distribution."""

from __future__ import annotations

import math
from typing import Any

from openheart.formula.expr import Expr, Number, named, where
from openheart.formula.functions import (
    digamma,
    double,
    erf,
    erfc,
    erfcx,
    erfinv,
    exp,
    i0,
    i0e,
    i1,
    i1e,
    isnan,
    lgamma,
    log,
    log1p,
    maximum,
    minimum,
    ndtri,
    polygamma,
    sin,
    tan,
    trunc,
    zeta,
)
from openheart.rules.pointwise import times_log
from openheart.rules.registry import value_of
from openheart.rules.rows import held, row, stored


def logit(self: Any, result: Any, eps: Any = None) -> Expr:
    """The log-odds log(x / (1 − x)), x kept between ε and 1 − ε."""
    x = self
    if eps is not None:
        low = held(value_of(eps), result.dtype)
        x = minimum(maximum(self, Number(low, "ε")), held(1 - low, result.dtype))
    return stored(log(x / (1 - x)), result)


def log_ndtr(self: Any) -> Expr:
    """The logarithm of Φ(x): in the lower tail through erfcx, where Φ itself would vanish."""
    t = self * math.sqrt(0.5)
    return where(self < -1, log(0.5 * erfcx(-t)) - t * t, log1p(-0.5 * erfc(t)))


def psi(self: Any) -> Expr:
    """ψ(x), below zero by reflection: ψ(1 − x) − π / tan πx."""
    pole = named("c", double(math.pi / tan(math.pi * (self - trunc(self)))))
    below = where(self == trunc(self), math.nan, digamma(1 - self) - pole)
    return where(self < 0, below, digamma(self))


def trigamma(self: Any) -> Expr:
    """ψ′(x) as its expansion at y = x + 6 (DLMF §5.15.8); below ½ (π / sin πx)² − ψ′(1 − x)."""

    def above(x: Expr) -> Expr:
        y = named("y", x + 6)
        terms = 1 / x**2
        for k in range(1, 6):
            terms = terms + 1 / (x + k) ** 2
        return terms + 1 / y + 1 / (2 * y**2) + 1 / (6 * y**3) - 1 / (30 * y**5) + 1 / (42 * y**7)

    return where(self < 0.5, (math.pi / sin(math.pi * self)) ** 2 - above(1 - self), above(self))


def derivative(n: int, self: Any) -> Expr:
    """ψ⁽ⁿ⁾(x)."""
    return psi(self) if n == 0 else trigamma(self) if n == 1 else polygamma(n, self)


def logit_backward(grad_output: Any, self: Any, result: Any, eps: Any = None) -> Expr:
    # d/dx log(x / (1 − x)) = 1 / (x(1 − x)); outside [ε, 1 − ε] nothing passes, outside [0, 1] a NaN
    slope = stored(grad_output / (self * (1 - self)), result)
    if eps is None or value_of(eps) < 0:
        return where((self < 0) | (self > 1), math.nan, slope)
    return where((self < eps) | (self > 1 - eps), 0.0, slope)


def entropy(self: Any) -> Expr:
    """−x log x, 0 at 0, −∞ below."""
    below = where(self == 0, 0.0, -math.inf)
    return where(isnan(self), self, where(self > 0, -self * log(self), below))


def mvlgamma(self: Any, p: int) -> Expr:
    """Log of the multivariate gamma function: p(p−1)/4 · log π + Σⱼ log Γ(x − j/2)."""
    value = lgamma(self)
    for j in range(1, p):
        value = value + lgamma(self - j / 2)
    return value + p * (p - 1) / 4 * math.log(math.pi)


row("erf")(lambda self: erf(self))
row("erfc")(lambda self: erfc(self))
row("erfinv")(lambda self: erfinv(self))
row("special_erfcx")(lambda self: where(self < 0, 2 * exp(self * self) - erfcx(-self), erfcx(self)))
row("special_ndtri")(lambda self: ndtri(self))
row("special_log_ndtr")(log_ndtr)
row("lgamma")(lambda self: lgamma(self))
row("digamma")(psi)
row("polygamma")(
    lambda n, self, result: stored(derivative(n, self), result) if n > 1 else derivative(n, self)
)
row("mvlgamma")(lambda self, p, result: stored(mvlgamma(self, p), result))
row("special_zeta")(lambda self, other: zeta(self, other))
row("i0")(lambda self: i0(self))
row("special_i0e")(lambda self, result: stored(i0e(self), result))
row("special_i1")(lambda self, result: stored(i1(self), result))
row("special_i1e")(lambda self, result: stored(i1e(self), result))
row("sinc")(lambda self: where(self == 0, 1.0, sin(math.pi * self) / (math.pi * self)))
row("xlogy", scalars="stored")(lambda self, other, result: stored(times_log(self, other, log(other)), result))
row("special_xlog1py", scalars="stored")(
    lambda self, other, result: stored(times_log(self, other, log1p(other)), result)
)
row("special_entr")(lambda self, result: stored(entropy(self), result))
row("logit")(logit)
row("logit_backward")(logit_backward)
