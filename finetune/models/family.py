"""A family of base models as something to train: its encoders, its prediction, its loss."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from finetune.models import trained_text_encoders
from finetune.models.targets import adapted_components
from finetune.models.trained_text_encoders import PromptTensors
from finetune.step.batches import Batch, EncodedDataset, EncodedImage, Masked, encoded_dataset
from finetune.step.objective import Objective
from orchard.bases import latents, prompt_embeds
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES
from orchard.bases.pipeline import Pipeline
from orchard.bases.prompt_embeds import Reading


@dataclass(frozen=True, kw_only=True)
class Family(ABC):
    """A loaded stock pipeline, seen as something to train."""

    pipe: Pipeline
    trains_text: bool = False
    """Whether the text encoders learn too, all but T5."""
    clip_skip: int = 0
    """Layer of the text encoders, as `prompt_embeds.Reading` has it."""
    words: Mapping[str, int] = field(default_factory=dict)
    """Words that they learn, and the number of vectors of each."""

    name: ClassVar[str]
    """Its name in `orchard.bases.families.FAMILIES`."""

    @classmethod
    def of(cls, pipe: Pipeline, base: Base, *, trains_text: bool = False, clip_skip: int = 0) -> Self:
        """The family's view of the pipeline of ``base``."""
        return cls(pipe=pipe, trains_text=trains_text, clip_skip=clip_skip)

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
        """The models that something learns in, by component of the pipeline; the denoiser first."""
        names = adapted_components(self.name, trains_text=self.trains_text)
        return {name: getattr(self.pipe, name) for name in names}

    @property
    def text_encoders(self) -> dict[str, Any]:
        """The text encoders among them."""
        return {name: model for name, model in self.models.items() if name != self.prefix}

    @property
    def all_text_encoders(self) -> list[Any]:
        """These, and the others, whose embeddings are in the `EncodedDataset`."""
        names = FAMILIES[self.name].text_encoders
        return [model for name in names if (model := getattr(self.pipe, name)) is not None]

    def encode(self, pixels: Sequence[np.ndarray], prompts: Sequence[str]) -> EncodedDataset:
        """N images, (H, W, 3) uint8 each, and their N prompts, encoded in float32 on the CPU.

        The command uses `finetune.data.encoding`, which has a cache on disk.
        """
        posteriors = [self.encode_image(image) for image in pixels]
        images = [EncodedImage(mean=mean, std=std) for mean, std in posteriors]

        def encode(unique: Sequence[str]) -> list[PromptTensors]:
            found = self.encode_prompts(unique)
            return [{name: value[row] for name, value in found.items()} for row in range(len(unique))]

        return encoded_dataset(images, [image.shape[:2] for image in pixels], prompts, encode)

    def encode_image(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """(H, W, 3) uint8 -> `posterior` of the image and its mirror image, (2, C, h, w) each.

        One image at a time, so that the others do not change its last bits.
        """
        return self.posterior(np.stack([pixels, pixels[:, ::-1]]))

    def encode_masked(self, pixels: np.ndarray, masks: np.ndarray) -> Masked:
        """(H, W, 3) uint8, masks (2, K, h, w) bool of the image and its mirror image -> what they leave."""
        sides = np.stack([pixels, pixels[:, ::-1]])
        found = [self.posterior(sides, masks[:, place]) for place in range(masks.shape[1])]
        mean, std = (torch.stack(parts, dim=1) for parts in zip(*found, strict=True))
        return Masked(masks=torch.from_numpy(masks)[:, :, None], mean=mean, std=std)

    @torch.no_grad()
    def posterior(self, pixels: np.ndarray, masks: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """(N, H, W, 3) -> mean and standard deviation of the latents' posterior, (N, C, h, w) each.

        Pixels in latent cells of ``masks``, (N, h, w) bool, count as grey, as the stock pipelines have it.
        """
        vae, dtype = self.pipe.vae, self.pipe.vae.dtype
        overflows = dtype == torch.float16 and vae.config.get("force_upcast", False)
        if overflows:
            vae.to(torch.float32)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
        if masks is not None:
            kept = torch.from_numpy(~masks).to(images)[:, None]
            images = images * torch.nn.functional.interpolate(kept, images.shape[-2:])
        mean, std = (part.float().cpu() for part in latents.posterior(vae, images))
        if overflows:
            vae.to(dtype)
        return latents.scaled(vae, mean), latents.scaled_deviation(vae, std)

    def encode_prompts(self, prompts: Sequence[str], chunks: int = 1) -> PromptTensors:
        """P prompts -> what an `EncodedDataset` has of each: `frozen_embeds` and `token_ids`, (P, ...)."""
        return self.frozen_embeds(prompts, chunks) | self.token_ids(prompts, chunks)

    def frozen_embeds(self, prompts: Sequence[str], chunks: int = 1) -> PromptTensors:
        """P prompts -> named prompt embeddings, (P, ...) each; one at a time, as in `encode_image`."""
        reading = Reading(clip_skip=self.clip_skip, chunks=chunks)
        found = [
            prompt_embeds.encode(self.pipe, [prompt], negative=False, reading=reading) for prompt in prompts
        ]
        return {name: torch.cat([embeds[name].float().cpu() for embeds in found]) for name in found[0]}

    def token_ids(self, prompts: Sequence[str], chunks: int = 1) -> PromptTensors:
        """P prompts -> (P, chunks * L) token ids for each text encoder that is trained."""
        return trained_text_encoders.tokenize(
            self.pipe, list(self.text_encoders), prompts, chunks, self.words
        )

    def prompt_embeds(self, prompts: PromptTensors) -> PromptTensors:
        """Prompts of a `Batch` -> prompt embeddings for the denoiser, (B, ...) each.

        Those that depend on trained text encoders are computed from the token ids, inside the graph.
        """
        embeds = {name: t for name, t in prompts.items() if not name.endswith(trained_text_encoders.TOKENS)}
        if self.trains_text:
            ids, prompt_of = trained_text_encoders.unique_prompts(prompts)
            embeds |= {name: value[prompt_of] for name, value in self.embed_tokens(ids).items()}
        return {name: value.to(self.pipe.vae.dtype) for name, value in embeds.items()}

    @abstractmethod
    def embed_tokens(self, ids: PromptTensors) -> PromptTensors:
        """Token ids of P prompts for each trained text encoder -> the embeddings they give, (P, ...) each."""

    @abstractmethod
    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, embeds: PromptTensors) -> Tensor:
        """The denoiser's prediction for what `Batch.seen` gives at (B,) timesteps: (B, C, h, w)."""

    @abstractmethod
    def loss(self, network: Any, batch: Batch, objective: Objective) -> Tensor:
        """The training loss of one batch: () float32.

        ``network`` is a `Network` of this family, as the launcher wrapped it.
        """


class Network(torch.nn.Module):
    """All that is trained of a family, as one module: launchers average gradients over one."""

    def __init__(self, family: Family, denoiser: Any = None) -> None:
        super().__init__()
        self.denoiser = denoiser or family.denoiser
        self.text_encoders = torch.nn.ModuleDict(family.text_encoders)
        self.family = family

    @property
    def _no_split_modules(self) -> list[str]:
        """The classes that FSDP shards separately: the models, which pipelines call, and their blocks."""
        parts = (self.denoiser, *self.text_encoders.values())
        blocks = {name for part in parts for name in getattr(part, "_no_split_modules", None) or ()}
        return sorted(blocks | {type(part).__name__ for part in parts})

    def forward(self, noisy: Tensor, timesteps: Tensor, prompts: PromptTensors) -> Tensor:
        """What `Batch.seen` gives, (B,) timesteps, prompts of a `Batch` -> (B, C, h, w) prediction."""
        return self.family.predict(self.denoiser, noisy, timesteps, self.family.prompt_embeds(prompts))
