"""The families: SD 1/2, SDXL, SD 3 and Sana; their prompt embeddings, prediction and loss."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from finetune.models import trained_text_encoders
from finetune.models.family import Family
from finetune.models.trained_text_encoders import PromptTensors
from finetune.step.batches import Batch
from finetune.step.loss import (
    diffuse,
    diffusion_loss,
    flow_target,
    interpolate,
    snr,
    target,
    timesteps_of,
)
from finetune.step.objective import Objective
from orchard.bases import bases
from orchard.bases.bases import Base
from orchard.bases.pipeline import Pipeline

CLIP = "clip_embeds"
"""SD 3's prompt embeddings without T5's part."""


@dataclass(frozen=True, kw_only=True)
class StableDiffusion(Family):
    """SD 1 and 2: one text encoder, a UNet, epsilon or v."""

    name: ClassVar[str] = "sd"

    prediction_type: str
    alphas_cumprod: Tensor
    """(T,) of the noise schedule."""

    @classmethod
    def of(cls, pipe: Pipeline, base: Base, *, trains_text: bool = False, clip_skip: int = 0) -> Self:
        """The family's view of the pipeline of ``base``; the noise schedule is the pipeline's own."""
        from diffusers import DDPMScheduler

        schedule: Any = DDPMScheduler(**bases.noise_of(pipe.scheduler.config))
        return cls(
            pipe=pipe,
            trains_text=trains_text,
            clip_skip=clip_skip,
            prediction_type=base.prediction_type,
            alphas_cumprod=schedule.alphas_cumprod,
        )

    def loss(self, network: Any, batch: Batch, objective: Objective) -> Tensor:
        """The training loss of one batch: () float32."""
        batch = batch.to(self.pipe.device)
        # On the CPU, where the times have full precision on every machine.
        timesteps = timesteps_of(batch.times, len(self.alphas_cumprod)).to(self.pipe.device)
        alphas = self.alphas_cumprod.to(self.pipe.device)[timesteps].float()
        noisy = diffuse(batch.latents, batch.noise, alphas).to(self.pipe.vae.dtype)
        prediction = network(batch.seen(noisy), timesteps, batch.prompts)
        weights = objective.weights(snr(self.alphas_cumprod, timesteps), self.prediction_type)
        return diffusion_loss(
            prediction, target(self.prediction_type, batch.latents, batch.noise, alphas), weights
        )

    def embed_tokens(self, ids: PromptTensors) -> PromptTensors:
        """The embeddings of P prompts, (P, L, D)."""
        return {"prompt_embeds": trained_text_encoders.embeds(self.pipe, ids, self.clip_skip)[0]}

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, embeds: PromptTensors) -> Tensor:
        """Epsilon, v or the sample, as the base predicts it."""
        return denoiser(noisy, timesteps, embeds["prompt_embeds"], return_dict=False)[0]


@dataclass(frozen=True, kw_only=True)
class StableDiffusionXL(StableDiffusion):
    """SDXL: two text encoders, pooled embeddings and image sizes as further conditions."""

    name: ClassVar[str] = "sdxl"

    def embed_tokens(self, ids: PromptTensors) -> PromptTensors:
        """The embeddings of P prompts, (P, L, D), and the pooled ones of the second encoder."""
        joint, pooled = trained_text_encoders.embeds(self.pipe, ids, self.clip_skip)
        return {"prompt_embeds": joint, "pooled_prompt_embeds": pooled[1]}

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, embeds: PromptTensors) -> Tensor:
        """Epsilon, v or the sample; SDXL also takes the pooled embeddings and the sizes."""
        size = tuple(side * self.pipe.vae_scale_factor for side in noisy.shape[-2:])
        added = {
            "text_embeds": embeds["pooled_prompt_embeds"],
            "time_ids": noisy.new_tensor(time_ids(size)).expand(len(noisy), -1),
        }
        return denoiser(
            noisy, timesteps, embeds["prompt_embeds"], added_cond_kwargs=added, return_dict=False
        )[0]


def time_ids(size: tuple[int, ...]) -> list[int]:
    """(height, width) in pixels -> SDXL's six size conditions: original size, crop corner, target size.

    Podell et al. 2023, section 2.2. Training images count as whole pictures of the size that they are
    encoded at, and that is what the pipeline says of the images it samples: original and target are the same,
    nothing is cut.
    """
    return [*size, 0, 0, *size]


@dataclass(frozen=True, kw_only=True)
class RectifiedFlow(Family):
    """A transformer that predicts the velocity from image to noise (Esser et al. 2024)."""

    def loss(self, network: Any, batch: Batch, objective: Objective) -> Tensor:
        """The training loss of one batch: () float32. Every noise level weighs 1."""
        batch = batch.to(self.pipe.device)
        sigmas = objective.sigmas(batch.times).float().to(self.pipe.device)
        noisy = interpolate(batch.latents, batch.noise, sigmas).to(self.pipe.vae.dtype)
        timesteps = sigmas * self.pipe.scheduler.config.num_train_timesteps
        prediction = network(batch.seen(noisy), timesteps, batch.prompts)
        return diffusion_loss(prediction, flow_target(batch.latents, batch.noise), torch.ones_like(sigmas))


@dataclass(frozen=True, kw_only=True)
class StableDiffusion3(RectifiedFlow):
    """SD 3: joint prompt embeddings of CLIP and T5."""

    name: ClassVar[str] = "sd3"

    def prompt_embeds(self, prompts: PromptTensors) -> PromptTensors:
        """As `Family.prompt_embeds`; T5 is never trained, so its part stays."""
        embeds = super().prompt_embeds(prompts)
        clip = embeds.pop(CLIP, None)
        if clip is not None:
            embeds["prompt_embeds"] = trained_text_encoders.replace_clip(clip, embeds["prompt_embeds"])
        return embeds

    def embed_tokens(self, ids: PromptTensors) -> PromptTensors:
        """CLIP's part of the embeddings of P prompts, (P, L, D), and the pooled ones of both encoders."""
        joint, pooled = trained_text_encoders.embeds(self.pipe, ids, self.clip_skip)
        return {CLIP: joint, "pooled_prompt_embeds": torch.cat(pooled, dim=-1)}

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, embeds: PromptTensors) -> Tensor:
        """The velocity of `interpolate`."""
        return denoiser(
            noisy,
            timestep=timesteps,
            encoder_hidden_states=embeds["prompt_embeds"],
            pooled_projections=embeds["pooled_prompt_embeds"],
            return_dict=False,
        )[0]


