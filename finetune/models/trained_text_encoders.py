"""Prompts through text encoders that are trained: token ids -> embeddings inside the graph.

As the stock pipelines' ``encode_prompt`` does it, which takes words and cannot be given token ids.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from orchard.bases import embeddings
from orchard.bases.pipeline import Pipeline

PromptTensors = dict[str, Tensor]
"""Prompt embeddings or token ids by name, (P, ...) of P prompts or (B, ...) of B images each."""
TOKENS = "_tokens"
"""How the names of token ids end."""


def tokenize(
    pipe: Pipeline, encoders: Sequence[str], prompts: Sequence[str], words: Mapping[str, int] = {}
) -> PromptTensors:
    """P prompts -> (P, L) token ids for each text encoder, under its name and `TOKENS`.

    ``words`` are those that `orchard.bases.embeddings.extend` will have put in.
    """
    tokenizers = {name: getattr(pipe, name.replace("text_encoder", "tokenizer")) for name in encoders}
    spelled = [embeddings.spelled(prompt, words) for prompt in prompts]
    return {
        f"{name}{TOKENS}": _token_ids(embeddings.with_words(tokenizer, words), spelled)
        for name, tokenizer in tokenizers.items()
    }


def _token_ids(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    length = tokenizer.model_max_length
    options = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
    return tokenizer(list(prompts), **options).input_ids


def unique_prompts(prompts: PromptTensors) -> tuple[PromptTensors, Tensor]:
    """(B, L) token ids of B images -> those of their P unique prompts, and (B,) the prompt of each image.

    The images of a class share a prompt, and encoding it once costs a fraction of the step.
    """
    ids = {name: value for name, value in prompts.items() if name.endswith(TOKENS)}
    rows, prompt_of = torch.cat(list(ids.values()), dim=1).unique(dim=0, return_inverse=True)
    parts = rows.split([value.shape[1] for value in ids.values()], dim=1)
    return dict(zip(ids, parts, strict=True)), prompt_of


def last_hidden_state(pipe: Pipeline, ids: PromptTensors) -> Tensor:
    """Embeddings of SD 1 and 2: the last hidden state of their one encoder, (P, L, D)."""
    return pipe.text_encoder(ids[f"text_encoder{TOKENS}"])[0]


def penultimate(pipe: Pipeline, ids: PromptTensors) -> tuple[Tensor, list[Tensor]]:
    """The joined penultimate hidden states of two CLIP encoders, (P, L, D), and the first output of each."""
    outputs = [
        getattr(pipe, name.removesuffix(TOKENS))(value, output_hidden_states=True)
        for name, value in ids.items()
    ]
    return torch.cat([one.hidden_states[-2] for one in outputs], dim=-1), [one[0] for one in outputs]


def replace_clip(clip: Tensor, joint: Tensor) -> Tensor:
    """SD 3's ``joint`` embeddings (B, L + M, E) of CLIP and T5, with (B, L, D) of CLIP for CLIP's part."""
    padded = F.pad(clip, (0, joint.shape[-1] - clip.shape[-1]))
    return torch.cat([padded, joint[:, clip.shape[1] :]], dim=1)


CPU = torch.device("cpu")


@contextmanager
def on_device(models: Sequence[Any], device: torch.device) -> Iterator[None]:
    """Inside, the models are on ``device``; afterwards where they were, however it ends."""
    before = [model.device for model in models]
    for model in models:
        model.to(device)
    try:
        yield
    finally:
        for model, device in zip(models, before, strict=True):
            model.to(device)
