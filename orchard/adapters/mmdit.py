"""Layers of SD 3's original code (MMDiT), as kohya's scripts and ComfyUI name them -> as diffusers has them.

The original has query, key and value in one layer, so a file has one down matrix for the three. In layers of
two halves, shift and scale, diffusers has the scale first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchard.adapters.tensor_roles import BIAS, MAGNITUDE, UP, added, by_module

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = re.compile(r"joint_blocks\.(\d+)\.(.+)")
_BLOCK_LAYERS = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn.proj": ("attn.to_out.0",),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "x_block.adaLN_modulation.1": ("norm1.linear",),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context_block.attn.proj": ("attn.to_add_out",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
}
_SINGLE = {
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}
_BY_OUTPUT = frozenset((UP, BIAS, MAGNITUDE, "hada_w1_a", "hada_w2_a", "lokr_w1", "lokr_w1_a"))
"""Tensors whose rows are the layer's outputs, in their order; the others belong to all outputs."""


def is_original(path: str) -> bool:
    """Whether a module's path is one of the original's."""
    return path.startswith("joint_blocks.") or path in _SINGLE


def as_diffusers(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter under the toolkit's names, scales in its tensors, with the original's layers as diffusers'.

    A layer whose tensors cannot be divided among those stays as it is, and so finds no place.

    Raises:
        ValueError: the file has a layer both ways.
    """
    plain: dict[str, Tensor] = {}
    for module, parts in by_module(named).items():
        for name, tensors in (_layers(module, parts) or {module: parts}).items():
            found = {f"{name}.{role}" if role else name: value for role, value in tensors.items()}
            if twice := plain.keys() & found.keys():
                raise ValueError(f"{module} and another layer of the file name {min(twice)}")
            plain |= found
    return plain


def _layers(module: str, parts: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The layers of diffusers that one of the original's is; empty when it is none or cannot be divided."""
    component, _, path = module.partition(".")
    names = _diffusers_names(path) if component == "transformer" else ()
    if not _is_halves(path, parts):
        pieces = _divided(parts, len(names))
        return dict(zip(names, pieces, strict=True)) if pieces else {}
    if not (pieces := _divided(parts, 2)):
        return {}
    import torch

    shift, scale = pieces
    swapped = {
        role: torch.cat([scale[role], shift[role]]) if role in _BY_OUTPUT else value
        for role, value in parts.items()
    }
    return {names[0]: swapped}


def _diffusers_names(path: str) -> tuple[str, ...]:
    if match := _BLOCK.fullmatch(path):
        layers = _BLOCK_LAYERS.get(match[2], ())
        return tuple(f"transformer.transformer_blocks.{match[1]}.{layer}" for layer in layers)
    return (f"transformer.{_SINGLE[path]}",) if path in _SINGLE else ()


def _is_halves(path: str, parts: Mapping[str, Tensor]) -> bool:
    """Whether a layer gives shift and scale alone: the last one, and the text's in the last block."""
    if path == "final_layer.adaLN_modulation.1":
        return True
    size = added({role: tuple(value.shape) for role, value in parts.items()})
    return path.endswith("context_block.adaLN_modulation.1") and size is not None and size[0] == 2 * size[1]


def _divided(parts: Mapping[str, Tensor], count: int) -> list[dict[str, Tensor]]:
    """The tensors of equal parts of a layer's outputs; none when they cannot be divided."""
    outputs = [value for role, value in parts.items() if role in _BY_OUTPUT]
    if not count or any(not value.ndim or len(value) % count for value in outputs):
        return []
    return [
        {role: value.chunk(count)[number] if role in _BY_OUTPUT else value for role, value in parts.items()}
        for number in range(count)
    ]
