"""The three networks: a tiny one, a transformer and a convolutional one, with random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Only(nn.Module):
    """A network of `transformers` that returns its logits and nothing else."""

    def __init__(self, network: nn.Module, **options: bool) -> None:
        super().__init__()
        self.network = network
        self.options = options

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x, **self.options).logits


def mlp() -> tuple[nn.Module, Tensor]:
    """The tutorial's 7-4-1, a batch of three."""
    return nn.Sequential(nn.Linear(7, 4), nn.Linear(4, 1)), torch.randn(3, 7)


def gpt2() -> tuple[nn.Module, Tensor]:
    """GPT-2 small's config, one sequence of 64 tokens."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return Only(GPT2LMHeadModel(GPT2Config()), use_cache=False), torch.randint(50257, (1, 64))


def resnet50() -> tuple[nn.Module, Tensor]:
    """ResNet-50's config, one image of 224 × 224."""
    from transformers import ResNetConfig, ResNetForImageClassification

    return Only(ResNetForImageClassification(ResNetConfig(num_labels=1000))), torch.randn(1, 3, 224, 224)


NETWORKS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "mlp": mlp,
    "gpt2": gpt2,
    "resnet50": resnet50,
}
TITLES = {
    "mlp": "MLP 7-4-1, 3 samples",
    "gpt2": "GPT-2 small, 64 tokens",
    "resnet50": "ResNet-50, 224²",
}


def prepared(name: str, training: bool = False) -> tuple[nn.Module, Tensor]:
    """The network and its input, the same numbers every time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    return model.train(training), x
