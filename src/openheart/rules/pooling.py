"""Pooling: the largest or the average of what each window sees, and the gradients.

A max pooling also returns where each maximum stood: its row-major place among the input's spatial places.
PyTorch keeps the first of equal maxima, and the last NaN of a window (each NaN takes over from the one
before).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openheart.formula.expr import (
    Expr,
    Index,
    Operand,
    Ref,
    Tensor,
    largest,
    smallest,
    total,
    where,
)
from openheart.formula.functions import computed_in, fmod, isnan, maximum, minimum
from openheart.formula.precision import Precision
from openheart.rules.convolution import is_half
from openheart.rules.registry import rule
from openheart.rules.windows import Axis, axes, both, every, offsets, places, seen_at, seers_of


def split(at: Sequence[Any], rank: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """A list's first entries (sample and channel, where there are such) and its `rank` spatial ones."""
    return tuple(at[: len(at) - rank]), tuple(at[len(at) - rank :])


def pooling_window(
    shape: Sequence[int],
    outputs: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1,),
) -> list[Axis]:
    """The window of a pooling; without a stride, windows stand side by side."""
    rank = 3 if len(kernel_size) == 3 else 2
    return axes(shape[-rank:], outputs[-rank:], kernel_size, stride or kernel_size, padding, dilation)


def flat(place: Sequence[Expr], sizes: Sequence[int]) -> Expr:
    """The row-major number of a place."""
    number: Expr = place[0]
    for part, size in zip(place[1:], sizes[1:], strict=True):
        number = number * size + part
    return number


def matches(flat_index: Ref, at: Sequence[Index]) -> Expr:
    """Whether a row-major place, as an index tensor holds it, is the place `at`, coordinate by coordinate."""
    found: Expr | None = None
    rest: Expr = flat_index
    for n, i in reversed(list(enumerate(at))):
        found = both((rest % i.extent if n else rest) == i, found)
        rest = rest // i.extent
    assert found is not None
    return found


def first_largest(x: Ref, over: Sequence[Index], place: Expr, inside: Expr | None, extreme: Ref) -> Expr:
    """The first place that holds the extreme, or the last that holds NaN."""
    return where(
        isnan(extreme),
        largest(over, place, where=both(inside, isnan(x))),
        smallest(over, place, where=both(inside, x == extreme)),
    )


@rule("max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool(
    self: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, *, at: Any, result: Any
) -> Expr:
    # out[p] = max over u of x[p·s + u·d − padding]
    window = pooling_window(self.shape, result.shape, kernel_size, stride, padding, dilation)
    lead, p = split(at, len(window))
    u = offsets(window)
    seen, inside = seen_at(window, p, u)
    return largest(u, self[(*lead, *seen)], where=inside)


@rule("max_pool2d_with_indices", "max_pool3d_with_indices", output=1)
def max_pool_indices(
    self: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, *, at: Any, result: Any, out: Any
) -> Expr:
    # the place that holds the window's maximum
    window = pooling_window(self.shape, result.shape, kernel_size, stride, padding, dilation)
    lead, p = split(at, len(window))
    u = offsets(window)
    seen, inside = seen_at(window, p, u)
    place = flat(seen, self.shape[-len(window) :])
    return first_largest(self[(*lead, *seen)], u, place, inside, out[0][at])


@rule(
    "max_pool2d_with_indices_backward",
    "max_pool2d_with_indices_backward.grad_input",
    "max_pool3d_with_indices_backward",
    "max_pool3d_with_indices_backward.grad_input",
)
def max_pool_backward(grad_output: Any, kernel_size: Any, indices: Any, *, at: Any, stored: Any) -> Expr:
    # each output's gradient goes to the place that its maximum came from
    return to_places(grad_output, indices, 3 if len(kernel_size) == 3 else 2, at, stored)


