"""Pipelines of the stock classes with small random weights, one a model family."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLInpaintPipeline,
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
    GemmaTokenizer,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from orchard.bases import bases

START, END = "<|startoftext|>", "<|endoftext|>"
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def tokenizer() -> CLIPTokenizer:
    """Letters only: every word is spelled out."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), START, END]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=[],
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=32,
    )


def unet(**options: Any) -> UNet2DConditionModel:
    """A UNet on 16 px latents."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        norm_num_groups=4,
        **options,
    )


def vae(**options: Any) -> AutoencoderKL:
    """An autoencoder that halves 32 px images."""
    return AutoencoderKL(
        sample_size=32,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        mid_block_add_attention=False,
        **options,
    )


def text_encoder(kind: type[PreTrainedModel], width: int, layers: int = 1) -> PreTrainedModel:
    """A CLIP text encoder of ``width``, which is also the width of its pooled states."""
    words = tokenizer()
    return kind(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=width,
            projection_dim=width,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            max_position_embeddings=32,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )


def tiny(
    folder: Path, *, width: int = 16, prediction_type: str = "epsilon", seed: int = 0, channels: int = 4
) -> Path:
    """Write an SD 1 pipeline of 32 px with text states of ``width`` into ``folder``; 9 channels inpaint."""
    torch.manual_seed(seed)
    network, autoencoder = unet(cross_attention_dim=width, in_channels=channels), vae()
    # Trailing, so that stock schedulers made from its config begin at the last timestep, as ours do.
    noise = NOISE | {"prediction_type": prediction_type, "timestep_spacing": "trailing"}
    kind = StableDiffusionPipeline if channels == 4 else StableDiffusionInpaintPipeline
    kind(
        vae=autoencoder,
        text_encoder=text_encoder(CLIPTextModel, width),
        tokenizer=tokenizer(),
        unet=network,
        scheduler=DDIMScheduler(clip_sample=False, **noise),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def tiny_sdxl(folder: Path, *, seed: int = 0, channels: int = 4, **autoencoder: Any) -> Path:
    """Write a 32 px SDXL pipeline into ``folder``: text widths 16 and 24, pooled 24; 9 channels inpaint."""
    torch.manual_seed(seed)
    kind = StableDiffusionXLPipeline if channels == 4 else StableDiffusionXLInpaintPipeline
    kind(
        vae=vae(force_upcast=True, scaling_factor=0.13, **autoencoder),
        # The states before the last layer are taken, so there must be two.
        text_encoder=text_encoder(CLIPTextModel, 16, layers=2),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection, 24, layers=2),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet(
            cross_attention_dim=16 + 24,
            in_channels=channels,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
        ),
        scheduler=EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **NOISE),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


def t5(width: int) -> tuple[T5EncoderModel, T5Tokenizer]:
    """A T5 text encoder of ``width`` and its tokenizer, which spells words out."""
    marks = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    words = T5Tokenizer(vocab=[*marks, *((chr(code), -2.0) for code in range(97, 123))], extra_ids=0)
    sizes = {"d_model": width, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return T5EncoderModel(T5Config(vocab_size=len(words), **sizes)), words


def tiny_sd3(
    folder: Path, *, with_t5: bool = False, seed: int = 0, channels: int = 4, inpaints: bool = False
) -> Path:
    """Write a 32 px SD 3 pipeline into ``folder``: text width 48, pooled 16 + 24, latents of ``channels``.

    As in SD 3.5 the first block has a second attention, and queries and keys are normalised.
    """
    torch.manual_seed(seed)
    third, words = t5(48) if with_t5 else (None, None)
    kind = StableDiffusion3InpaintPipeline if inpaints else StableDiffusion3Pipeline
    kind(
        vae=vae(
            scaling_factor=1.5,
            shift_factor=0.06,
            use_quant_conv=False,
            use_post_quant_conv=False,
            latent_channels=channels,
        ),
        text_encoder=text_encoder(CLIPTextModelWithProjection, 16, layers=2),
        text_encoder_2=text_encoder(CLIPTextModelWithProjection, 24, layers=2),
        text_encoder_3=third,
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        tokenizer_3=words,
        transformer=SD3Transformer2DModel(
            sample_size=16,
            patch_size=2,
            in_channels=2 * channels + 1 if inpaints else channels,
            out_channels=channels,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=48,
            caption_projection_dim=16,
            pooled_projection_dim=16 + 24,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    ).save_pretrained(folder)
    return folder


def tiny_sana(folder: Path, *, seed: int = 0) -> Path:
    """Write a 32 px Sana pipeline into ``folder``: text width 16, 8 channels of latents of 8 px."""
    torch.manual_seed(seed)
    marks = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁")
    words = GemmaTokenizer(
        vocab={token: i for i, token in enumerate((*marks, *map(chr, range(33, 127))))}, merges=[]
    )
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8}
    blocks = {"block_out_channels": 8, "layers_per_block": 1, "qkv_multiscales": ()}
    sides = {
        f"{half}_{name}": (value,) * 3 for half in ("encoder", "decoder") for name, value in blocks.items()
    }
    SanaPipeline(
        vae=AutoencoderDC(latent_channels=8, attention_head_dim=8, scaling_factor=0.41, **sides),
        text_encoder=Gemma2Model(
            Gemma2Config(vocab_size=len(words), num_attention_heads=2, num_key_value_heads=1, **sizes)
        ),
        tokenizer=words,
        transformer=SanaTransformer2DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=8,
        ),
        scheduler=DPMSolverMultistepScheduler(
            use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
        ),
    ).save_pretrained(folder)
    return folder


def sized(pipe: Any) -> dict[str, Any]:
    """What a stock call is told so that it samples 32 px: Sana's would take 1024."""
    return {"height": 32, "width": 32, "use_resolution_binning": False} if type(pipe) is SanaPipeline else {}


TINY = {
    "sd": tiny,
    "sd-v": lambda folder: tiny(folder, prediction_type="v_prediction"),
    "sdxl": tiny_sdxl,
    "sd3": tiny_sd3,
    "sd3-t5": lambda folder: tiny_sd3(folder, with_t5=True),
    "sana": tiny_sana,
}
"""A base of each family, and of the kinds that differ within one."""


INPAINTING = {
    "sd": lambda folder: tiny(folder, channels=9),
    "sdxl": lambda folder: tiny_sdxl(folder, channels=9),
    "sd3": lambda folder: tiny_sd3(folder, channels=16, inpaints=True),
}
"""A base of each family that inpaints."""


def load(folder: Path) -> tuple[bases.Base, Any]:
    """The base in a folder, and its pipeline in float32 on the CPU."""
    base = bases.resolve(str(folder), inpainting=True)
    return base, bases.load(base, torch.float32, torch.device("cpu"))
