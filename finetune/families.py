"""What differs between model families: how images and prompts are encoded, what is predicted."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from finetune import lora
from finetune.batches import Batch, Cache, assemble
from finetune.loss import diffuse, diffusion_loss, flow_target, interpolate, snr, target, timesteps_of
from finetune.objective import Objective
from orchard import text
from orchard.bases import FAMILIES, Base


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """A loaded stock pipeline, seen as something to train."""

    pipe: Any

    name: ClassVar[str]
    """Its name in `orchard.bases.FAMILIES`."""
    targets: ClassVar[tuple[str, ...]] = lora.TARGETS
    """Linear layers of the denoiser that get a LoRA, by the end of their names."""

    @classmethod
    def of(cls, pipe: Any, base: Base) -> Self:
        """The family's view of the pipeline of ``base``."""
        return cls(pipe=pipe)

    @property
    def prefix(self) -> str:
        """The denoiser's name in the pipeline, which starts the keys of a LoRA file."""
        return FAMILIES[self.name].denoiser

    @property
    def denoiser(self) -> Any:
        """The network that is trained."""
        return getattr(self.pipe, self.prefix)

    def encode(self, pixels: Sequence[np.ndarray], prompts: Sequence[str]) -> Cache:
        """N images, (H, W, 3) uint8 each, and N prompts -> `Cache` in float32 on the CPU."""
        return assemble([self.latents(image) for image in pixels], prompts, self.text)

    def latents(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """(H, W, 3) uint8 -> mean and deviation of `moments`, (2, C, h, w) each: image and mirror image.

        By itself, so that what else is encoded does not change its last bits.
        """
        return self.moments(np.stack([pixels, pixels[:, ::-1]]))

    @torch.no_grad()
    def moments(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) -> mean and standard deviation of the latents' posterior, (N, C, h, w) each."""
        vae, dtype = self.pipe.vae, self.pipe.vae.dtype
        overflows = dtype == torch.float16 and vae.config.force_upcast
        if overflows:
            vae.to(torch.float32)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
        posterior = vae.encode(images).latent_dist
        mean, std = posterior.mean.float().cpu(), posterior.std.float().cpu()
        if overflows:
            vae.to(dtype)
        shift, scale = vae.config.shift_factor or 0.0, vae.config.scaling_factor
        return (mean - shift) * scale, std * scale

    def text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """P prompts -> named text states, (P, ...) each; every prompt by itself, as in `latents`."""
        found = [text.encode(self.pipe, [prompt], negative=False) for prompt in prompts]
        return {name: torch.cat([states[name].float().cpu() for states in found]) for name in found[0]}

    @abstractmethod
    def loss(self, denoiser: Any, batch: Batch, objective: Objective) -> Tensor:
        """The training loss of one batch: () float32.

        ``denoiser`` is `denoiser` as the caller has wrapped it.
        """


@dataclass(frozen=True, kw_only=True)
class StableDiffusion(Family):
    """SD 1 and 2: one text encoder, a UNet, epsilon or v."""

    name: ClassVar[str] = "sd"

    prediction_type: str
    alphas_cumprod: Tensor
    """(T,) of the noise schedule."""

    @classmethod
    def of(cls, pipe: Any, base: Base) -> Self:
        """The family's view of the pipeline of ``base``; the noise schedule is the pipeline's own."""
        from diffusers import DDPMScheduler

        schedule = DDPMScheduler.from_config(pipe.scheduler.config)
        return cls(pipe=pipe, prediction_type=base.prediction_type, alphas_cumprod=schedule.alphas_cumprod)

    def loss(self, denoiser: Any, batch: Batch, objective: Objective) -> Tensor:
        """The training loss of one batch: () float32."""
        batch = batch.to(self.pipe.device)
        # On the CPU, where the times have full precision on every machine.
        timesteps = timesteps_of(batch.times, len(self.alphas_cumprod)).to(self.pipe.device)
        alphas = self.alphas_cumprod.to(self.pipe.device)[timesteps].float()
        noisy = diffuse(batch.latents, batch.noise, alphas)
        dtype = self.pipe.vae.dtype
        states = {name: state.to(dtype) for name, state in batch.text.items()}
        said = self._predict(denoiser, noisy.to(dtype), timesteps, states)
        weights = objective.weights(snr(self.alphas_cumprod, timesteps), self.prediction_type)
        return diffusion_loss(said, target(self.prediction_type, batch.latents, batch.noise, alphas), weights)

    def _predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, states: dict[str, Tensor]) -> Tensor:
        return denoiser(noisy, timesteps, states["prompt_embeds"], return_dict=False)[0]


@dataclass(frozen=True, kw_only=True)
class StableDiffusionXL(StableDiffusion):
    """SDXL: two text encoders, pooled states and image sizes beside the text."""

    name: ClassVar[str] = "sdxl"

    def _predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, states: dict[str, Tensor]) -> Tensor:
        size = tuple(side * self.pipe.vae_scale_factor for side in noisy.shape[-2:])
        added = {
            "text_embeds": states["pooled_prompt_embeds"],
            "time_ids": noisy.new_tensor(time_ids(size)).expand(len(noisy), -1),
        }
        return denoiser(
            noisy, timesteps, states["prompt_embeds"], added_cond_kwargs=added, return_dict=False
        )[0]


def time_ids(size: tuple[int, ...]) -> list[int]:
    """(height, width) in pixels -> SDXL's six size conditions: original size, crop corner, target size.

    Podell et al. 2023, section 2.2. Training images count as whole pictures of the size that they are
    encoded at, and that is what the pipeline says of the images it samples: original and target are the same,
    nothing is cut.
    """
    return [*size, 0, 0, *size]


@dataclass(frozen=True, kw_only=True)
class StableDiffusion3(Family):
    """SD 3: a transformer on joint text states, rectified flow (Esser et al. 2024)."""

    name: ClassVar[str] = "sd3"
    targets: ClassVar[tuple[str, ...]] = (
        *lora.TARGETS,
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_add_out",
    )

    def loss(self, denoiser: Any, batch: Batch, objective: Objective) -> Tensor:
        """The training loss of one batch: () float32. Every noise level weighs 1."""
        batch = batch.to(self.pipe.device)
        sigmas = objective.sigmas(batch.times).float().to(self.pipe.device)
        dtype = self.pipe.vae.dtype
        states = {name: state.to(dtype) for name, state in batch.text.items()}
        said = denoiser(
            interpolate(batch.latents, batch.noise, sigmas).to(dtype),
            timestep=sigmas * self.pipe.scheduler.config.num_train_timesteps,
            encoder_hidden_states=states["prompt_embeds"],
            pooled_projections=states["pooled_prompt_embeds"],
            return_dict=False,
        )[0]
        return diffusion_loss(said, flow_target(batch.latents, batch.noise), torch.ones_like(sigmas))


def kind_of(base: Base) -> type[Family]:
    """The class of the family of ``base``."""
    kinds = (StableDiffusion, StableDiffusionXL, StableDiffusion3)
    return next(kind for kind in kinds if kind.name == base.family)


def family_of(pipe: Any, base: Base) -> Family:
    """The family of ``base`` on its loaded pipeline."""
    return kind_of(base).of(pipe, base)
