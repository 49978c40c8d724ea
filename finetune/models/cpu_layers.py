"""Faster layers for training on a CPU: the same functions, computed by other matrix products."""

from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional as F

LONGEST = 1024
"""Tokens up to which attention builds its whole matrix, which grows with their square."""

POSITIONS = 128
"""Pixels of a feature map, over all images, up to which a convolution is one matrix product."""

HEAVY = 2**20
"""Weights from which oneDNN spends longer on reordering them than on convolving a small map."""


class ShortSequenceProcessor:
    """Plain attention for short sequences, the fused kernel for long ones.

    On a CPU the fused kernel's backward pass is slower, but plain attention takes much memory.
    """

    def __init__(self) -> None:
        self.plain, self.fused = AttnProcessor(), AttnProcessor2_0()

    def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(B, N, C) -> the same, as any processor of diffusers."""
        processor = self.plain if hidden_states.shape[1] <= LONGEST else self.fused
        return processor(attn, hidden_states, *args, **kwargs)


class SmallMapConv2d(nn.Conv2d):
    """A convolution that unfolds small feature maps and multiplies them by its weights as they are.

    oneDNN reorders the weights in every forward and backward pass: with 1280 to 2560 channels on maps of
    4x4 or 8x8 that is most of its time.
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
        """Size of the output along an axis."""
        reach = self.dilation[axis] * (self.kernel_size[axis] - 1)
        return (length + 2 * padding - reach - 1) // self.stride[axis] + 1


def optimize_for_cpu(model: nn.Module, device: torch.device) -> None:
    """Replace a network's layers by these where it is trained on a CPU."""
    if device.type != "cpu":
        return
    _replace_attention(model)
    for module in model.modules():
        if type(module) is nn.Conv2d and _heavy(module):
            module.__class__ = SmallMapConv2d


def _replace_attention(model: Any) -> None:
    processors = getattr(model, "attn_processors", {}).values()
    if processors and all(type(processor) is AttnProcessor2_0 for processor in processors):
        model.set_attn_processor(ShortSequenceProcessor())


def _heavy(layer: nn.Conv2d) -> bool:
    """Whether `SmallMapConv2d` can replace it, and would be faster."""
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and layer.kernel_size != (1, 1)
    return plain and layer.weight.numel() >= HEAVY
