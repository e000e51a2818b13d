"""One training loop for all patients: minibatches in an order drawn from a seed, a loss, a step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from openheart.patients.anatomy import Patient, Split, random_stream


@dataclass(frozen=True, slots=True)
class Recipe:
    """How long, and in what batches; the learning rate is multiplied by `decay` after every epoch."""

    epochs: int
    batch: int
    decay: float = 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What a patient does on a split: mean loss, and accuracy (0 to 1) where targets are classes or bits."""

    loss: float
    accuracy: float | None


def samples_of(patient: Patient, split: Literal["train", "test"]) -> Split:
    """The samples of a split. Raises `ValueError` for a patient that has none."""
    data = patient.data(split)
    if data is None:
        raise ValueError(f"{patient.name} has no training data; only patients with `splits` can be trained")
    return data


def fit(patient: Patient, recipe: Recipe, report: Callable[[int, float], None]) -> nn.Module:
    """Train from the patient's own initial weights, calling `report(epoch, mean loss)` after each epoch."""
    inputs, targets = samples_of(patient, "train")
    with random_stream(patient.seed):
        model, loss = patient.network().train(), patient.loss()
        optimizer = patient.optimizer(model.parameters())
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, recipe.decay)
        for epoch in range(1, recipe.epochs + 1):
            total = 0.0
            for chosen in torch.randperm(len(inputs)).split(recipe.batch):
                optimizer.zero_grad()
                error = loss(model(inputs[chosen]), targets[chosen])
                error.backward()
                optimizer.step()
                total += error.item() * len(chosen)
            schedule.step()
            report(epoch, total / len(inputs))
    return model


def measure(patient: Patient, model: nn.Module, split: Literal["train", "test"]) -> Measured:
    """Mean loss and accuracy in evaluation mode; the model is given back in the mode it came in."""
    inputs, targets = samples_of(patient, split)
    was_training = model.training
    with torch.no_grad():
        output = model.eval()(inputs)
        loss = patient.loss()(output, targets).item()
    model.train(was_training)
    return Measured(loss, share_right(output, targets))


def share_right(output: Tensor, targets: Tensor) -> float | None:
    """The share of classes, or of bits given as logits, that are right; None where targets are numbers."""
    if not targets.is_floating_point():
        return (output.argmax(dim=-1) == targets).double().mean().item()
    if ((targets == 0) | (targets == 1)).all():
        return ((output > 0) == (targets == 1)).double().mean().item()
    return None
