"""Networks of the released models' sizes with random weights: what speed and memory depend on."""

from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    PNDMScheduler,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    T5Config,
    T5EncoderModel,
)

from orchard.bases import bases

FOUR = {"block_out_channels": (320, 640, 1280, 1280), "sample_size": 64}
WIDE_BLOCKS = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
}
POOLED_AND_SIZES = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TRANSFORMER = {
    "sample_size": 128,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
LARGE = {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "pos_embed_max_size": 192,
    "dual_attention_layers": (),
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}

GEMMA_2B = {
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}


def _autoencoder(channels: int = 4, quantised: bool = True) -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=512,
        latent_channels=channels,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=quantised,
        use_post_quant_conv=quantised,
        scaling_factor=0.18215,
    )


def _clip(sizes: dict[str, int], *, pooled: bool = False) -> Any:
    config = CLIPTextConfig(vocab_size=49408, projection_dim=sizes["hidden_size"], **sizes)
    return CLIPTextModelWithProjection(config) if pooled else CLIPTextModel(config)


def _sd15() -> dict[str, Any]:
    denoiser = UNet2DConditionModel(**FOUR, cross_attention_dim=768, attention_head_dim=8)
    return {"unet": denoiser, "vae": _autoencoder(), "text_encoder": _clip(CLIP_L)}


def _sd21() -> dict[str, Any]:
    heads = {"attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
    denoiser = UNet2DConditionModel(**FOUR, **heads, cross_attention_dim=1024)
    return {"unet": denoiser, "vae": _autoencoder(), "text_encoder": _clip(CLIP_H)}


def _sdxl() -> dict[str, Any]:
    denoiser = UNet2DConditionModel(
        sample_size=128, cross_attention_dim=2048, **WIDE_BLOCKS, **POOLED_AND_SIZES
    )
    encoders = {"text_encoder": _clip(CLIP_L), "text_encoder_2": _clip(CLIP_G, pooled=True)}
    return {"unet": denoiser, "vae": _autoencoder(), **encoders}


def _sd35(**sizes: Any) -> dict[str, Any]:
    encoders = {"text_encoder": _clip(CLIP_L, pooled=True), "text_encoder_2": _clip(CLIP_G, pooled=True)}
    third = T5EncoderModel(T5Config(**T5_XXL))
    denoiser = SD3Transformer2DModel(**TRANSFORMER | sizes)
    return {"transformer": denoiser, "vae": _autoencoder(16, False), **encoders, "text_encoder_3": third}


def _sana() -> dict[str, Any]:
    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    resize = {"upsample_block_type": "interpolate", "downsample_block_type": "conv"}
    return {
        "transformer": SanaTransformer2DModel(),
        "vae": AutoencoderDC(encoder_block_types=blocks, decoder_block_types=blocks, **resize),
        "text_encoder": Gemma2Model(Gemma2Config(**GEMMA_2B)),
    }


RANDOM = "sd15-random"
"""How benchmarks call `sd15`."""
MODELS = {
    "sd15": _sd15,
    "sd21": _sd21,
    "sdxl": _sdxl,
    "sd35-medium": _sd35,
    "sd35-large": lambda: _sd35(**LARGE),
    "sana": _sana,
}


def skeleton(name: str) -> dict[str, Any]:
    """The components of a named base without memory for their weights."""
    with torch.device("meta"):
        return MODELS[name]()


def sd15(dtype: torch.dtype, pixels: int = 512) -> tuple[Any, bases.Base]:
    """A stock pipeline of Stable Diffusion 1.5's sizes on the CPU, and what our code knows of a base.

    It samples images of ``pixels`` unless told otherwise, with the released model's scheduler.
    """
    pipe = pipeline("sd15", dtype, pixels)
    shape = {"family": "sd", "resolution": 512, "cross_attention_dim": 768, "prediction_type": "epsilon"}
    return pipe, bases.Base(name="sd15", folder=bases.EMBEDDED, digest="random", **shape)


def pipeline(name: str, dtype: torch.dtype, pixels: int) -> Any:
    """A stock pipeline of the sizes of ``sd15`` or ``sdxl`` with random weights, on the CPU."""
    parts = {part: _filled(model, dtype) for part, model in skeleton(name).items()}
    tokenizer = CLIPTokenizer.from_pretrained(bases.EMBEDDED / "tokenizer", model_max_length=77)
    noise = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    parts |= {
        "tokenizer": tokenizer,
        "scheduler": PNDMScheduler(**noise, skip_prk_steps=True, steps_offset=1),
    }
    if name == "sdxl":
        pipe = StableDiffusionXLPipeline(**parts, tokenizer_2=tokenizer)
    else:
        unchecked = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipe = StableDiffusionPipeline(**parts, **unchecked)
    pipe.unet.register_to_config(sample_size=pixels // pipe.vae_scale_factor)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _filled(empty: Any, dtype: torch.dtype) -> Any:
    """Small random weights, and buffers as the class makes them."""
    model = empty.to(dtype).to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02, generator=generator)
    for name, buffer in model.named_buffers():
        if name.endswith("position_ids"):
            buffer.copy_(torch.arange(buffer.shape[-1]).expand_as(buffer))
    return model
