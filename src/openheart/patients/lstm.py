"""An LSTM that has watched the sun: eleven years of sunspots, and a guess at the twelfth."""

from functools import cache

import numpy
import torch
from torch import Tensor, nn

from openheart.patients.anatomy import DATA, Patient, Split, told

YEARS = 11  # about one solar cycle
FIRST_TEST_YEAR = 1950


@cache
def sunspots() -> tuple[Tensor, Tensor]:
    """Years (309,) int64 from 1700 to 2008, and their mean sunspot number in hundreds, (309,) float32."""
    table = numpy.loadtxt(DATA / "sunspots.csv", delimiter=",", skiprows=1)
    return torch.from_numpy(table[:, 0]).long(), torch.from_numpy(table[:, 1] / 100).float()


@cache
def decades() -> dict[str, Split]:
    """Eleven years in a row (n, 11, 1) and the year after them (n, 1); tested on the years from 1950 on."""
    years, numbers = sunspots()
    pieces = numbers.unfold(0, YEARS + 1, 1)
    past, following = pieces[:, :-1, None].contiguous(), pieces[:, -1:].contiguous()
    later = years[YEARS:] >= FIRST_TEST_YEAR
    return {"train": (past[~later], following[~later]), "test": (past[later], following[later])}


def some_decades() -> Split:
    """Four held-out windows: the years to predict are 1950, 1963, 1976 and 1989."""
    past, following = decades()["test"]
    return past[0:40:13], following[0:40:13]


class SunspotLSTM(nn.Module):
    """An LSTM of eight units reads the years one by one; a linear layer reads its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size=1, hidden_size=8, batch_first=True)
        self.linear = nn.Linear(8, 1)

    def forward(self, years: Tensor) -> Tensor:
        """(samples, years, 1) to (samples, 1)."""
        states, _ = self.lstm(years)
        return self.linear(states[:, -1])


PATIENTS = (
    Patient(
        name="lstm",
        story=told(
            es="Una LSTM lee once años de manchas solares y predice el año siguiente.",
            en="An LSTM reads eleven years of sunspots and predicts the year after.",
        ),
        network=SunspotLSTM,
        samples=some_decades,
        loss=nn.MSELoss,
        optimizer=lambda parameters: torch.optim.RMSprop(parameters, lr=0.002, momentum=0.5, centered=True),
        seed=6,
        trained=True,
        splits=decades,
    ),
)
