"""Handwritten digits, 8×8 pixels, written by real people: an MLP and a CNN that read them."""

from collections import OrderedDict
from functools import cache

import torch
from torch import nn

from openheart.patients.anatomy import Patient, Split, held_out, load_arrays, told

LABELS = tuple("0123456789")


@cache
def images() -> dict[str, Split]:
    """Images (n, 1, 8, 8) float32 from 0 (paper) to 1 (ink), and digits (n,) int64."""
    arrays = load_arrays("digits")
    pixels = torch.from_numpy(arrays["pixels"]).float().div(16).unflatten(1, (1, 8, 8))
    digits = torch.from_numpy(arrays["digits"]).long()
    # The writers wrote 0 1 2 … 9 over and over, so a step that shares no factor with 10 meets every digit.
    test = held_out(len(digits), every=7)
    return {"train": (pixels[~test], digits[~test]), "test": (pixels[test], digits[test])}


def rows() -> dict[str, Split]:
    """The same images as rows of 64 features."""
    return {split: (pixels.flatten(1), digits) for split, (pixels, digits) in images().items()}


def some(split: Split, count: int) -> Split:
    """The first `count` samples."""
    return split[0][:count], split[1][:count]


def digits_mlp() -> nn.Sequential:
    """64-32-10 with ReLU and dropout."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))


def digits_cnn() -> nn.Sequential:
    """Two rounds of convolution, batch norm, ReLU and max-pool, then dropout and one linear layer."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, kernel_size=3, padding=1),
            norm1=nn.BatchNorm2d(8),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 16, kernel_size=3, padding=1),
            norm2=nn.BatchNorm2d(16),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            dropout=nn.Dropout(0.25),
            linear=nn.Linear(64, 10),
        )
    )


PATIENTS = (
    Patient(
        name="digits-mlp",
        story=told(
            es="Dígitos escritos a mano, de 64 píxeles: una capa oculta de 32 neuronas los lee.",
            en="Handwritten digits of 64 pixels: a hidden layer of 32 neurons reads them.",
        ),
        network=digits_mlp,
        samples=lambda: some(rows()["test"], 8),
        loss=nn.CrossEntropyLoss,
        optimizer=lambda parameters: torch.optim.SGD(
            parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-4
        ),
        seed=3,
        trained=True,
        labels=LABELS,
        splits=rows,
    ),
    Patient(
        name="digits-cnn",
        story=told(
            es="Los mismos dígitos como imágenes: convolución, normalización por lotes y agrupación.",
            en="The same digits as images: convolution, batch normalization and pooling.",
        ),
        network=digits_cnn,
        samples=lambda: some(images()["test"], 4),
        loss=nn.CrossEntropyLoss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.005, weight_decay=0.01),
        seed=4,
        trained=True,
        labels=LABELS,
        splits=images,
    ),
)
