"""Samples for previews and prior preservation, through the stock pipeline with its own scheduler."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from PIL import Image

from orchard.bases.pipeline import Pipeline

STEPS, GUIDANCE = 20, 3.0


@torch.no_grad()
def sample(
    pipe: Pipeline,
    prompt: str,
    seeds: Iterable[int],
    output_type: str = "pil",
    after_step: Callable[[], None] = lambda: None,
) -> Sequence[Any]:
    """One image of ``prompt`` per seed, in one batch; ``latent`` gives a tensor (N, C, h, w).

    A base that inpaints draws all of it.

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
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type=output_type,
        callback_on_step_end=callback,
        **_all_masked(pipe, len(generators)),
    ).images


def _all_masked(pipe: Pipeline, count: int) -> dict[str, Any]:
    """What the pipelines that inpaint are called with besides, so that they keep nothing."""
    if not hasattr(pipe, "mask_processor"):
        return {}
    # The pipeline resizes it.
    white = [Image.new("RGB", (64, 64), "white")] * count
    return {"image": white, "mask_image": white, "strength": 1.0}
