"""The tutorial's networks, number for number: one seed, 28, and one random stream that runs through them.

The tutorial draws Linear(7, 4) and Linear(4, 1), then goes on drawing: Linear(7, 3) for the softmax, and
three matrices for the ReLU. Each builder here draws what came before it and throws it away, so no patient
depends on what ran before.
"""

import torch
from torch import Tensor, nn

from openheart.patients.anatomy import Patient, Split, told

SEED = 28


def one_sample() -> Split:
    """The tutorial's sample, (1, 2), and a target of ours, (1, 1)."""
    return torch.tensor([[4.0, 5.0]]), torch.tensor([[1.0]])


def three_samples() -> Split:
    """The tutorial's batch, (3, 7), and targets of ours, (3, 1)."""
    batch = [[8, 5, 6, 2, 4, 5, 7], [1, 2, 3, 4, 5, 6, 7], [9, 8, 7, 6, 5, 4, 3]]
    return torch.tensor(batch, dtype=torch.float32), torch.tensor([[1.0], [0.0], [1.0]])


def seven_four_one() -> nn.Sequential:
    """The first two layers that the stream draws."""
    return nn.Sequential(nn.Linear(7, 4), nn.Linear(4, 1))


def sigmoid_net() -> nn.Sequential:
    """The same two layers, squashed."""
    return nn.Sequential(*seven_four_one(), nn.Sigmoid())


def softmax_net() -> nn.Sequential:
    """The third layer of the stream: three classes that compete."""
    seven_four_one()
    return nn.Sequential(nn.Linear(7, 3), nn.Softmax(dim=-1))


def drawn_matrices() -> list[Tensor]:
    """W1 (7, 3), W2 (3, 1) and W3 (1, 1), in×out as the tutorial multiplies them: X @ W1."""
    softmax_net()
    return [torch.randn(7, 3), torch.randn(3, 1), torch.randn(1, 1)]


def linears() -> list[nn.Linear]:
    """The drawn matrices as layers without bias; a layer's weight is out×in, so each is transposed."""
    layers = []
    for matrix in drawn_matrices():
        layer = nn.Linear(matrix.shape[0], matrix.shape[1], bias=False)
        with torch.no_grad():
            layer.weight.copy_(matrix.T)
        layers.append(layer)
    return layers


def relu_net() -> nn.Sequential:
    """relu(relu(X W1) W2) W3."""
    first, second, third = linears()
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)


def chain_net() -> nn.Sequential:
    """X W1 W2 W3: three layers that are one."""
    return nn.Sequential(*linears())


class NegativeLogProbability(nn.Module):
    """Cross-entropy of a network whose output is already probabilities: −log p[sample, class], averaged."""

    def forward(self, probabilities: Tensor, target: Tensor) -> Tensor:
        """Probabilities (samples, classes) and classes (samples,) int64 to a scalar."""
        return nn.functional.nll_loss(probabilities.log(), target)


PATIENTS = (
    Patient(
        name="seed",
        story=told(
            es="La red del tutorial: dos capas lineales de la semilla 28; de (4, 5) sale 0.8347.",
            en="The tutorial's network: two linear layers from seed 28; (4, 5) gives 0.8347.",
        ),
        network=lambda: nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)),
        samples=one_sample,
        loss=nn.MSELoss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01),
        seed=SEED,
    ),
    Patient(
        name="seed-batch",
        story=told(
            es="La segunda red del tutorial: un lote de tres muestras en un solo producto de matrices.",
            en="The tutorial's second network: a batch of three samples in a single matrix product.",
        ),
        network=seven_four_one,
        samples=three_samples,
        loss=nn.MSELoss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
        seed=SEED,
    ),
    Patient(
        name="seed-sigmoid",
        story=told(
            es="La misma red con una sigmoide: de cada muestra, la probabilidad de una sola clase.",
            en="The same network with a sigmoid: for each sample, the probability of a single class.",
        ),
        network=sigmoid_net,
        samples=three_samples,
        loss=nn.BCELoss,
        optimizer=lambda parameters: torch.optim.SGD(
            parameters, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.001
        ),
        seed=SEED,
    ),
    Patient(
        name="seed-softmax",
        story=told(
            es="Tres clases que compiten en una softmax: lo que gana una lo pierden las otras.",
            en="Three classes that compete in a softmax: what one gains, the others lose.",
        ),
        network=softmax_net,
        samples=lambda: (three_samples()[0], torch.tensor([0, 1, 1])),
        loss=NegativeLogProbability,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        seed=SEED,
    ),
    Patient(
        name="seed-relu",
        story=told(
            es="La ReLU del tutorial: una neurona que solo recibe negativos está muerta, sin gradiente.",
            en="The tutorial's ReLU: a neuron that receives only negatives is dead, without gradient.",
        ),
        network=relu_net,
        samples=three_samples,
        loss=nn.MSELoss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.5, dampening=0.1),
        seed=SEED,
    ),
    Patient(
        name="seed-chain",
        story=told(
            es="Los mismos pesos sin la ReLU: tres capas lineales en cadena que equivalen a una sola.",
            en="The same weights without the ReLU: a chain of three linear layers that equals a single one.",
        ),
        network=chain_net,
        samples=three_samples,
        loss=nn.MSELoss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.001),
        seed=SEED,
    ),
)
