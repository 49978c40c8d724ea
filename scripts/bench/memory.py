"""What training a LoRA needs on a device: weights and optimiser computed, activations measured."""

from typing import Any, get_args

import torch
from rich.table import Table

from bench import released
from bench.training import GIB, Shape, measure
from finetune.models import quantized
from finetune.models.families import Sana, StableDiffusion, StableDiffusion3, StableDiffusionXL
from finetune.models.targets import ATTENTION
from finetune.options import Quantize
from orchard.bases import families

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
TRAINED_BYTES = 16
"""A trained weight in float32: itself, its gradient, AdamW's two moments."""
FAMILIES = {
    "sd15": StableDiffusion,
    "sd21": StableDiffusion,
    "sdxl": StableDiffusionXL,
    "sd35-medium": StableDiffusion3,
    "sd35-large": StableDiffusion3,
    "sana": Sana,
}
RANK = 16


def tables(precision: str) -> tuple[Table, Table]:
    """The computed table of all families, and the measured one of Stable Diffusion 1.5."""
    return computed(precision), measured(precision)


def computed(precision: str) -> Table:
    """Weights and optimiser by family, GiB: of the steps with each ``--quantize``, and of reading prompts."""
    title = f"GiB, computed from the shapes: {precision}, rank {RANK}, AdamW"
    kinds = get_args(Quantize)
    columns = (precision if kind == "none" else kind for kind in kinds)
    table = Table(
        "base", "LoRA and optimiser", *(f"steps, {kind}" for kind in columns), "prompts", title=title
    )
    for name, family in FAMILIES.items():
        parts = released.skeleton(name)
        denoiser = parts.pop(families.FAMILIES[family.name].denoiser)
        vae = parameters(parts.pop("vae")) * BYTES[precision]
        trained = lora_parameters(denoiser) * TRAINED_BYTES
        steps = [quantized.size(denoiser, kind, BYTES[precision]) + vae + trained for kind in kinds]
        largest = max(parameters(part) for part in parts.values()) * BYTES[precision]
        table.add_row(name, *(f"{size / GIB:.2f}" for size in (trained, *steps, vae + largest)))
    return table


def parameters(model: Any) -> int:
    """Weights of a model, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def lora_parameters(denoiser: Any) -> int:
    """Weights of a LoRA of `RANK` on the attention layers."""
    return sum(
        RANK * (layer.in_features + layer.out_features)
        for name, layer in denoiser.named_modules()
        if isinstance(layer, torch.nn.Linear) and name.endswith(tuple(ATTENTION))
    )


def measured(precision: str) -> Table:
    """Peak memory of two training steps at batch 1 on the CPU, without what the libraries take themselves."""
    title = f"GiB, measured on the CPU: sd15, {precision}, rank {RANK}, batch 1"
    table = Table("pixels", "kept activations", "--gradient_checkpointing", title=title)
    for pixels in (256, 512):
        needs = []
        for saving in (False, True):
            shape = Shape(pixels=pixels, steps=1, precision=precision, gradient_checkpointing=saving)
            found = measure("ours", shape)
            needs.append(f"{(found.peak - found.before) / GIB:.2f}")
        table.add_row(str(pixels), *needs)
    return table
