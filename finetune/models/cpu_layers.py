"""Layers of a network that is trained on a CPU: the same functions, by products that take less time there."""

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

LONGEST = 1024
"""Tokens up to which attention forms its matrix of products, which grows with the square of this number."""

POSITIONS = 128
"""Places of a feature map, all images counted, up to which a convolution is one product of matrices."""

HEAVY = 2**20
"""Weights from which a convolution spends longer on bringing them into oneDNN's order than on a small map."""


class ShortPlain:
    """Plain products for short sequences, the fused kernel for long ones, whose products take much memory.

    The backward pass of the fused kernel takes longer than plain products do.
    """

    def __init__(self) -> None:
        self.plain, self.fused = AttnProcessor(), AttnProcessor2_0()

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, N, C) -> the same, as any processor of diffusers."""
        processor = self.plain if hidden_states.shape[1] <= LONGEST else self.fused
        return processor(attn, hidden_states, *args, **kwargs)


class SmallMaps(nn.Conv2d):
    """A convolution that multiplies small maps, unfolded, by its weights as they lie in memory.

    oneDNN brings the weights into an order of its own in every forward and every backward pass: with 1280 to
    2560 channels on 4x4 or 8x8 places that is most of its time.
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(B, C, h, w) -> (B, D, h', w')."""
        images, _, height, width = input.shape
        if images * height * width > POSITIONS or isinstance(self.padding, str):
            return super()._conv_forward(input, weight, bias)
        patches = F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)
        maps = weight.flatten(1) @ patches.transpose(0, 1).flatten(1)
        maps = maps if bias is None else maps + bias[:, None]
        height, width = (self._side(axis, n, self.padding[axis]) for axis, n in enumerate((height, width)))
        return maps.unflatten(1, (images, height, width)).transpose(0, 1)

    def _side(self, axis: int, length: int, padding: int) -> int:
        """Places of the answer along an axis."""
        reach = self.dilation[axis] * (self.kernel_size[axis] - 1)
        return (length + 2 * padding - reach - 1) // self.stride[axis] + 1


def suit(model: nn.Module, device: torch.device) -> None:
    """Give a network that is trained on a CPU such layers; on other devices it keeps its own."""
    if device.type != "cpu":
        return
    _suit_attention(model)
    for module in model.modules():
        if type(module) is nn.Conv2d and _heavy(module):
            module.__class__ = SmallMaps


def _suit_attention(model: Any) -> None:
    processors = getattr(model, "attn_processors", {}).values()
    if processors and all(type(processor) is AttnProcessor2_0 for processor in processors):
        model.set_attn_processor(ShortPlain())


def _heavy(layer: nn.Conv2d) -> bool:
    """Whether `SmallMaps` can take its place, and would be quicker."""
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and layer.kernel_size != (1, 1)
    return plain and layer.weight.numel() >= HEAVY
