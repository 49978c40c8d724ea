"""Prior preservation: pictures of the class by the untouched base, which the adapter must not unlearn.

Ruiz et al. 2023 (DreamBooth), section 3.2. The pictures are kept as latents, sampled once and found again
by what they depend on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from finetune.batches import Cache
from finetune.config import TrainLora
from finetune.families import Family
from finetune.sampling import GUIDANCE, STEPS, sample
from orchard import prompts
from orchard.bases import Base
from orchard.images import sha256
from orchard.run import whole_file
from orchard.splits import stable_hash
from orchard.terminal import bar

FOLDER = "prior"
BATCH = 8


def cache(
    config: TrainLora, base: Base, family: Family, classes: Sequence[str], precision: str, accelerator: Any
) -> Cache:
    """``config.prior_count`` sampled pictures of each class as training latents, without mirror images.

    The main process samples what is not there yet, before any LoRA is in the base.
    """
    wanted = [prompts.fill(config.prior_prompt, label) for label in classes]
    files = [_file(config, base, prompt, precision) for prompt in wanted]
    if accelerator.is_main_process:
        for prompt, file in zip(wanted, files, strict=True):
            if not file.is_file():
                _write(file, _sample(config, family, prompt))
    accelerator.wait_for_everyone()
    latents = torch.cat([load_file(file)["latents"] for file in files])
    mean = torch.stack([latents, latents])
    return Cache(
        mean=mean,
        std=torch.zeros_like(mean),
        prompts=family.text(wanted),
        prompt_of=torch.arange(len(wanted)).repeat_interleave(config.prior_count),
    )


def _file(config: TrainLora, base: Base, prompt: str, precision: str) -> Path:
    origin = (base.digest, prompt, config.prior_count, config.seed, precision, STEPS, GUIDANCE, BATCH)
    return config.output / FOLDER / f"{sha256(repr(origin).encode())[:16]}.safetensors"


def _sample(config: TrainLora, family: Family, prompt: str) -> torch.Tensor:
    """(prior_count, C, h, w) float32 latents in the denoiser's own scale."""
    blocks = []
    with bar(f"prior: {prompt}", config.prior_count, unit="images") as advance:
        for start in range(0, config.prior_count, BATCH):
            numbers = range(start, min(start + BATCH, config.prior_count))
            seeds = [stable_hash("prior", config.seed, prompt, number) for number in numbers]
            latents = torch.as_tensor(sample(family.pipe, prompt, seeds, "latent"))
            blocks.append(latents.float().cpu())
            advance(len(seeds))
    return torch.cat(blocks)


def _write(file: Path, latents: torch.Tensor) -> None:
    with whole_file(file) as aside:
        save_file({"latents": latents.contiguous()}, aside)
