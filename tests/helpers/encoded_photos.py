"""Encoded photos that no network has made."""

import torch

from finetune.step.batches import EncodedDataset


def cache(count: int = 6) -> EncodedDataset:
    generator = torch.Generator().manual_seed(0)
    return EncodedDataset(
        mean=torch.randn(count, 2, 4, 16, 16, generator=generator).unbind(),
        std=torch.full((count, 2, 4, 16, 16), 0.1).unbind(),
        prompts={"prompt_embeds": torch.randn(2, 5, 16, generator=generator)},
        prompt_of=torch.arange(count) % 2,
    )
