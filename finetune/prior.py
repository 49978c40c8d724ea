"""Prior preservation: pictures of the class by the untouched base, which the adapter must not unlearn.

Ruiz et al. 2023 (DreamBooth), section 3.2. The pictures are kept as latents, sampled once and found again
by what they depend on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from finetune.batches import Cache, assemble
from finetune.config import TrainLora
from finetune.encoding import Encoder
from finetune.entries import Key, Tensors
from finetune.family import Family
from finetune.gathering import gather
from finetune.sampling import GUIDANCE, STEPS, sample
from orchard import prompts
from orchard.bases import Base
from orchard.splits import stable_hash
from orchard.terminal import bar

BATCH = 8


def cache(config: TrainLora, base: Base, encoder: Encoder, classes: Sequence[str]) -> Cache:
    """``config.prior_count`` sampled pictures of each class as training latents, without mirror images.

    Sampled where they are not there yet, before any LoRA is in the base.
    """
    wanted = [prompts.fill(config.prior_prompt, label) for label in classes]
    accelerator = encoder.accelerator

    def make(row: int) -> Tensors:
        show = accelerator.is_main_process
        return {"latents": _sample(config, encoder.family, wanted[row], show)}

    keys = [_key(config, base, prompt, encoder.keys.setting) for prompt in wanted]
    pictures = [found["latents"] for found in gather(config.output, keys, make, accelerator)]
    means = [torch.stack([latents, latents]) for one in pictures for latents in one]
    texts = [prompt for prompt in wanted for _ in range(config.prior_count)]
    return assemble([(mean, torch.zeros_like(mean)) for mean in means], texts, encoder.text)


def _key(config: TrainLora, base: Base, prompt: str, setting: Mapping[str, Any]) -> Key:
    """What the pictures of one prompt depend on; they lie in the folder ``prior`` of the output."""
    return {
        "kind": "prior",
        "base": base.digest,
        "prompt": prompt,
        "count": config.prior_count,
        "seed": config.seed,
        "sampling": [STEPS, GUIDANCE, BATCH],
        **setting,
    }


def _sample(config: TrainLora, family: Family, prompt: str, show: bool) -> torch.Tensor:
    """(prior_count, C, h, w) float32 latents in the denoiser's own scale."""
    blocks = []
    with bar(f"prior: {prompt}", config.prior_count, unit="images", show=show) as advance:
        for start in range(0, config.prior_count, BATCH):
            numbers = range(start, min(start + BATCH, config.prior_count))
            seeds = [stable_hash("prior", config.seed, prompt, number) for number in numbers]
            latents = torch.as_tensor(sample(family.pipe, prompt, seeds, "latent"))
            blocks.append(latents.float().cpu())
            advance(len(seeds))
    return torch.cat(blocks)
