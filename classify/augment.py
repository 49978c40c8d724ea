"""Random geometry and colour for a whole batch at once, drawn from one seeded generator."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from classify.config import Augmentation, Training
from orchard.classifiers.predict import moved, to_float

BLENDS = ("mixup", "cutmix")
MIXUP_ALPHA, CUTMIX_ALPHA = 0.3, 1.0
"""Of the Beta distribution that the shares of a blended pair come from."""
GREY = (0.299, 0.587, 0.114)
TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How far each change may go to either side; zero leaves the image as it is."""

    rotation: float = 25.0
    """Degrees."""
    scale: float = 0.25
    """Share: 0.25 is a factor from 1/1.25 to 1.25."""
    shift: float = 0.1
    """Share of the image's side."""
    flip: bool = True
    """Whether every other image, at random, is mirrored left to right."""
    brightness: float = 0.25
    """Share: 0.25 is a factor from 0.75 to 1.25."""
    contrast: float = 0.25
    """Share, about the image's mean grey."""
    saturation: float = 0.25
    """Share, about each pixel's grey."""
    hue: float = 0.0
    """Turns of the colour circle, 0 to 0.5."""


def strength_of(options: Training) -> Strength:
    """How far the options let the geometry and colour of an image go."""
    if options.augmentation == "strong":
        return Strength(
            rotation=45.0, scale=0.5, shift=0.2, flip=options.flip, brightness=0.4, contrast=0.4,
            saturation=0.4, hue=0.03,
        )  # fmt: skip
    return Strength(flip=options.flip)


def blend(
    images: Tensor,
    labels: Tensor,
    is_real: Tensor,
    classes: int,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """MixUp or CutMix within each source, so that no image is half real: (B, 3, H, W) and (B,) labels.

    ``augmentation`` is one of `BLENDS`, ``is_real`` (B,) on the CPU. Labels become (B, K) shares of each
    class. Zhang et al. 2018, Yun et al. 2019.
    """
    kind, alpha = (v2.MixUp, MIXUP_ALPHA) if augmentation == "mixup" else (v2.CutMix, CUTMIX_ALPHA)
    shares = functional.one_hot(labels, classes).float()
    images = images.clone()
    for source in (is_real, ~is_real):
        if source.any():
            rows = moved(source.nonzero().flatten(), images.device)
            with _as_global(generator):
                blended = kind(alpha=alpha, num_classes=classes)(images[rows], labels[rows])
            images[rows], shares[rows] = blended
    return images, shares


@contextmanager
def _as_global(generator: torch.Generator) -> Iterator[None]:
    """Let torchvision, which takes none, draw from ``generator``."""
    before = torch.get_rng_state()
    torch.set_rng_state(generator.get_state())
    try:
        yield
    finally:
        generator.set_state(torch.get_rng_state())
        torch.set_rng_state(before)


class Changes(NamedTuple):
    """What changes B images, on the CPU whatever their device, so a seed means one thing."""

    matrices: Tensor
    """(B, 2, 3) from output to input coordinates, for `affine_grid`."""
    brightness: Tensor
    """(B,) factors, as contrast and saturation."""
    contrast: Tensor
    saturation: Tensor
    turns: Tensor
    """(B,) of the colour circle."""


def changes(count: int, strength: Strength, generator: torch.Generator) -> Changes:
    """Those of a batch of ``count`` images, each with its own."""
    matrices = affine_matrices(count, strength, generator)
    shares = (strength.brightness, strength.contrast, strength.saturation)
    brightness, contrast, saturation = (1 + _spread(count, generator) * share for share in shares)
    return Changes(matrices, brightness, contrast, saturation, _spread(count, generator) * strength.hue)


def augment(pixels: Tensor, drawn: Changes) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [0, 1], changed in geometry and colour."""
    images = to_float(pixels)
    grid = functional.affine_grid(
        moved(drawn.matrices, images.device), list(images.shape), align_corners=False
    )
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return jitter(images, drawn)


def affine_matrices(count: int, strength: Strength, generator: torch.Generator) -> Tensor:
    """(count, 2, 3) matrices from output to input coordinates, for `affine_grid`."""
    angle = _spread(count, generator) * math.radians(strength.rotation)
    zoom = torch.exp(_spread(count, generator) * math.log1p(strength.scale))
    # Coordinates run from -1 to 1, so a side is 2 long.
    shift_x = _spread(count, generator) * strength.shift * 2
    shift_y = _spread(count, generator) * strength.shift * 2
    mirrored = (torch.rand(count, generator=generator) < 0.5) & strength.flip
    sign = torch.where(mirrored, -1.0, 1.0)
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = [cosine * sign, -sine, shift_x, sine * sign, cosine, shift_y]
    return torch.stack(rows, dim=1).view(count, 2, 3)


def jitter(images: Tensor, drawn: Changes) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the same, with brightness, contrast, saturation and hue changed."""
    device = images.device
    factors = (drawn.brightness, drawn.contrast, drawn.saturation)
    brightness, contrast, saturation = (moved(one.view(-1, 1, 1, 1), device) for one in factors)
    images = images * brightness
    weights = moved(torch.tensor(GREY).view(1, 3, 1, 1), device)
    grey = (images * weights).sum(dim=1, keepdim=True)
    images = torch.lerp(grey, images, saturation)
    images = torch.lerp(grey.mean(dim=(2, 3), keepdim=True), images, contrast)
    if drawn.turns.any():
        images = torch.einsum("bij,bjhw->bihw", moved(hue_matrices(drawn.turns), device), images)
    return images.clamp(0, 1)


def hue_matrices(turns: Tensor) -> Tensor:
    """(B,) turns -> (B, 3, 3) RGB matrices: chroma of YIQ turned, red towards yellow, luma kept."""
    cosine, sine = torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)
    turn = torch.zeros(len(turns), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2] = cosine, sine
    turn[:, 2, 1], turn[:, 2, 2] = -sine, cosine
    basis = torch.tensor(TO_YIQ)
    return torch.linalg.inv(basis) @ turn @ basis


def _spread(count: int, generator: torch.Generator) -> Tensor:
    """(count,) uniform in [-1, 1)."""
    return torch.rand(count, generator=generator) * 2 - 1
