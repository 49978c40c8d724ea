"""The loss of single photos, at noise levels and noise that are the same with an adapter and without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from finetune.losses.config import Losses
from finetune.models.families import family_of
from finetune.models.family import Family, Network
from finetune.step.batches import Batch
from finetune.step.objective import UNWEIGHTED
from orchard import prompt_template
from orchard.adapters import attaching
from orchard.adapters.adapter import Adapter
from orchard.bases import prompt_embeds
from orchard.bases.bases import Base
from orchard.cli.terminal import bar
from orchard.images import images
from orchard.images.framing import Fit
from orchard.images.images import Photo
from orchard.images.splits import stable_hash

BATCH = 16
"""Draws at a time."""


@dataclass(frozen=True, kw_only=True)
class PhotoLoss:
    """One photo and one adapter."""

    file: str
    sha256: str
    label: str
    member: bool
    """Whether the adapter was trained on it."""
    base: float
    """Mean loss of the base alone, over all draws."""
    adapted: float
    """The same with the adapter in it."""


def of_adapter(
    config: Losses, base: Base, pipe: Any, adapter: Adapter, photos: Sequence[tuple[Photo, bool]]
) -> list[PhotoLoss]:
    """The losses of photos, of which is said whether they are members; the adapter stays in ``pipe``."""
    said = adapter.provenance
    assert said is not None, adapter.path
    options = said.options
    family = family_of(pipe, base, clip_skip=int(options.get("clip_skip", 0)))
    attaching.learn_words(pipe, ())
    pipe.unload_lora_weights()
    means: list[list[float]] = []
    flip = options.get("flip", True) is True
    with bar(f"losses of {adapter.path.name}", 2 * len(photos), unit="photos") as advance:
        for adapted in (False, True):
            if adapted:
                attaching.attach(pipe, adapter)
            # The class's prompt alone, whatever captions it was trained with: who attacks knows none either.
            texts = [
                prompt_template.fill(said.prompt, said.word(photo.label) if adapted else photo.label)
                for photo, _ in photos
            ]
            embeds = _embeds(family, base, texts)
            found = []
            for (photo, _), text in zip(photos, texts, strict=True):
                # Each time anew: that is little beside the draws, and holding all of them is much.
                posterior = _encoded(family, base, options, photo)
                found.append(_mean(config, family, photo, posterior, embeds[text], flip=flip))
                advance(1)
            means.append(found)
    return [
        PhotoLoss(
            file=photo.path,
            sha256=photo.sha256,
            label=photo.label,
            member=member,
            base=alone,
            adapted=adapted,
        )
        for (photo, member), alone, adapted in zip(photos, *means, strict=True)
    ]


def _encoded(
    family: Family, base: Base, options: Mapping[str, Any], photo: Photo
) -> tuple[torch.Tensor, torch.Tensor]:
    """`Family.encode_image` of the photo, framed as the adapter has seen it."""
    fit: Fit = "crop" if options.get("fit") == "crop" else "pad"
    kept = photo.boxes() if fit == "crop" else ()
    framed = images.framed(photo.image(), (base.resolution, base.resolution), fit, kept)
    return family.encode_image(np.asarray(framed))


def _embeds(family: Family, base: Base, texts: Sequence[str]) -> dict[str, dict[str, torch.Tensor]]:
    """Prompt -> its embeddings, (1, ...) each, by the text encoders as they are now."""
    prompts = sorted(set(texts))
    encoded = family.encode_prompts(prompts, prompt_embeds.chunks(base, prompts))
    return {
        prompt: {name: value[row : row + 1] for name, value in encoded.items()}
        for row, prompt in enumerate(prompts)
    }


@torch.no_grad()
def _mean(
    config: Losses,
    family: Family,
    photo: Photo,
    posterior: tuple[torch.Tensor, torch.Tensor],
    embeds: Mapping[str, torch.Tensor],
    *,
    flip: bool,
) -> float:
    """The mean loss of a photo over all draws, which hang on the seed and the photo alone.

    Noise levels are spread evenly, one from each of as many equal parts of time; with ``flip`` every other
    draw sees the mirror image.
    """
    count = config.draws
    generator = torch.Generator().manual_seed(stable_hash("losses", config.seed, photo.sha256))
    mean, std = (part[torch.arange(count) % (1 + flip)] for part in posterior)
    latents = mean + std * torch.randn(mean.shape, generator=generator)
    noise = torch.randn(mean.shape, generator=generator)
    times = (torch.arange(count) + torch.rand(count, generator=generator, dtype=torch.float64)) / count
    network, total = Network(family).eval(), 0.0
    for part in torch.arange(count).split(BATCH):
        batch = Batch(
            latents=latents[part],
            noise=noise[part],
            times=times[part],
            prompts={name: value.expand(len(part), *value.shape[1:]) for name, value in embeds.items()},
            rows=[0] * len(part),
        )
        total += family.loss(network, batch, UNWEIGHTED).item() * len(part)
    return total / count
