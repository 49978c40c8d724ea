"""Prompts through a pipeline's text encoders, for training and for sampling alike."""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from orchard.bases import bases
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES, T5
from orchard.bases.pipeline import Pipeline

STATES = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)
"""What a stock pipeline's ``encode_prompt`` returns, in order; SD 1 and 2 have the first two alone."""
T5_TOKENS = 256
"""What the stock SD 3 pipeline passes to its third encoder."""


@torch.no_grad()
def encode(pipe: Pipeline, prompts: Sequence[str], *, negative: bool) -> dict[str, Tensor]:
    """P prompts -> text states, each (P, ...), under the names the pipeline's call takes them by.

    ``negative`` adds the states of the empty prompt that guidance leads away from. Prompts that are too
    long are cut off, as by the pipeline itself.
    """
    # SD 3 asks for the prompts of its other encoders; None stands for the first one's.
    others = {"prompt_2": None, "prompt_3": None} if hasattr(pipe, "text_encoder_3") else {}
    states = pipe.encode_prompt(
        prompt=list(prompts),
        # Of weights that are kept off the GPU, `device` would tell where they wait.
        device=pipe._execution_device,
        num_images_per_prompt=1,
        do_classifier_free_guidance=negative,
        **others,
    )
    return {name: state for name, state in zip(STATES, states, strict=False) if state is not None}


def cut(base: Base, prompts: Iterable[str]) -> dict[str, str]:
    """Prompt -> the words at its end that no text encoder of the base would see; only such prompts.

    Found with the tokenizers alone.
    """
    found = {
        prompt: min((_unread(prompt, *reader) for reader in _readers(base)), key=len) for prompt in prompts
    }
    return {prompt: words for prompt, words in found.items() if words}


@functools.cache
def _readers(base: Base) -> tuple[tuple[Any, int], ...]:
    """Each tokenizer and the tokens that its encoder reads, marks of start and end included."""
    import transformers

    found, index = [], bases.index(base)
    for encoder in FAMILIES[base.family].text_encoders:
        part = encoder.replace("text_encoder", "tokenizer")
        kind = (index.get(part) or [None, None])[1]
        if kind is not None:
            tokenizer = getattr(transformers, kind).from_pretrained(base.folder / part, local_files_only=True)
            found.append((tokenizer, T5_TOKENS if encoder == T5 else tokenizer.model_max_length))
    return tuple(found)


def _unread(prompt: str, tokenizer: Any, most: int) -> str:
    """The words from the first one of which a token is left out."""
    # Told to be silent, since what it would warn of is what is looked for here.
    options = {"return_offsets_mapping": True, "add_special_tokens": False, "verbose": False}
    spans = tokenizer(prompt, **options)["offset_mapping"]
    room = most - tokenizer.num_special_tokens_to_add()
    if len(spans) <= room:
        return ""
    end = spans[room - 1][1]
    lost = (prompt[word.start() :] for word in re.finditer(r"\S+", prompt) if word.end() > end)
    return next(lost, "")
