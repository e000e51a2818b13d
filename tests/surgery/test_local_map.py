"""The local map: against autograd, against walks across its boundaries, and what is refused."""

from __future__ import annotations

import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import openheart as oh
from openheart.errors import InputError
from openheart.patients import patient
from openheart.surgery.affine_flow import NotAffineError
from openheart.surgery.local_map import LocalMap, local_map

PIECES = {
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.2),
    "hardtanh": nn.Hardtanh,
    "prelu": nn.PReLU,
    "relu6": nn.ReLU6,
}


def random_net(seed: int, widths: list[int], piece: str) -> tuple[nn.Module, Tensor]:
    """A float64 network, so that a step of a thousandth of a distance is told from rounding."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Linear(a, b), PIECES[piece]()]
    net = nn.Sequential(*layers, nn.Linear(widths[-1], 2)).double()
    return net, torch.randn(1, widths[0], dtype=torch.float64)


def jacobian(net: nn.Module, sample: Tensor) -> Tensor:
    made = torch.autograd.functional.jacobian(lambda x: net(x[None])[0].reshape(-1), sample)
    return made.reshape(made.shape[0], -1)


def pattern(found: LocalMap) -> dict[str, list]:
    states = {**found.active, **{f"{k} winner": v for k, v in found.winners.items()}}
    return {name: each.tolist() for name, each in states.items()}


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 100_000), st.lists(st.integers(1, 6), min_size=2, max_size=4), st.sampled_from([*PIECES])
)
def test_the_map_is_the_network_here(seed: int, widths: list[int], piece: str) -> None:
    net, x = random_net(seed, widths, piece)
    found = local_map(oh.record(net, x))
    assert found.verdict in ("exact", "within rounding")
    assert bool((found.difference <= found.bounds).all())
    assert torch.allclose(found.weight, jacobian(net, x[0]), rtol=0, atol=1e-12)
    assert torch.allclose(found.apply(x), net(x), rtol=0, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 100_000), st.lists(st.integers(1, 6), min_size=2, max_size=4), st.sampled_from([*PIECES])
)
def test_it_holds_up_to_its_boundaries_and_no_further(seed: int, widths: list[int], piece: str) -> None:
    net, x = random_net(seed, widths, piece)
    found = local_map(oh.record(net, x))
    here = pattern(found)
    for feature, boundary in enumerate(found.boundaries):
        for distance, unit, sign in (
            (boundary.minus, boundary.minus_unit, -1.0),
            (boundary.plus, boundary.plus_unit, 1.0),
        ):
            assert (unit is None) == math.isinf(distance)
            if unit is None:
                far = x.clone()
                far[0, feature] += sign * 1e3
                assert pattern(local_map(oh.record(net, far))) == here
                continue
            for factor, same in ((0.999, True), (1.001, False)):
                moved = x.clone()
                moved[0, feature] += sign * distance * factor
                there = local_map(oh.record(net, moved))
                assert (pattern(there) == here) == same, (feature, distance, factor)
                if same:
                    assert torch.allclose(there.weight, found.weight, rtol=0, atol=1e-12)
    if found.nearest is not None:
        each = [min(b.minus, b.plus) for b in found.boundaries]
        assert found.nearest.distance <= min(each) * (1 + 1e-12)
        # A ball of that radius lies within the region.
        for n in range(4):
            torch.manual_seed(n)
            way = torch.randn_like(x)
            moved = x + 0.999 * found.nearest.distance * way / way.norm()
            assert pattern(local_map(oh.record(net, moved))) == here


class Clipped(nn.Module):
    """What else is piecewise linear: |x|, a clamp, larger and smaller of two, a choice, a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        y = torch.maximum(a, b).abs() + torch.minimum(a, b).clamp(-0.5, 0.7)
        return torch.where(y > 0.3, y, 2 * y) + a * (b > 0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 100_000))
def test_functions_and_choices(seed: int) -> None:
    torch.manual_seed(seed)
    net, x = Clipped().double(), torch.randn(2, 3, dtype=torch.float64)
    for sample in (0, 1):
        found = local_map(oh.record(net, x), sample)
        assert found.verdict in ("exact", "within rounding")
        assert torch.allclose(found.weight, jacobian(net, x[sample]), rtol=0, atol=1e-12)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 100_000))
