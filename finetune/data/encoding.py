"""Encode photos and prompts by the frozen encoders, or read what an earlier run encoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from PIL import Image

from finetune.data import masks
from finetune.data.encoded_cache import Keys, Tensors, gather
from finetune.models.family import Family
from finetune.models.trained_text_encoders import PromptTensors, in_turn
from finetune.step.batches import EncodedDataset, EncodedImage, Lazy, Masked, encoded_dataset
from orchard.errors import UserError
from orchard.images import images
from orchard.images.framing import framed_boxes
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
        """N photos and their N prompts, encoded; for a base that inpaints their masks as well.

        ``options`` as those of `encoded_dataset`.
        """
        found = self._photos(photos)
        images = Lazy(len(found), lambda row: _image(found[row]))
        sizes = [self.keys.sizes[photo.sha256] for photo in photos]
        return encoded_dataset(images, sizes, prompts, self.prompts, **options)

    def all_masked(self, side: int) -> Masked:
        """The mask that leaves nothing of a square image, as `finetune.models.sampling` has it."""
        cells = side // self.family.pipe.vae_scale_factor
        everything = np.ones((2, 1, cells, cells), bool)
        return self.family.encode_masked(np.zeros((side, side, 3), np.uint8), everything)

    def prompts(self, prompts: Sequence[str]) -> Sequence[PromptTensors]:
        """P prompts encoded, each as `Family.encode_prompts` does."""

        def make(row: int) -> Tensors:
            found = self.family.frozen_embeds([prompts[row]], self.chunks)
            return {name: embeds[0] for name, embeds in found.items()}

        keys = [self.keys.prompt(prompt, self.chunks) for prompt in prompts]
        with in_turn(self.family.all_text_encoders, self.accelerator.device):
            found = gather(
                self.folder, keys, make, self.accelerator, title="encoding prompts", unit="prompts"
            )
        ids = self.family.token_ids(prompts, self.chunks)
        return Lazy(len(found), lambda row: found[row] | {name: one[row] for name, one in ids.items()})

    def _photos(self, photos: Sequence[Photo]) -> Sequence[Tensors]:
        """The entry of each photo."""

        def make(row: int) -> Tensors:
            return self._encoded(photos[row])

        keys = [self.keys.photo(photo) for photo in photos]
        return gather(self.folder, keys, make, self.accelerator, title="encoding photos", unit="photos")

    def _encoded(self, photo: Photo) -> Tensors:
        """Mean and standard deviation of a photo's latents, as `Family.encode_image` gives them.

        For a base that inpaints also its masks, and the same of what they leave.
        """
        data, keys = photo.read(), self.keys
        if sha256(data) != photo.sha256:
            raise UserError(f"{photo.path}: changed during the run; start it again")
        whole = images.decode(data, photo.path)
        pixels = self._pixels(photo, whole)
        mean, std = self.family.encode_image(pixels)
        if not keys.masked:
            return {"mean": mean, "std": std}
        size, uncut = keys.sizes[photo.sha256], (whole.height, whole.width)
        boxes = framed_boxes(photo.boxes(), uncut, size, keys.fit, keys.kept(photo))
        drawn = masks.of_photo(photo, boxes, size, self.family.pipe.vae_scale_factor)
        masked = self.family.encode_masked(pixels, drawn)
        under = {"masks": masked.masks, "masked_mean": masked.mean, "masked_std": masked.std}
        return {"mean": mean, "std": std, **under}

    def _pixels(self, photo: Photo, whole: Image.Image) -> np.ndarray:
        """(H, W, 3) uint8 at the size to encode."""
        size, keep = self.keys.sizes[photo.sha256], self.keys.kept(photo)
        return np.asarray(images.framed(whole, size, self.keys.fit, keep))


def _image(entry: Tensors) -> EncodedImage:
    masked = None
    if "masks" in entry:
        masked = Masked(masks=entry["masks"], mean=entry["masked_mean"], std=entry["masked_std"])
    return EncodedImage(mean=entry["mean"], std=entry["std"], masked=masked)
