"""Collapse: W and b against autograd and by hand, the proof, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from openheart.errors import AddressError, InputError, OpaqueError
from openheart.patients import patient
from openheart.printers.digits import shown
from openheart.surgery.affine_flow import NotAffineError
from openheart.surgery.collapse import Collapse, collapse


def jacobian(model: nn.Module, sample: Tensor) -> Tensor:
    """W by autograd, in float64, of one sample."""
    twin = model.to(torch.float64)
    made = torch.autograd.functional.jacobian(lambda x: twin(x[None])[0].reshape(-1), sample.double())
    return made.reshape(made.shape[0], -1)


def numbers(values: Tensor, digits: int = 4) -> list[str]:
    return [shown(float(v), digits).text() for v in values.reshape(-1)]


# The tutorial ---------------------------------------------------------------------------------------


def golden(name: str) -> list[str]:
    """The numbers of the tutorial, as it prints them."""
    rows = json.loads((Path(__file__).parents[1] / "goldens.json").read_text("utf-8"))
    (row,) = (row for row in rows if row["id"] == name)
    return [f"{number:.4f}".replace("-", "−") for (number,) in row["expect"]]


def test_the_tutorials_chain_is_one_layer() -> None:
    who = patient("seed-chain")
    whole = collapse(who.build(), "0", "2", who.inputs())
    assert numbers(whole.weight) == golden("collapse-composed")
    assert numbers(whole.proof.composed) == golden("collapse-equal")
    assert numbers(whole.proof.recorded) == golden("collapse-chain")
    assert whole.verdict in ("exact", "within rounding")
    assert whole.proof.seed is None
    assert not whole.bias.any()


def test_the_tutorials_two_layers() -> None:
    who = patient("seed")
    net = who.build()
    whole = collapse(net, "0", "1", who.inputs())
    assert numbers(whole.apply(torch.tensor([[4.0, 5.0]]))) == ["0.8347"]
    first, second = (layer.weight.double().detach() for layer in net)
    b1, b2 = (layer.bias.double().detach() for layer in net)
    assert torch.allclose(whole.weight, second @ first, rtol=0, atol=1e-15)
    assert torch.allclose(whole.bias, second @ b1 + b2, rtol=0, atol=1e-15)
    assert [step.path for step in whole.steps] == ["0", "1"]
    for j in range(2):
        (line,) = whole.entry(0, j)
        assert line.result == pytest.approx(float(whole.weight[0, j]), abs=1e-15)
        assert line.name == f"W[0,{j}]"
    (line,) = whole.entry(0)
    assert line.result == pytest.approx(float(whole.bias[0]), abs=1e-15)
    assert "W[0,0] = −0.1986·0.1803 + 0.3628·0.2508 + (−0.0171)·0.6952 = 0.0433" in whole.text(lang="en")


def test_a_chain_of_three_works_out_each_product() -> None:
    whole = collapse(patient("seed-chain").build(), "0", "2")
    lines = whole.entry(0, 3)
    assert [line.name for line in lines] == ["W₂₁[0,3]", "W[0,3]"]
    assert lines[-1].result == pytest.approx(float(whole.weight[0, 3]), abs=1e-15)


# Any stack ------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_convolutions_norms_and_pools(data: st.DataObject) -> None:
    torch.manual_seed(data.draw(st.integers(0, 999)))
    groups = data.draw(st.sampled_from([1, 2]))
    rank = data.draw(st.sampled_from([1, 2, 3]))
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
    pool = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[rank - 1]
    net = nn.Sequential(
        conv(
            2, 4, data.draw(st.integers(1, 3)), stride=data.draw(st.integers(1, 2)),
            padding=data.draw(st.integers(0, 2)), dilation=data.draw(st.integers(1, 2)), groups=groups,
        ),
        norm(4),
        nn.Dropout(0.5),
        pool(2),
        nn.Identity(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )  # fmt: skip
    x = torch.randn(2, 2, *[7] * rank)
    net(x)
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2.0)
    net.eval()
    whole = collapse(net, "0", "6", x)
    assert whole.verdict in ("exact", "within rounding")
    assert whole.in_shape == x.shape[1:]
    recorded = net(x)
    assert torch.allclose(whole.layer()(x), recorded, rtol=1e-4, atol=1e-4)
    assert float((whole.weight - jacobian(net, x[0])).abs().max()) < 1e-12
    assert torch.allclose(whole.apply(x[1]), net(x[1:].double())[0], rtol=0, atol=1e-12)


class Residual(nn.Module):
    """A sum, a scaling, a permutation, a mean, and indexing by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.mask: Tensor
        self.register_buffer("mask", torch.tensor([True, False, True, True]))

    def forward(self, x: Tensor) -> Tensor:
        y = (x + 2.0 * self.fc(x) - 1.0) / 3.0
        y = torch.where(self.mask, y, -x) + y.mean(dim=-1, keepdim=True)
        return torch.cat([y[:, 1:], y[:, :1]], dim=1).reshape(-1, 2, 2).permute(0, 2, 1)


