"""Special functions in float64, for arrays: what NumPy does not have.

Sources: NIST *Digital Library of Mathematical Functions* (DLMF, dlmf.nist.gov): §5.11 digamma's expansion,
§25.11.43 Hurwitz's zeta by Euler–Maclaurin summation, §10.25.2 and §10.40.1 the modified Bessel functions,
§7.12.1 the complementary error function. Accurate to a few parts in 10¹⁵.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = Any

BERNOULLI = (
    1 / 6,
    -1 / 30,
    1 / 42,
    -1 / 30,
    5 / 66,
    -691 / 2730,
    7 / 6,
    -3617 / 510,
    43867 / 798,
    -174611 / 330,
)
"""B₂, B₄, B₆, …"""


def _each(function: Any) -> Any:
    """A function of one float as a function of arrays."""
    wide = np.frompyfunc(function, 1, 1)

    def of(x: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(wide(np.asarray(x, dtype=np.float64)), dtype=np.float64)[()]

    return of


erf = _each(math.erf)
erfc = _each(math.erfc)


ZETA_LESS_ONE = tuple(
    sum(n**-k for n in range(40, 1, -1))
    + 40.0 ** (1 - k) / (k - 1)
    - 0.5 * 40.0**-k
    + k / 12 * 40.0 ** (-k - 1)
    - k * (k + 1) * (k + 2) / 720 * 40.0 ** (-k - 3)
    + k * (k + 1) * (k + 2) * (k + 3) * (k + 4) / 30240 * 40.0 ** (-k - 5)
    for k in range(2, 60)
)
"""ζ(k) − 1 for k = 2, 3, …: a sum, and Euler and Maclaurin's tail of it."""
EULER = 0.5772156649015329


def lgamma(x: Array) -> Array:
    """Log |Γ(x)|: its power series about 2 (DLMF §5.7.3), Stirling's expansion above 7, reflected below ½."""
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(all="ignore"):
        below = x < 0.5
        t = np.where(below, 1 - x, x)
        moved = np.zeros_like(t)
        for _ in range(5):
            down = (t > 2.5) & (t < 7.5)
            t = np.where(down, t - 1, t)
            moved = moved + np.where(down, np.log(t), 0.0)
        up = t < 1.5
        moved = moved - np.where(up, np.log(t), 0.0)
        z = np.clip(np.where(up, t - 1, t - 2), -0.5, 0.5)
        series = np.zeros_like(z)
        for k in range(len(ZETA_LESS_ONE) + 1, 1, -1):
            series = ((-1.0) ** k * ZETA_LESS_ONE[k - 2] / k + series) * z
        near = ((1 - EULER) + series) * z + moved
        tail = sum(b / (2 * k * (2 * k - 1)) * t ** (1.0 - 2 * k) for k, b in enumerate(BERNOULLI, start=1))
        value = np.where(t > 2.5, (t - 0.5) * np.log(t) - t + 0.5 * math.log(2 * math.pi) + tail, near)
        value = np.where(t == np.inf, np.inf, value)
        sine = np.abs(np.sin(math.pi * (x - np.rint(x))))
        value = np.where(below, math.log(math.pi) - np.log(sine) - value, value)
        value = np.where((x <= 0) & (x == np.floor(x)), np.inf, value)
        return np.where(np.isnan(x), np.nan, value)[()]


def digamma(x: Array) -> Array:
    """ψ(x) = Γ′(x)/Γ(x): reflected to x > 0, raised to x ≥ 10, then the asymptotic expansion."""
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(all="ignore"):
        below = x < 0
        t = np.where(below, 1 - x, x)
        raised = np.zeros_like(t)
        for _ in range(10):
            raised = raised - np.where(t < 10, 1 / t, 0.0)
            t = np.where(t < 10, t + 1, t)
        tail = np.zeros_like(t)
        for k, b in enumerate(BERNOULLI, start=1):
            tail = tail + b / (2 * k) * t ** (-2.0 * k)
        value = raised + np.log(t) - 0.5 / t - tail
        value = np.where(below, value - np.pi / np.tan(np.pi * (x - np.rint(x))), value)
        value = np.where(below & (x == np.floor(x)), np.nan, value)
        value = np.where(x == 0, np.copysign(np.inf, -x), value)
        return np.where(x == np.inf, np.inf, value)[()]


def zeta(s: Array, q: Array) -> Array:
    """Hurwitz's ζ(s, q) = Σₙ (q + n)⁻ˢ for s > 1: ten terms, then Euler and Maclaurin's tail."""
    s, q = np.broadcast_arrays(np.asarray(s, dtype=np.float64), np.asarray(q, dtype=np.float64))
    with np.errstate(all="ignore"):
        value = np.zeros(s.shape)
        t = q
        for _ in range(20):
            value = value + t ** (-s)
            t = t + 1
        # Below zero a term can be the power of a negative number, which only a whole s has.
        for _ in range(64):
            value = np.where(t < 10, value + t ** (-s), value)
            t = np.where(t < 10, t + 1, t)
        value = value + t ** (1 - s) / (s - 1) + 0.5 * t ** (-s)
        factor, power = s, t ** (-s - 1)
        for k, b in enumerate(BERNOULLI, start=1):
            value = value + b / math.factorial(2 * k) * factor * power
            factor = factor * (s + 2 * k - 1) * (s + 2 * k)
            power = power / (t * t)
        value = np.where((q <= 0) & (q == np.floor(q)), np.inf, value)
        value = np.where((q <= 0) & (q != np.floor(q)) & (s != np.floor(s)), np.nan, value)
        value = np.where(np.isinf(q), np.nan, value)  # as PyTorch's sum leaves it
        return np.where(s == 1, np.inf, np.where(s < 1, np.nan, value))[()]


