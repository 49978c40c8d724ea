"""The families of bases, and the stock pipeline that each of them is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

T5 = "text_encoder_3"
"""The encoder that SD 3 works without."""
DIFFUSION = frozenset(
    f"{name}Scheduler"
    for name in (
        *("DDIM", "DDIMParallel", "DDPM", "DDPMParallel", "PNDM", "LCM", "TCD", "SASolver", "UniPCMultistep"),
        *("LMSDiscrete", "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete"),
        *("KDPM2AncestralDiscrete", "DPMSolverMultistep", "DPMSolverSinglestep", "DPMSolverSDE"),
        "DEISMultistep",
    )
)
"""Schedulers of diffusers that step through the noise levels of training, named by their betas."""
FLOW_MATCHING = frozenset(("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler"))
_CLIP = frozenset(("CLIPTokenizer", "CLIPTokenizerFast"))
_UNET = {
    "unet": frozenset(("UNet2DConditionModel",)),
    "vae": frozenset(("AutoencoderKL",)),
    "scheduler": DIFFUSION,
    "text_encoder": frozenset(("CLIPTextModel",)),
    "tokenizer": _CLIP,
}
_PROJECTION = frozenset(("CLIPTextModelWithProjection",))
_CLIP_ENCODERS = _PROJECTION | _UNET["text_encoder"]
_SECOND = {"text_encoder_2": _PROJECTION, "tokenizer_2": _CLIP}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The parts of a family's pipelines."""

    pipeline: str
    """The stock class, as `model_index.json` spells it."""
    inpainting: str = ""
    """The stock class of those that inpaint; empty where diffusers starts no sample from an image."""
    denoiser: str
    text_encoders: tuple[str, ...]
    classes: Mapping[str, frozenset[str]]
    """What each part may be, by its place in the pipeline; those of `T5` may be missing."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What `load` passes to the stock class besides."""

    @property
    def clip_encoders(self) -> tuple[str, ...]:
        """Those of its text encoders that are CLIP's, which can learn; T5 and Gemma stay as they are."""
        return tuple(name for name in self.text_encoders if self.classes[name] <= _CLIP_ENCODERS)

    @property
    def clip_alone(self) -> bool:
        """Whether CLIP alone reads the prompts: in chunks, up to a layer that can be chosen."""
        return self.clip_encoders == self.text_encoders

    @property
    def flow(self) -> bool:
        """Whether it is trained by flow matching."""
        return self.denoiser == "transformer"


FAMILIES = {
    "sd": Layout(
        pipeline="StableDiffusionPipeline",
        inpainting="StableDiffusionInpaintPipeline",
        denoiser="unet",
        text_encoders=("text_encoder",),
        classes=_UNET,
        options={
            "requires_safety_checker": False,
            **dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder")),
        },
    ),
    "sdxl": Layout(
        pipeline="StableDiffusionXLPipeline",
        inpainting="StableDiffusionXLInpaintPipeline",
        denoiser="unet",
        text_encoders=("text_encoder", "text_encoder_2"),
        classes=_UNET | _SECOND,
        # A watermark would be learned by whatever is trained on the samples.
        options={"add_watermarker": False, "feature_extractor": None, "image_encoder": None},
    ),
    "sd3": Layout(
        pipeline="StableDiffusion3Pipeline",
        inpainting="StableDiffusion3InpaintPipeline",
        denoiser="transformer",
        text_encoders=("text_encoder", "text_encoder_2", "text_encoder_3"),
        classes={
            "transformer": frozenset(("SD3Transformer2DModel",)),
            "vae": frozenset(("AutoencoderKL",)),
            # The others with the noise levels of flow matching: `orchard.bases.compatibility`.
            "scheduler": FLOW_MATCHING | DIFFUSION,
            "text_encoder": _PROJECTION,
            "tokenizer": _CLIP,
            **_SECOND,
            T5: frozenset(("T5EncoderModel",)),
            "tokenizer_3": frozenset(("T5Tokenizer", "T5TokenizerFast")),
        },
        options={"feature_extractor": None, "image_encoder": None},
    ),
    "sana": Layout(
        pipeline="SanaPipeline",
        denoiser="transformer",
        text_encoders=("text_encoder",),
        classes={
            "transformer": frozenset(("SanaTransformer2DModel",)),
            "vae": frozenset(("AutoencoderDC",)),
            "scheduler": FLOW_MATCHING | DIFFUSION,
            "text_encoder": frozenset(("Gemma2Model",)),
            "tokenizer": frozenset(("GemmaTokenizer", "GemmaTokenizerFast")),
        },
    ),
}