@dataclass(frozen=True, kw_only=True)
class Sana(RectifiedFlow):
    """Sana: linear attention on large latent cells, prompts read by a language model (Xie et al. 2024)."""

    name: ClassVar[str] = "sana"

    def embed_tokens(self, ids: PromptTensors) -> PromptTensors:
        """Nothing: its text encoder never learns."""
        return {}

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, embeds: PromptTensors) -> Tensor:
        """The velocity of `interpolate`."""
        return denoiser(
            noisy,
            encoder_hidden_states=embeds["prompt_embeds"],
            encoder_attention_mask=embeds["prompt_attention_mask"],
            timestep=timesteps * denoiser.config.timestep_scale,
            return_dict=False,
        )[0]


def kind_of(base: Base) -> type[Family]:
    """The class of the family of ``base``."""
    kinds = (StableDiffusion, StableDiffusionXL, StableDiffusion3, Sana)
    return next(kind for kind in kinds if kind.name == base.family)


def family_of(pipe: Pipeline, base: Base, *, trains_text: bool = False, clip_skip: int = 0) -> Family:
    """The family of ``base`` on its loaded pipeline; ``trains_text`` for its text encoders too."""
    return kind_of(base).of(pipe, base, trains_text=trains_text, clip_skip=clip_skip)
