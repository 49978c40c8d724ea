"""Differentiable augmentation of what a discriminator sees (Zhao et al. 2020, arXiv 2006.10738)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

SHIFT, HOLE = 1 / 8, 1 / 2
"""Shares of the side: how far images move at most, and the side of the square that is cut out."""


def augment(images: Tensor, policies: Sequence[str], generator: torch.Generator) -> Tensor:
    """(B, 3, S, S) in [-1, 1] -> the same shape, each image by numbers of its own from a CPU ``generator``.

    Gradients flow through; ``none`` among the policies changes nothing.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(len(images), *shape, generator=generator).to(images.device)

    for policy in policies:
        images = POLICIES[policy](images, uniform)
    return images


Uniform = Callable[..., Tensor]
"""Random numbers in [0, 1) for every image, of the shape that follows the batch."""


def color(images: Tensor, uniform: Uniform) -> Tensor:
    """Brightness by up to half a unit, saturation 0 to 2, contrast 0.5 to 1.5."""
    images = images + uniform(1, 1, 1) - 0.5
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * 2 * uniform(1, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (uniform(1, 1, 1) + 0.5)


def translation(images: Tensor, uniform: Uniform) -> Tensor:
    """Move by whole pixels, up to `SHIFT` of the side each way; 0 comes in."""
    side = images.shape[-1]
    most = round(SHIFT * side)
    shift = (uniform(2) * (2 * most + 1)).floor().long() - most
    places = torch.arange(side, device=images.device) + most
    rows, columns = (shift[:, axis, None] + places for axis in (0, 1))
    padded = functional.pad(images, (most, most, most, most)).permute(0, 2, 3, 1)
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, uniform: Uniform) -> Tensor:
    """Set a square to 0, half the side, somewhere within or partly over the edge."""
    side = images.shape[-1]
    hole = round(HOLE * side)
    centre = (uniform(2) * (side + 1 - hole % 2)).floor()
    places = torch.arange(side, device=images.device)
    start = centre - hole // 2
    rows, columns = (
        (places >= start[:, axis, None]) & (places < start[:, axis, None] + hole) for axis in (0, 1)
    )
    return images * ~(rows[:, :, None] & columns[:, None, :])[:, None]


POLICIES: dict[str, Callable[[Tensor, Uniform], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
    "none": lambda images, uniform: images,
}
