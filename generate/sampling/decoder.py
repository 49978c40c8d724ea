"""Latents -> images, and which of them are no data: flagged by the base's safety checker, or flat."""

from dataclasses import dataclass

import torch
from PIL import Image

from orchard.adapters.layers import family_of_pipeline
from orchard.bases.latents import unscaled
from orchard.bases.pipeline import Pipeline
from orchard.shards import FLAGGED, ONE_COLOUR

REMEDIES = {
    FLAGGED: "another --prompt, or --no_safety_checker if it is wrong",
    ONE_COLOUR: "another --scheduler or --prompt",
}


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """An image and what is wrong with it, if anything."""

    image: Image.Image
    fault: str | None


def remedy(pipe: Pipeline, fault: str) -> str:
    """What to try where no seed of any row gives an image that can be used."""
    half = fault == ONE_COLOUR and pipe.dtype != torch.float32
    other = "--precision fp32" if half else REMEDIES[fault]
    return f"give more --attempts, or try {other} with another --output"


@torch.no_grad()
def images(pipe: Pipeline, latents: torch.Tensor) -> list[Image.Image]:
    """(B, C, h, w) latents -> B images, whatever they show."""
    return pipe.image_processor.postprocess(_pixels(pipe, latents), output_type="pil")


def _pixels(pipe: Pipeline, latents: torch.Tensor) -> torch.Tensor:
    if _overflows(pipe):
        pipe.vae.float()
    coded = unscaled(pipe.vae, latents.to(pipe.vae.dtype))
    return pipe.vae.decode(coded, return_dict=False)[0]


@torch.no_grad()
def decode(pipe: Pipeline, latents: torch.Tensor) -> list[Decoded]:
    """(B, C, h, w) latents -> B images, as the stock pipeline makes them from its last latents."""
    pixels = _pixels(pipe, latents)
    flags = [False] * len(pixels)
    if getattr(pipe, "safety_checker", None) is not None:
        pixels, flags = pipe.run_safety_checker(pixels, pixels.device, pixels.dtype)
    images = pipe.image_processor.postprocess(pixels, output_type="pil")
    return [
        Decoded(image=image, fault=_fault(image, flag)) for image, flag in zip(images, flags, strict=True)
    ]


def _overflows(pipe: Pipeline) -> bool:
    """Whether the autoencoder would in half precision, to which image guidance sets it back: SDXL's own."""
    half = pipe.vae.dtype == torch.float16 and pipe.vae.config.get("force_upcast", False)
    return half and family_of_pipeline(pipe) == "SDXL"


def _fault(image: Image.Image, flagged: bool) -> str | None:
    if flagged:
        return FLAGGED
    # Half precision that overflows decodes to one colour, mostly black.
    return ONE_COLOUR if image.getcolors(maxcolors=1) else None
