"""Prior preservation: pictures of the class by the untouched base, which the adapter must not unlearn.

Ruiz et al. 2023 (DreamBooth), section 3.2. The pictures are kept as latents, sampled once and found again
by what they depend on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from finetune.config import TrainLora
from finetune.data.encoded_cache import Key, Tensors, gather
from finetune.data.encoding import Encoder
from finetune.models.family import Family
from finetune.models.sampling import GUIDANCE, STEPS, sample
from finetune.training.batches import Cache, assemble
from orchard import prompt_template
from orchard.bases.bases import Base
from orchard.images.splits import stable_hash

BATCH = 8
"""Pictures sampled at once, and kept as one entry."""


def cache(config: TrainLora, base: Base, encoder: Encoder, classes: Sequence[str]) -> Cache:
    """``config.prior_count`` sampled pictures of each class as training latents, without mirror images.

    Sampled where they are not there yet, before any LoRA is in the base.
    """
    count = config.prior_count
    blocks = [
        (prompt_template.fill(config.prior_prompt, label), range(first, min(first + BATCH, count)))
        for label in classes
        for first in range(0, count, BATCH)
    ]

    def make(row: int) -> Tensors:
        return {"latents": _sample(config.seed, encoder.family, *blocks[row])}

    keys = [_key(config.seed, base, *block, encoder.keys.setting) for block in blocks]
    found = gather(
        config.output,
        keys,
        make,
        encoder.accelerator,
        title="sampling pictures of the prior",
        unit=f"batches of {BATCH}",
        least=1,
    )
    means = [torch.stack([latents, latents]) for entry in found for latents in entry["latents"]]
    texts = [prompt for prompt, numbers in blocks for _ in numbers]
    return assemble([(mean, torch.zeros_like(mean)) for mean in means], texts, encoder.text)


def _key(seed: int, base: Base, prompt: str, numbers: range, setting: Mapping[str, Any]) -> Key:
    """What pictures ``numbers`` of a prompt depend on; they lie in the folder ``prior`` of the output."""
    return {
        "kind": "prior",
        "base": base.digest,
        "prompt": prompt,
        "numbers": [numbers.start, numbers.stop],
        "seed": seed,
        "sampling": [STEPS, GUIDANCE],
        **setting,
    }


def _sample(seed: int, family: Family, prompt: str, numbers: range) -> torch.Tensor:
    """(N, C, h, w) float32 latents in the denoiser's own scale, one for each of N ``numbers``."""
    seeds = [stable_hash("prior", seed, prompt, number) for number in numbers]
    return torch.as_tensor(sample(family.pipe, prompt, seeds, "latent")).float().cpu()