def to_places(
    grad_output: Tensor, indices: Tensor, rank: int, at: Sequence[Index], stored: Precision
) -> Expr:
    lead, place = split(at, rank)
    p = places(grad_output.shape[-rank:])
    return gathered(total(p, grad_output[(*lead, *p)], where=matches(indices[(*lead, *p)], place)), stored)


def gathered(body: Expr, stored: Precision) -> Expr:
    """A sum that the kernel adds up in the gradient's own memory, and so in its own precision."""
    return computed_in(stored, body) if is_half(stored) else body


def adaptive_axis(size: int, outputs: int) -> int:
    """How many places the widest window of an adaptive pooling sees."""
    return max(((p + 1) * size + outputs - 1) // outputs - p * size // outputs for p in range(outputs))


def adaptive(p: Expr, u: Expr, size: int, outputs: int) -> tuple[Expr, Expr | None]:
    """The u-th place of window p of an adaptive pooling, ⌊p·H/P⌋ + u, and whether the window reaches it."""
    if size % outputs == 0:
        return p * (size // outputs) + u, None
    seen = p * size // outputs + u
    return seen, seen < ((p + 1) * size + (outputs - 1)) // outputs


def adaptive_window(
    sizes: Sequence[int], outputs: Sequence[int], p: Sequence[Expr]
) -> tuple[list[Index], list[Expr], Expr | None]:
    """Offsets, the places seen, and the condition under which they are, along every axis."""
    u = [
        Index(k.name, adaptive_axis(size, count))
        for k, size, count in zip(places(sizes), sizes, outputs, strict=True)
    ]
    pairs = [adaptive(a, k, size, count) for a, k, size, count in zip(p, u, sizes, outputs, strict=True)]
    return u, [seen for seen, _ in pairs], every([condition for _, condition in pairs])


@rule("adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_max_pool(self: Any, output_size: Any, *, at: Any, result: Any) -> Expr:
    # out[p] = the largest x from ⌊p·H/P⌋ to ⌈(p+1)·H/P⌉ − 1
    rank = len(output_size)
    lead, p = split(at, rank)
    u, seen, inside = adaptive_window(self.shape[-rank:], result.shape[-rank:], p)
    return largest(u, self[(*lead, *seen)], where=inside)


@rule("adaptive_max_pool2d", "adaptive_max_pool3d", output=1)
def adaptive_max_pool_indices(self: Any, output_size: Any, *, at: Any, result: Any, out: Any) -> Expr:
    rank = len(output_size)
    lead, p = split(at, rank)
    u, seen, inside = adaptive_window(self.shape[-rank:], result.shape[-rank:], p)
    place = flat(seen, self.shape[-rank:])
    return first_largest(self[(*lead, *seen)], u, place, inside, out[0][at])


@rule("adaptive_max_pool2d_backward", "adaptive_max_pool2d_backward.grad_input")
def adaptive_max_pool2d_backward(grad_output: Any, indices: Any, *, at: Any, stored: Any) -> Expr:
    return to_places(grad_output, indices, 2, at, stored)


@rule("adaptive_max_pool3d_backward", "adaptive_max_pool3d_backward.grad_input")
def adaptive_max_pool3d_backward(grad_output: Any, indices: Any, *, at: Any, stored: Any) -> Expr:
    return to_places(grad_output, indices, 3, at, stored)


def divisor(
    window: Sequence[Axis], p: Sequence[Expr], count_include_pad: bool, override: int | None
) -> Operand:
    """By how much an average pooling divides the sum of window p: how many places it counts."""
    if override is not None:
        return override
    count: Operand = 1
    for axis, place in zip(window, p, strict=True):
        end = axis.size + (axis.padding if count_include_pad else 0)
        last = (axis.outputs - 1) * axis.stride - axis.padding + axis.kernel
        cut_low = axis.padding > 0 and not count_include_pad
        if last <= end and not cut_low:
            count = count * axis.kernel
            continue
        start = place * axis.stride - axis.padding
        stop = minimum(start + axis.kernel, end) if last > end else start + axis.kernel
        count = count * (stop - (maximum(start, 0) if cut_low else start))
    return count


@rule("avg_pool2d", "avg_pool3d")
def avg_pool(
    self: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    count_include_pad: Any,
    divisor_override: Any,
    *,
    at: Any,
    result: Any,
) -> Expr:
    # out[p] = (1/K) Σ_u x[p·s + u − padding]
    window = pooling_window(self.shape, result.shape, kernel_size, stride, padding)
    lead, p = split(at, len(window))
    u = offsets(window)
    seen, inside = seen_at(window, p, u)
    seen_sum = total(u, self[(*lead, *seen)], where=inside)
    share = divisor(window, p, count_include_pad, divisor_override)
    if self.kind == "int":  # whole numbers are divided towards zero
        return (seen_sum - fmod(seen_sum, share)) // share
    return seen_sum / share


@rule(
    "avg_pool2d_backward",
    "avg_pool2d_backward.grad_input",
    "avg_pool3d_backward",
    "avg_pool3d_backward.grad_input",
)
def avg_pool_backward(
    grad_output: Any,
    self: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    count_include_pad: Any,
    divisor_override: Any,
    *,
    at: Any,
    stored: Any,
) -> Expr:
    # ∂L/∂x[i] = Σ over the windows p that see i of g[p] / K
    window = pooling_window(self.shape, grad_output.shape, kernel_size, stride, padding)
    lead, i = split(at, len(window))
    u = offsets(window)
    seers, exists = seers_of(window, i, u)
    share = grad_output[(*lead, *seers)] / divisor(window, seers, count_include_pad, divisor_override)
    return gathered(total(u, share, where=exists), stored)


@rule("_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
def adaptive_avg_pool(self: Any, output_size: Any, *, at: Any, result: Any, stored: Any) -> Expr:
    # out[p] = the average of x from ⌊p·H/P⌋ to ⌈(p+1)·H/P⌉ − 1
    rank = len(output_size)
    lead, p = split(at, rank)
    sizes, counts = self.shape[-rank:], result.shape[-rank:]
    u, seen, inside = adaptive_window(sizes, counts, p)
    average = divided(total(u, self[(*lead, *seen)], where=inside), sizes, counts, p)
    return gathered(average, stored) if rank == 3 else average


def divided(value: Expr, sizes: Sequence[int], counts: Sequence[int], p: Sequence[Expr]) -> Expr:
    """A window's sum divided by its length along one axis after the other, as the kernel does."""
    for size, count, place in zip(sizes, counts, p, strict=True):
        if size % count == 0:
            value = value / (size // count)
        else:
            value = value / (((place + 1) * size + (count - 1)) // count - place * size // count)
    return value


@rule("_adaptive_avg_pool2d_backward")
def adaptive_avg_pool2d_backward(grad_output: Any, self: Any, *, at: Any, stored: Any) -> Expr:
    return adaptive_shares(grad_output, self, 2, at, stored)


@rule("_adaptive_avg_pool3d_backward")
def adaptive_avg_pool3d_backward(grad_output: Any, self: Any, *, at: Any, stored: Any) -> Expr:
    return adaptive_shares(grad_output, self, 3, at, stored)


def adaptive_shares(
    grad_output: Tensor, x: Tensor, rank: int, at: Sequence[Index], stored: Precision
) -> Expr:
    # the windows that see place i are ⌊i·P/H⌋ … ⌈(i+1)·P/H⌉ − 1: adaptive windows the other way round
    lead, i = split(at, rank)
    sizes, counts = x.shape[-rank:], grad_output.shape[-rank:]
    a, seers, exists = adaptive_window(counts, sizes, i)
    share = divided(grad_output[(*lead, *seers)], sizes, counts, seers)
    return gathered(total(a, share, where=exists), stored)
