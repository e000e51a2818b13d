"""Convolutions of one to three spatial axes and their gradients, against PyTorch."""

import pytest
import torch
from tests.rules.harness import audit, gradients
from torch.nn import functional as F

from openheart.formula.expr import Reduce, walk
from openheart.record import recording
from openheart.rules.registry import law_of

BOTH = ("convolution", "convolution_backward")
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# (input, weight, with bias, options) of F.conv1d, F.conv2d, F.conv3d
PLAIN = [
    ((2, 4, 11), (6, 4, 3), True, {"stride": 2, "padding": 3, "dilation": 2}),
    ((2, 4, 9, 8), (6, 4, 3, 2), True, {}),
    ((2, 4, 9, 8), (6, 4, 3, 2), False, {"stride": (2, 3), "padding": (1, 2), "dilation": (2, 1)}),
    ((2, 4, 9, 8), (6, 2, 3, 2), True, {"stride": 2, "padding": 1, "groups": 2}),
    ((2, 4, 9, 8), (8, 1, 3, 3), False, {"padding": 1, "groups": 4}),
    ((1, 4, 5, 5), (3, 4, 1, 1), True, {}),
    ((2, 3, 5, 6, 7), (4, 3, 3, 2, 3), True, {"stride": 2, "padding": 1}),
]
TRANSPOSED = [
    ((2, 4, 7), (4, 3, 3), True, {"stride": 2, "padding": 1, "output_padding": 1}),
    (
        (2, 4, 7, 5),
        (4, 3, 3, 2),
        False,
        {"stride": (2, 3), "padding": 1, "output_padding": (1, 0), "dilation": 2},
    ),
    ((2, 4, 7, 5), (4, 3, 3, 2), True, {"stride": 2, "groups": 2}),
    ((1, 4, 3, 4, 5), (4, 2, 3, 3, 3), True, {"stride": 2, "padding": 1}),
]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def inputs(x, w, bias, channels, dtype):
    made = [torch.randn(x).to(dtype), torch.randn(w).to(dtype)]
    return [*made, torch.randn(channels).to(dtype)] if bias else made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("x", "w", "bias", "options"), PLAIN)
def test_convolution(x, w, bias, options, dtype):
    function = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}[len(x)]
    given = inputs(x, w, bias, w[0], dtype)
    seen = audit(gradients(lambda *a: function(*a, **options), *given), covers=BOTH)
    assert seen.worst <= 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("x", "w", "bias", "options"), TRANSPOSED)
def test_transposed_convolution(x, w, bias, options, dtype):
    function = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[len(x)]
    given = inputs(x, w, bias, w[1] * options.get("groups", 1), dtype)
    audit(gradients(lambda *a: function(*a, **options), *given), covers=BOTH)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_layouts_and_missing_batch(layout):
    x, w = torch.randn(2, 16, 9, 9).to(memory_format=layout), torch.randn(24, 16, 3, 3)
    audit(gradients(lambda a, b: F.conv2d(a, b, padding=1), x, w), covers=BOTH)
    audit(gradients(lambda a, b: F.conv2d(a, b, padding="same"), x[0], w), covers=BOTH)


def test_padding_that_reaches_beyond_the_input():
    audit(
        gradients(lambda a, b: F.conv2d(a, b, padding=4), torch.randn(1, 2, 2, 3), torch.randn(2, 2, 3, 3)),
        covers=BOTH,
    )


def test_gradients_that_nobody_asked_for_have_no_output():
    x, w = torch.randn(1, 2, 5, 5), torch.randn(2, 2, 3, 3, requires_grad=True)
    seen = audit(lambda: F.conv2d(x, w).sum().backward(), covers=BOTH)
    assert [n for call, n, _ in seen.checks if "backward" in str(call.op)] == [0]


def test_a_large_layer_goes_through_matrix_products():
    x, w = torch.randn(2, 40, 19, 18), torch.randn(80, 40, 3, 3)
    seen = audit(gradients(lambda a, b: F.conv2d(a, b, padding=1), x, w), covers=BOTH)
    assert seen.worst < 0.1


def test_windows_written_as_text_books_do():
    with recording() as run:
        F.conv2d(torch.zeros(1, 2, 5, 5), torch.zeros(3, 2, 3, 3), torch.zeros(3))
    law = law_of(next(call for call in run.calls if "convolution" in str(call.op)))
    (window,) = [part for part in walk(law.expr) if isinstance(part, Reduce)]
    assert [i.name for i in window.over] == ["c", "u", "v"]
    assert window.where is None, "a window that cannot leave the input has no condition"
