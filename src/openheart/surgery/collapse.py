"""Collapse: the one affine map, y = W·x + b, that a stack of affine modules is, with the proof.

For two layers W = W₂W₁ and b = W₂b₁ + b₂; for any stack whose laws are affine in its input, W's columns are
what the linear parts of its laws make of the input's directions, and b what they make of nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from openheart.errors import InputError, OpaqueError
from openheart.formula.instance import Line, Slot
from openheart.formula.precision import DOUBLE_UNIT, gamma
from openheart.printers.glyphs import SUBSCRIPTS
from openheart.surgery.affine_flow import Measured, Segment, segment_of, tracked
from openheart.surgery.affine_matrix import applied, applied_dense, matrix_of, offset_of
from openheart.surgery.affine_print import Held, product_line
from openheart.surgery.affine_stack import links, segment_between, stack_of

__all__ = ["Collapse", "Proof", "Step", "collapse"]

Verdict: TypeAlias = Literal["exact", "within rounding", "disagrees"]
DENSE = 1 << 22
"""A matrix with more numbers than this (32 MiB) is not laid out."""
STEPS = 1 << 16
"""The steps' matrices are kept where none holds more numbers than this."""


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """Both nets' outputs, side by side.

    Attributes:
        sample: the stack's input, (samples, *in_shape).
        seed: what the sample was drawn from; None for a given one.
        name: what the stack's output is called in the recording, `"1.out"`.
        recorded: what the stack gave, float64 (samples, out).
        composed: W·x + b, float64 (samples, out).
        bound: how far the two may lie apart by rounding alone.
        exact: where the recorded number is W·x + b, correctly rounded to the stack's dtype.
    """

    sample: torch.Tensor
    seed: int | None
    name: str
    recorded: torch.Tensor
    composed: torch.Tensor
    bound: torch.Tensor
    exact: torch.Tensor
    _shape: tuple[int, ...]

    @property
    def difference(self) -> torch.Tensor:
        """|recorded − composed|, (samples, out)."""
        return (self.recorded - self.composed).abs()

    @property
    def verdict(self) -> Verdict:
        """The worst of all outputs."""
        if bool(self.exact.all()):
            return "exact"
        agrees = self.exact | (self.difference <= self.bound)
        return "within rounding" if bool(agrees.all()) else "disagrees"

    def rows(self, most: int | None = None) -> Iterator[Held]:
        """Each output number, at most `most`."""
        for place in range(self.recorded.numel() if most is None else min(most, self.recorded.numel())):
            index = np.unravel_index(place, self._shape)
            yield Held(
                f"{self.name}[{','.join(map(str, map(int, index)))}]" if self._shape else self.name,
                float(self.recorded.reshape(-1)[place]),
                float(self.composed.reshape(-1)[place]),
                float(self.bound.reshape(-1)[place]),
                bool(self.exact.reshape(-1)[place]),
            )


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One module of the stack as an affine map: `weight` (out, in) and `bias` (out,), float64."""

    path: str
    kind: str
    weight: torch.Tensor
    bias: torch.Tensor
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    _errors: Measured


@dataclass(frozen=True, slots=True, eq=False)
class Collapse:
    """The affine map that a stack is.

    Attributes:
        first, last: the paths of the modules between which the stack lies, both included.
        in_shape, out_shape: the shapes of one sample, before they are flattened to columns and rows.
        bias: b, float64 (out,).
        bias_bound: how far each number of b may lie from the exact one, by float64's rounding.
        steps: the modules of the stack, each with its own W and b, where it is a chain of small ones.
        proof: both nets' outputs on a sample.
        dtype: that of the stack's output.

    >>> import torch, openheart as oh
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    >>> whole = oh.collapse(net, "0", "1")
    >>> tuple(whole.weight.shape), whole.verdict in ("exact", "within rounding")
    ((1, 2), True)
    """

    first: str
    last: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    bias: torch.Tensor
    bias_bound: torch.Tensor
    steps: tuple[Step, ...]
    proof: Proof
    dtype: torch.dtype
    _weight: torch.Tensor | None
    _weight_bound: torch.Tensor | None
    _segment: Segment
    _agree: bool

    @property
    def dense(self) -> bool:
        """Whether W is laid out as a matrix."""
        return self._weight is not None

    @property
    def weight(self) -> torch.Tensor:
        """W, float64 (out, in).

        **Raises** `OpaqueError` where it would be too large; `.apply` computes W·x + b all the same.
        """
        if self._weight is None:
            raise self._too_large()
        return self._weight

    @property
    def weight_bound(self) -> torch.Tensor:
        """How far each number of W may lie from the exact one, by float64's rounding; (out, in)."""
        if self._weight_bound is None:
            raise self._too_large()
        return self._weight_bound

    def _too_large(self) -> OpaqueError:
        rows, columns = math.prod(self.out_shape), math.prod(self.in_shape)
        return OpaqueError("collapse.error.large", rows=rows, columns=columns, limit=DENSE)

    @property
    def verdict(self) -> Verdict:
        """The proof's verdict; "disagrees" also where the steps' product is not W."""
        return self.proof.verdict if self._agree else "disagrees"

    @property
    def bound(self) -> float:
        """The largest of the proof's bounds."""
        return float(self.proof.bound.max()) if self.proof.bound.numel() else 0.0

    def apply(self, x: Any) -> torch.Tensor:
        """W·x + b in float64, (samples, *out_shape) for (samples, *in_shape); one sample gives one.

        **Raises** `InputError` for samples of another shape.
        """
        given = torch.as_tensor(x).detach().to(torch.float64)
        single = tuple(given.shape) == self.in_shape
        if not single and tuple(given.shape[1:]) != self.in_shape:
            wanted, found = (tuple(s) for s in (self.in_shape, given.shape))
            raise InputError("collapse.error.apply", wanted=wanted, given=found)
        batch = given[None] if single else given
        if self._weight is not None:
            made = batch.flatten(1) if batch.ndim > 1 else batch[:, None]
            out = (made @ self._weight.T + self.bias).reshape(len(batch), *self.out_shape)
        else:
            out = torch.from_numpy(applied(self._segment, batch.numpy())[0]).reshape(-1, *self.out_shape)
        return out[0] if single else out

    def layer(self, dtype: torch.dtype | None = None) -> torch.nn.Module:
        """A module that can stand for the stack: a Linear, between Flatten and Unflatten where shapes ask.

        Its numbers are W and b, rounded to the stack's own dtype unless another is given.

        **Raises** `OpaqueError` where W would be too large.
        """
        weight = self.weight
        rows, columns = weight.shape
        linear = torch.nn.Linear(columns, rows, dtype=dtype or self.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight)
            linear.bias.copy_(self.bias)
        parts: list[torch.nn.Module] = [linear]
        if len(self.in_shape) != 1:
            parts.insert(0, torch.nn.Flatten())
        if len(self.out_shape) != 1:
            parts.append(torch.nn.Unflatten(1, self.out_shape))
        return linear if len(parts) == 1 else torch.nn.Sequential(*parts)

    def entry(self, row: int, column: int | None = None) -> list[Line]:
        """How W[row, column] (or b[row]) is made of the steps' numbers: a line for each product of matrices.

        W[i,j] = Σₖ W₂[i,k]·W₁[k,j]; b[i] = Σₖ W₂[i,k]·b₁[k] + b₂[i]. Empty where there are no steps.
        """
        lines: list[Line] = []
        if len(self.steps) < 2:
            return lines
        before, name = self.steps[0].weight, "W" if column is not None else "b"
        start = self.steps[0].bias
        label = "1"
        for n, step in enumerate(self.steps[1:], 2):
            after, moved = step.weight @ before, step.weight @ start + step.bias
            end = n == len(self.steps)
            i = row if end else 0
            label = f"{n}{label}"
            sub = "" if end else "".join(SUBSCRIPTS[c] for c in label)
            right = before[:, column] if column is not None else start
            pairs = [
                (Slot(float(a), f"W{n}[{i},{k}]"), Slot(float(b), f"{name}{label[1:]}[{k}]"))
                for k, (a, b) in enumerate(zip(step.weight[i], right, strict=True))
            ]
            extra = None if column is not None else Slot(float(step.bias[i]), f"b{n}[{i}]")
            result = after[i, column] if column is not None else moved[i]
            place = f"[{i},{column}]" if column is not None else f"[{i}]"
            lines.append(product_line(f"{name}{sub}{place}", pairs, extra, float(result)))
            before, start = after, moved
        return lines

    def text(self, digits: int = 4, lang: str | None = None) -> str:
        """The map, its steps and its proof as plain text."""
        from openheart.surgery.collapse_print import text

        return text(self, digits, lang)

    def html(self, digits: int = 4, lang: str | None = None) -> str:
        """An HTML fragment that needs nothing else."""
        from openheart.surgery.collapse_print import html

        return html(self, digits, lang)

    def latex(self, digits: int = 4, lang: str | None = None) -> str:
        """Y = W·x + b as LaTeX, with the product of the steps' matrices.

        **Raises** `OpaqueError` where W would be too large.
        """
        from openheart.surgery.collapse_print import latex

        return latex(self, digits, lang)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        from openheart.surgery.collapse_print import to_dict

        return to_dict(self)

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()