def test_convolutions_and_max_pools(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1), nn.MaxPool2d(3, 2, padding=1),
        nn.Flatten(), nn.Linear(27, 4), nn.ReLU(), nn.Linear(4, 2),
    ).double().eval()  # fmt: skip
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    found = local_map(oh.record(net, x), 1)
    assert found.verdict in ("exact", "within rounding")
    assert torch.allclose(found.weight, jacobian(net, x[1]), rtol=0, atol=1e-12)
    assert set(found.winners) == {"3.out"}
    here = pattern(found)
    for feature in range(0, 36, 5):
        boundary = found.boundaries[feature]
        for factor, same in ((0.999, True), (1.001, False)):
            moved = x.clone()
            moved[1].view(-1)[feature] += boundary.plus * factor
            assert (pattern(local_map(oh.record(net, moved), 1)) == here) == same


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100_000), st.integers(0, 3))
def test_a_sample_of_a_batch_is_as_it_is_alone(seed: int, sample: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(27, 4), nn.ReLU(), nn.Linear(4, 2),
    ).double().eval()  # fmt: skip
    x = torch.randn(4, 2, 6, 6, dtype=torch.float64)
    among = local_map(oh.record(net, x), sample)
    alone = local_map(oh.record(net, x[sample : sample + 1]))
    assert torch.allclose(among.weight, alone.weight, rtol=0, atol=1e-13)
    assert torch.allclose(among.bias, alone.bias, rtol=0, atol=1e-13)
    assert pattern(among) == pattern(alone)
    for one, other in zip(among.boundaries, alone.boundaries, strict=True):
        assert one.plus == pytest.approx(other.plus, rel=1e-9)
        assert one.plus_unit is not None
        assert one.plus_unit.replace(f"[{sample},", "[0,") == other.plus_unit


def test_layouts_with_the_batch_elsewhere() -> None:
    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x.transpose(0, 1) * 2 - 1).transpose(0, 1).reshape(-1).reshape(3, 3)

    x = torch.randn(3, 3, dtype=torch.float64)
    found = local_map(oh.record(Turned(), x), 1)
    assert found.verdict in ("exact", "within rounding")
    assert torch.allclose(found.weight, torch.diag(2 * (2 * x[1] > 1).double()), rtol=0, atol=1e-15)


def test_the_units_by_hand() -> None:
    # relu(x0 + x1 − 1) and relu(x0 − x1): at (2, 0) the first is 1 and the second 2
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        net[0].bias.copy_(torch.tensor([-1.0, 0.0]))
        net[2].weight.copy_(torch.tensor([[3.0, 1.0]]))
    found = local_map(oh.record(net, torch.tensor([[2.0, 0.0]])))
    assert found.verdict == "exact"
    assert found.weight.tolist() == [[4.0, 2.0]]
    assert found.bias.tolist() == [-3.0]
    assert found.active["0.out"].tolist() == [True, True]
    first, second = found.boundaries
    assert (first.address, first.minus, first.minus_unit, first.plus) == (
        "input[0,0]",
        1.0,
        "0.out[0,0]",
        math.inf,
    )
    assert (second.minus, second.minus_unit) == (1.0, "0.out[0,0]")
    assert (second.plus, second.plus_unit) == (2.0, "0.out[0,1]")
    assert found.nearest is not None
    assert found.nearest.distance == pytest.approx(1 / math.sqrt(2), rel=1e-15)
    assert found.nearest.unit == "0.out[0,0]"
    assert found.on_boundary == ()


def test_a_unit_on_its_boundary_is_said_to_be() -> None:
    net = nn.Sequential(nn.Linear(2, 1), nn.ReLU())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.1, 0.2]]))
        net[0].bias.copy_(torch.tensor([-0.3]))
    found = local_map(oh.record(net, torch.tensor([[1.0, 1.0]])))
    assert found.on_boundary == ("0.out[0,0]",)
    assert found.nearest is not None
    assert found.nearest.distance < 1e-7
    assert min(found.boundaries[0].minus, found.boundaries[0].plus) < 1e-6
    for lang in ("es", "en"):
        assert "0.out[0,0]" in found.text(lang=lang)


def test_a_unit_that_rounding_put_on_the_other_side() -> None:
    # 2²⁴ + 1 − 2²⁴ is 1, and 0 in float32 where the sum is rounded before the difference
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu((x + 1.0) - 2.0**24)

    found = local_map(oh.record(Sum(), torch.tensor([[2.0**24]])))
    assert found.output.tolist() == [0.0]
    assert len(found.on_boundary) == 1
    assert found.nearest is not None
    assert found.nearest.distance == 0.0
    assert found.verdict in ("exact", "within rounding")


