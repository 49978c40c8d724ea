"""The families of Stable Diffusion, and the stock pipeline that each of them is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The parts of a family's pipelines."""

    pipeline: str
    """The stock class, as `model_index.json` spells it."""
    denoiser: str
    text_encoders: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    """What `load` passes to the stock class besides."""


FAMILIES = {
    "sd": Layout(
        pipeline="StableDiffusionPipeline",
        denoiser="unet",
        text_encoders=("text_encoder",),
        options={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    ),
    "sdxl": Layout(
        pipeline="StableDiffusionXLPipeline",
        denoiser="unet",
        text_encoders=("text_encoder", "text_encoder_2"),
        # A watermark would be learned by whatever is trained on the samples.
        options={"add_watermarker": False},
    ),
    "sd3": Layout(
        pipeline="StableDiffusion3Pipeline",
        denoiser="transformer",
        text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
    ),
}
T5 = "text_encoder_3"
"""The encoder that SD 3 works without."""
