"""Attention on a CPU, where the backward pass of the fused kernel takes longer than plain products."""

from typing import Any

from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor

LONGEST = 1024
"""Tokens up to which the products are formed: their matrix grows with the square of this number."""


class ShortPlain:
    """Plain products for short sequences, the fused kernel for long ones, whose products take much memory."""

    def __init__(self) -> None:
        self.plain, self.fused = AttnProcessor(), AttnProcessor2_0()

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, N, C) -> the same, as any processor of diffusers."""
        processor = self.plain if hidden_states.shape[1] <= LONGEST else self.fused
        return processor(attn, hidden_states, *args, **kwargs)


def suit(model: Any, device: Any) -> None:
    """Give a UNet that is trained on a CPU such attention; other networks and devices keep theirs."""
    if device.type != "cpu" or not hasattr(model, "attn_processors"):
        return
    if all(type(processor) is AttnProcessor2_0 for processor in model.attn_processors.values()):
        model.set_attn_processor(ShortPlain())
