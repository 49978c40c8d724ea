"""What an adapter of any method adds to the base's weights, as the plain LoRA nearest to it.

The truncated singular value decomposition is the nearest matrix of its rank (Eckart and Young 1936).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.adapters import peft_state
from orchard.adapters.tensor_roles import DOWN, UP
from orchard.files import checked_safetensors

if TYPE_CHECKING:
    from torch import Tensor

HEADER = "orchard_merged"
MOST_RANK = 128
"""Of one layer; what DoRA does to the norms of rows has no low rank."""
EXACT = 5e-6
"""Relative error of one layer below which more rank would only store rounding."""


def lora(models: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, float], dict[str, str]]:
    """LoRA under the toolkit's names, float32 on the CPU; its scales; what the header says of its error.

    The alpha of every layer is 1, since stock diffusers does not find each one's own under kohya's names.
    ``models`` are peft-injected, by their places in a pipeline. Each layer has the smallest rank whose
    relative error (Frobenius) is at most `EXACT`, or `MOST_RANK`.
    """
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    lost = added = 0.0
    for module, layer in peft_state.layers(models).items():
        down, up, lacking, size = _factors(update(layer))
        tensors |= {f"{module}.{DOWN}": down, f"{module}.{UP}": up}
        ranks[module] = len(down)
        lost, added = lost + lacking**2, added + size**2
    error = math.sqrt(lost / added) if added else 0.0
    said = {"error": error, "ranks": [min(ranks.values()), max(ranks.values())]}
    return tensors, {module: 1 / rank for module, rank in ranks.items()}, {HEADER: json.dumps(said)}


def update(layer: Any) -> Tensor:
    """What a layer of peft adds to its base's weight, of that weight's shape, in float32.

    That is all of its adapters, since PiSSA has one that takes off what it started from.

    Of DoRA that is m (W + s B A) / |W + s B A| - W with the norms of rows (Liu et al. 2024, eq. 5).
    """
    import torch
    from peft.utils.integrations import dequantize_module_weight

    with torch.no_grad():
        added = sum(layer.get_delta_weight(name).float() for name in layer.active_adapters)
        magnitudes = getattr(layer, "lora_magnitude_vector", None)
        if not magnitudes:
            return added
        base = dequantize_module_weight(layer.get_base_layer()).float()
        rows = (base + added).flatten(1)
        norms = magnitudes["default"].weight.float().reshape(-1, 1)
        return (rows * norms / rows.norm(dim=1, keepdim=True)).reshape(base.shape) - base


def _factors(update: Tensor) -> tuple[Tensor, Tensor, float, float]:
    """Down and up for an alpha of 1, the norm of what they lack, and that of the whole."""
    import torch

    left, values, right = torch.linalg.svd(update.flatten(1), full_matrices=False)
    # The norm of what the first n values leave, for n from 0.
    lacking = values.cpu().double().square().flip(0).cumsum(0).flip(0).sqrt()
    size = lacking[0].item()
    rank = min(max(1, int((lacking > EXACT * size).sum())), MOST_RANK)
    roots = (rank * values[:rank]).sqrt()
    down, up = roots[:, None] * right[:rank], left[:, :rank] * roots
    kernel, ones = update.shape[2:], [1] * (update.ndim - 2)
    return (
        down.reshape(rank, update.shape[1], *kernel).cpu().contiguous(),
        up.reshape(len(up), rank, *ones).cpu().contiguous(),
        lacking[rank].item() if rank < len(lacking) else 0.0,
        size,
    )


def described(path: Path) -> str:
    """What the header of a merged file says of its ranks and its error, in words."""
    with checked_safetensors.opened(path) as file:
        said = json.loads(file.metadata()[HEADER])
    least, most = said["ranks"]
    ranks = f"rank {most}" if least == most else f"ranks {least} to {most}"
    return f"{ranks}, relative error {said['error']:.2g}"
