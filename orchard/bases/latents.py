"""Latents as an autoencoder has them, and as the denoiser of its pipeline takes them."""

from typing import Any

import torch
from torch import Tensor


def scaled(vae: Any, latents: Tensor) -> Tensor:
    """(B, C, h, w) of the autoencoder -> the same shape for the denoiser, as the stock pipelines do it."""
    middle, spread = _middle_and_spread(vae, latents)
    return (latents - middle) * vae.config.scaling_factor / spread


def scaled_deviation(vae: Any, deviation: Tensor) -> Tensor:
    """`scaled` for the deviation of latents, which has no middle."""
    return deviation * vae.config.scaling_factor / _middle_and_spread(vae, deviation)[1]


def posterior(vae: Any, images: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) in -1..1 -> mean and deviation of the autoencoder's latents, (B, C, h, w) each.

    Sana's autoencoder has one latent an image, of no deviation.
    """
    found = vae.encode(images)
    if hasattr(found, "latent"):
        return found.latent, torch.zeros_like(found.latent)
    return found.latent_dist.mean, found.latent_dist.std


def unscaled(vae: Any, latents: Tensor) -> Tensor:
    """(B, C, h, w) of the denoiser -> the same shape for the autoencoder to decode."""
    middle, spread = _middle_and_spread(vae, latents)
    return latents * spread / vae.config.scaling_factor + middle


def _middle_and_spread(vae: Any, like: Tensor) -> tuple[Any, Any]:
    """SD 3's shift and 1; SDXL's mean and deviation, (1, C, 1, 1) each, where its config has them; else 0, 1.

    What a pipeline leaves out of them `orchard.bases.compatibility` refuses.
    """
    config = vae.config
    mean, deviation = (getattr(config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is None or deviation is None:
        return getattr(config, "shift_factor", None) or 0.0, 1.0
    options: Any = {"dtype": like.dtype, "device": like.device}
    middle, spread = (torch.tensor(values, **options).view(1, -1, 1, 1) for values in (mean, deviation))
    return middle, spread
