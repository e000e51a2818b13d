"""A training step of the field's networks, run again: as it was, with a weight or an output changed."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")

from tests.surgery.bench import Change, differing, hook, put, weight
from tests.zoo.architectures import ARCHITECTURES, train_step

import openheart as oh
from openheart.surgery.program import same_bits

# network → a parameter near its beginning, a module in its middle, each with an index into its numbers
WEIGHTS = {
    "gpt2": ("transformer.h.0.attn.c_attn.weight", (7, 63)),
    "bert": ("bert.encoder.layer.0.attention.self.key.weight", (27, 0)),
    "llama": ("model.layers.0.self_attn.v_proj.weight", (0, 28)),
    "t5": ("encoder.block.0.layer.0.SelfAttention.o.weight", (31, 1)),
    "resnet": ("resnet.encoder.stages.0.layers.0.layer.0.convolution.weight", (1, 4, 0, 0)),
    "convnext": ("convnext.embeddings.layernorm.weight", (0,)),
    "vit": ("vit.layers.0.attention.q_proj.weight", (6, 31)),
    "swin": ("swin.encoder.layers.0.blocks.0.mlp.fc1.weight", (28, 7)),
    "mixtral": ("model.layers.0.self_attn.o_proj.weight", (28, 30)),
    "mamba": ("backbone.layers.0.mixer.conv1d.weight", (28, 0, 3)),
}
MODULES = {
    "gpt2": ("transformer.h.0.mlp", (..., 3)),
    "bert": ("bert.encoder.layer.0.intermediate.intermediate_act_fn", (..., 3)),
    "llama": ("model.layers.0.mlp.act_fn", (..., 3)),
    "t5": ("decoder.block.1.layer.1.dropout", (..., 3)),
    "resnet": ("resnet.encoder.stages.1.layers.0.activation", (slice(None), 2)),
    "convnext": ("convnext.encoder.stages.1.downsampling_layer.0", (slice(None), 3)),
    "vit": ("vit.layers.1.mlp.fc1", (..., 3)),
    "swin": ("swin.encoder.layers.0.downsample.norm", (..., 3)),
    "mixtral": ("model.layers.0.input_layernorm", (..., 3)),
    "mamba": ("backbone.layers.0.mixer.x_proj", (..., 3)),
}
# Their numbers are a draw, which a replay keeps, or what nobody has written yet.
NOT_COMPUTED = ("empty", "new_empty", "bernoulli", "rand")
QUICK = ("gpt2", "mamba", "swin")


EVERYWHERE = [pytest.param(name, marks=() if name in QUICK else pytest.mark.zoo) for name in ARCHITECTURES]
"""Those that are not quick run only where the zoo is asked for."""


@pytest.fixture(scope="module")
def recorded() -> dict[str, oh.Recording]:
    """The recordings, each made once."""
    return {}


def recording_of(name: str, recorded: dict[str, oh.Recording]) -> oh.Recording:
    if name not in recorded:
        recorded[name] = train_step(name)
    return recorded[name]


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_replay_gives_every_number_bit_for_bit(name: str, recorded: dict[str, oh.Recording]) -> None:
    recording = recording_of(name, recorded)
    again = recording.replay()
    compared, skipped = 0, 0
    for value, twin in zip(recording.values, again.values, strict=True):
        made = recording.maker(value)
        if made is None:
            assert twin is value
        elif made[0].name.startswith(NOT_COMPUTED) or not value.kept:
            skipped += 1
        else:
            compared += 1
            assert twin is not value, recording.name(value)
            assert same_bits(value.data, twin.data), recording.name(value)
    assert skipped < 0.1 * compared
    assert recording.addresses() == again.addresses()


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_weight_changed_gives_what_pytorch_gives(name: str, recorded: dict[str, oh.Recording]) -> None:
    path, index = WEIGHTS[name]
    recording = recording_of(name, recorded)
    edited = recording.intervene({f"{path}{_written(index)}": -0.5})
    agrees(recording, edited, train_step(name, weight(path, index, -0.5)))


@pytest.mark.parametrize("name", EVERYWHERE)
def test_an_output_changed_gives_what_a_hook_gives(name: str, recorded: dict[str, oh.Recording]) -> None:
    path, index = MODULES[name]
    recording = recording_of(name, recorded)
    edited = recording.intervene({f"{path}.out{_written(index)}": 0.25})
    change: Change = hook(path, put(index, 0.25))
    agrees(recording, edited, train_step(name, change))


def agrees(recording: oh.Recording, edited: oh.Recording, real: oh.Recording) -> None:
    """Loss, outputs, gradients and updates are PyTorch's, bit for bit, and not what they were."""
    assert differing(real, edited) == []
    changed = differing(real, recording)
    assert "loss" in changed
    assert any(name.endswith(".grad") for name in changed)
    assert any(name.endswith(".after") for name in changed)


def _written(index: tuple[object, ...]) -> str:
    parts = [str(part) if isinstance(part, int) else "..." if part is ... else ":" for part in index]
    return f"[{','.join(parts)}]"


def test_every_network_has_its_edits() -> None:
    assert set(WEIGHTS) == set(MODULES) == set(ARCHITECTURES)
