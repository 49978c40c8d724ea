"""Prompts through text encoders that are trained: token ids -> states inside the graph.

As the stock pipelines' ``encode_prompt`` does it, which takes words and cannot be given token ids.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from orchard.bases.pipeline import Pipeline

Text = dict[str, Tensor]
"""Text states or token ids by name, (P, ...) of P prompts or (B, ...) of B images each."""
TOKENS = "_tokens"
"""How the names of token ids end."""


def tokens(pipe: Pipeline, places: Sequence[str], prompts: Sequence[str]) -> Text:
    """P prompts -> (P, L) token ids for each text encoder, under its place in the pipeline and `TOKENS`."""
    return {
        f"{place}{TOKENS}": _tokenise(getattr(pipe, place.replace("text_encoder", "tokenizer")), prompts)
        for place in places
    }


def _tokenise(tokenizer: Any, prompts: Sequence[str]) -> Tensor:
    length = tokenizer.model_max_length
    options = {"padding": "max_length", "max_length": length, "truncation": True, "return_tensors": "pt"}
    return tokenizer(list(prompts), **options).input_ids


def each_once(text: Text) -> tuple[Text, Tensor]:
    """(B, L) token ids of B images -> those of the prompts that differ, and (B,) which is whose.

    The images of a class share a prompt, and encoding it once costs a fraction of the step.
    """
    ids = {name: value for name, value in text.items() if name.endswith(TOKENS)}
    rows, whose = torch.cat(list(ids.values()), dim=1).unique(dim=0, return_inverse=True)
    parts = rows.split([value.shape[1] for value in ids.values()], dim=1)
    return dict(zip(ids, parts, strict=True)), whose


def last(pipe: Pipeline, ids: Text) -> Tensor:
    """States of SD 1 and 2: what their one encoder ends with, (P, L, D)."""
    return pipe.text_encoder(ids[f"text_encoder{TOKENS}"])[0]


def penultimate(pipe: Pipeline, ids: Text) -> tuple[Tensor, list[Tensor]]:
    """Joint states of two CLIP encoders before their last layers, (P, L, D), and what each ends with."""
    outputs = [
        getattr(pipe, name.removesuffix(TOKENS))(value, output_hidden_states=True)
        for name, value in ids.items()
    ]
    return torch.cat([said.hidden_states[-2] for said in outputs], dim=-1), [said[0] for said in outputs]


def before_t5(clip: Tensor, whole: Tensor) -> Tensor:
    """SD 3's states (B, L + M, E): (B, L, D) of CLIP in place of CLIP's part of the ``whole``."""
    padded = F.pad(clip, (0, whole.shape[-1] - clip.shape[-1]))
    return torch.cat([padded, whole[:, clip.shape[1] :]], dim=1)


HOST = torch.device("cpu")


@contextmanager
def at(models: Sequence[Any], device: torch.device) -> Iterator[None]:
    """Have the models on ``device`` inside, and where they were after it, however it ends."""
    homes = [model.device for model in models]
    for model in models:
        model.to(device)
    try:
        yield
    finally:
        for model, home in zip(models, homes, strict=True):
            model.to(home)
