"""The gradients of the fused LSTM layer: backpropagation through time.

With y the gradient of the output, and i, f, g, o, c of the forward pass computed again from its recorded
states, step by step from the last one taken to the first:

    δh[t] = y[t] + Σᵣ δa[t+1, r]·U[r, j]                  (at the last step: y[t] + the gradient of h_T)
    δc[t] = δh[t]·o·(1 − tanh² c[t]) + δc[t+1]·f[t+1]      (at the last step: … + the gradient of c_T)
    δa[t] = δc·g·i·(1 − i),   δc·c[t−1]·f·(1 − f),   δc·i·(1 − g²),   δh·tanh c·o·(1 − o)    gate by gate

Then δx = δa·W, δW = Σ δa·x, δU = Σ δa·h[t−1], δb = Σ δa, over steps and samples. In bfloat16 the gates are
kept in that format from the forward pass, and δa is rounded to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from openheart.formula.expr import (
    Definition,
    Expr,
    Leaf,
    Number,
    Operand,
    index,
    recurrences,
    total,
    where,
)
from openheart.formula.functions import tanh
from openheart.rules.attention import narrowed
from openheart.rules.recurrent import LSTM, Layer, layer
from openheart.rules.registry import rule

BACKWARD = "mkldnn_rnn_layer_backward"


@dataclass(frozen=True, slots=True)
class Deltas:
    """The gradients that flow back through time."""

    layer: Layer
    f: Definition
    a: Definition
    c: Definition


def deltas(made: Layer, grad_output: Any, grad_hy: Any, grad_cy: Any) -> Deltas:
    """δa and δc of one layer, over steps, samples and rows or units."""
    i, f, g, o = made.gates(kept=True)
    c = made.cell(i, f, g)
    t, n, j = made.axes()
    ta, na, r = index("t", made.steps), index("n", made.x.shape[1]), index("r", 4 * made.units)
    th, nh, jh = made.axes()

    def step(group: tuple[Definition, ...]) -> tuple[Operand, ...]:
        h, cell, a = group
        k = index("r", 4 * made.units)
        onward = total(k, a[made.after(th), nh, k] * made.u[k, jh])
        given: Operand = 0 if grad_hy is None else grad_hy[nh, jh]
        delta_h = where(th == made.last, given, onward)
        if grad_output is not None:
            delta_h = grad_output[th, nh, jh] + delta_h
        end: Operand = 0 if grad_cy is None else grad_cy[n, j]
        later = where(t == made.last, end, cell[made.after(t), n, j] * f[made.after(t), n, j])
        squashed = tanh(c[t, n, j])
        delta_c = h[t, n, j] * o[t, n, j] * (1 - squashed * squashed) + later
        return delta_h, delta_c, _rows(h, cell)

    def _rows(h: Definition, cell: Definition) -> Expr:
        u = r % made.units
        at = (ta, na, u)
        dc, gates = cell[at], (i[at], f[at], g[at], o[at])
        before = made.previous(c, made.c0, ta, na, u)
        parts = (
            dc * gates[2] * gates[0] * (1 - gates[0]),
            dc * before * gates[1] * (1 - gates[1]),
            dc * gates[0] * (1 - gates[2] * gates[2]),
            h[at] * tanh(c[at]) * gates[3] * (1 - gates[3]),
        )
        rest = where(r < 3 * made.units, parts[2], parts[3])
        rows = where(r < made.units, parts[0], where(r < 2 * made.units, parts[1], rest))
        return narrowed(made.x, rows)

    names = (("δh", (th, nh, jh)), ("δc", (t, n, j)), ("δa", (ta, na, r)))
    _, delta_c, delta_a = recurrences(names, step, backward=not made.reverse)
    return Deltas(made, f, delta_a, delta_c)


def _gradient(number: int, flow: Deltas, at: Any) -> Expr:
    """Output `number` of the backward call."""
    made, a = flow.layer, flow.a
    t, n = index("t", made.steps), index("n", made.x.shape[1])
    k = index("r", 4 * made.units)
    if number == 0:  # the input
        step, sample, c = at
        return total(k, a[step, sample, k] * made.w[k, c])
    if number == 1:  # W
        row, c = at
        return total((t, n), a[t, n, row] * made.x[t, n, c])
    if number == 2:  # U
        row, c = at
        return total((t, n), a[t, n, row] * made.previous(made.h, made.h0, t, n, c))
    if number in (3, 4):  # the biases
        return total((t, n), a[t, n, at[0]])
    sample, j = at
    first = Number(made.first)
    if number == 5:  # the first h
        return total(k, a[first, sample, k] * made.u[k, j])
    return flow.c[first, sample, j] * flow.f[first, sample, j]


def _register(number: int) -> None:
    @rule(BACKWARD, output=number)
    def lstm_backward(
        input: Any,
        weight1: Any,
        weight2: Any,
        weight3: Any,
        weight4: Any,
        hx_: Any,
        cx_tmp: Any,
        output: Any,
        grad_output: Any,
        grad_hy: Any,
        grad_cy: Any,
        reverse: bool,
        mode: int,
        has_biases: bool,
        *,
        at: Any,
    ) -> Expr:
        if mode != LSTM:
            return Leaf("external")
        weights = (weight1, weight2, weight3, weight4)
        made = layer(weights, input, hx_, cx_tmp, output, reverse, has_biases)
        return _gradient(number, deltas(made, grad_output, grad_hy, grad_cy), at)


@rule(BACKWARD, output="workspace")
def lstm_workspace() -> Expr:
    # oneDNN's own notes, in a format of its own
    return Leaf("external")


for _number in range(7):
    _register(_number)
