"""PyTorch's own test entries as runs: what an entry is called, and the runs that its samples make.

An entry is one operator of `op_db`, one module of `module_db` or one optimizer of `optim_db`. A run builds
its inputs anew each time it is called, so that it can be made with and without a recording.
"""

from __future__ import annotations

import itertools
import random
import sys
import types
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

DTYPES = ("float32", "float64", "float16", "bfloat16", "complex64", "complex128", "int64", "bool")
LOOKED_AT = 60
"""So many of an entry's samples are looked at, to draw from."""
LARGE = 20_000
"""Samples with more scalars than this are passed over."""


@dataclass(frozen=True)
class Run:
    """One sample of an entry: `make` builds it and returns the model (or None) and the work to record.

    The work returns what is compared bit for bit: outputs, gradients, parameters.
    """

    title: str
    make: Callable[[], tuple[Any, Callable[[], Any]]]


@cache
def databases() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """PyTorch's operators, modules and optimizers by entry name."""
    try:
        import expecttest  # noqa: F401
    except ImportError:  # PyTorch's testing module wants it at import and never for what is used here
        stub = types.ModuleType("expecttest")
        stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = stub
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db
    from torch.testing._internal.common_optimizers import optim_db

    torch.set_default_dtype(torch.float32)
    return (
        {f"op {o.name}{'.' if o.variant_test_name else ''}{o.variant_test_name}": o for o in op_db},
        {f"module {m.formatted_name}": m for m in module_db},
        {f"optim {o.optim_cls.__name__}": o for o in optim_db},
    )


def entries(dtypes: tuple[str, ...]) -> list[tuple[str, str]]:
    """Every entry that has one of the dtypes, as (name, dtype)."""
    ops, modules, optimizers = databases()
    found = []
    for dtype in dtypes:
        given = getattr(torch, dtype)
        found += [(name, dtype) for name, o in ops.items() if given in o.supported_dtypes("cpu")]
        floating = given.is_floating_point or given.is_complex
        found += [(name, dtype) for name in modules if given.is_floating_point]
        found += [
            (name, dtype)
            for name, o in optimizers.items()
            if floating and (not given.is_complex or o.supports_complex)
        ]
    return found


def runs(name: str, dtype: str, samples: int, seed: int) -> Iterator[Run]:
    """The runs of an entry: its first sample, and others drawn with `seed`."""
    ops, modules, optimizers = databases()
    given = getattr(torch, dtype)
    if name in ops:
        yield from _operator(ops[name], given, samples, seed)
    elif name in modules:
        yield from _module(modules[name], given, samples, seed)
    else:
        yield from _optimizer(optimizers[name], given, samples, seed)


def sow(seed: int) -> None:
    random.seed(seed)
    torch.manual_seed(seed)


def _drawn(items: Any, samples: int, seed: int) -> list[tuple[int, Any]]:
    all_ = list(enumerate(itertools.islice(items, LOOKED_AT)))
    small = [(n, item) for n, item in all_ if _scalars(item) <= LARGE]
    chooser = random.Random(seed)
    rest = chooser.sample(small[1:], min(samples - 1, max(len(small) - 1, 0)))
    return small[:1] + sorted(rest, key=lambda pair: pair[0])


def _scalars(sample: Any) -> int:
    given = getattr(sample, "forward_input", sample)
    parts = [getattr(given, name, None) for name in ("input", "args", "kwargs")]
    return sum(x.numel() for x in tensors(parts))


def tensors(tree: Any) -> list[torch.Tensor]:
    return [x for x in tree_flatten(tree)[0] if isinstance(x, torch.Tensor)]


