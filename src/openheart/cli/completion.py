"""What the shell offers on Tab: without importing PyTorch, so that it is there at once."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

__all__ = ["PATIENTS", "complete_loss", "complete_model", "complete_optimizer"]

PATIENTS = (
    "hand",
    "seed",
    "seed-batch",
    "seed-sigmoid",
    "seed-softmax",
    "seed-relu",
    "seed-chain",
    "xor",
    "iris",
    "digits-mlp",
    "digits-cnn",
    "tiny-gpt",
    "lstm",
)
"""The patients' names, again: asking `openheart.patients` would import PyTorch. A test ties the two."""


def complete_model(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Patients, then files."""
    found = [CompletionItem(name) for name in PATIENTS if name.startswith(begun)]
    return found if found and begun else [*found, CompletionItem(begun, type="file")]


def complete_loss(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The losses that are offered."""
    names = (
        "mse",
        "l1",
        "huber",
        "smooth-l1",
        "cross-entropy",
        "nll",
        "bce",
        "bce-with-logits",
        "sum",
        "mean",
    )
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def complete_optimizer(_ctx: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The optimizers that are offered."""
    names = ("sgd,lr=0.1", "sgd,lr=0.1,momentum=0.9", "adam,lr=0.001", "adamw,lr=0.001", "rmsprop,lr=0.01")
    return [CompletionItem(name) for name in names if name.startswith(begun)]
