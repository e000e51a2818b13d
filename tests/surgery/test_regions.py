"""Counting linear regions: against lines counted by hand, and against every point of a fine grid."""

from __future__ import annotations

import json
import math
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from openheart.errors import InputError
from openheart.patients import patient
from openheart.surgery.affine_flow import NotAffineError
from openheart.surgery.regions import Regions, _seen, count_regions
from openheart.surgery.regions_cut import area, inside_point

PIECES = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.2),
    "hardtanh": nn.Hardtanh,
    "prelu": nn.PReLU,
    "relu6": nn.ReLU6,
}


def random_net(seed: int, widths: list[int], piece: str = "relu") -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in pairwise([2, *widths]):
        layers += [nn.Linear(a, b), PIECES[piece]()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 1)).double()


def patterns(net: nn.Sequential, points: Tensor) -> list[bytes]:
    """On which piece every unit is, at each point, by the pieces' inputs."""
    found = []
    for layer in net:
        after = layer(points)
        if not isinstance(layer, nn.Linear):
            edges = {nn.Hardtanh: (-1.0, 1.0), nn.ReLU6: (0.0, 6.0)}.get(type(layer), (0.0,))
            found.append(sum((points > edge).to(torch.uint8) for edge in edges))
        points = after
    return [row.numpy().tobytes() for row in torch.cat(found, dim=1)]


def lines_by_hand(weight: np.ndarray, bias: np.ndarray, side: float) -> int:
    """1 + lines that cross the square + points inside it where two of them meet."""
    corners = np.array([[x, y] for x in (-side, side) for y in (-side, side)])
    heights = corners @ weight.T + bias
    crossing = [n for n in range(len(bias)) if heights[:, n].min() < 0 < heights[:, n].max()]
    meeting = 0
    for a, b in combinations(crossing, 2):
        pair = weight[[a, b]]
        if abs(np.linalg.det(pair)) > 1e-12:
            meeting += bool(np.all(np.abs(np.linalg.solve(pair, -bias[[a, b]])) < side))
    return 1 + len(crossing) + meeting


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 12), st.sampled_from([0.5, 2.0, 50.0]))
def test_one_layer_is_lines_in_a_square(seed: int, units: int, side: float) -> None:
    net = random_net(seed, [units])
    found = count_regions(net, -side, side)
    assert found.exact
    weight, bias = (t.detach().numpy() for t in (net[0].weight, net[0].bias))
    assert found.count == lines_by_hand(weight, bias, side)
    assert found.count <= 1 + units + math.comb(units, 2)


def test_lines_in_general_position_reach_the_bound() -> None:
    net = nn.Sequential(nn.Linear(2, 7), nn.ReLU(), nn.Linear(7, 1)).double()
    turn = torch.arange(7) * math.pi / 7
    with torch.no_grad():
        net[0].weight.copy_(torch.stack([turn.cos(), turn.sin()], dim=1))
        net[0].bias.copy_(torch.linspace(0.05, 0.4, 7) ** 2)
    assert count_regions(net, -1000, 1000).count == 1 + 7 + math.comb(7, 2)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 100_000), st.lists(st.integers(1, 7), min_size=1, max_size=3), st.sampled_from([*PIECES])
)
def test_no_point_of_a_grid_has_a_pattern_that_is_missing(seed: int, widths: list[int], piece: str) -> None:
    net = random_net(seed, widths, piece)
    found = count_regions(net, (-3, -2), (3, 2))
    assert found.exact
    assert len(found.polygons) == found.count
    assert sum(map(area, found.polygons)) == pytest.approx(24, rel=1e-9)
    middles = torch.from_numpy(np.array([inside_point(p) for p in found.polygons]))
    own = patterns(net, middles)
    assert len(set(own)) == found.count
    x, y = torch.meshgrid(torch.linspace(-3, 3, 150), torch.linspace(-2, 2, 150), indexing="ij")
    grid = torch.stack([x.reshape(-1), y.reshape(-1)], dim=1).double()
    assert set(patterns(net, grid)) <= set(own)
    for middle, (weight, bias) in zip(middles, found.maps, strict=True):
        assert net(middle[None])[0].tolist() == pytest.approx(
            (weight @ middle.numpy() + bias).tolist(), abs=1e-9
        )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100_000))
