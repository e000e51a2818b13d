"""A GPT of two blocks that has read one chapter, the first of Don Quijote, and guesses its next character."""

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from openheart.patients.anatomy import DATA, Patient, Split, told

CONTEXT = 32
WIDTH = 32
HEADS = 4


@cache
def chapter() -> str:
    """The text, as Cervantes had it printed in 1605 in modern spelling."""
    return (DATA / "quijote.txt").read_text(encoding="utf-8")


@cache
def alphabet() -> tuple[str, ...]:
    """Every character of the chapter once, in code point order; a token is a place in it."""
    return tuple(sorted(set(chapter())))


def encode(text: str) -> Tensor:
    """The tokens of a text, (characters,) int64."""
    place = {character: token for token, character in enumerate(alphabet())}
    return torch.tensor([place[character] for character in text])


def decode(tokens: Tensor) -> str:
    """The text of tokens of shape (characters,)."""
    return "".join(alphabet()[token] for token in tokens.tolist())


def windows(text: str, stride: int) -> Split:
    """Contexts (n, 32) and the same shifted by one character, which is what each position is to guess."""
    pieces = encode(text).unfold(0, CONTEXT + 1, stride)
    return pieces[:, :-1].contiguous(), pieces[:, 1:].contiguous()


@cache
def pages() -> dict[str, Split]:
    """Nine tenths to train on, in overlapping windows, and the last tenth to test on, in separate ones."""
    text = chapter()
    cut = len(text) * 9 // 10
    return {"train": windows(text[:cut], 4), "test": windows(text[cut:], CONTEXT)}


def first_words() -> Split:
    """«En un lugar de la Mancha, de cuyo nombre no quiero acordarme, …»: two windows, (2, 32) each."""
    return windows(chapter()[: 2 * CONTEXT + 1], CONTEXT)


class Attention(nn.Module):
    """Causal self-attention: softmax(q kᵀ / √d + mask) v, each position sees itself and what came before."""

    def __init__(self) -> None:
        super().__init__()
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.projection = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(samples, positions, width) to the same shape."""
        samples, positions, width = x.shape
        heads = self.query_key_value(x).view(samples, positions, 3, HEADS, width // HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.projection(mixed.transpose(1, 2).reshape(samples, positions, width))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): pre-norm, as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.mlp_norm = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(samples, positions, width) to the same shape."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


class TinyGPT(nn.Module):
    """Embedding of characters and positions, two blocks, layer norm, and one logit per character."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.token = nn.Embedding(characters, WIDTH)
        self.position = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(Block(), Block())
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, characters, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (samples, positions ≤ 32) int64 to logits (samples, positions, characters)."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.token(tokens) + self.position(positions))))


class NextCharacter(nn.Module):
    """Cross-entropy averaged over all positions of all samples."""

    def forward(self, logits: Tensor, following: Tensor) -> Tensor:
        """Logits (samples, positions, characters) and tokens (samples, positions) to a scalar."""
        return F.cross_entropy(logits.flatten(0, 1), following.flatten())


PATIENTS = (
    Patient(
        name="tiny-gpt",
        story=told(
            es="Una GPT que leyó el primer capítulo del Quijote y predice el carácter que sigue.",
            en="A GPT that has read the first chapter of Don Quijote and predicts the next character.",
        ),
        network=lambda: TinyGPT(len(alphabet())),
        samples=first_words,
        loss=NextCharacter,
        optimizer=lambda parameters: torch.optim.AdamW(
            parameters, lr=0.005, betas=(0.9, 0.95), weight_decay=0.1
        ),
        seed=5,
        trained=True,
        labels=alphabet(),
        splits=pages,
    ),
)
