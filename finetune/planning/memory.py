"""What each phase of a run puts on the device, told from the base's configs alone."""

from collections.abc import Mapping

import torch
from rich.filesize import decimal

from finetune.config import TrainLora
from finetune.models import quantized
from finetune.models.targets import adapted_components
from finetune.training.optimizers import KINDS
from orchard.adapters import layers
from orchard.adapters.provenance import FULL
from orchard.bases.bases import Base
from orchard.bases.families import FAMILIES
from orchard.cli import cli

FLOAT = 4
"""Bytes of a float32: the type of trained weights, their gradients and the optimiser's states."""
WEIGHT = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a weight of the base, by precision."""


def phases(config: TrainLora, base: Base, precision: str, trained: int) -> dict[str, int]:
    """Phase -> most bytes of weights and their states on the device, activations left out.

    ``trained`` is the number of weights that learn. Text encoders that do not learn come one at a time.
    """
    layout = FAMILIES[base.family]
    parts = vars(layers.skeleton(base.folder, (layout.denoiser, "vae", *layout.text_encoders)))
    sizes = {name: quantized.size(part, "none", WEIGHT[precision]) for name, part in parts.items()}
    sizes[layout.denoiser] = quantized.size(parts[layout.denoiser], config.quantize, WEIGHT[precision])
    trains_text = config.train_text_encoder or config.vectors > 0
    learning = adapted_components(base.family, trains_text=trains_text)
    waiting = max((size for name, size in sizes.items() if name not in (*learning, "vae")), default=0)
    states = 2 + KINDS[config.optimizer].state_per_weight + bool(config.ema_decay)
    # Whole models that learn are held in float32 alone, which `trained` counts.
    frozen = 0 if config.method == FULL else sum(sizes[name] for name in learning)
    steps = sizes["vae"] + frozen + trained * states * FLOAT
    found = {
        "prompts": sizes["vae"] + max(sizes[name] for name in layout.text_encoders if name in sizes),
        "photos": sizes["vae"],
        "steps": steps,
    }
    return found | ({"samples": steps + waiting} if config.sheets or config.preview_every else {})


def line(config: TrainLora, found: Mapping[str, int], device: torch.device) -> str:
    """What the phases take, and on a GPU what it has.

    Raises:
        UserError: a phase does not fit.
    """
    said = ", ".join(f"{phase} {decimal(size)}" for phase, size in found.items())
    if device.type != "cuda":
        return f"memory    {said} of weights and their states; activations come on top"
    most, phase = max((size, phase) for phase, size in found.items())
    there = torch.cuda.get_device_properties(device).total_memory
    cli.check(
        most < there,
        f"the {phase} need {decimal(most)} of GPU memory for weights and their states alone, the GPU has "
        f"{decimal(there)}; {_remedy(config, phase)}",
    )
    return f"memory    {said} of weights and their states; the GPU has {decimal(there)}, activations too"


def _remedy(config: TrainLora, phase: str) -> str:
    if phase == "samples":
        return "give --no_sheets without --preview_every"
    if config.method == FULL:
        return "give --method lora" if config.optimizer == "adamw8bit" else "give --optimizer adamw8bit"
    if phase == "steps" and config.quantize != "nf4":
        return "give --quantize nf4"
    return "give a smaller --base, or a larger GPU"
