"""A model family as something to train: how it encodes images and prompts, what is asked of it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from finetune.models import trained_text_encoders
from finetune.models.targets import places
from finetune.models.trained_text_encoders import Text
from finetune.training.batches import Batch, Cache, assemble
from finetune.training.objective import Objective
from orchard.bases import prompt_embeds
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES
from orchard.bases.latents import scaled, scaled_deviation
from orchard.bases.pipeline import Pipeline


class Network(torch.nn.Module):
    """A family's prediction; one module, so that every launcher averages the gradients of all its parts."""

    def __init__(self, family: "Family", denoiser: Any = None) -> None:
        super().__init__()
        self.denoiser = denoiser or family.denoiser
        self.text_encoders = torch.nn.ModuleDict(family.text_encoders)
        self.family = family

    @property
    def _no_split_modules(self) -> list[str]:
        """The classes that FSDP shards by themselves: blocks as the parts name them, and the parts.

        A pipeline calls the parts without this module around them.
        """
        parts = (self.denoiser, *self.text_encoders.values())
        blocks = {name for part in parts for name in getattr(part, "_no_split_modules", None) or ()}
        return sorted(blocks | {type(part).__name__ for part in parts})

    def forward(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """(B, C, h, w) noisy latents, (B,) timesteps, text of a `Batch` -> (B, C, h, w) prediction."""
        return self.family.predict(self.denoiser, noisy, timesteps, self.family.states(text))


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """A loaded stock pipeline, seen as something to train."""

    pipe: Pipeline
    trains_text: bool = False
    """Whether the text encoders learn too, all but T5."""

    name: ClassVar[str]
    """Its name in `orchard.bases.families.FAMILIES`."""

    @classmethod
    def of(cls, pipe: Pipeline, base: Base, *, trains_text: bool = False) -> Self:
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
        """N images, (H, W, 3) uint8 each, and N prompts -> `Cache` in float32 on the CPU, all at once.

        The command goes by `finetune.data.encoding`, which keeps what it has encoded.
        """
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
        return scaled(vae, mean), scaled_deviation(vae, std)

    def text(self, prompts: Sequence[str]) -> Text:
        """What a `Cache` keeps of P prompts, (P, ...) each: their frozen states, and `tokens`."""
        return self.frozen_states(prompts) | self.tokens(prompts)

    def frozen_states(self, prompts: Sequence[str]) -> Text:
        """P prompts -> named text states, (P, ...) each; every prompt by itself, as in `latents`."""
        found = [prompt_embeds.encode(self.pipe, [prompt], negative=False) for prompt in prompts]
        return {name: torch.cat([states[name].float().cpu() for states in found]) for name in found[0]}

    def tokens(self, prompts: Sequence[str]) -> Text:
        """P prompts -> (P, L) token ids for each text encoder that is trained."""
        return trained_text_encoders.tokens(self.pipe, list(self.text_encoders), prompts)

    def states(self, text: Text) -> Text:
        """Text of a `Batch` -> text states for the denoiser, (B, ...) each.

        Those that trained text encoders have a part in are computed from the token ids, inside the graph.
        """
        states = {
            name: value for name, value in text.items() if not name.endswith(trained_text_encoders.TOKENS)
        }
        if self.trains_text:
            ids, whose = trained_text_encoders.each_once(text)
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
