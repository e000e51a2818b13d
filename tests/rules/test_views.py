"""Views, rearrangements, their gradients, and what memory does by itself."""

import pytest
import torch
from tests.rules.harness import audit, gradients
from torch.nn import functional as F

from openheart.formula.expr import Index, Ref
from openheart.record import recording
from openheart.rules.registry import law_of
from openheart.rules.strides import reshaped

SAMPLES = [
    torch.randn(4, 6, 5),
    torch.randn(5, 6, 4, dtype=torch.float64).transpose(0, 2),
    torch.randn(4, 6, 5).bfloat16(),
    torch.arange(120).reshape(4, 6, 5),
    torch.rand(4, 6, 5) > 0.5,
    torch.randn(4, 6, 5, dtype=torch.complex64),
    torch.tensor([0.0, -0.0, torch.inf, torch.nan]).repeat(30).reshape(4, 6, 5),
]

VIEWS = {
    "view": lambda x: x.contiguous().view(2, 2, 30).view(-1).view(8, 15),
    "_unsafe_view": lambda x: torch.ops.aten._unsafe_view(x.contiguous(), [24, 5]),
    "permute": lambda x: x.permute(2, -3, 1),
    "transpose.int": lambda x: x.transpose(0, -1),
    "transpose_": lambda x: x.clone().transpose_(0, 1),
    "t": lambda x: (x[0].t(), x[0, 0].t()),
    "t_": lambda x: x[0].clone().t_(),
    "expand": lambda x: x[:, :1].expand(2, 4, 3, -1),
    "slice.Tensor": lambda x: (x[1:], x[:, -2:], x[..., ::2], x[:, 3:100], x[4:]),
    "select.int": lambda x: (x[2], x[:, -1]),
    "unsqueeze": lambda x: (x.unsqueeze(0), x.unsqueeze(-1)),
    "unsqueeze_": lambda x: x.clone().unsqueeze_(1),
    "squeeze": lambda x: x[:1, :, :1].squeeze(),
    "squeeze.dim": lambda x: (x[:1].squeeze(0), x.squeeze(0)),
    "squeeze.dims": lambda x: x[:1, :, :1].squeeze((0, -1)),
    "squeeze_.dim": lambda x: x[:1].clone().squeeze_(0),
    "detach": lambda x: x.detach(),
    "alias": torch.ops.aten.alias,
    "clone": lambda x: x.clone(),
    "split.Tensor": lambda x: x.split(4, 1),
    "split_with_sizes": lambda x: x.split([1, 3, 2], -2),
    "unsafe_split.Tensor": lambda x: x.unsafe_split(2, -1),
    "unbind.int": lambda x: x.unbind(-1),
    "diagonal": lambda x: (x.diagonal(1, 0, 2), x.diagonal(-2), x.diagonal(0, -1, 0)),
    "unfold": lambda x: x.unfold(1, 3, 2),
    "as_strided": lambda x: x.contiguous().as_strided((3, 4), (5, 1), 7),
    "flip": lambda x: x.flip(0, -1),
    "roll": lambda x: (x.roll(2), x.roll((1, -2), (0, 1)), x.roll(7, -1)),
    "rot90": lambda x: tuple(x.rot90(k, [0, 2]) for k in range(-1, 4)),
    "repeat": lambda x: x.repeat(2, 1, 3, 1),
    "cat": lambda x: (torch.cat([x, x[:2]]), torch.cat([x, x[:, :1]], -2), torch.cat([x, x[:0]])),
    "stack": lambda x: (torch.stack([x, x]), torch.stack([x] * 40, -1)),
    "tril": lambda x: (x.tril(), x.tril(-2), x.tril(9)),
    "triu": lambda x: (x.triu(), x.triu(1)),
    "constant_pad_nd": lambda x: (F.pad(x, (1, 2)), F.pad(x, (1, -1, -1, 2))),
    "diag_embed": lambda x: (torch.diag_embed(x[0], 1), torch.diag_embed(x[0], -1, 0, 2)),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("sample", range(len(SAMPLES)))
def test_moves_numbers(name: str, sample: int) -> None:
    seen = audit(VIEWS[name], SAMPLES[sample], covers=name)
    assert seen.worst == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_padding(dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 4, 5, 6).to(dtype)
    for rank in (1, 2, 3):
        sample, pad = x[(0,) * (3 - rank)], (1, 2, 3, 0, 2, 1)[: 2 * rank]
        for mode in ("reflection", "replication"):
            how = {"reflection": "reflect", "replication": "replicate"}[mode]
            audit(
                gradients(lambda y, p=pad, h=how: F.pad(y, p, mode=h), sample),
                covers=[f"{mode}_pad{rank}d", f"{mode}_pad{rank}d_backward"],
            )


GRADIENTS = {
    "slice_backward": lambda x: (x[1:], x[:, ::2], x[..., -2:]),
    "select_backward": lambda x: x[:, -1],
    "diagonal_backward": lambda x: (x.diagonal(1, 0, 2), x.diagonal(-1)),
    "unfold_backward": lambda x: (x.unfold(1, 3, 2), x.unfold(0, 4, 1), x.unfold(2, 3, 1)),
}


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients(name: str, dtype: torch.dtype) -> None:
    audit(gradients(GRADIENTS[name], torch.randn(4, 6, 5).to(dtype)), covers=name)


def test_scatters_of_views() -> None:
    x = torch.randn(4, 6, 5)
    audit(lambda: x.slice_scatter(torch.randn(4, 2, 5), 1, 1, 5, 2), covers="slice_scatter")
    audit(lambda: x.select_scatter(torch.randn(4, 5), 1, -1), covers="select_scatter")
    audit(lambda: x.diagonal_scatter(torch.randn(5, 2), -2), covers=[])
    audit(lambda: x.as_strided_scatter(torch.randn(3, 4), (3, 4), (10, 1), 7), covers="as_strided_scatter")


def test_shuffles() -> None:
    x = torch.randn(2, 8, 4, 6)
    audit(lambda: F.pixel_shuffle(x, 2), covers="pixel_shuffle")
    audit(lambda: F.pixel_unshuffle(x, 2), covers="pixel_unshuffle")


def test_complex_as_pairs() -> None:
    z = torch.randn(3, 4, dtype=torch.complex64)
    audit(lambda: torch.view_as_real(z), covers="view_as_real")
    audit(lambda: torch.view_as_complex(torch.randn(3, 4, 2).contiguous()), covers="view_as_complex")


def test_as_strided_goes_through_memory() -> None:
    x = torch.randn(4, 6, 5)
    audit(lambda: x[1].t().as_strided((2, 3), (1, 5)), covers="as_strided")
    audit(lambda: x[1:3].as_strided((2, 3), (30, 5), 32), covers="as_strided")
    outside = audit(lambda: x[1:3].as_strided((2, 3), (30, 5), 0), covers=[])
    assert outside.opaque, "a place that self does not show is no element of it"


def test_reads_again_what_another_view_wrote() -> None:
    def run() -> torch.Tensor:
        x = torch.zeros(4, 6)
        x[1].add_(1.0)  # a row
        x[:, 2].add_(2.0)  # a column
        x[1:3, ::2].mul_(3.0)  # a box with a step
        y = x.view(-1)
        y[5:20].add_(1.0)  # across rows
        return x + y.view(4, 6)

    seen = audit(run, covers="openheart.reread.default")
    assert seen.operators.count("openheart.reread.default") >= 4


@pytest.mark.parametrize(
    ("shape", "to", "shown"),
    [((2, 3, 4), (2, 12), "keeps"), ((2, 12), (2, 3, 4), "keeps"), ((6, 4), (6, 2, 2), "keeps")],
)
def test_reshape_keeps_the_dimensions_it_can(shape, to, shown) -> None:
    at = tuple(Index(name, size) for name, size in zip("ijk", to, strict=False))
    assert reshaped(at, to, shape)[0] is at[0], shown


def test_a_view_is_one_reference() -> None:
    with recording() as run:
        torch.randn(4, 6).view(2, 12).t()[1:].expand(2, 11, 2)
    for call in run.calls[1:]:
        law = law_of(call)
        assert law is not None
        assert isinstance(law.expr, Ref)


def test_regions_of_one_memory_against_pytorch() -> None:
    """Where two random views of one memory meet, for many shapes, strides and offsets."""
    chooser = torch.Generator().manual_seed(5)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=chooser))

    for _ in range(300):
        x = torch.randn(pick(2, 5), pick(2, 5), pick(2, 5))
        inner, outer = pick(1, 4), pick(1, 4)
        stride = (inner * (outer + 2) + pick(0, 9), inner)
        size = (pick(1, 4), outer)
        reach = 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if reach <= x.numel():
            offset = pick(0, x.numel() - reach + 1)
            audit(
                lambda x=x, size=size, stride=stride, o=offset: x.as_strided_scatter(
                    torch.randn(size), size, stride, o
                ),
                covers="as_strided_scatter",
            )


