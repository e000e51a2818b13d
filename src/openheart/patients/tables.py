"""Two small tables: exclusive or, which no linear layer can do, and the irises, measured in 1935."""

from functools import cache

import torch
from torch import nn

from openheart.patients.anatomy import Patient, Split, held_out, load_arrays, told

SPECIES = ("setosa", "versicolor", "virginica")


def truth_table() -> Split:
    """The four rows of exclusive or: inputs (4, 2), target (4, 1), float32."""
    return torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), torch.tensor(
        [[0.0], [1.0], [1.0], [0.0]]
    )


@cache
def flowers() -> dict[str, Split]:
    """Measurements (n, 4) float32 in standard deviations of the training flowers, and species (n,) int64."""
    arrays = load_arrays("iris")
    centimetres, species = (
        torch.from_numpy(arrays["millimetres"]).float() / 10,
        torch.from_numpy(arrays["species"]).long(),
    )
    test = held_out(len(species), every=5)
    mean, deviation = centimetres[~test].mean(dim=0), centimetres[~test].std(dim=0, correction=0)
    standardized = (centimetres - mean) / deviation
    return {
        "train": (standardized[~test], species[~test]),
        "test": (standardized[test], species[test]),
    }


def some_flowers() -> Split:
    """Two held-out flowers of each species."""
    measurements, species = flowers()["test"]
    chosen = torch.tensor([0, 1, 10, 11, 20, 21])
    return measurements[chosen], species[chosen]


def xor_net() -> nn.Sequential:
    """2-2-1 with tanh; its output is a logit."""
    return nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1))


def iris_net() -> nn.Sequential:
    """4-8-3 with ReLU; its output is three logits."""
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


PATIENTS = (
    Patient(
        name="xor",
        story=told(
            es="El o exclusivo: ninguna capa lineal lo logra; dos neuronas ocultas, sí.",
            en="Exclusive or: no linear layer can do it; two hidden neurons can.",
        ),
        network=xor_net,
        samples=truth_table,
        loss=nn.BCEWithLogitsLoss,
        optimizer=lambda parameters: torch.optim.RMSprop(parameters, lr=0.01),
        seed=10,
        trained=True,
        # Four rows are all there is: nothing can be held out.
        splits=lambda: {"train": truth_table(), "test": truth_table()},
    ),
    Patient(
        name="iris",
        story=told(
            es="Cuatro medidas de una flor, tres especies de iris: clasificación con datos reales.",
            en="Four measurements of a flower, three species of iris: classification with real data.",
        ),
        network=iris_net,
        samples=some_flowers,
        loss=nn.CrossEntropyLoss,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        seed=2,
        trained=True,
        labels=SPECIES,
        splits=flowers,
    ),
)
