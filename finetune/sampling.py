"""Samples for a look or as training material, through the stock pipeline with its own scheduler."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch

STEPS, GUIDANCE = 20, 3.0


@torch.no_grad()
def sample(pipe: Any, prompt: str, seeds: Iterable[int], output_type: str = "pil") -> Sequence[Any]:
    """One image of ``prompt`` a seed, in one batch; ``latent`` gives a tensor (N, C, h, w)."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(
        [prompt] * len(generators),
        generator=generators,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type=output_type,
        callback_on_step_end=_in_the_precision_of_the_pipeline,
    ).images


def _in_the_precision_of_the_pipeline(
    pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A network in training answers in float32, which the autoencoder of a bfloat16 pipeline would refuse."""
    return {"latents": tensors["latents"].to(pipe.vae.dtype)}