def collapse(
    model: torch.nn.Module,
    first: str,
    last: str | None = None,
    input: Any = None,  # noqa: A002
) -> Collapse:
    """The affine map that the modules from `first` to `last` are together.

    **Arguments**: `first` and `last` are paths as `named_modules` spells them, both included (`last` left
    out: `first` alone). `input` is what the network is called with (a tensor, or a tuple of them, the
    last of which may be a dict of keyword tensors; of a ModuleList, what `first` is called with), its first
    dimension the samples. Without it, three samples are
    drawn from the seed 28, where the first module says how wide a sample is.

    The modules stay in the mode they are in: a batch norm in training is refused.

    **Raises** `NotAffineError` for a piece that is not affine, which names the module and the operator;
    `AddressError` for a module that is not there; `InputError` where the stack cannot be run, or is no
    function of its input alone.
    """
    first, last = str(first), str(first if last is None else last)
    stack = stack_of(model, first, last, input)
    whole = stack.run()
    seen = segment_between(whole, first, last)
    few = seen if len(_batch(seen)[0]) <= 2 else segment_between(stack.run(2), first, last)
    samples, in_shape, out_shape = _batch(few)
    bias = offset_of(few, samples, out_shape)
    one = few if len(samples) == 1 else segment_between(stack.run(1), first, last)
    weight: Measured | None = None
    if math.prod(out_shape) * math.prod(in_shape) <= DENSE:
        with contextlib.suppress(MemoryError):
            weight, bias = matrix_of(one, in_shape, out_shape)
    steps = _steps(one) if weight is not None else ()
    proof = _proof(seen, stack.seed, weight, bias)
    return Collapse(
        first,
        last,
        in_shape,
        out_shape,
        _tensor(bias[0]),
        _tensor(bias[1]),
        steps,
        proof,
        few.target.dtype,
        None if weight is None else _tensor(weight[0]),
        None if weight is None else _tensor(weight[1]),
        few,
        weight is None or _product_is(steps, weight),
    )


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=np.float64))


