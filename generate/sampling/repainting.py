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
    """An image that a pass of the pipeline repaints, and which part of it."""

    image: Image.Image
    canvas: Canvas
    last: Pass

    def pasted(self, sampled: Image.Image) -> Image.Image:
        """What the pass sampled where it repaints, this image elsewhere; in between where it is feathered."""
        opaque = Image.fromarray(self.canvas.repainted(self.last).astype(np.uint8) * 255)
        if self.canvas.feather:
            opaque = opaque.filter(ImageFilter.GaussianBlur(self.canvas.feather))
        return Image.composite(sampled, self.image, opaque)


def repaint(
    pipe: Pipeline, call: Callable[..., torch.Tensor], rows: Sequence[Row]
) -> tuple[torch.Tensor, list[Kept]]:
    """B rows with photos -> (B, C, h, w) latents of the last pass, and what `Kept.pasted` keeps of each.

    ``call`` is the pipeline with all but image, mask and strength. A pass after the first goes on from what
    the one before it made.
    """
    pictures, canvases = [], []
    for row in rows:
        assert row.guide is not None and row.canvas is not None, row
        pictures.append(square(row.guide.image(), row.canvas.side))
        canvases.append(row.canvas)
    for one in canvases[0].passes:
        kept = [Kept(picture, canvas, one) for picture, canvas in zip(pictures, canvases, strict=True)]
        masks = [whole_cells(canvas.repainted(one), pipe.vae_scale_factor) for canvas in canvases]
        latents = call(image=pictures, mask_image=masks, strength=one.strength)
        if one is not canvases[0].passes[-1]:
            sampled = decoder.images(pipe, latents)
            pictures = [keep.pasted(image) for keep, image in zip(kept, sampled, strict=True)]
    return latents, kept


def whole_cells(repainted: np.ndarray, cell: int) -> Image.Image:
    """(S, S) bool -> the mask for the pipeline: white in every latent cell that has a repainted pixel.

    The stock pipelines look at one pixel of each cell alone.
    """
    rows, columns = (side // cell for side in repainted.shape)
    cells = repainted.reshape(rows, cell, columns, cell).any(axis=(1, 3))
    return Image.fromarray(np.kron(cells, np.ones((cell, cell))).astype(np.uint8) * 255)
