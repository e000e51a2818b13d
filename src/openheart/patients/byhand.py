"""The net that is small enough for paper: 2-3-1, integer weights, integer gradients."""

import torch
from torch import nn

from openheart.patients.anatomy import Patient, told


def two_three_one() -> nn.Sequential:
    """Linear(2, 3), Linear(3, 1) with integer weights and biases of zero."""
    hidden, output = nn.Linear(2, 3), nn.Linear(3, 1)
    with torch.no_grad():
        hidden.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0]]))
        output.weight.copy_(torch.tensor([[2.0, -1.0, 1.0]]))
        hidden.bias.zero_()
        output.bias.zero_()
    return nn.Sequential(hidden, output)


# The output is 8 and the target 7, so the loss is (8 − 7)² = 1 and its gradient 2·(8 − 7) = 2: integers
# all the way back.
PATIENTS = (
    Patient(
        name="hand",
        story=told(
            es="Una red 2-3-1 con pesos enteros: de (2, 3) sale 8, y todo se puede calcular a mano.",
            en="A 2-3-1 network with integer weights: (2, 3) gives 8, and all of it can be done by hand.",
        ),
        network=two_three_one,
        samples=lambda: (torch.tensor([[2.0, 3.0]]), torch.tensor([[7.0]])),
        loss=nn.MSELoss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    ),
)
