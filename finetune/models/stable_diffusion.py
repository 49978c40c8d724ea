"""What differs between model families: the text states, what is predicted, the loss."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from finetune.models import trained_text_encoders
from finetune.models.family import Family
from finetune.models.trained_text_encoders import Text
from finetune.training.batches import Batch
from finetune.training.loss import (
    diffuse,
    diffusion_loss,
    flow_target,
    interpolate,
    snr,
    target,
    timesteps_of,
)
from finetune.training.objective import Objective
from orchard.bases import bases
from orchard.bases.bases import Base
from orchard.bases.pipeline import Pipeline

CLIP = "clip_embeds"
"""SD 3's text states without T5's part."""


@dataclass(frozen=True, kw_only=True)
class StableDiffusion(Family):
    """SD 1 and 2: one text encoder, a UNet, epsilon or v."""

    name: ClassVar[str] = "sd"

    prediction_type: str
    alphas_cumprod: Tensor
    """(T,) of the noise schedule."""

    @classmethod
    def of(cls, pipe: Pipeline, base: Base, *, trains_text: bool = False) -> Self:
        """The family's view of the pipeline of ``base``; the noise schedule is the pipeline's own."""
        from diffusers import DDPMScheduler

        schedule: Any = DDPMScheduler(**bases.noise_of(pipe.scheduler.config))
        return cls(
            pipe=pipe,
            trains_text=trains_text,
            prediction_type=base.prediction_type,
            alphas_cumprod=schedule.alphas_cumprod,
        )

    def loss(self, network: Any, batch: Batch, objective: Objective) -> Tensor:
        """The training loss of one batch: () float32."""
        batch = batch.to(self.pipe.device)
        # On the CPU, where the times have full precision on every machine.
        timesteps = timesteps_of(batch.times, len(self.alphas_cumprod)).to(self.pipe.device)
        alphas = self.alphas_cumprod.to(self.pipe.device)[timesteps].float()
        noisy = diffuse(batch.latents, batch.noise, alphas)
        said = network(noisy.to(self.pipe.vae.dtype), timesteps, batch.text)
        weights = objective.weights(snr(self.alphas_cumprod, timesteps), self.prediction_type)
        return diffusion_loss(said, target(self.prediction_type, batch.latents, batch.noise, alphas), weights)

    def encode_ids(self, ids: Text) -> Text:
        """The states of P prompts, (P, L, D)."""
        return {"prompt_embeds": trained_text_encoders.last(self.pipe, ids)}

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, states: Text) -> Tensor:
        """Epsilon, v or the sample, as the base predicts it."""
        return denoiser(noisy, timesteps, states["prompt_embeds"], return_dict=False)[0]


@dataclass(frozen=True, kw_only=True)
class StableDiffusionXL(StableDiffusion):
    """SDXL: two text encoders, pooled states and image sizes beside the text."""

    name: ClassVar[str] = "sdxl"

    def encode_ids(self, ids: Text) -> Text:
        """The states of P prompts, (P, L, D), and the pooled ones of the second encoder."""
        joint, ends = trained_text_encoders.penultimate(self.pipe, ids)
        return {"prompt_embeds": joint, "pooled_prompt_embeds": ends[1]}

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, states: Text) -> Tensor:
        """Epsilon, v or the sample; SDXL is also told the pooled states and the sizes."""
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

    def loss(self, network: Any, batch: Batch, objective: Objective) -> Tensor:
        """The training loss of one batch: () float32. Every noise level weighs 1."""
        batch = batch.to(self.pipe.device)
        sigmas = objective.sigmas(batch.times).float().to(self.pipe.device)
        noisy = interpolate(batch.latents, batch.noise, sigmas).to(self.pipe.vae.dtype)
        said = network(noisy, sigmas * self.pipe.scheduler.config.num_train_timesteps, batch.text)
        return diffusion_loss(said, flow_target(batch.latents, batch.noise), torch.ones_like(sigmas))

    def states(self, text: Text) -> Text:
        """As `Family.states`; T5 is never trained, so its part of the states stays."""
        states = super().states(text)
        clip = states.pop(CLIP, None)
        if clip is not None:
            states["prompt_embeds"] = trained_text_encoders.before_t5(clip, states["prompt_embeds"])
        return states

    def encode_ids(self, ids: Text) -> Text:
        """CLIP's part of the states of P prompts, (P, L, D), and the pooled ones of both encoders."""
        joint, ends = trained_text_encoders.penultimate(self.pipe, ids)
        return {CLIP: joint, "pooled_prompt_embeds": torch.cat(ends, dim=-1)}

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, states: Text) -> Tensor:
        """The velocity of `interpolate`."""
        return denoiser(
            noisy,
            timestep=timesteps,
            encoder_hidden_states=states["prompt_embeds"],
            pooled_projections=states["pooled_prompt_embeds"],
            return_dict=False,
        )[0]


def kind_of(base: Base) -> type[Family]:
    """The class of the family of ``base``."""
    kinds = (StableDiffusion, StableDiffusionXL, StableDiffusion3)
    return next(kind for kind in kinds if kind.name == base.family)


def family_of(pipe: Pipeline, base: Base, *, trains_text: bool = False) -> Family:
    """The family of ``base`` on its loaded pipeline; ``trains_text`` for its text encoders too."""
    return kind_of(base).of(pipe, base, trains_text=trains_text)
