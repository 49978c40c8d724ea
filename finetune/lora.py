"""LoRA on a denoiser through peft: inject, take out."""

from typing import Any, cast

import torch
from peft import LoraConfig

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def inject(unet: Any, rank: int, alpha: float, seed: int) -> list[torch.nn.Parameter]:
    """Add a fresh LoRA to the attention layers; returns its float32 parameters, the only trainable ones."""
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # peft's annotation says int, but it only divides alpha by the rank.
        unet.add_adapter(
            LoraConfig(
                r=rank,
                lora_alpha=cast(int, alpha),
                init_lora_weights="gaussian",
                target_modules=list(TARGETS),
            )
        )
    parameters = [p for p in unet.parameters() if p.requires_grad]
    for parameter in parameters:
        # Updates of bf16 weights would be rounded away.
        parameter.data = parameter.data.float()
    return parameters


def remove(unet: Any) -> None:
    """Take the adapter out again, leaving the base as it was."""
    unet.delete_adapters("default")
