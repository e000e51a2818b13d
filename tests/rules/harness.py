"""One way to hold a law against PyTorch: run a function, check every number of every call it made.

    from tests.rules.harness import audit
    report = audit(lambda x: x.sum(0), torch.randn(3, 4), covers="sum.dim_IntList")

`audit` fails when a number disagrees with its law, when an operator under test is opaque, when a single
element's value is not the one that the whole output's evaluation gives, or when a planted error of ten
bounds goes unnoticed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from openheart.check import Check, check, judge
from openheart.formula.precision import FLOAT64
from openheart.record import recording
from openheart.rules.registry import format_of, key_of

SINGLES = 3
"""How many elements of each output are also evaluated alone."""


@dataclass
class Audited:
    """What an audit saw: how many scalars, how many exact, and the largest error ÷ bound."""

    scalars: int = 0
    exact: int = 0
    worst: float = 0.0
    worst_at: str = ""
    result: Any = None
    operators: list[str] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)
    checks: list[tuple[Any, int, Check]] = field(default_factory=list)


def audit(
    function: Callable[..., Any],
    *args: Any,
    covers: str | Sequence[str] | None = None,
    skips: Sequence[str] = (),
    singles: int = SINGLES,
) -> Audited:
    """Run `function(*args)` under a recording and hold every output of every call against its law.

    **Arguments**: `covers` names the operators under test ("addmm", "sum.dim_IntList"): each must have
    run, and all its outputs must have laws. Without it every call must. Laws that other calls of the run
    have are checked too. `skips` names operators that are not checked at all.
    """
    wanted = (
        None if covers is None else {key_of(c) for c in ([covers] if isinstance(covers, str) else covers)}
    )
    unwanted = {key_of(s) for s in skips}
    with recording() as run:
        result = function(*args)
    seen = Audited(result=result)
    for call in run.calls:
        key = str(call.op)
        if key in unwanted:
            continue
        seen.operators.append(key)
        for n in range(len(call.outputs)):
            held = check(call, n)
            if held is None:
                seen.opaque.append(f"{key} {call.slots[n]}")
                continue
            _count(seen, call, n, held)
            _alone(call, n, held, singles)
            _planted(call, n, held)
            seen.checks.append((call, n, held))
    if wanted is None:
        assert not seen.opaque, f"no law for {seen.opaque}"
        return seen
    missing = wanted - set(seen.operators)
    assert not missing, f"{sorted(missing)} did not run; what ran: {seen.operators}"
    opaque = [entry for entry in seen.opaque if entry.split(" ")[0] in wanted]
    assert not opaque, f"no law for {opaque}"
    return seen


def gradients(function: Callable[..., Any], *inputs: torch.Tensor) -> Callable[[], Any]:
    """`function` and its backward pass, fed with a random output gradient, as one call for `audit`."""

    def run() -> Any:
        leaves = [
            x.detach().requires_grad_() if x.is_floating_point() or x.is_complex() else x for x in inputs
        ]
        made = function(*leaves)
        outputs = [y for y in (made if isinstance(made, (tuple, list)) else [made]) if y.requires_grad]
        torch.autograd.backward(outputs, [torch.randn_like(y) for y in outputs])
        return made

    return run


def where_is(call: Any, n: int) -> str:
    """A line that says which output of which call is meant, with the arguments' shapes."""
    shown = ", ".join(
        f"{name}={tuple(a.shape)} {str(a.dtype)[6:]}" if hasattr(a, "shape") else f"{name}={a!r}"
        for name, a in call.arguments.items()
    )
    return f"{call.op}({shown}) output {n} {tuple(call.outputs[n].shape)} {call.outputs[n].dtype}"


