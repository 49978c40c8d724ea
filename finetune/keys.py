"""What encoded photos and prompts depend on; an entry with another key is another entry."""

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.entries import Key
from orchard import components
from orchard.bases import Base
from orchard.families import FAMILIES
from orchard.framing import Fit
from orchard.images import DECODING, Photo

PHOTOS, PROMPTS = "photos", "prompts"
"""Kinds of entries."""
SCHEMA = 2
"""Goes up when `Family.latents` or `Family.text` come to be others."""
LIBRARIES = ("torch", "diffusers", "transformers", "pillow")
"""Libraries whose versions may change the values."""
TRANSFORM = "upright, over white, {fit}, Lanczos; and its mirror image"


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys of a base's encoders in one precision on one kind of device."""

    autoencoder: str
    """Digest of its weights and config."""
    text_encoders: str
    """Digest of their weights, configs and tokenizers."""
    setting: Mapping[str, Any]
    sizes: Mapping[str, tuple[int, int]]
    """(height, width) in pixels at which a photo is encoded, by its file's hash."""
    fit: Fit
    """How it is brought to them."""

    def photo(self, photo: Photo) -> Key:
        """The key of a photo's latents."""
        return {
            "kind": PHOTOS,
            "file": photo.sha256,
            "decoding": DECODING,
            "size": list(self.sizes[photo.sha256]),
            "transform": TRANSFORM.format(fit=self.fit),
            "autoencoder": self.autoencoder,
            **self.setting,
        }

    def prompt(self, prompt: str) -> Key:
        """The key of a prompt's text states."""
        return {"kind": PROMPTS, "text": prompt, "text_encoders": self.text_encoders, **self.setting}


def keys_of(
    base: Base, precision: str, device: str, sizes: Mapping[str, tuple[int, int]], fit: Fit = "pad"
) -> Keys:
    """The keys of ``base``, told from its files; ``device`` is a type of `torch.device`."""
    encoders = FAMILIES[base.family].text_encoders
    tokenizers = [name.replace("text_encoder", "tokenizer") for name in encoders]
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return Keys(
        autoencoder=components.digest(base, ["vae"]),
        text_encoders=components.digest(base, [*encoders, *tokenizers]),
        setting={"schema": SCHEMA, "precision": precision, "device": device, "versions": versions},
        sizes=sizes,
        fit=fit,
    )
