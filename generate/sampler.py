"""Rows -> images through the stock pipeline, lazily; one generator an image, every batch full."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from PIL import Image

from generate.plan import Row, batches
from orchard.errors import UserError

SCHEDULERS = {
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
}


class Sampler:
    """A pipeline with its scheduler set, and the text states of each prompt encoded once."""

    def __init__(self, pipe: Any, *, scheduler: str, steps: int, guidance: float, batch_size: int) -> None:
        self.pipe, self.steps, self.guidance, self.batch_size = pipe, steps, guidance, batch_size
        self.states: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        if scheduler != "base":
            import diffusers

            kind = getattr(diffusers, SCHEDULERS[scheduler])
            pipe.scheduler = kind.from_config(pipe.scheduler.config)

    def sample(self, rows: Sequence[Row], prompt: str) -> Iterator[Image.Image]:
        """One image a row, in order."""
        for block in batches(rows, self.batch_size):
            yield from self._batch(block, prompt)

    @torch.no_grad()
    def _batch(self, rows: Sequence[Row], prompt: str) -> list[Image.Image]:
        # Short batches are filled up with their last row: equal shapes give equal pixels.
        filled = [*rows, *[rows[-1]] * (self.batch_size - len(rows))]
        wanted, empty = self._encode(prompt)
        images = self.pipe(
            prompt_embeds=wanted.expand(len(filled), -1, -1),
            negative_prompt_embeds=empty.expand(len(filled), -1, -1),
            generator=[torch.Generator().manual_seed(row.seed) for row in filled],
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
        ).images[: len(rows)]
        for row, image in zip(rows, images, strict=True):
            if image.getextrema() == ((0, 0),) * 3:
                raise UserError(
                    f"{row.label} image {row.index} came out all black; try --precision fp32 "
                    "or another --scheduler"
                )
        return images

    def _encode(self, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
        if prompt not in self.states:
            self.states[prompt] = self.pipe.encode_prompt(
                prompt, self.pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=True
            )
        return self.states[prompt]
