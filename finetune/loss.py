"""Pure maths of the diffusion objective."""

import torch
from torch import Tensor


def snr(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """(T,) cumulative alphas, (B,) timesteps -> (B,) signal-to-noise ratios, 0 to infinity."""
    alphas = alphas_cumprod.to(timesteps.device)[timesteps].float()
    return alphas / (1 - alphas)


def target(prediction_type: str, latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """What the network should say: (B, C, H, W) for (B,) cumulative alphas.

    ``epsilon`` is the noise; ``v_prediction`` is sqrt(a) noise - sqrt(1 - a) latents
    (Salimans and Ho 2022, section 4); ``sample`` is the latents.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return latents
    assert prediction_type == "v_prediction", prediction_type
    alphas = alphas.view(-1, 1, 1, 1)
    return alphas.sqrt() * noise - (1 - alphas).sqrt() * latents


def snr_weights(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """(B,) signal-to-noise -> (B,) loss weights min(snr, gamma) / d. Hang et al. 2023, section 3.4.

    d is snr for epsilon, snr + 1 for v and 1 for the sample. ``gamma`` 0 gives ones. A step of pure
    noise (snr 0) has epsilon weight 1, the limit.
    """
    if gamma == 0:
        return torch.ones_like(snr)
    clipped = snr.clamp(max=gamma)
    if prediction_type == "epsilon":
        return torch.where(snr > 0, clipped / snr.clamp(min=1e-12), torch.ones_like(snr))
    return clipped / (snr + 1) if prediction_type == "v_prediction" else clipped


def diffusion_loss(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error, averaged over all elements: (B, ...), (B, ...), (B,) -> ()."""
    errors = (prediction.float() - target.float()).square().flatten(1).mean(1)
    return (errors * weights).mean()
