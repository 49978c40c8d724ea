"""Prompts through a pipeline's text encoders, for training and for sampling alike."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

STATES = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)
"""What a stock pipeline's ``encode_prompt`` returns, in order; SD 1 and 2 have the first two alone."""


@torch.no_grad()
def encode(pipe: Any, prompts: Sequence[str], *, negative: bool) -> dict[str, Tensor]:
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