def test_a_grid_never_sees_more(seed: int) -> None:
    net = random_net(seed, [5, 4])
    labels = _seen(net, (-2.0, -2.0), (2.0, 2.0), 60)
    assert labels.max() + 1 <= count_regions(net, -2, 2).count
    x, y = torch.meshgrid((torch.arange(60) + 0.5) / 15 - 2, (torch.arange(60) + 0.5) / 15 - 2, indexing="xy")
    expected = patterns(net, torch.stack([x.reshape(-1), y.reshape(-1)], dim=1).double())
    numbers: dict[bytes, int] = {}
    assert labels.reshape(-1).tolist() == [numbers.setdefault(p, len(numbers)) for p in expected]


class Functional(nn.Module):
    """A residual sum between pieces, and functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.a(x))
        return (y + self.b(y)).clamp(-0.5, 0.5).sum(dim=1, keepdim=True).abs()


def test_functions_and_sums_inside_a_layer() -> None:
    torch.manual_seed(0)
    found = count_regions(Functional(), -2, 2)
    assert found.exact
    assert found.count > 5


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 6), nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.nn.functional.max_pool1d(self.a(x)[:, None], 2)[:, 0])


class Skip(nn.Module):
    """A residual sum around a ReLU: no chain."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.a(x))


@pytest.mark.parametrize("kind", [Pooled, Skip])
@pytest.mark.parametrize("seed", range(4))
def test_other_networks_are_seen_on_a_grid(kind: type[nn.Module], seed: int) -> None:
    torch.manual_seed(seed)
    net = kind()
    found = count_regions(net, -5, 5, resolution=200)
    assert not found.exact
    assert found.labels.shape == (200, 200)
    weight, bias = (t.detach().double().numpy() for t in (net.a.weight, net.a.bias))
    if kind is Pooled:  # a pair's larger one changes on the line where they are equal
        weight, bias = weight[::2] - weight[1::2], bias[::2] - bias[1::2]
    there = lines_by_hand(weight, bias, 5.0)
    assert there - 1 <= found.count <= there
    assert "200×200" in found.text(lang="en")
    assert "al menos" in found.text(lang="es")


def test_two_units_on_one_line_count_once() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        net[0].bias.zero_()
    assert count_regions(net, -1, 1).count == 2


def test_slivers_are_left_with_their_neighbours_and_said_to_be() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 1e-14]))
    found = count_regions(net, -1, 1)
    assert (found.count, found.merged) == (2, 1)
    assert "1 piece smaller" in found.text(lang="en")


def test_what_is_refused() -> None:
    smooth = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    with pytest.raises(NotAffineError, match="tanh"):
        count_regions(smooth)
    with pytest.raises(InputError, match=r"\(n, 2\)"):
        count_regions(nn.Linear(3, 1))
    for low, high in ((1, -1), ((0, 0), (1, 0)), (-math.inf, 1), ((0, 0, 0), (1, 1, 1))):
        with pytest.raises(InputError, match="rectangle"):
            count_regions(nn.Linear(2, 1), low, high)
    with pytest.raises(InputError, match="resolution"):
        count_regions(nn.Linear(2, 1), resolution=1)


@pytest.mark.parametrize("lang", ["es", "en"])
@pytest.mark.parametrize("exact", [True, False])
def test_the_picture(lang: str, exact: bool) -> None:
    torch.manual_seed(1)
    found = count_regions(random_net(1, [6, 6]) if exact else Pooled(), (-3, -2), (3, 2), 32)
    assert isinstance(found, Regions)
    picture = ElementTree.fromstring(found.to_svg(lang=lang))
    space = "{http://www.w3.org/2000/svg}"
    assert picture.attrib["role"] == "img"
    title = picture.find(f"{space}title")
    assert title is not None
    assert str(found.count) in (title.text or "")
    assert ("región" in (title.text or "").lower() or "regiones" in (title.text or "")) == (lang == "es")
    shapes = picture.findall(f"{space}polygon" if exact else f"{space}rect")
    assert len(shapes) == found.count if exact else len(shapes) > found.count
    words = [each.text for each in picture.iter(f"{space}text")]
    assert {"−3", "0", "3", "−2", "2", "x₀", "x₁"} <= set(words)
    assert "<svg" in found.html(lang=lang)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert (data["count"], data["exact"]) == (found.count, exact)


def test_the_xor_patient_is_smooth() -> None:
    with pytest.raises(NotAffineError, match="tanh"):
        count_regions(patient("xor").build())
