"""Words that a pipeline's text encoders do not know, each a few vectors of their own (textual inversion).

Gal et al. 2022. As stock diffusers loads them: a word of N vectors is N tokens, ``<apple>``, ``<apple>_1``
and so on, and stands in a prompt as ``<apple>``.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from orchard.bases.pipeline import Pipeline

ENCODERS = ("text_encoder", "text_encoder_2")
"""The text encoders that can learn words: CLIP's."""
PLAIN = "plain"
"""Attribute of a tokenizer with further words: the one without."""

Vectors = Mapping[str, Mapping[str, Tensor]]
"""Text encoder -> word -> (N, D)."""


class ExtendedEmbedding(nn.Module):
    """Token embeddings with further rows from ``first`` on, which can learn while the others stay."""

    def __init__(self, plain: Any, rows: Tensor, first: int) -> None:
        super().__init__()
        # In this order: transformers takes the type of the first parameter for the encoder's.
        self.plain = plain
        self.learned = nn.Embedding.from_pretrained(rows, freeze=True)
        self.first = first

    @property
    def weight(self) -> Tensor:
        """The rows that were there before."""
        return self.plain.weight

    def forward(self, ids: Tensor) -> Tensor:
        """(B, L) token ids -> (B, L, D)."""
        new = ids >= self.first
        known = self.plain(ids.masked_fill(new, 0))
        learned = self.learned((ids - self.first).clamp(min=0)).to(known.dtype)
        return torch.where(new[..., None], learned, known)


def tokens(word: str, vectors: int) -> list[str]:
    """The tokens that a word of so many vectors is."""
    return [word, *(f"{word}_{place}" for place in range(1, vectors))]


def spelled(prompt: str, words: Mapping[str, int]) -> str:
    """The prompt with all tokens of each word, which maps to its number of vectors."""
    for word, vectors in words.items():
        prompt = prompt.replace(word, " ".join(tokens(word, vectors)))
    return prompt


def with_words(tokenizer: Any, words: Mapping[str, int]) -> Any:
    """A copy of the tokenizer that knows the words too; the same one where there are none."""
    plain = getattr(tokenizer, PLAIN, tokenizer)
    if not words:
        return plain
    extended = copy.deepcopy(plain)
    extended.add_tokens([token for word, vectors in words.items() for token in tokens(word, vectors)])
    setattr(extended, PLAIN, plain)
    return extended


def extend(pipe: Pipeline, vectors: Vectors) -> None:
    """Let the pipeline know words by their vectors, and no others."""
    restore(pipe)
    for name, of_words in vectors.items():
        counts = {word: len(rows) for word, rows in of_words.items()}
        encoder, part = getattr(pipe, name), name.replace("text_encoder", "tokenizer")
        tokenizer = with_words(getattr(pipe, part), counts)
        plain = encoder.get_input_embeddings()
        rows = torch.cat(list(of_words.values())).to(plain.weight.device)
        first = tokenizer.convert_tokens_to_ids(next(iter(counts)))
        encoder.set_input_embeddings(ExtendedEmbedding(plain, rows, first))
        setattr(pipe, part, tokenizer)


def restore(pipe: Pipeline) -> None:
    """Take the words out again."""
    for name in ENCODERS:
        encoder: Any = getattr(pipe, name, None)
        part = name.replace("text_encoder", "tokenizer")
        layer = encoder.get_input_embeddings() if encoder is not None else None
        if isinstance(layer, ExtendedEmbedding):
            encoder.set_input_embeddings(layer.plain)
            setattr(pipe, part, with_words(getattr(pipe, part), {}))


def vectors_of(pipe: Pipeline, words: Mapping[str, int]) -> dict[str, dict[str, Tensor]]:
    """The vectors of the words that `extend` has put in, float32 on the CPU, as `Vectors` has them."""
    found = {}
    for name in ENCODERS:
        encoder = getattr(pipe, name, None)
        layer = encoder.get_input_embeddings() if encoder is not None else None
        if isinstance(layer, ExtendedEmbedding):
            rows = layer.learned.weight.detach().float().cpu().split(list(words.values()))
            found[name] = {word: part.clone() for word, part in zip(words, rows, strict=True)}
    return found


def start(pipe: Pipeline, text: str, vectors: int) -> dict[str, Tensor]:
    """Text encoder -> (N, D) float32 vectors to start from: those of the tokens of ``text``.

    Where they are more than N, neighbours are averaged; where they are fewer, they come again in turn.
    """
    return {
        name: _start(
            getattr(pipe, name), getattr(pipe, name.replace("text_encoder", "tokenizer")), text, vectors
        )
        for name in ENCODERS
        if getattr(pipe, name, None) is not None
    }


def _start(encoder: Any, tokenizer: Any, text: str, vectors: int) -> Tensor:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    embedding = encoder.get_input_embeddings()
    rows = embedding.weight.detach()[torch.tensor(ids, device=embedding.weight.device)].float()
    if len(rows) < vectors:
        return rows[torch.arange(vectors, device=rows.device) % len(rows)]
    return torch.stack([part.mean(0) for part in torch.tensor_split(rows, vectors)])