def test_residual_sums_and_rearrangements() -> None:
    torch.manual_seed(1)
    net, x = Residual(), torch.randn(3, 4)
    whole = collapse(net, "", "", x)
    assert whole.out_shape == (2, 2)
    assert whole.verdict in ("exact", "within rounding")
    assert float((whole.weight - jacobian(net, x[0])).abs().max()) < 1e-15
    assert torch.allclose(whole.layer(torch.float64)(x.double()), net(x.double()), atol=1e-14)
    assert whole.steps == ()


def test_a_piece_in_the_middle_of_a_network() -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 2), nn.Sigmoid())
    for given_ in (None, torch.randn(4, 3)):
        whole = collapse(net, "2", "3", given_)
        assert whole.verdict in ("exact", "within rounding")
        expected = net[3].weight.double() @ net[2].weight.double()
        assert torch.allclose(whole.weight, expected, rtol=0, atol=1e-15)
        assert whole.proof.seed == (28 if given_ is None else None)


def test_a_module_list_and_a_sample_without_a_batch() -> None:
    net = nn.ModuleList([nn.Linear(2, 3), nn.Linear(3, 1)])
    assert tuple(collapse(net, "0", "1").weight.shape) == (1, 2)
    assert tuple(collapse(net, "0", "1", torch.randn(2)).weight.shape) == (1, 2)


def exactly(tensor: Tensor) -> list[list[Fraction]]:
    rows = tensor.tolist()
    return [[Fraction(x) for x in (row if isinstance(row, list) else [row])] for row in rows]


def product(a: list[list[Fraction]], b: list[list[Fraction]]) -> list[list[Fraction]]:
    return [[sum(x * y for x, y in zip(row, col, strict=True)) for col in zip(*b, strict=True)] for row in a]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 6), min_size=2, max_size=5))
def test_any_chain_of_linear_layers_in_exact_fractions(seed: int, widths: list[int]) -> None:
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    whole = collapse(nn.Sequential(*layers), "0", str(len(layers) - 1))
    w = [[Fraction(i == j) for j in range(widths[0])] for i in range(widths[0])]
    b = [[Fraction(0)] for _ in range(widths[0])]
    for layer in layers:
        w = product(exactly(layer.weight), w)
        moved = product(exactly(layer.weight), b)
        b = [[x + y] for (x,), (y,) in zip(moved, exactly(layer.bias), strict=True)]
    for made, bound, exact in ((whole.weight, whole.weight_bound, w), (whole.bias, whole.bias_bound, b)):
        for one, limit, true in zip(
            made.reshape(-1), bound.reshape(-1), itertools.chain(*exact), strict=True
        ):
            assert abs(Fraction(float(one)) - true) <= Fraction(float(limit))
    assert float(whole.weight_bound.max()) < 1e-13
    assert whole.verdict in ("exact", "within rounding")
    for i, j in ((0, 0), (widths[-1] - 1, widths[0] - 1)):
        for line in whole.entry(i, j)[-1:]:
            assert line.result == pytest.approx(float(whole.weight[i, j]), rel=1e-12, abs=1e-15)


def test_half_precision() -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 3)).to(torch.bfloat16)
    whole = collapse(net, "0", "1")
    assert whole.verdict in ("exact", "within rounding")
    assert whole.dtype == torch.bfloat16


# The proof ------------------------------------------------------------------------------------------


