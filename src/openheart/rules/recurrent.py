"""The fused LSTM layer, as PyTorch hands it to oneDNN on the CPU.

Rows 0 … H−1 of the weights make the input gate, the next H the forget gate, then the cell's candidate and
the output gate. For step t of sample n and unit j, with x the layer's input and h₋₁ the given first state:

    a[r] = Σ_c x[t, n, c]·W[r, c] + Σₖ h[t−1, n, k]·U[r, k] + b[r] + b′[r]
    i = σ(a[j])      f = σ(a[H + j])      g = tanh(a[2H + j])      o = σ(a[3H + j])
    c[t] = f·c[t−1] + i·g                  h[t] = o·tanh c[t]

h[t−1] is the call's own recorded output; c is a recurrence, since the call keeps it to itself. A layer that
runs in reverse begins with the last step. Source: Hochreiter, Schmidhuber, *Long Short-Term Memory* (1997),
with the forget gate of Gers, Schmidhuber, Cummins (2000).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openheart.formula.expr import (
    Definition,
    Expr,
    Index,
    Leaf,
    Number,
    Ref,
    define,
    index,
    recurrence,
    total,
    where,
)
from openheart.formula.functions import sigmoid, tanh
from openheart.rules.attention import narrowed
from openheart.rules.registry import rule

LSTM = 2
"""The `mode` of an LSTM in the layer's call."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One direction of one LSTM layer: its weights, its first states and its recorded output."""

    x: Any
    w: Any
    u: Any
    biases: tuple[Any, ...]
    h0: Any
    c0: Any
    h: Any
    reverse: bool

    @property
    def steps(self) -> int:
        return int(self.x.shape[0])

    @property
    def units(self) -> int:
        return int(self.u.shape[1])

    @property
    def first(self) -> int:
        """The step that the layer takes first."""
        return self.steps - 1 if self.reverse else 0

    @property
    def last(self) -> int:
        return 0 if self.reverse else self.steps - 1

    def before(self, t: Expr) -> Expr:
        """The step taken before t."""
        return t + 1 if self.reverse else t - 1

    def after(self, t: Expr) -> Expr:
        """The step taken after t."""
        return t - 1 if self.reverse else t + 1

    def axes(self) -> tuple[Index, Index, Index]:
        """Index variables over steps, samples and units."""
        return index("t", self.steps), index("n", self.x.shape[1]), index("j", self.units)

    def previous(self, state: Any, start: Any, t: Expr, n: Expr, k: Expr) -> Expr:
        """A state one step before t: the first one where there is no such step."""
        return where(t == self.first, start[n, k], state[self.before(t), n, k])

    def gate(self, name: str, number: int, kept: bool) -> Definition:
        """One of the four gates, over steps, samples and units; `kept` in the tensors' format for later."""
        t, n, j = self.axes()
        c, k = index("c", self.x.shape[2]), index("k", self.units)
        row = j + number * self.units
        before = self.previous(self.h, self.h0, t, n, k)
        a = total(c, self.x[t, n, c] * self.w[row, c]) + total(k, before * self.u[row, k])
        if self.biases:
            b, also = self.biases
            a = a + narrowed(self.x, b[row] + also[row])
        gate = tanh(a) if name == "g" else sigmoid(a)
        return define(name, (t, n, j), narrowed(self.x, gate) if kept else gate)

    def gates(self, kept: bool = False) -> tuple[Definition, ...]:
        return tuple(self.gate(name, number, kept) for number, name in enumerate("ifgo"))

    def cell(self, i: Definition, f: Definition, g: Definition) -> Definition:
        """The cell's state."""
        t, n, j = self.axes()

        def step(c: Definition) -> Expr:
            state = f[t, n, j] * self.previous(c, self.c0, t, n, j) + i[t, n, j] * g[t, n, j]
            return narrowed(self.x, state)

        return recurrence("c", (t, n, j), step, backward=self.reverse)


def layer(weights: Sequence[Any], x: Any, h0: Any, c0: Any, h: Any, reverse: bool, has_biases: bool) -> Layer:
    """A layer from a call's arguments; `weights` are W, U and the two biases."""
    w, u, *biases = weights
    return Layer(x, w, u, tuple(biases) if has_biases else (), h0, c0, h, reverse)


def _state(made: Layer, mode: int, at: Sequence[Expr], cell: bool) -> Expr:
    if mode != LSTM:
        return Leaf("external")
    i, f, g, o = made.gates()
    c = made.cell(i, f, g)[at]
    return c if cell else o[at] * tanh(c)


@rule("mkldnn_rnn_layer")
def lstm_output(
    input: Any,
    weight0: Any,
    weight1: Any,
    weight2: Any,
    weight3: Any,
    hx_: Any,
    cx_: Any,
    reverse: bool,
    mode: int,
    has_biases: bool,
    *,
    at: Any,
    out: Any,
) -> Expr:
    # h[t] = o · tanh c[t]
    made = layer((weight0, weight1, weight2, weight3), input, hx_, cx_, out[0], reverse, has_biases)
    return _state(made, mode, at, cell=False)


@rule("mkldnn_rnn_layer", output=1)
def lstm_last_output(reverse: bool, *, at: Any, out: Any) -> Expr:
    # h of the step taken last
    return Ref(out[0], (_last(out, reverse), *at))


def _last(out: Any, reverse: bool) -> Expr:
    return Number(0 if reverse else out[0].shape[0] - 1)


@rule("mkldnn_rnn_layer", output=2)
def lstm_last_cell(
    input: Any,
    weight0: Any,
    weight1: Any,
    weight2: Any,
    weight3: Any,
    hx_: Any,
    cx_: Any,
    reverse: bool,
    mode: int,
    has_biases: bool,
    *,
    at: Any,
    out: Any,
) -> Expr:
    # c of the step taken last
    made = layer((weight0, weight1, weight2, weight3), input, hx_, cx_, out[0], reverse, has_biases)
    return _state(made, mode, (_last(out, reverse), *at), cell=True)


@rule("mkldnn_rnn_layer", output=3)
def lstm_workspace() -> Expr:
    # oneDNN's own notes for the backward pass, in a format of its own
    return Leaf("external")
