"""Features of images: of our own classifier, and of a published backbone where its weights are at hand."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from orchard.classifiers.networks import last_layer
from orchard.classifiers.predict import features, to_float
from orchard.errors import UserError
from orchard.files import atomic, checked_json
from orchard.images.arrays import Images

Embed = Callable[[Images], np.ndarray]
"""(N, S, S, 3) uint8 pixels -> (N, D) float32 features."""
SIDE = 224
"""Pixels that a backbone's input is brought to, unless it takes one size alone."""
BATCH = 64
STATISTICS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
"""ImageNet's, where a backbone says nothing else."""
TEXT = "get_text_features"
"""What a model has that takes texts too."""


def of_classifier(model: nn.Module, device: torch.device) -> Embed:
    """What the classifier's last layer sees; the mean over places where that is a convolution."""
    layer = last_layer(model)

    def embed(pixels: Images) -> np.ndarray:
        found = features(model, layer, pixels, device, torch.float32).astype(np.float32)
        return found.reshape(*found.shape[:2], -1).mean(axis=2)

    return embed


def of_backbone(name: str, device: torch.device) -> Embed:
    """The pooled output of a transformers image model, such as ``facebook/dinov2-small``; CLIP's embedding.

    ``name`` is a folder or a Hub id whose safetensors weights are on this machine; nothing is downloaded.

    Raises:
        UserError: they are not, or the model is not one that takes images.
    """
    folder = find(name)
    model = _loaded(name, folder, device)
    try:
        prepare = _preparation(model, folder, device)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise _unloadable(name, error) from None

    def embed(pixels: Images) -> np.ndarray:
        rows = []
        with torch.inference_mode():
            for start in range(0, len(pixels), BATCH):
                images = prepare(pixels[start : start + BATCH])
                call = model.get_image_features if hasattr(model, TEXT) else model
                rows.append(call(pixel_values=images).pooler_output.float().cpu())
        return torch.cat(rows).numpy()

    return embed


def of_text(name: str, device: torch.device) -> Callable[[str], np.ndarray]:
    """A CLIP's (D,) embeddings of texts, to be compared with those of images (`of_backbone`).

    Raises:
        UserError: as `of_backbone`, or the model takes images alone.
    """
    from transformers import AutoTokenizer

    folder = find(name)
    model = _loaded(name, folder, device)
    if not hasattr(model, TEXT):
        raise UserError(f"--backbone {name}: takes no text; use a CLIP")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise _unloadable(name, error) from None

    @torch.inference_mode()
    def embed(text: str) -> np.ndarray:
        words = tokenizer([text], truncation=True, return_tensors="pt").to(device)
        return model.get_text_features(**words).pooler_output[0].float().cpu().numpy()

    return embed


def digest(name: str) -> str:
    """A hash of a backbone's weights."""
    files = sorted(find(name).glob("*.safetensors"))
    return hashlib.sha256("".join(map(atomic.file_hash, files)).encode()).hexdigest()


def find(name: str) -> Path:
    """Where a backbone lies. Given a Hub id, transformers itself would ask the Hub for an adapter of it.

    Raises:
        UserError: it is not on this machine.
    """
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


def _loaded(name: str, folder: Path, device: torch.device) -> Any:
    from transformers import AutoModel

    try:
        if "auto_map" in _table(folder / "config.json"):
            raise ValueError("it brings code of its own, which is not run")
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise _unloadable(name, error) from None
    if model.main_input_name != "pixel_values" and not hasattr(model, TEXT):
        raise UserError(f"--backbone {name}: takes {model.main_input_name}, not images; use a DINOv2")
    return model.to(device).eval()


def _unloadable(name: str, error: Exception) -> UserError:
    reason = str(error).splitlines()[0][:120]
    return UserError(f"--backbone {name}: cannot be loaded ({reason}); use a DINOv2")


def _preparation(model: Any, folder: Path, device: torch.device) -> Callable[[np.ndarray], Tensor]:
    """(N, S, S, 3) uint8 -> what the model takes."""
    path = folder / "preprocessor_config.json"
    said = {**STATISTICS, **(_table(path) if path.is_file() else {})}
    mean, deviation = (torch.tensor(said[key], device=device).view(1, 3, 1, 1) for key in STATISTICS)
    vision = getattr(model.config, "vision_config", None)
    side = vision.image_size if vision else SIDE

    def prepare(pixels: np.ndarray) -> Tensor:
        images = to_float(torch.from_numpy(pixels).to(device))
        images = functional.interpolate(images, (side, side), mode="bicubic", antialias=True)
        return (images.clamp(0, 1) - mean) / deviation

    return prepare


def _table(path: Path) -> dict[str, Any]:
    return checked_json.table({}, checked_json.parse(checked_json.read(path)))