def _copied(tree: Any, requires_grad: bool = False) -> Any:
    """The same tensors in new memory, as leaves."""

    def copy(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        made = x.detach().clone()
        return made.requires_grad_() if requires_grad and x.requires_grad else made

    return tree_map(copy, tree)


def _differentiated(made: Any, leaves: list[torch.Tensor]) -> Any:
    """The backward pass from every output that has one, fed with drawn gradients; the leaves' gradients."""
    outputs = [y for y in tensors(made) if y.requires_grad and y.grad_fn is not None]
    if outputs:
        torch.autograd.backward(outputs, [torch.randn_like(y) for y in outputs])
    return [x.grad for x in leaves]


def _operator(info: Any, dtype: torch.dtype, samples: int, seed: int) -> Iterator[Run]:
    backward = dtype in info.supported_backward_dtypes("cpu") and info.supports_autograd
    sow(seed)
    found = info.sample_inputs("cpu", dtype, requires_grad=backward)
    for n, sample in _drawn(found, samples, seed):

        def make(sample: Any = sample) -> tuple[Any, Callable[[], Any]]:
            given = _copied((sample.input, sample.args, sample.kwargs), backward)
            leaves = [x for x in tensors(given) if x.requires_grad]
            first, args, kwargs = given

            def work() -> Any:
                made = info(first, *args, **kwargs)
                made = sample.output_process_fn_grad(made)
                return made, _differentiated(made, leaves)

            return None, work

        yield Run(f"sample {n}", make)
        if info.inplace_variant is not None and n == 0:

            def in_place(sample: Any = sample) -> tuple[Any, Callable[[], Any]]:
                first, args, kwargs = _copied((sample.input, sample.args, sample.kwargs))
                return None, lambda: info.inplace_variant(first, *args, **kwargs)

            yield Run("in place", in_place)


def _module(info: Any, dtype: torch.dtype, samples: int, seed: int) -> Iterator[Run]:
    for training in (True, False) if info.train_and_eval_differ else (True,):
        sow(seed)
        found = info.module_inputs_func(
            info, device="cpu", dtype=dtype, requires_grad=True, training=training
        )
        for n, sample in _drawn(found, samples, seed):

            def make(sample: Any = sample, training: bool = training) -> tuple[Any, Callable[[], Any]]:
                built, given = sample.constructor_input, sample.forward_input
                model = info.module_cls(*built.args, **built.kwargs).to(dtype).train(training)
                args, kwargs = _copied((given.args, given.kwargs), True)
                leaves = [x for x in tensors((args, kwargs)) if x.requires_grad]

                def work() -> Any:
                    made = model(*args, **kwargs)
                    gradients = _differentiated(made, [*model.parameters(), *leaves])
                    return made, gradients, [*model.parameters(), *model.buffers()]

                return model, work

            yield Run(f"sample {n}{'' if training else ', eval'}", make)


def _optimizer(info: Any, dtype: torch.dtype, samples: int, seed: int) -> Iterator[Run]:
    fused = ["fused"] if "cpu" in info.supports_fused_on else []
    forms = [None, *(["foreach"] if "foreach" in info.supported_impls else []), *fused]
    found = [s for s in info.optim_inputs_func(device="cpu") if "lr" not in s.kwargs or not tensors(s.kwargs)]
    for _, sample in _drawn(found, samples, seed):
        for form in forms:

            def make(sample: Any = sample, form: str | None = form) -> tuple[Any, Callable[[], Any]]:
                weight = torch.nn.Parameter(torch.randn(7, 5).to(dtype))
                bias = torch.nn.Parameter(torch.randn(7).to(dtype))
                x = torch.randn(5).to(dtype)
                how = {"foreach": form == "foreach"} if "foreach" in info.supported_impls else {}
                how |= {"fused": True, "foreach": False} if form == "fused" else {}
                optimizer = info.optim_cls([weight, bias], **{**sample.kwargs, **how})

                def closure() -> torch.Tensor:
                    optimizer.zero_grad()
                    loss = (torch.mv(weight, x) + bias).abs().square().sum()
                    loss.backward()
                    return loss

                def work() -> Any:
                    for _ in range(3):
                        optimizer.step(closure)
                    states = [tensors(dict(optimizer.state[p])) for p in (weight, bias)]
                    return weight, bias, states

                return None, work

            yield Run(f"{sample.desc or 'default'}{', ' if form else ''}{form or ''}", make)
