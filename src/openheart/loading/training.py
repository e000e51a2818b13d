"""Losses and optimizers by the names that people use: `mse`, `cross-entropy`; `sgd,lr=0.1,momentum=0.9`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import functional

from openheart.loading.models import find
from openheart.loading.trouble import bad_input, did_you_mean, reason

__all__ = [
    "LOSS_NAMES",
    "OPTIMIZER_NAMES",
    "Loss",
    "OptimizerFactory",
    "find_loss",
    "find_optimizer",
    "wants_classes",
]

Loss = Callable[[Any, Any], torch.Tensor]
OptimizerFactory = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]

_SHORT = {
    "ce": "crossentropy",
    "bcewithlogits": "bcewithlogits",
    "mae": "l1",
    "logloss": "bce",
    "binarycrossentropy": "bce",
}
_SIMPLE: dict[str, Any] = {"sum": torch.sum, "mean": torch.mean}
_CLASSES = (
    "CrossEntropyLoss",
    "NLLLoss",
    "MultiMarginLoss",
    "MultiLabelMarginLoss",
    "cross_entropy",
    "nll_loss",
)


def _plain(name: str) -> str:
    """A name without the ways in which people write it differently: `MSELoss`, `mse_loss`, `mse` → `mse`."""
    return re.sub(r"[\W_]", "", name.lower()).removesuffix("loss")


def _losses() -> dict[str, Any]:
    named: dict[str, Any] = {
        _plain(name): getattr(functional, name)
        for name in dir(functional)
        if name.endswith("_loss") or name in ("cross_entropy", "binary_cross_entropy", "kl_div")
    }
    named |= {_plain(name): getattr(torch.nn, name) for name in dir(torch.nn) if name.endswith("Loss")}
    return named


LOSS_NAMES = (
    "mse",
    "l1",
    "huber",
    "smooth-l1",
    "cross-entropy",
    "nll",
    "bce",
    "bce-with-logits",
    "kl-div",
    "sum",
    "mean",
)
"""The losses that are offered; all of torch.nn and torch.nn.functional are understood."""
OPTIMIZER_NAMES = (
    "sgd",
    "adam",
    "adamw",
    "rmsprop",
    "adagrad",
    "adadelta",
    "nadam",
    "radam",
    "adamax",
    "asgd",
)
"""The optimizers that are offered; all of torch.optim are understood."""


def find_loss(name: str) -> tuple[Loss, bool]:
    """A loss by its name, and whether it needs a target; `file.py:loss` is a function of your own.

    `sum` and `mean` of the output need no target.

    **Raises** `InputError` for a name that neither torch.nn nor torch.nn.functional has.
    """
    if ":" in name:
        own: Any = find(name)
        if inspect.isclass(own):
            own = own()
        return own, True
    if name in _SIMPLE:
        simple: Any = _SIMPLE[name]
        return (lambda output, _target: simple(output)), False
    known = _losses()
    plain = _plain(name)
    thing: Any = known.get(_SHORT.get(plain, plain))
    if thing is None:
        raise bad_input(
            "loss",
            name=name,
            near=did_you_mean(name.lower(), [*LOSS_NAMES, *known]),
            known=", ".join(LOSS_NAMES),
        )
    if inspect.isclass(thing):
        thing = thing()
    return thing, True


def wants_classes(loss: Any) -> bool:
    """Whether a loss takes whole numbers, one class a sample, for its target."""
    return type(loss).__name__ in _CLASSES or getattr(loss, "__name__", "") in _CLASSES


def find_optimizer(text: str) -> OptimizerFactory:
    """An optimizer from its name and settings: `adam`, `sgd,lr=0.1,momentum=0.9`, `adamw,betas=(0.9,0.95)`.

    **Raises** `InputError` for a name that torch.optim does not have, and for a setting that it refuses.
    """
    name, *settings = [part for part in re.split(r"[,:;\s]+(?![^(]*\))", text.strip()) if part]
    known = {
        each.lower(): thing
        for each, thing in vars(torch.optim).items()
        if inspect.isclass(thing)
        and issubclass(thing, torch.optim.Optimizer)
        and thing is not torch.optim.Optimizer
    }
    kind: Any = known.get(_plain_optimizer(name))
    if kind is None:
        near = did_you_mean(name.lower(), known)
        raise bad_input("optimizer", name=name, near=near, known=", ".join(OPTIMIZER_NAMES))
    accepted = [p for p in inspect.signature(kind).parameters if p != "params"]
    options: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise bad_input("optimizer_setting", setting=setting, name=name)
        key = key.strip().replace("-", "_")
        if key not in accepted:
            raise bad_input(
                "optimizer_unknown_setting",
                setting=key,
                name=name,
                near=did_you_mean(key, accepted),
                known=", ".join(accepted),
            )
        options[key] = _setting(value, setting, name)

    def make(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        try:
            return kind(parameters, **options)
        except (TypeError, ValueError, RuntimeError) as error:
            raise bad_input("optimizer_refuses", name=text, reason=reason(error)) from error

    return make


def _plain_optimizer(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _setting(value: str, setting: str, name: str) -> Any:
    try:
        return ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(value.lower(), value))
    except (ValueError, SyntaxError) as error:
        raise bad_input("optimizer_setting", setting=setting, name=name) from error
