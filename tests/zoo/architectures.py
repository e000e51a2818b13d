"""Networks of the field, built small from `transformers`' config classes with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Inputs = dict[str, torch.Tensor]
WORDS = 96


def _tokens(length: int = 10) -> torch.Tensor:
    return torch.randint(3, WORDS, (2, length), generator=torch.Generator().manual_seed(0))


def _image(side: int = 32) -> Inputs:
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    return {"pixel_values": pixels, "labels": torch.tensor([0, 1])}


def _language() -> Inputs:
    return {"input_ids": _tokens(), "labels": _tokens()}


def gpt2() -> tuple[torch.nn.Module, Inputs]:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=WORDS, n_embd=32, n_layer=2, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=1
    )
    return GPT2LMHeadModel(config), _language()


def bert() -> tuple[torch.nn.Module, Inputs]:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    mask = torch.ones(2, 10, dtype=torch.int64)
    mask[1, 7:] = 0
    return BertForSequenceClassification(config), {
        "input_ids": _tokens(),
        "attention_mask": mask,
        "labels": torch.tensor([0, 1]),
    }


def llama() -> tuple[torch.nn.Module, Inputs]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
    )
    return LlamaForCausalLM(config), _language()


def t5() -> tuple[torch.nn.Module, Inputs]:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=WORDS, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return T5ForConditionalGeneration(config), _language()


def resnet() -> tuple[torch.nn.Module, Inputs]:
    from transformers import ResNetConfig, ResNetForImageClassification

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=2, layer_type="bottleneck"
    )
    return ResNetForImageClassification(config), _image()


def convnext() -> tuple[torch.nn.Module, Inputs]:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(
        hidden_sizes=[8, 16], depths=[1, 1], num_labels=2, num_stages=2, drop_path_rate=0.1
    )
    return ConvNextForImageClassification(config), _image()


def vit() -> tuple[torch.nn.Module, Inputs]:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=2,
    )
    return ViTForImageClassification(config), _image()


def swin() -> tuple[torch.nn.Module, Inputs]:
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, num_labels=2
    )
    return SwinForImageClassification(config), _image()


def mixtral() -> tuple[torch.nn.Module, Inputs]:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    return MixtralForCausalLM(config), _language()


def mamba() -> tuple[torch.nn.Module, Inputs]:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(vocab_size=WORDS, hidden_size=16, num_hidden_layers=2, state_size=4)
    return MambaForCausalLM(config), _language()


ARCHITECTURES: dict[str, Callable[[], tuple[torch.nn.Module, Inputs]]] = {
    made.__name__: made for made in (gpt2, bert, llama, t5, resnet, convnext, vit, swin, mixtral, mamba)
}


def train_step(name: str, change: Callable[[torch.nn.Module, Any, Any], None] | None = None) -> Any:
    """A recording of one training step: forward, backward and AdamW; `change` is made before it.

    It starts from the same weights and the same random draws every time.
    """
    import openheart as oh

    torch.manual_seed(0)
    model, inputs = ARCHITECTURES[name]()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters())
    if change is not None:
        change(model, inputs, optimizer)
    with oh.recording(model) as recording:
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
    return recording
