"""Samples for previews and prior preservation, through the stock pipeline with its own scheduler."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from PIL import Image

from finetune.models.family import Family
from finetune.models.trained_text_encoders import in_turn
from orchard.bases import prompt_embeds, usual
from orchard.bases.bases import Base
from orchard.bases.pipeline import Pipeline, call_options
from orchard.bases.prompt_embeds import STOCK, Reading


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How samples are made."""

    steps: int = 20
    guidance: float = 3.0
    reading: Reading = STOCK
    """How the prompt is read."""

    @classmethod
    def of(cls, base: Base, prompt: str, clip_skip: int, words: Mapping[str, int] = {}) -> Self:
        """Those for a prompt; of a base distilled to few steps its own steps and guidance scale.

        ``words`` as in `prompt_embeds.chunks`.
        """
        reading = Reading(clip_skip=clip_skip, chunks=prompt_embeds.chunks(base, [prompt], words))
        found = usual.sampling(base)
        if found.guidance is None:
            return cls(reading=reading)
        return cls(steps=found.steps, guidance=found.guidance, reading=reading)


@torch.no_grad()
def sample(
    family: Family,
    prompt: str,
    seeds: Iterable[int],
    settings: Settings = Settings(),
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

    pipe = family.pipe
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    with in_turn(family.all_text_encoders, pipe.device):
        states = prompt_embeds.encode(
            pipe, [prompt] * len(generators), negative=True, reading=settings.reading
        )
    return pipe(
        **states,
        generator=generators,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        output_type=output_type,
        callback_on_step_end=callback,
        **call_options(pipe),
        **_all_masked(pipe, len(generators)),
    ).images


def _all_masked(pipe: Pipeline, count: int) -> dict[str, Any]:
    """What the pipelines that inpaint are called with besides, so that they keep nothing."""
    if not hasattr(pipe, "mask_processor"):
        return {}
    # The pipeline resizes it.
    white = [Image.new("RGB", (64, 64), "white")] * count
    return {"image": white, "mask_image": white, "strength": 1.0}
