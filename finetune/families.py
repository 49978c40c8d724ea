"""What differs between model families: how images and prompts are encoded, what is predicted."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from finetune import encoders, lora
from finetune.batches import Batch, Cache, assemble
from finetune.encoders import Text
from finetune.loss import diffuse, diffusion_loss, flow_target, interpolate, snr, target, timesteps_of
from finetune.network import Network
from finetune.objective import Objective
from finetune.targets import places
from orchard import text
from orchard.bases import FAMILIES, Base

CLIP = "clip_embeds"
"""SD 3's text states without T5's part."""


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """A loaded stock pipeline, seen as something to train."""

    pipe: Any
    trains_text: bool = False
    """Whether the text encoders learn too, all but T5."""

    name: ClassVar[str]
    """Its name in `orchard.bases.FAMILIES`."""
    targets: ClassVar[tuple[str, ...]] = lora.TARGETS
    """Attention layers of the denoiser, by the end of their names."""

    @classmethod
    def of(cls, pipe: Any, base: Base, *, trains_text: bool = False) -> Self:
        """The family's view of the pipeline of ``base``."""
        return cls(pipe=pipe, trains_text=trains_text)

    @property
    def prefix(self) -> str:
        """The denoiser's name in the pipeline, which starts the keys of a LoRA file."""
        return FAMILIES[self.name].denoiser

    @property
    def denoiser(self) -> Any:
        """The network that predicts the noise."""
        return getattr(self.pipe, self.prefix)

    @property
    def models(self) -> dict[str, Any]:
        """Everything that gets an adapter, by its place in the pipeline; the denoiser first."""
        return {place: getattr(self.pipe, place) for place in places(self.name, trains_text=self.trains_text)}

    @property
    def text_encoders(self) -> dict[str, Any]:
        """The text encoders among them."""
        return {place: model for place, model in self.models.items() if place != self.prefix}

    @property
    def frozen_text_encoders(self) -> list[Any]:
        """The others, whose states are in the `Cache`."""
        others = [place for place in FAMILIES[self.name].text_encoders if place not in self.models]
        return [model for place in others if (model := getattr(self.pipe, place)) is not None]

    @property
    def network(self) -> Network:
        """The same as one module, for the loss."""
        return Network(self)

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

    def text(self, prompts: Sequence[str]) -> Text:
        """What a `Cache` keeps of P prompts, (P, ...) each: their frozen states, and `tokens`."""
        return self.frozen_states(prompts) | self.tokens(prompts)

    def frozen_states(self, prompts: Sequence[str]) -> Text:
        """P prompts -> named text states, (P, ...) each; every prompt by itself, as in `latents`."""
        found = [text.encode(self.pipe, [prompt], negative=False) for prompt in prompts]
        return {name: torch.cat([states[name].float().cpu() for states in found]) for name in found[0]}

    def tokens(self, prompts: Sequence[str]) -> Text:
        """P prompts -> (P, L) token ids for each text encoder that is trained."""
        return encoders.tokens(self.pipe, list(self.text_encoders), prompts)

    def states(self, text: Text) -> Text:
        """Text of a `Batch` -> text states for the denoiser, (B, ...) each.

        Those that trained text encoders have a part in are computed from the token ids, inside the graph.
        """
        states = {name: value for name, value in text.items() if not name.endswith(encoders.TOKENS)}
        if self.trains_text:
            ids, whose = encoders.each_once(text)
            states |= {name: value[whose] for name, value in self.encode_ids(ids).items()}
        return {name: state.to(self.pipe.vae.dtype) for name, state in states.items()}

    @abstractmethod
    def encode_ids(self, ids: Text) -> Text:
        """Token ids of P prompts for each trained text encoder -> the states they give, (P, ...) each."""

    @abstractmethod
    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, states: Text) -> Tensor:
        """What the denoiser says of (B, C, h, w) noisy latents at (B,) timesteps: (B, C, h, w)."""

    @abstractmethod
    def loss(self, network: Any, batch: Batch, objective: Objective) -> Tensor:
        """The training loss of one batch: () float32.

        ``network`` is `network` as the caller has wrapped it.
        """


@dataclass(frozen=True, kw_only=True)
class StableDiffusion(Family):
    """SD 1 and 2: one text encoder, a UNet, epsilon or v."""

    name: ClassVar[str] = "sd"

    prediction_type: str
    alphas_cumprod: Tensor
    """(T,) of the noise schedule."""

    @classmethod
    def of(cls, pipe: Any, base: Base, *, trains_text: bool = False) -> Self:
        """The family's view of the pipeline of ``base``; the noise schedule is the pipeline's own."""
        from diffusers import DDPMScheduler

        schedule = DDPMScheduler.from_config(pipe.scheduler.config)
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
        return {"prompt_embeds": encoders.last(self.pipe, ids)}

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, states: Text) -> Tensor:
        """Epsilon, v or the sample, as the base predicts it."""
        return denoiser(noisy, timesteps, states["prompt_embeds"], return_dict=False)[0]


@dataclass(frozen=True, kw_only=True)
class StableDiffusionXL(StableDiffusion):
    """SDXL: two text encoders, pooled states and image sizes beside the text."""

    name: ClassVar[str] = "sdxl"

    def encode_ids(self, ids: Text) -> Text:
        """The states of P prompts, (P, L, D), and the pooled ones of the second encoder."""
        joint, ends = encoders.penultimate(self.pipe, ids)
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
    targets: ClassVar[tuple[str, ...]] = (
        *lora.TARGETS,
        "add_q_proj",
        "add_k_proj",
        "add_v_proj",
        "to_add_out",
    )

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
            states["prompt_embeds"] = encoders.before_t5(clip, states["prompt_embeds"])
        return states

    def encode_ids(self, ids: Text) -> Text:
        """CLIP's part of the states of P prompts, (P, L, D), and the pooled ones of both encoders."""
        joint, ends = encoders.penultimate(self.pipe, ids)
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


def family_of(pipe: Any, base: Base, *, trains_text: bool = False) -> Family:
    """The family of ``base`` on its loaded pipeline; ``trains_text`` for its text encoders too."""
    return kind_of(base).of(pipe, base, trains_text=trains_text)
