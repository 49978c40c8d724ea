"""Encoded photos that no network has made."""

from collections.abc import Sequence

import torch
from torch import Tensor

from finetune.step.batches import EncodedDataset, EncodedImage


def dataset(
    mean: Sequence[Tensor], std: Sequence[Tensor], prompts: dict[str, Tensor], prompt_of: Tensor, **more: int
) -> EncodedDataset:
    """N images, (2, C, h, w) each, and P prompts by name, (P, ...) each."""
    count = len(next(iter(prompts.values())))
    return EncodedDataset(
        images=[EncodedImage(mean=one, std=other) for one, other in zip(mean, std, strict=True)],
        sizes=[(one.shape[-2], one.shape[-1]) for one in mean],
        prompts=[{name: value[row] for name, value in prompts.items()} for row in range(count)],
        prompt_of=prompt_of,
        **more,
    )


def cache(count: int = 6) -> EncodedDataset:
    generator = torch.Generator().manual_seed(0)
    return dataset(
        mean=torch.randn(count, 2, 4, 16, 16, generator=generator).unbind(),
        std=torch.full((count, 2, 4, 16, 16), 0.1).unbind(),
        prompts={"prompt_embeds": torch.randn(2, 5, 16, generator=generator)},
        prompt_of=torch.arange(count) % 2,
    )
