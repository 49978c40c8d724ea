"""LoRA on a denoiser through peft: inject, take out."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from peft import LoraConfig

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""The attention layers of a UNet, and those of any denoiser for its image tokens."""


def inject(
    denoiser: Any, rank: int, alpha: float, seed: int, targets: Sequence[str] = TARGETS
) -> list[torch.nn.Parameter]:
    """Add a fresh LoRA to the ``targets``; returns its float32 parameters, the only trainable ones."""
    denoiser.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # peft's annotation says int, but it only divides alpha by the rank.
        denoiser.add_adapter(
            LoraConfig(
                r=rank,
                lora_alpha=cast(int, alpha),
                init_lora_weights="gaussian",
                target_modules=list(targets),
            )
        )
    parameters = [p for p in denoiser.parameters() if p.requires_grad]
    for parameter in parameters:
        # Updates of bf16 weights would be rounded away.
        parameter.data = parameter.data.float()
    return parameters


def remove(denoiser: Any) -> None:
    """Take the adapter out again, leaving the base as it was."""
    denoiser.delete_adapters("default")
