"""Samples for previews and prior preservation, through the stock pipeline with its own scheduler."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from orchard.bases import usual
from orchard.bases.bases import Base
from orchard.bases.pipeline import Pipeline

STEPS, GUIDANCE = 20, 3.0


def settings(base: Base) -> tuple[int, float]:
    """Steps and guidance scale; of a base distilled to few steps its own."""
    found = usual.sampling(base)
    return (STEPS, GUIDANCE) if found.guidance is None else (found.steps, found.guidance)


@torch.no_grad()
def sample(
    pipe: Pipeline,
    prompt: str,
    seeds: Iterable[int],
    settings: tuple[int, float] = (STEPS, GUIDANCE),
    output_type: str = "pil",
    after_step: Callable[[], None] = lambda: None,
) -> Sequence[Any]:
    """One image of ``prompt`` per seed, in one batch; ``latent`` gives a tensor (N, C, h, w).

    ``settings`` are the base's steps and guidance scale.
    ``after_step`` is called after every denoising step; it may raise to stop.
    """

    def callback(pipe: Pipeline, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> Any:
        after_step()
        # A network in training answers in float32, which a bfloat16 pipeline's autoencoder would refuse.
        return {"latents": tensors["latents"].to(pipe.vae.dtype)}

    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return pipe(
        [prompt] * len(generators),
        generator=generators,
        num_inference_steps=settings[0],
        guidance_scale=settings[1],
        output_type=output_type,
        callback_on_step_end=callback,
    ).images
