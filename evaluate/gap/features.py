"""Features of images: of our own classifier, and of a published backbone where its weights are at hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from classify.features import features
from orchard.classifiers.networks import Standardise, last_layer
from orchard.classifiers.predict import to_float
from orchard.errors import UserError
from orchard.files import checked_json

Embed = Callable[[np.ndarray], np.ndarray]
"""(N, S, S, 3) uint8 pixels -> (N, D) float32 features."""
SIDE = 224
"""Pixels that a backbone's input is brought to."""
BATCH = 64


def of_classifier(model: nn.Module, device: torch.device) -> Embed:
    """What the classifier's last layer sees; the mean over places where that is a convolution."""
    layer = last_layer(model)

    def embed(pixels: np.ndarray) -> np.ndarray:
        found = features(model, layer, pixels, device, torch.float32).astype(np.float32)
        return found.reshape(*found.shape[:2], -1).mean(axis=2)

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
        if "auto_map" in checked_json.table(
            {}, checked_json.parse(checked_json.read(folder / "config.json"))
        ):
            raise ValueError("it brings code of its own, which is not run")
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