def _batch(segment: Segment) -> tuple[Any, tuple[int, ...], tuple[int, ...]]:
    """The source's samples (samples, *in_shape) in float64, and the shapes of one sample's input and output.

    **Raises** `InputError` where the output has another number of samples than the input.
    """
    source, target = segment.source, segment.target
    array = source.array.astype(np.float64)
    if len(source.shape) < 2:
        return array[None], source.shape, target.shape
    if not target.shape or target.shape[0] != source.shape[0]:
        raise InputError("collapse.error.batch", input=source.shape, output=target.shape)
    return array, source.shape[1:], target.shape[1:]


def _proof(segment: Segment, seed: int | None, weight: Measured | None, bias: Measured) -> Proof:
    samples, _, _ = _batch(segment)
    count = len(samples)
    if weight is None:
        composed, error = applied(segment, samples)
    else:
        composed, error = applied_dense(samples.reshape(count, -1), weight, bias)
    _, doubt = tracked(segment)[segment.target.id]
    data = segment.target.data.detach().cpu()
    recorded = data.to(torch.float64).reshape(count, -1)
    exact = _tensor(composed).to(data.dtype) == data.reshape(count, -1)
    return Proof(
        segment.source.data.detach().cpu(),
        seed,
        segment.recording.name(segment.target),
        recorded,
        _tensor(composed),
        _tensor(error + doubt.reshape(count, -1)),
        exact,
        segment.target.shape,
    )


def _steps(whole: Segment) -> tuple[Step, ...]:
    """Each module of a chain as an affine map; none where it is no chain, or one of them is too large."""
    recording = whole.recording
    found: list[Step] = []
    modules = {} if recording.model is None else dict(recording.model.named_modules())
    for path, source, target in links(recording, whole):
        segment = segment_of(recording, source, target)
        assert segment is not None
        try:
            _, in_shape, out_shape = _batch(segment)
        except InputError:
            return ()
        if math.prod(in_shape) * math.prod(out_shape) > STEPS:
            return ()
        (w, dw), (b, _) = matrix_of(segment, in_shape, out_shape)
        kind = type(modules[path]).__name__ if path in modules else ""
        found.append(Step(path, kind, _tensor(w), _tensor(b), in_shape, out_shape, (w, dw)))
    return tuple(found)


def _product_is(steps: tuple[Step, ...], weight: Measured) -> bool:
    """Whether the product of the steps' matrices is W, within float64's rounding of both."""
    if not steps:
        return True
    made, error = steps[0]._errors
    for step in steps[1:]:
        w, dw = step._errors
        size = np.abs(w)
        own = gamma(w.shape[1], 2 * DOUBLE_UNIT) * (size @ np.abs(made))
        error = size @ error + dw @ (np.abs(made) + error) + own
        made = w @ made
    return bool(np.all(np.abs(made - weight[0]) <= error + weight[1]))