def test_a_planted_error_disagrees() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    rec = oh.record(net, torch.randn(2, 3))
    assert local_map(rec, 1).verdict in ("exact", "within rounding")
    off = local_map(rec, 1).bound
    rec.value("output").data[1, 0] += 3 * off
    assert local_map(rec, 0).verdict in ("exact", "within rounding")
    assert local_map(rec, 1).verdict == "disagrees"
    assert "✗" in local_map(rec, 1).text(lang="en")


def test_a_dead_units_twin_is_no_boundary() -> None:
    # relu of relu: at a negative number the second one compares 0 with 0, and nothing near changes that
    net = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.ReLU())
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.fill_(0.0)
    found = local_map(oh.record(net, torch.tensor([[-2.0]])))
    assert found.on_boundary == ()
    assert found.boundaries[0].plus == 2.0
    assert found.boundaries[0].minus == math.inf


@pytest.mark.parametrize("name", ["seed-relu", "digits-mlp", "digits-cnn", "xor", "iris"])
def test_patients(name: str) -> None:
    who = patient(name)
    net, x = who.build().eval(), who.inputs()[0]
    rec = oh.record(net, x)
    outs = [a for a in rec.addresses() if a.endswith(".out") and "/" not in a]
    last = next((a for a in reversed(outs) if _piecewise(rec, a)), None)
    assert last is not None
    found = local_map(rec, 0, output=last)
    assert found.verdict in ("exact", "within rounding")


def _piecewise(rec: oh.Recording, address: str) -> bool:
    try:
        local_map(rec, 0, output=address)
    except NotAffineError:
        return False
    return True


def test_a_recorded_training_step_and_a_loaded_one(tmp_path) -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    with oh.recording(net) as rec:
        net(torch.randn(5, 3)).square().mean().backward()
    before = local_map(rec, -1)
    assert before.sample == 4
    rec.save(tmp_path / "run.oh")
    after = local_map(oh.load(tmp_path / "run.oh"), 4)
    assert torch.equal(before.weight, after.weight)
    assert before.boundaries == after.boundaries


# What is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("piece", "operator"), [(nn.Sigmoid(), "sigmoid"), (nn.Softmax(-1), "softmax"), (nn.GELU(), "gelu")]
)
def test_what_is_not_piecewise_linear(piece: nn.Module, operator: str) -> None:
    rec = oh.record(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3), piece), torch.randn(1, 2))
    with pytest.raises(NotAffineError, match="upto=") as caught:
        local_map(rec)
    assert (caught.value.module, caught.value.operator) == ("3", operator)
    for options in ({"upto": "2"}, {"output": "2.out"}):
        assert local_map(rec, **options).verdict in ("exact", "within rounding")


def test_samples_that_mix() -> None:
    training = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU())
    with pytest.raises(NotAffineError, match=r"eval\(\)|native_batch_norm"):
        local_map(oh.record(training, torch.randn(4, 2)))

    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x - x.mean(dim=0))

    with pytest.raises(NotAffineError, match="other samples"):
        local_map(oh.record(Centred(), torch.randn(4, 2)))


def test_bad_arguments() -> None:
    rec = oh.record(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), torch.randn(3, 2))
    with pytest.raises(InputError, match="no sample 3"):
        local_map(rec, 3)
    with pytest.raises(InputError, match="nothing"):
        local_map(rec, output="nothing")
    with pytest.raises(InputError, match="not both"):
        local_map(rec, output="0.out", upto="0")
    with pytest.raises(InputError, match="does not follow"):
        local_map(rec, input="1.out", output="0.out")
    with pytest.raises(InputError, match="int64"):
        local_map(oh.record(nn.Embedding(3, 2), torch.tensor([[0, 1]])))


@pytest.mark.parametrize("lang", ["es", "en"])
def test_what_it_says(lang: str) -> None:
    who = patient("seed-relu")
    found = local_map(oh.record(who.build().eval(), *who.inputs()))
    said = found.text(lang=lang)
    assert "input[0,0]" in said
    assert "0.out" in said
    assert ("frontera" if lang == "es" else "boundary") in said
    assert "<table" in found.html(lang=lang)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["verdict"] == found.verdict
    assert len(data["boundaries"]) == 7
