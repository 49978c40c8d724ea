"""The network that samples: a latent and a class to an image, in one pass."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

START = 4
"""Pixels of the side that the first layer gives; every block doubles it."""


class ConditionalNorm(nn.Module):
    """Batch norm with a scale and a shift for every class (Dumoulin et al. 2017)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = nn.Parameter(torch.ones(classes, channels))
        self.shift = nn.Parameter(torch.zeros(classes, channels))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """(B, C, H, W) and (B,) classes -> (B, C, H, W)."""
        return self.norm(x) * self.scale[labels, :, None, None] + self.shift[labels, :, None, None]


class Decoder(nn.Module):
    """The generator of DCGAN (Radford et al. 2016), conditional as in Miyato & Koyama 2018.

    In evaluation mode an image depends on its own latent and class alone, whatever else is in the batch.
    """

    def __init__(self, *, classes: int, size: int, width: int, latent: int) -> None:
        super().__init__()
        channels = widths(size, width)[::-1]
        self.latent = latent
        # Equal scales at the start would leave all classes alike for hundreds of steps.
        self.classes = nn.Embedding(classes, latent)
        nn.init.normal_(self.classes.weight, std=0.25)
        self.first = nn.Linear(2 * latent, channels[0] * START**2)
        self.norms = nn.ModuleList(ConditionalNorm(count, classes) for count in channels)
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 4, 2, 1)
            for before, after in zip(channels, [*channels[1:], 3], strict=True)
        )

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        """(B, latent) normal numbers and (B,) classes -> (B, 3, S, S) in [-1, 1]."""
        x = self.first(torch.cat([latents, self.classes(labels)], dim=1)).view(len(latents), -1, START, START)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = convolution(functional.relu(norm(x, labels)))
        return x.float().tanh()


def widths(size: int, width: int) -> list[int]:
    """Channels at half of ``size``, a quarter and so on down to `START`: from ``width``, doubling."""
    return [width * 2**level for level in range(int(math.log2(size // START)))]


def noise(latent: int, seeds: Sequence[int]) -> Tensor:
    """(B, latent) normal numbers, each row of its own seed."""
    return torch.stack([torch.randn(latent, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def to_pixels(images: Tensor) -> Tensor:
    """(B, 3, S, S) in [-1, 1] -> (B, S, S, 3) uint8 on the CPU."""
    return ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu()