def _count(seen: Audited, call: Any, n: int, held: Check) -> None:
    agrees = np.asarray(held.agrees)
    if not agrees.all():
        bad = np.argwhere(np.atleast_1d(~agrees))
        at = tuple(int(i) for i in bad[0])[: agrees.ndim]
        recorded, computed, bound = (
            np.broadcast_to(np.asarray(part), agrees.shape)[at]
            for part in (held.recorded, held.computed, held.bound)
        )
        raise AssertionError(
            f"{where_is(call, n)}: {len(bad)} of {agrees.size} disagree, first at {at}: "
            f"recorded {recorded!r}, computed {computed!r}, "
            f"error {abs(complex(recorded) - complex(computed)):.4g}, "
            f"bound {bound!r} (law at {held.law.rule.source})"
        )
    seen.scalars += agrees.size
    seen.exact += int(np.sum(held.exact))
    ratio = worst_ratio(held)
    if ratio > seen.worst:
        seen.worst, seen.worst_at = ratio, where_is(call, n)


def worst_ratio(held: Check) -> float:
    """The largest error ÷ bound of a check, where both are finite."""
    recorded, computed, bound = (np.asarray(part) for part in (held.recorded, held.computed, held.bound))
    if recorded.dtype.kind == "b":
        return 0.0
    with np.errstate(all="ignore"):
        error = np.abs(recorded - computed)
        ratio = np.where(
            ~np.asarray(held.exact) & np.isfinite(error) & (bound > 0) & np.isfinite(bound),
            error / bound,
            0.0,
        )
    return float(np.max(ratio, initial=0.0))


def _alone(call: Any, n: int, held: Check, singles: int) -> None:
    """A few elements evaluated one at a time give what the whole evaluation gave."""
    shape = tuple(call.outputs[n].shape)
    if math.prod(shape) == 0:
        return
    chooser = random.Random(math.prod(shape) + 7 * n)
    for _ in range(min(singles, math.prod(shape))):
        at = tuple(chooser.randrange(size) for size in shape)
        alone = check(call, n, at)
        assert alone is not None
        place = f"{where_is(call, n)} at {at}"
        assert bool(alone.agrees), f"{place}: alone it disagrees: {alone}"
        full, bound = np.asarray(held.computed)[at], np.broadcast_to(np.asarray(held.bound), shape)[at]
        if isinstance(full, (np.bool_, bool)):
            assert bool(full) == bool(alone.computed), place
            continue
        if not np.isfinite(full):
            assert np.array_equal(full, alone.computed, equal_nan=True), (
                f"{place}: {full} alone {alone.computed}"
            )
            continue
        apart = abs(full - alone.computed)
        # Two orders of summation in float64 are as far apart as two float64 kernels may be.
        allowed = float(bound) * (1 if held.law.precision is FLOAT64 else 1e-6)
        assert apart <= 1e-12 * abs(full) + allowed, f"{place}: {full!r} alone {alone.computed!r}"
        # A sum's bound counts the terms of the longest sum, which may be another element's.
        assert float(alone.bound) <= 1.01 * float(bound), f"{place}: bound {bound} alone {alone.bound}"


def _planted(call: Any, n: int, held: Check) -> None:
    """A recorded scalar moved by ten bounds no longer agrees, and only that one does not."""
    recorded = np.array(np.asarray(held.recorded))
    bound = np.broadcast_to(np.asarray(held.bound, dtype=np.float64), recorded.shape)
    computed = np.broadcast_to(np.asarray(held.computed), recorded.shape)
    if recorded.dtype.kind == "b":
        usable = np.argwhere(np.atleast_1d(bound == 0))
    else:
        usable = np.argwhere(
            np.atleast_1d(np.isfinite(recorded) & np.isfinite(computed) & np.isfinite(bound))
        )
    if not len(usable):
        return
    at = tuple(int(i) for i in usable[len(usable) // 2])[: recorded.ndim]
    if recorded.dtype.kind == "b":
        recorded[at] = not recorded[at]
    elif recorded.dtype.kind in "iu":
        recorded = recorded.astype(np.int64)
        recorded[at] = int(computed[at]) + math.ceil(10 * bound[at]) + 1
    else:
        recorded[at] = computed[at] + (10 * bound[at] or max(1.0, abs(computed[at])))
    again = judge(held.law, recorded, held.computed, held.bound, format_of(call.outputs[n].dtype))
    wrong = np.argwhere(np.atleast_1d(~np.asarray(again.agrees)))
    assert len(wrong) == 1, f"{where_is(call, n)}: {len(wrong)} planted errors found, not 1"
    assert tuple(int(i) for i in wrong[0])[: recorded.ndim] == at
