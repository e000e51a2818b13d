"""PyTorch's own samples with hard values in them: nothing, one number, NaN, ∞, −0, extremes, for every law.

    python -m tests.rules.extremes --part 3 --parts 40 [--dtypes float32,int64]

runs one slice of the whole sweep by hand and prints what went wrong; `test_extremes.py` keeps a small slice.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from benchmarks.lib.entries import databases, tensors
from torch.utils._pytree import tree_map

from openheart.errors import OpenheartError
from openheart.record import recording
from openheart.recording import Element, Recording

HOWS = ("values", "finite", "none", "one", "scalar")
"""Hard values; those of them that are finite; a first dimension of size 0; of size 1; a single number."""
LARGE = 80
"""Samples with more scalars than this are passed over."""


def hard(dtype: torch.dtype, finite: bool) -> list[Any]:
    """The numbers of a dtype that a law is most likely to be wrong about."""
    if dtype == torch.bool:
        return [True, False]
    if dtype.is_complex:
        parts = hard(torch.float32 if dtype == torch.complex64 else torch.float64, finite)
        return [complex(a, b) for a in parts for b in (0.0, parts[0])]
    if not dtype.is_floating_point:
        limits = torch.iinfo(dtype)
        return [limits.min, limits.max, 0, 1]
    info = torch.finfo(dtype)
    numbers = [info.max, info.min, info.tiny, info.smallest_normal * info.eps, -0.0, 0.0, 1.0]
    return numbers if finite else [*numbers, math.nan, math.inf, -math.inf]


def changed(x: Any, how: str, chooser: random.Random) -> Any:
    """A sample's tensor made hard; one that may be an index keeps its values."""
    if not isinstance(x, torch.Tensor) or x.layout != torch.strided:
        return x
    made = x.detach().clone()
    if how in ("values", "finite") and (x.is_floating_point() or x.is_complex()):
        numbers = hard(x.dtype, how == "finite")
        flat = made.reshape(-1)
        for k in range(flat.numel()):
            if chooser.random() < 0.4:
                flat[k] = chooser.choice(numbers)
        made = flat.reshape(x.shape)
    elif how == "none" and x.ndim:
        made = made[:0]
    elif how == "one" and x.ndim and x.shape[0]:
        made = made[:1].contiguous()
    elif how == "scalar" and x.numel():
        made = made.reshape(-1)[0].clone()
    return made.requires_grad_(x.requires_grad)


def runs(entry: str, dtype: str, how: str, samples: int, seed: int) -> Iterator[Callable[[], Any]]:
    """Forward and backward passes of an operator's samples, made hard; some of them PyTorch refuses."""
    info = databases()[0][entry]
    given = getattr(torch, dtype)
    backward = info.supports_autograd and given in info.supported_backward_dtypes("cpu")
    torch.manual_seed(seed)
    random.seed(seed)
    chooser = random.Random(f"{entry} {dtype} {seed}")
    found = [
        s
        for s in info.sample_inputs("cpu", given, requires_grad=backward)
        if sum(x.numel() for x in tensors([s.input, s.args, s.kwargs])) < LARGE
    ]
    for sample in chooser.sample(found, min(samples, len(found))):

        def run(sample: Any = sample) -> Any:
            torch.manual_seed(seed)
            inside = random.Random(f"{entry} {how}")
            first, args, kwargs = tree_map(
                lambda x: changed(x, how, inside), (sample.input, sample.args, sample.kwargs)
            )
            whole = not (given.is_floating_point or given.is_complex) and not tensors([args, kwargs])
            if whole and how in ("values", "finite") and isinstance(first, torch.Tensor):
                numbers = hard(given, finite=False)
                first = torch.tensor(inside.choices(numbers, k=first.numel()), dtype=given).view(first.shape)
            made = info.op(first, *args, **kwargs)
            outputs = [y for y in tensors(made) if y.requires_grad]
            if outputs:
                torch.autograd.backward(outputs, [torch.ones_like(y) for y in outputs])
            return made

        yield run


def recorded(run: Callable[[], Any]) -> Recording | None:
    """The recording of a run; None where PyTorch refuses it without us."""
    try:
        plain = tensors(run())
    except Exception:  # noqa: BLE001 it refuses in many ways
        return None
    with recording() as made:
        result = tensors(run())
    for one, other in zip(plain, result, strict=True):
        if one.layout == torch.strided and not one.is_conj() and not one.is_neg():
            a, b = one.detach().reshape(-1), other.detach().reshape(-1)
            assert a.shape == b.shape and torch.equal(a.isnan(), b.isnan()), "recording changes the run"
    return made


def faults(recorded: Recording) -> Iterator[str]:
    """All that must not happen: an exception in the audit or in an explanation, a number that disagrees."""
    for sample in (None, 2):
        audit = recorded.verify(sample=sample)
        for bad in audit.disagreements:
            yield f"{bad.operator} disagrees: {bad}"
        audit.text(), audit.html(), json.dumps(audit.to_dict())
    for call in recorded.calls:
        for value in call.outputs:
            if value.kept and 0 not in value.shape:
                size = math.prod(value.shape)
                for place in {0, size // 2, size - 1}:
                    at = tuple(int(i) for i in np.unravel_index(place, value.shape)) if value.shape else ()
                    try:
                        shown(recorded, Element(value, at))
                    except OpenheartError:
                        pass  # it says what is wrong
                    except Exception as error:  # noqa: BLE001 all of them are faults
                        yield f"{call.name} {at}: {type(error).__name__}: {error}"


def shown(recorded: Recording, element: Element) -> None:
    """One number explained, in every format."""
    told = recorded.explain(element)
    told.text(), told.text(lang="es"), told.latex(), told.mathml(), told.html()
    json.dumps(told.to_dict())
    list(told.terms[:3])
    recorded.explain(element).inputs  # noqa: B018


def entries(dtype: str) -> list[str]:
    """The operators that have samples in a dtype, those that take another process or a compiler left out."""
    ops = databases()[0]
    given = getattr(torch, dtype)
    return [n for n, o in ops.items() if given in o.supported_dtypes("cpu") and "triton" not in n]


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--part", type=int, default=0)
    options.add_argument("--parts", type=int, default=40)
    options.add_argument("--samples", type=int, default=1)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--dtypes", default="float32,int64,bfloat16,complex64,bool")
    asked = options.parse_args()
    warnings.simplefilter("ignore")
    known: set[str] = set()
    for dtype in asked.dtypes.split(","):
        for entry in entries(dtype)[asked.part :: asked.parts]:
            for how in HOWS:
                for run in runs(entry, dtype, how, asked.samples, asked.seed):
                    made = recorded(run)
                    for fault in faults(made) if made is not None else ():
                        if fault.split(":")[0] not in known:
                            known.add(fault.split(":")[0])
                            print(entry, dtype, how, fault, flush=True)
    return bool(known)


if __name__ == "__main__":
    sys.exit(main())