def zeta_size(s: Array, q: Array) -> Array:
    """Σₙ |q + n|⁻ˢ: what the terms of ζ(s, q) sum up to where those below zero do not cancel any."""
    s = np.asarray(s, dtype=np.float64)
    q = np.asarray(q, dtype=np.float64)
    below: Array = np.minimum(np.maximum(np.ceil(-q), 0.0), 64.0)
    with np.errstate(all="ignore"):
        made: Array = np.where(below > 0, zeta(s, q + below), np.abs(zeta(s, q)))
        for k in range(int(np.max(below, initial=0.0))):
            made = np.where(k < below, made + np.abs(q + k) ** (-s), made)
    return made


def polygamma(n: Array, x: Array) -> Array:
    """ψ⁽ⁿ⁾(x) = (−1)ⁿ⁺¹ n! ζ(n + 1, x); n = 0 is digamma."""
    order = int(n)
    if order == 0:
        return digamma(x)
    return (-1.0) ** (order + 1) * math.factorial(order) * zeta(order + 1.0, x)


def erfinv(y: Array) -> Array:
    """X with erf x = y: a first guess (Winitzki, 2008), then Newton's steps on the side that keeps digits."""
    y = np.asarray(y, dtype=np.float64)
    with np.errstate(all="ignore"):
        size = np.abs(y)
        logarithm = np.log1p(-size * size)
        a = 2 / (math.pi * 0.147) + logarithm / 2
        x = np.sqrt(np.maximum(np.sqrt(np.maximum(a * a - logarithm / 0.147, 0.0)) - a, 0.0))
        x = np.where(size < 1e-8, size * math.sqrt(math.pi) / 2, x)
        inside = size < 1
        x = np.where(inside, x, 0.0)
        for _ in range(4):
            miss = np.where(size < 0.5, erf(x) - size, (1 - size) - erfc(x))
            step = miss * math.sqrt(math.pi) / 2 * np.exp(x * x)
            x = np.where(inside, x - step / (1 + x * step), 0.0)
        x = np.where(size == 1, np.inf, np.where(size > 1, np.nan, x))
        return np.where(np.isnan(y), np.nan, np.copysign(x, y))[()]


def ndtri(p: Array) -> Array:
    """Z with Φ(z) = p: Newton's steps on log Φ in the lower tail, by symmetry in the upper."""
    p = np.asarray(p, dtype=np.float64)
    with np.errstate(all="ignore"):
        low = np.minimum(p, 1 - p)
        z = -np.sqrt(np.maximum(-2 * np.log(low), 0.0)) + 0.3
        for _ in range(60):
            tail = 0.5 * erfc(-z / math.sqrt(2))
            density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
            step = tail / density * np.log(tail / low)
            step = np.where(np.isfinite(step), np.clip(step, -1.0, 1.0), 0.0)
            z = z - step
            if np.max(np.abs(step), initial=0.0) < 1e-15:
                break
        z = np.where(p > 0.5, -z, z)
        z = np.where(np.abs(p - 0.5) < 0.3, math.sqrt(2) * erfinv(2 * p - 1), z)
        z = np.where(p == 0, -np.inf, np.where(p == 1, np.inf, z))
        return np.where((p < 0) | (p > 1) | np.isnan(p), np.nan, z)[()]


def erfcx(x: Array) -> Array:
    """e^(x²)·erfc x; by its continued fraction where e^(x²) would overflow."""
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(all="ignore"):
        near = np.exp(x * x) * erfc(x)
        fraction = np.zeros_like(x)
        for k in range(60, 0, -1):
            fraction = (k / 2) / (x + fraction)
        far = 1 / (math.sqrt(math.pi) * (x + fraction))
        return np.where(x > 5, far, near)[()]


def _bessel(x: Array, order: int) -> Array:
    """e^(−|x|)·I(x) of order 0 or 1, and its sign: the power series below 30, the expansion above."""
    size = np.abs(np.asarray(x, dtype=np.float64))
    with np.errstate(all="ignore"):
        small = np.minimum(size, 30.0)
        term = np.ones_like(size) if order == 0 else small / 2
        series = np.zeros_like(size)
        for k in range(1, 90):
            series = series + term
            term = term * (small * small / 4) / (k * (k + order))
        large = np.maximum(size, 30.0)
        mu, factor, expansion = 4.0 * order * order, np.ones_like(size), np.zeros_like(size)
        for k in range(1, 30):
            expansion = expansion + factor
            factor = -factor * (mu - (2 * k - 1) ** 2) / (k * 8 * large)
        far = expansion / np.sqrt(2 * math.pi * large)
        return np.where(size < 30, series * np.exp(-small), far)


def i0e(x: Array) -> Array:
    """e^(−|x|)·I₀(x)."""
    return _bessel(x, 0)[()]


def i1e(x: Array) -> Array:
    """e^(−|x|)·I₁(x)."""
    return np.copysign(_bessel(x, 1), x)[()]


def i0(x: Array) -> Array:
    """I₀(x), the modified Bessel function of order zero."""
    with np.errstate(all="ignore"):  # at ±∞ this is ∞·0, a NaN, in PyTorch as well
        return (_bessel(x, 0) * np.exp(np.abs(x)))[()]


def i1(x: Array) -> Array:
    """I₁(x), the modified Bessel function of order one."""
    with np.errstate(all="ignore"):
        return (np.copysign(_bessel(x, 1), x) * np.exp(np.abs(x)))[()]
