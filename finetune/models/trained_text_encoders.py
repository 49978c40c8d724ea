"""Prompts through text encoders that are trained: token ids -> embeddings inside the graph.

As the stock pipelines' ``encode_prompt`` does it, which takes words and cannot be given token ids.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.nn import functional as F

from orchard.bases import embeddings, prompt_embeds
from orchard.bases.pipeline import Pipeline

PromptTensors = dict[str, Tensor]
"""Prompt embeddings or token ids by name, (P, ...) of P prompts or (B, ...) of B images each."""
TOKENS = "_tokens"
"""How the names of token ids end."""


def tokenize(
    pipe: Pipeline,
    encoders: Sequence[str],
    prompts: Sequence[str],
    chunks: int,
    words: Mapping[str, int] = {},
) -> PromptTensors:
    """P prompts -> (P, chunks * L) token ids for each text encoder, under its name and `TOKENS`.

    ``words`` are those that `orchard.bases.embeddings.extend` will have put in.
    """
    tokenizers = {name: prompt_embeds.tokenizer_of(pipe, name) for name in encoders}
    spelled = [embeddings.spelled(prompt, words) for prompt in prompts]
    return {
        f"{name}{TOKENS}": prompt_embeds.token_ids(embeddings.with_words(tokenizer, words), spelled, chunks)
        for name, tokenizer in tokenizers.items()
    }


def unique_prompts(prompts: PromptTensors) -> tuple[PromptTensors, Tensor]:
    """(B, L) token ids of B images -> those of their P unique prompts, and (B,) the prompt of each image.

    The images of a class share a prompt, and encoding it once costs a fraction of the step.
    """
    ids = {name: value for name, value in prompts.items() if name.endswith(TOKENS)}
    rows, prompt_of = torch.cat(list(ids.values()), dim=1).unique(dim=0, return_inverse=True)
    parts = rows.split([value.shape[1] for value in ids.values()], dim=1)
    return dict(zip(ids, parts, strict=True)), prompt_of


def embeds(pipe: Pipeline, ids: PromptTensors, clip_skip: int) -> tuple[Tensor, list[Tensor]]:
    """As `prompt_embeds.from_tokens`, of `tokenize`."""
    named = {name.removesuffix(TOKENS): value for name, value in ids.items()}
    return prompt_embeds.from_tokens(pipe, named, clip_skip)


def replace_clip(clip: Tensor, joint: Tensor) -> Tensor:
    """SD 3's ``joint`` embeddings (B, L + M, E) of CLIP and T5, with (B, L, D) of CLIP for CLIP's part."""
    padded = F.pad(clip, (0, joint.shape[-1] - clip.shape[-1]))
    return torch.cat([padded, joint[:, clip.shape[1] :]], dim=1)


CPU = torch.device("cpu")


@contextmanager
def in_turn(models: Sequence[Any], device: torch.device) -> Iterator[None]:
    """Inside, each model that waits elsewhere is on ``device`` from when it is called until another one is.

    Afterwards they are where they were, however it ends: no two of them take memory of the device at once.
    """
    waiting = [(model, model.device) for model in models if model.device != device]

    def enter(called: Any, args: Any, kwargs: Any) -> Any:
        for model, before in waiting:
            model.to(device if model is called else before)
        return send_to_device((args, kwargs), device)

    hooks = [model.register_forward_pre_hook(enter, with_kwargs=True) for model, _ in waiting]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for model, before in waiting:
            model.to(before)
