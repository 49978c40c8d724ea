"""Photos and prompts through the frozen encoders, or from the entries that an earlier run has left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from finetune.data.encoded_cache import Keys, Tensors, gather
from finetune.models.family import Family
from finetune.training.batches import Cache, assemble
from orchard.errors import UserError
from orchard.images import images
from orchard.images.images import Photo, sha256


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The encoders of a loaded base; what they say is the same with a full, an empty and no cache."""

    family: Family
    keys: Keys
    folder: Path | None
    """Where entries are kept; None keeps none."""
    accelerator: Accelerator

    def cache(self, photos: Sequence[Photo], prompts: Sequence[str]) -> Cache:
        """N photos and their N prompts -> what training draws batches from."""
        return assemble(self._latents(photos), prompts, self.text)

    def text(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """What a `Cache` keeps of P prompts, (P, ...) each, as of `Family.text`."""

        def make(row: int) -> Tensors:
            return {name: states[0] for name, states in self.family.frozen_states([prompts[row]]).items()}

        keys = [self.keys.prompt(prompt) for prompt in prompts]
        found = gather(self.folder, keys, make, self.accelerator, title="encoding prompts", unit="prompts")
        states = {name: torch.stack([entry[name] for entry in found]) for name in found[0]}
        return states | self.family.tokens(prompts)

    def _latents(self, photos: Sequence[Photo]) -> list[tuple[Tensor, Tensor]]:
        """Mean and deviation of each photo's posterior, as of `Family.latents`."""

        def make(row: int) -> Tensors:
            mean, std = self.family.latents(self._pixels(photos[row]))
            return {"mean": mean, "std": std}

        keys = [self.keys.photo(photo) for photo in photos]
        found = gather(self.folder, keys, make, self.accelerator, title="encoding photos", unit="photos")
        return [(entry["mean"], entry["std"]) for entry in found]

    def _pixels(self, photo: Photo) -> np.ndarray:
        """(H, W, 3) uint8 at the photo's size."""
        data = photo.read()
        if sha256(data) != photo.sha256:
            raise UserError(f"{photo.path}: changed while the run was under way; start it again")
        size = self.keys.sizes[photo.sha256]
        return np.asarray(images.framed(images.decode(data, photo.path), size, self.keys.fit))
