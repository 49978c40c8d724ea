"""Encode photos and prompts by the frozen encoders, or read what an earlier run encoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from finetune.data.encoded_cache import Keys, Tensors, gather
from finetune.models.family import Family
from finetune.models.trained_text_encoders import PromptTensors, in_turn
from finetune.step.batches import EncodedDataset, encoded_dataset
from orchard.errors import UserError
from orchard.images import images
from orchard.images.images import Photo, sha256


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The encoders of a loaded base; they give the same with a full cache, an empty one and none."""

    family: Family
    keys: Keys
    folder: Path | None
    """The cache; None keeps nothing."""
    accelerator: Accelerator
    chunks: int = 1
    """Of each prompt, as `prompt_embeds.Reading` has them."""

    def dataset(self, photos: Sequence[Photo], prompts: Sequence[str], **options: bool) -> EncodedDataset:
        """N photos and their N prompts, encoded; with the options of `encoded_dataset`."""
        return encoded_dataset(self._posteriors(photos), prompts, self.prompts, **options)

    def prompts(self, prompts: Sequence[str]) -> PromptTensors:
        """P prompts encoded, (P, ...) each, as `Family.encode_prompts` does."""

        def make(row: int) -> Tensors:
            found = self.family.frozen_embeds([prompts[row]], self.chunks)
            return {name: embeds[0] for name, embeds in found.items()}

        keys = [self.keys.prompt(prompt, self.chunks) for prompt in prompts]
        with in_turn(self.family.all_text_encoders, self.accelerator.device):
            found = gather(
                self.folder, keys, make, self.accelerator, title="encoding prompts", unit="prompts"
            )
        embeds = {name: torch.stack([entry[name] for entry in found]) for name in found[0]}
        return embeds | self.family.token_ids(prompts, self.chunks)

    def _posteriors(self, photos: Sequence[Photo]) -> list[tuple[Tensor, Tensor]]:
        """Mean and standard deviation of each photo's latents, as `Family.encode_image` gives them."""

        def make(row: int) -> Tensors:
            mean, std = self.family.encode_image(self._pixels(photos[row]))
            return {"mean": mean, "std": std}

        keys = [self.keys.photo(photo) for photo in photos]
        found = gather(self.folder, keys, make, self.accelerator, title="encoding photos", unit="photos")
        return [(entry["mean"], entry["std"]) for entry in found]

    def _pixels(self, photo: Photo) -> np.ndarray:
        """(H, W, 3) uint8 at the size to encode."""
        data = photo.read()
        if sha256(data) != photo.sha256:
            raise UserError(f"{photo.path}: changed during the run; start it again")
        size, keep = self.keys.sizes[photo.sha256], self.keys.kept(photo)
        return np.asarray(images.framed(images.decode(data, photo.path), size, self.keys.fit, keep))
