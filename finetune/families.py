"""What differs between model families: how images and prompts are encoded, what is predicted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finetune.batches import Batch, Cache
from finetune.loss import diffusion_loss, snr, snr_weights, target
from orchard.bases import Base

ENCODE_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class StableDiffusion:
    """SD 1 and 2: one text encoder, a UNet, epsilon or v."""

    pipe: Any
    prediction_type: str
    alphas_cumprod: Tensor

    @classmethod
    def of(cls, pipe: Any, base: Base) -> "StableDiffusion":
        """The family's view of a loaded pipeline; its noise schedule comes from the pipeline's own."""
        from diffusers import DDPMScheduler

        schedule = DDPMScheduler.from_config(pipe.scheduler.config)
        return cls(
            pipe=pipe,
            prediction_type=base.prediction_type,
            alphas_cumprod=schedule.alphas_cumprod,
        )

    @property
    def timesteps(self) -> int:
        """Length of the noise schedule."""
        return len(self.alphas_cumprod)

    def encode(self, pixels: np.ndarray, prompts: Sequence[str]) -> Cache:
        """(N, S, S, 3) uint8 and N prompts -> `Cache` in float32 on the CPU."""
        halves = [self._moments(pixels), self._moments(pixels[:, :, ::-1])]
        unique = sorted(set(prompts))
        return Cache(
            mean=torch.stack([mean for mean, _ in halves]),
            std=torch.stack([std for _, std in halves]),
            prompts=self._text(unique),
            prompt_of=torch.tensor([unique.index(prompt) for prompt in prompts]),
        )

    @torch.no_grad()
    def _moments(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        vae = self.pipe.vae
        means, stds = [], []
        for start in range(0, len(pixels), ENCODE_BATCH):
            block = np.ascontiguousarray(pixels[start : start + ENCODE_BATCH])
            images = torch.from_numpy(block).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
            posterior = vae.encode(images).latent_dist
            means.append(posterior.mean.float().cpu())
            stds.append(posterior.std.float().cpu())
        scale = vae.config.scaling_factor
        return torch.cat(means) * scale, torch.cat(stds) * scale

    @torch.no_grad()
    def _text(self, prompts: Sequence[str]) -> Tensor:
        states, _ = self.pipe.encode_prompt(
            list(prompts), self.pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        return states.float().cpu()

    def loss(self, denoiser: Any, batch: Batch, gamma: float) -> Tensor:
        """The training loss of one batch: () float32."""
        device = self.pipe.device
        latents, noise = batch.latents.to(device), batch.noise.to(device)
        timesteps = batch.timesteps.to(device)
        alphas = self.alphas_cumprod.to(device)[timesteps].float()
        spread = alphas.view(-1, 1, 1, 1)
        noisy = spread.sqrt() * latents + (1 - spread).sqrt() * noise
        dtype = self.pipe.vae.dtype
        said = denoiser(noisy.to(dtype), timesteps, batch.text.to(device, dtype), return_dict=False)[0]
        weights = snr_weights(snr(self.alphas_cumprod, timesteps), gamma, self.prediction_type)
        return diffusion_loss(said, target(self.prediction_type, latents, noise, alphas), weights)
