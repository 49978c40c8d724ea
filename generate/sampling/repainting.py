"""Photos through the stock inpainting pipelines; what is kept of them is pasted back, pixel for pixel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter

from generate.planning.plan import Row
from generate.planning.repainting import Canvas, Pass
from generate.sampling import decoder
from orchard.bases.pipeline import Pipeline
from orchard.images.images import square


@dataclass(frozen=True)
class Kept:
    """A photo that a pass of the pipeline repaints, and which part of it."""

    photo: Image.Image
    canvas: Canvas

    def pasted(self, sampled: Image.Image) -> Image.Image:
        """What the first pass sampled where it repaints, the photo elsewhere, both where it is feathered."""
        repainted = self.canvas.repainted(self.canvas.passes[0])
        opaque = Image.fromarray(repainted.astype(np.uint8) * 255)
        if self.canvas.feather:
            opaque = opaque.filter(ImageFilter.GaussianBlur(self.canvas.feather))
        return Image.composite(sampled, self.photo, opaque)


def repaint(
    pipe: Pipeline, call: Callable[..., torch.Tensor], rows: Sequence[Row]
) -> tuple[torch.Tensor, list[Kept]]:
    """B rows with photos -> (B, C, h, w) latents of the last pass, and what is kept of each photo after it.

    ``call`` is the pipeline with all but image, mask and strength. A second pass goes on from what the first
    one made; after it nothing is the photo's any more.
    """
    kept = []
    for row in rows:
        assert row.guide is not None and row.canvas is not None, row
        kept.append(Kept(square(row.guide.image(), row.canvas.side), row.canvas))
    first, *more = kept[0].canvas.passes
    own = rows[0].strength
    latents = _pass(pipe, call, [one.photo for one in kept], kept, first, own)
    for one in more:
        images = decoder.images(pipe, latents)
        pictures = [keep.pasted(image) for keep, image in zip(kept, images, strict=True)]
        latents = _pass(pipe, call, pictures, kept, one, own)
    return latents, kept if kept[0].canvas.keeps else []


def _pass(
    pipe: Pipeline,
    call: Callable[..., torch.Tensor],
    pictures: Sequence[Image.Image],
    kept: Sequence[Kept],
    one: Pass,
    own: float | None,
) -> torch.Tensor:
    masks = [whole_cells(keep.canvas.repainted(one), pipe.vae_scale_factor) for keep in kept]
    return call(image=list(pictures), mask_image=masks, strength=own or one.strength)


def whole_cells(repainted: np.ndarray, cell: int) -> Image.Image:
    """(S, S) bool -> the mask for the pipeline: white in every latent cell that has a repainted pixel.

    The stock pipelines look at one pixel of each cell alone.
    """
    rows, columns = (side // cell for side in repainted.shape)
    cells = repainted.reshape(rows, cell, columns, cell).any(axis=(1, 3))
    return Image.fromarray(np.kron(cells, np.ones((cell, cell))).astype(np.uint8) * 255)