def test_a_planted_error_disagrees() -> None:
    whole = collapse(patient("seed").build(), "0", "1")
    proof = whole.proof
    off = dataclasses.replace(
        proof, recorded=proof.recorded + 2 * proof.bound, exact=torch.zeros_like(proof.exact)
    )
    assert off.verdict == "disagrees"
    assert "✗" in dataclasses.replace(whole, proof=off).text(lang="en")
    near = dataclasses.replace(
        proof, recorded=proof.composed + 0.9 * proof.bound, exact=torch.zeros_like(proof.exact)
    )
    assert near.verdict == "within rounding"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_bound_holds_and_is_not_slack(seed: int) -> None:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(20, 30), nn.Linear(30, 5))
    proof = collapse(net, "0", "1", torch.randn(10, 20)).proof
    assert bool((proof.difference <= proof.bound).all())
    assert float(proof.bound.max()) < 1e-3 * float(proof.recorded.abs().max())


def test_a_matrix_that_is_too_large_is_not_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    torch.manual_seed(4)
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 1, 3)), torch.randn(5, 1, 8, 8)
    dense = collapse(net, "0", "1", x)
    monkeypatch.setattr(sys.modules["openheart.surgery.collapse"], "DENSE", 100)
    whole = collapse(net, "0", "1", x)
    assert not whole.dense
    with pytest.raises(OpaqueError, match="apply"):
        _ = whole.weight
    assert whole.verdict in ("exact", "within rounding")
    assert torch.allclose(whole.apply(x), dense.apply(x), atol=1e-14)
    assert torch.allclose(whole.bias, dense.bias, atol=1e-15)
    assert "apply" in whole.text(lang="en")
    assert whole.to_dict()["weight"] is None


# What is refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("piece", "operator"),
    [
        (nn.ReLU(), "relu"),
        (nn.Softmax(-1), "softmax"),
        (nn.Sigmoid(), "sigmoid"),
        (nn.LayerNorm(3), "native_layer_norm"),
        (nn.BatchNorm1d(3), "native_batch_norm"),
        (nn.MaxPool1d(2), "max_pool2d_with_indices"),
    ],
    ids=lambda p: type(p).__name__,
)
def test_what_is_not_affine_is_named(piece: nn.Module, operator: str) -> None:
    net = nn.Sequential(nn.Linear(2, 3), piece)
    with pytest.raises(NotAffineError) as caught:
        collapse(net, "0", "1")
    assert caught.value.module == "1"
    assert caught.value.operator == operator
    assert type(piece).__name__ in str(caught.value)
    assert ("eval()" in str(caught.value)) == isinstance(piece, nn.BatchNorm1d)


def test_collapsing_leaves_the_network_as_it_was() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.random.get_rng_state()
    with pytest.raises(NotAffineError):
        collapse(net, "0", "1")
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


class Mixes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0)


class Around(nn.Module):
    """A residual sum that goes around the stack."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.out = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(x)) + x)


def test_stacks_that_are_no_function_of_their_sample() -> None:
    with pytest.raises(NotAffineError, match="other samples"):
        collapse(Mixes(), "", "", torch.randn(4, 2))
    with pytest.raises(InputError, match="input"):
        collapse(Around(), "b", "out", torch.randn(4, 2))
    assert collapse(Around(), "", "out", torch.randn(4, 2)).verdict in ("exact", "within rounding")
    with pytest.raises(NotAffineError, match="random"):
        collapse(nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5)).train(), "0", "1")


def test_bad_arguments() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    with pytest.raises(AddressError, match="no module"):
        collapse(net, "0", "7")
    with pytest.raises(InputError, match="order"):
        collapse(net, "1", "0")
    with pytest.raises(InputError, match="did not run"):
        collapse(net, "0", "1", torch.randn(2, 9))
    with pytest.raises(InputError, match="input="):
        collapse(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), "0", "1")
    with pytest.raises(InputError, match="shape"):
        collapse(net, "0", "1").apply(torch.randn(2, 9))


# What it says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lang", ["es", "en"])
def test_what_it_says(lang: str) -> None:
    whole = collapse(patient("seed").build(), "0", "1")
    said = whole.text(lang=lang)
    assert ("redonde" if lang == "es" else "round") in said
    assert "28" in said
    assert whole.html(lang=lang).count("<table") == whole.html(lang=lang).count("</table>") >= 5
    assert "pmatrix" in whole.latex()
    data = json.loads(json.dumps(whole.to_dict()))
    assert data["verdict"] == whole.verdict
    assert math.isclose(data["weight"][0][0], float(whole.weight[0, 0]))
    assert isinstance(whole, Collapse)
