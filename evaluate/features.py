"""Features of images: of our own classifier, and of a published backbone where its weights are at hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from classify.augment import to_float
from classify.model import Standardise
from classify.predict import probabilities
from orchard.errors import UserError

Embed = Callable[[np.ndarray], np.ndarray]
"""(N, S, S, 3) uint8 pixels -> (N, D) float32 features."""
SIDE = 224
"""Pixels that a backbone's input is brought to."""
BATCH = 64


def of_classifier(model: nn.Module, device: torch.device) -> Embed:
    """What the classifier's last linear layer sees."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]

    def embed(pixels: np.ndarray) -> np.ndarray:
        seen: list[Tensor] = []
        hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].float().cpu()))
        try:
            probabilities(model, pixels, device, torch.float32)
        finally:
            hook.remove()
        return torch.cat(seen).numpy()

    return embed


def of_backbone(name: str, device: torch.device) -> Embed:
    """The pooled output of a transformers image model, such as ``facebook/dinov2-small``.

    ``name`` is a folder or a Hub id whose safetensors weights are on this machine; nothing is downloaded.

    Raises:
        UserError: they are not, or the model is not one that takes images.
    """
    from transformers import AutoModel

    folder = _folder(name)
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(f"--backbone {name}: cannot be loaded ({reason}); use a DINOv2") from None
    if model.main_input_name != "pixel_values":
        raise UserError(f"--backbone {name}: takes {model.main_input_name}, not images; use a DINOv2")
    model, standardise = model.to(device).eval(), Standardise().to(device)

    def embed(pixels: np.ndarray) -> np.ndarray:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pixels), BATCH):
                images = to_float(torch.from_numpy(pixels[start : start + BATCH]).to(device))
                images = functional.interpolate(images, (SIDE, SIDE), mode="bicubic", antialias=True)
                rows.append(model(pixel_values=standardise(images.clamp(0, 1))).pooler_output.float().cpu())
        return torch.cat(rows).numpy()

    return embed


def _folder(name: str) -> Path:
    """Where a backbone lies. Given a Hub id, transformers itself would ask the Hub for an adapter of it."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        raise UserError(
            f"--backbone {name}: not on this machine; give a folder, or download it first: hf download {name}"
        ) from None
