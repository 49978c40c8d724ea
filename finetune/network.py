"""What is trained, as one module: a denoiser, and the text encoders that learn with it."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from finetune.encoders import Text

if TYPE_CHECKING:
    from finetune.family import Family


class Network(torch.nn.Module):
    """A family's prediction; one module, so that every launcher averages the gradients of all its parts."""

    def __init__(self, family: "Family", denoiser: Any = None) -> None:
        super().__init__()
        self.denoiser = denoiser or family.denoiser
        self.text_encoders = torch.nn.ModuleDict(family.text_encoders)
        self.family = family

    @property
    def _no_split_modules(self) -> list[str]:
        """The classes that FSDP shards by themselves: blocks as the parts name them, and the parts.

        A pipeline calls the parts without this module around them.
        """
        parts = (self.denoiser, *self.text_encoders.values())
        blocks = {name for part in parts for name in getattr(part, "_no_split_modules", None) or ()}
        return sorted(blocks | {type(part).__name__ for part in parts})

    def forward(self, noisy: Tensor, timesteps: Tensor, text: Text) -> Tensor:
        """(B, C, h, w) noisy latents, (B,) timesteps, text of a `Batch` -> (B, C, h, w) prediction."""
        return self.family.predict(self.denoiser, noisy, timesteps, self.family.states(text))
