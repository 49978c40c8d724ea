"""Pure maths of the training objectives: diffusion (SD 1/2, SDXL) and flow matching (SD 3)."""

import math

import torch
from torch import Tensor

MODE_SCALE = 1.29
"""Scale of `mode`."""


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

    d is snr for epsilon, snr + 1 for v and 1 for the sample. A step of pure noise (snr 0) has epsilon weight
    1, the limit.
    """
    clipped = snr.clamp(max=gamma)
    if prediction_type == "epsilon":
        return torch.where(snr > 0, clipped / snr.clamp(min=1e-12), torch.ones_like(snr))
    return clipped / (snr + 1) if prediction_type == "v_prediction" else clipped


def debiased_weights(snr: Tensor, prediction_type: str) -> Tensor:
    """(B,) signal-to-noise -> (B,) loss weights sqrt(snr) / d, with d as in `snr_weights`.

    Yu et al. 2024, "Unmasking bias in diffusion model training", weigh epsilon by 1 / sqrt(snr); divided by d
    an error of the latents weighs the same whatever is predicted. A step of pure noise (snr 0) says nothing
    of the latents and weighs 0.
    """
    root = snr.sqrt()
    if prediction_type == "epsilon":
        return torch.where(snr > 0, 1 / root.clamp(min=1e-6), torch.zeros_like(snr))
    return root / (snr + 1) if prediction_type == "v_prediction" else root


def offset_noise(noise: Tensor, shifts: Tensor, scale: float) -> Tensor:
    """(B, C, H, W) noise plus ``scale`` times one normal number a channel, ``shifts`` (B, C).

    Guttenberg 2023, "Diffusion with offset noise": else a schedule that does not end in pure noise leaks the
    mean of each channel, and only images of middling brightness are learned.
    """
    return noise + scale * shifts[:, :, None, None]


def logit_normal(times: Tensor) -> Tensor:
    """(B,) uniform in [0, 1) -> (B,) noise levels sigma in [0, 1), same dtype.

    The logit of sigma is standard normal: Esser et al. 2024, equation 19, drawn by inversion.
    """
    return torch.special.ndtri(times).sigmoid()


def mode(times: Tensor) -> Tensor:
    """(B,) uniform in [0, 1) -> (B,) sigmas in (0, 1], denser in the middle.

    Esser et al. 2024, equation 20, at the scale that section 5.1 finds best.
    """
    return 1 - times - MODE_SCALE * ((math.pi / 2 * times).cos().square() - 1 + times)


def shifted(sigmas: Tensor, shift: float) -> Tensor:
    """(B,) sigmas in [0, 1] -> (B,) the same moved towards noise by a ``shift`` above 1, towards 0 below.

    Esser et al. 2024, equation 23. The logit moves by log(shift).
    """
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def cosmap(times: Tensor) -> Tensor:
    """(B,) uniform in [0, 1) -> (B,) sigmas in [0, 1), spread as by the cosine schedule.

    Esser et al. 2024, equation 21.
    """
    return 1 - 1 / ((math.pi / 2 * times).tan() + 1)


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