def test_in_place() -> None:
    x = torch.randn(4, 6, 5)
    audit(lambda: x.clone().as_strided_((3, 4), (5, 1), 7), covers="as_strided_")
    audit(lambda: x.clone().tril_(1), covers="tril_")
    audit(lambda: x.clone().triu_(-1), covers="triu_")
    audit(lambda: x[:1].clone().squeeze_(), covers="squeeze_")


def test_lazy_conjugates_and_negatives() -> None:
    for dtype in (torch.complex64, torch.complex128):
        x = torch.randn(4, 5, dtype=dtype)
        audit(lambda x=x: x.conj(), covers="_conj")
        audit(lambda x=x: x.conj().imag * 2, covers="_neg_view")
        audit(lambda x=x: (x.mH @ x, x.conj()[1] + x[1], x.conj().resolve_conj()), covers="_conj")
        audit(lambda x=x: (torch._conj_copy(x), torch._neg_view_copy(x)))
        audit(gradients(lambda a, b: a * b, x, x.clone()), covers="_conj")
        audit(gradients(lambda a, b: a @ b.mT, x, x.clone()), covers="_conj")


TYPES = [
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
]


@pytest.mark.parametrize("source", [torch.bool, *TYPES], ids=str)
def test_the_same_bits_read_as_another_type(source: torch.dtype) -> None:
    # every pattern of bits, those of NaNs that signal among them
    drawn = torch.randint(0, 256, (3, 16 * source.itemsize), generator=torch.Generator().manual_seed(4))
    held = (drawn % 2 if source == torch.bool else drawn).to(torch.uint8).view(source)
    for target in TYPES:
        covers = "view.dtype" if source != target else []
        audit(lambda t=target: held.view(t), covers=covers)
        if source.itemsize == target.itemsize:
            audit(lambda t=target: (held[0, 0].view(t), held.t().view(t)), covers=covers)
