"""Pure maths of the training objectives: diffusion (SD 1/2, SDXL) and flow matching (SD 3)."""

import torch
from torch import Tensor


def timesteps_of(times: Tensor, count: int) -> Tensor:
    """(B,) uniform in [0, 1) -> (B,) int64 timesteps, uniform over 0 ... ``count`` - 1."""
    return (times * count).floor().long()


def snr(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """(T,) cumulative alphas, (B,) timesteps -> (B,) signal-to-noise ratios, 0 to infinity."""
    alphas = alphas_cumprod.to(timesteps.device)[timesteps].float()
    return alphas / (1 - alphas)


def diffuse(latents: Tensor, noise: Tensor, alphas: Tensor) -> Tensor:
    """Noisy latents sqrt(a) latents + sqrt(1 - a) noise: (B, C, H, W) for (B,) cumulative alphas.

    Ho et al. 2020, eq. 4.
    """
    alphas = alphas.view(-1, 1, 1, 1)
    return alphas.sqrt() * latents + (1 - alphas).sqrt() * noise


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


def logit_normal(times: Tensor) -> Tensor:
    """(B,) uniform in [0, 1) -> (B,) noise levels sigma in [0, 1), same dtype.

    The logit of sigma is standard normal: the sampler of Esser et al. 2024, section 3.1, with location 0
    and scale 1, drawn by inversion.
    """
    return torch.special.ndtri(times).sigmoid()


def interpolate(latents: Tensor, noise: Tensor, sigmas: Tensor) -> Tensor:
    """Noisy latents (1 - sigma) latents + sigma noise: (B, C, H, W) for (B,) sigmas in [0, 1].

    The straight path of rectified flow: Esser et al. 2024, section 2.
    """
    sigmas = sigmas.view(-1, 1, 1, 1)
    return (1 - sigmas) * latents + sigmas * noise


def flow_target(latents: Tensor, noise: Tensor) -> Tensor:
    """Velocity of `interpolate` along sigma: noise - latents, (B, C, H, W). Esser et al. 2024, section 2."""
    return noise - latents


def diffusion_loss(prediction: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean squared error, averaged over all elements: (B, ...), (B, ...), (B,) -> ()."""
    errors = (prediction.float() - target.float()).square().flatten(1).mean(1)
    return (errors * weights).mean()
