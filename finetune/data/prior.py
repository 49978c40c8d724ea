"""Prior preservation: images of the class that the base itself samples, so that the adapter keeps them.

Ruiz et al. 2023 (DreamBooth), section 3.2. They are sampled once and cached as latents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from finetune.config import TrainLora
from finetune.data.encoded_cache import Key, Tensors, gather
from finetune.data.encoding import Encoder
from finetune.models.family import Family
from finetune.models.sampling import Settings, sample
from finetune.step.batches import EncodedDataset, EncodedImage, Lazy, encoded_dataset
from orchard import prompt_template
from orchard.bases.bases import Base
from orchard.bases.prompt_embeds import STOCK
from orchard.images.splits import stable_hash

BATCH = 8
"""Images sampled at once, and cached as one entry."""


def dataset(config: TrainLora, base: Base, encoder: Encoder, classes: Sequence[str]) -> EncodedDataset:
    """``config.prior_count`` sampled images of each class, without mirror images.

    Those not in the cache are sampled from the encoder's pipeline, which must have no adapter.
    """
    count = config.prior_count
    blocks = [
        (prompt_template.fill(config.prior_prompt, label), range(first, min(first + BATCH, count)))
        for label in classes
        for first in range(0, count, BATCH)
    ]

    def make(row: int) -> Tensors:
        how = Settings.of(base, blocks[row][0], config.clip_skip)
        return {"latents": _sample(config.seed, how, encoder.family, *blocks[row])}

    keys = [_key(config, base, *block, encoder.keys.setting) for block in blocks]
    found = gather(
        config.output,
        keys,
        make,
        encoder.accelerator,
        title="sampling prior images",
        unit=f"batches of {BATCH}",
        least=1,
    )
    places = [(row, place) for row, (_, numbers) in enumerate(blocks) for place in range(len(numbers))]
    masked = encoder.all_masked(base.resolution) if base.inpaints else None

    def image(number: int) -> EncodedImage:
        row, place = places[number]
        mean = found[row]["latents"][place].expand(2, -1, -1, -1)
        return EncodedImage(mean=mean, std=torch.zeros_like(mean), masked=masked)

    prompts = [prompt for prompt, numbers in blocks for _ in numbers]
    sizes = [(base.resolution, base.resolution)] * len(places)
    return encoded_dataset(Lazy(len(places), image), sizes, prompts, encoder.prompts)


def _key(config: TrainLora, base: Base, prompt: str, numbers: range, setting: Mapping[str, Any]) -> Key:
    """The key of images ``numbers`` of a prompt; their entry lies in the folder ``prior`` of the output."""
    how = Settings.of(base, prompt, config.clip_skip)
    return {
        **({} if config.quantize == "none" else {"quantize": config.quantize}),
        **({} if how.reading == STOCK else {"reading": asdict(how.reading)}),
        "kind": "prior",
        "base": base.digest,
        "prompt": prompt,
        "numbers": [numbers.start, numbers.stop],
        "seed": config.seed,
        "sampling": [how.steps, how.guidance],
        **setting,
    }


def _sample(seed: int, how: Settings, family: Family, prompt: str, numbers: range) -> torch.Tensor:
    """(N, C, h, w) float32 latents as the denoiser sees them, one for each of N ``numbers``."""
    seeds = [stable_hash("prior", seed, prompt, number) for number in numbers]
    family.denoiser.to(family.pipe.device)
    return torch.as_tensor(sample(family, prompt, seeds, how, "latent")).float().cpu()
