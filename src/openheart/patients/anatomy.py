"""What a patient is: a network with its data, its loss, its optimizer and its story."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

HERE = Path(__file__).parent
DATA = HERE / "data"
WEIGHTS = HERE / "weights"

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Patient:
    """A built-in network, ready for a forward pass or a whole training step, the same numbers every time.

    - `network()`: the architecture with its initial weights; `build()` is what most callers want.
    - `samples()`: a few inputs and their targets, held out from training where it was trained.
    - `loss()`: a module, called as `loss(output, target)`.
    - `optimizer(parameters)`: a `torch.optim.Optimizer`.
    - `splits()`: all samples of `"train"` and of `"test"`, or None where the patient was never trained.
    - `labels`: what the output's last dimension means, class by class, where it has classes.

    >>> from openheart.patients import patient
    >>> hand = patient("hand")
    >>> hand.build()(*hand.inputs()).item()
    8.0
    """

    name: str
    story: Mapping[str, str]
    network: Callable[[], nn.Module]
    samples: Callable[[], Split]
    loss: Callable[[], nn.Module]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    seed: int = 28
    trained: bool = False
    labels: tuple[str, ...] = ()
    splits: Callable[[], Mapping[str, Split]] | None = None

    def build(self, training: bool = True) -> nn.Module:
        """A fresh copy of the network, with the trained weights where there are any.

        In training mode, as a training step needs it: dropout draws, batch norm uses the batch's statistics.
        `training=False` (or `.eval()` on the result) is the network as it is used: nothing is drawn, and
        batch norm uses its running statistics. The global random state is left untouched either way.
        """
        with random_stream(self.seed):
            model = self.network()
        if self.trained:
            model.load_state_dict(load_file(self.weights))
        return model.train(training)

    @property
    def weights(self) -> Path:
        """The file of the trained weights."""
        return WEIGHTS / f"{self.name}.safetensors"

    def inputs(self) -> tuple[Tensor, ...]:
        """What the model is called with: `model(*patient.inputs())`. Fresh copies, the same numbers."""
        return (self.samples()[0].clone(),)

    def target(self) -> Tensor:
        """What the loss compares the output with. A fresh copy, the same numbers."""
        return self.samples()[1].clone()

    def data(self, split: Literal["train", "test"]) -> Split | None:
        """All samples of a split as (inputs, targets), or None where the patient was never trained."""
        if self.splits is None:
            return None
        inputs, targets = self.splits()[split]
        return inputs.clone(), targets.clone()


@contextmanager
def random_stream(seed: int) -> Iterator[None]:
    """Draw from a seed of one's own; afterwards the global random state is as it was.

    Only the CPU's generator is seeded: `torch.manual_seed` would seed the accelerators' too, for good.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def told(es: str, en: str) -> Mapping[str, str]:
    """A line in both languages."""
    return MappingProxyType({"es": es, "en": en})


def load_arrays(name: str) -> dict[str, numpy.ndarray]:
    """The arrays of `data/NAME.npz`; no pickle."""
    with numpy.load(DATA / f"{name}.npz", allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}


def held_out(count: int, every: int) -> Tensor:
    """Which of `count` samples are kept from training: 0, every, 2·every, … as bools (count,)."""
    return torch.arange(count) % every == 0
