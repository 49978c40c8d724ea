"""A pipeline of Stable Diffusion 1.5's shape with random weights: its speed without its download."""

from typing import Any

import torch

from orchard import bases

NAME = "sd15-random"


def sd15(size: int, dtype: torch.dtype) -> Any:
    """The stock pipeline for ``size`` px images, with the released model's sizes and scheduler."""
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        pipe = StableDiffusionPipeline(
            # The defaults of this class are the sizes of SD 1, except for the width of the text states.
            unet=UNet2DConditionModel(sample_size=size // 8, cross_attention_dim=768),
            vae=AutoencoderKL(
                sample_size=size,
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
            ),
            text_encoder=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=49408,
                    hidden_size=768,
                    intermediate_size=3072,
                    num_hidden_layers=12,
                    num_attention_heads=12,
                )
            ),
            tokenizer=CLIPTokenizer.from_pretrained(bases.EMBEDDED / "tokenizer", model_max_length=77),
            scheduler=PNDMScheduler(
                beta_schedule="scaled_linear",
                beta_start=0.00085,
                beta_end=0.012,
                skip_prk_steps=True,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    finally:
        torch.set_default_dtype(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe
