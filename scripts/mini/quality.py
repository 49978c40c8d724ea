"""What the model card reports: how faithful the autoencoder is."""

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from mini.autoencoder import reconstruct
from mini.data import Photos, to_tensor

PHOTOS = 512


def reconstruction(vae: AutoencoderKL, photos: Photos) -> dict[str, float]:
    """L1 in [-1, 1] units over evenly spread photos, and ``detail``: 1 when none of it is blurred away.

    ``detail`` is the energy of the discrete Laplacian of the decoded photos over that of the photos.
    """
    rows = np.linspace(0, len(photos.pixels) - 1, PHOTOS).astype(int)
    real = photos.pixels[rows]
    decoded = np.concatenate([reconstruct(vae, real[i : i + 64]) for i in range(0, len(real), 64)])
    one, other = to_tensor(real), to_tensor(decoded)
    return {
        "l1": (one - other).abs().mean().item(),
        "detail": (_laplacian(other).square().mean() / _laplacian(one).square().mean()).item(),
    }


def _laplacian(images: Tensor) -> Tensor:
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    return F.conv2d(images, kernel.expand(3, 1, 3, 3), groups=3)
