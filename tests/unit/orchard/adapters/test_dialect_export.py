"""Files we write give stock diffusers, and us again, the image that was trained."""

import numpy as np
import pipelines
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from loras import QUERY, RANK, load, picture
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from orchard.adapters import adapter, attaching
from orchard.bases import bases

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
SELF_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
BLOCKS = ("to_k", "proj_in", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "time_emb_proj")
EVERYTHING = (*BLOCKS, "conv_in", "conv_out", "linear_1", "linear_2", "conv")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> bases.Base:
    return bases.resolve(str(pipelines.tiny(tmp_path_factory.mktemp("base"))))


def provenance(base: bases.Base) -> adapter.Provenance:
    return adapter.Provenance(
        base=base.name,
        base_digest=base.digest,
        family=base.family,
        resolution=32,
        classes=["apple"],
        all_classes=["apple", "pear"],
        prompt="a photo of {label}",
        rank=RANK,
        alpha=1.0,
        steps=1,
        seed=0,
        losses={},
        trained_on=[],
        data="test",
    )


def tune(model, rank: int, alpha: float, targets, seed: int = 1, **options) -> None:
    """Add a random LoRA to ``model``, with norms of a third more if it is DoRA."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), **options)
    model.add_adapter(config, adapter_name="default")
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
        elif "magnitude" in name:
            parameter.data *= 1.3


def tuned(base: bases.Base, targets=ATTENTION, **options):
    """A pipeline with a LoRA of scale 1/4 on the UNet and 3/2 on the text encoder."""
    pipe = load(base)
    tune(pipe.unet, RANK, 1, targets, **options)
    tune(pipe.text_encoder, 2, 3, SELF_ATTENTION)
    return pipe


@pytest.mark.parametrize("dialect", ["diffusers", "kohya"])
@pytest.mark.parametrize("targets", [ATTENTION, EVERYTHING], ids=["attention", "everything"])
def test_stock_diffusers_and_we_give_the_image_that_was_trained(tmp_path, base, dialect, targets):
    ours = tuned(base, targets)
    mine, path = picture(ours), tmp_path / "a.safetensors"
    encoders = {"text_encoder": ours.text_encoder}
    adapter.save(path, ours.unet, provenance(base), text_encoders=encoders, dialect=dialect)
    stock, again = load(base), load(base)
    plain = picture(stock)
    stock.load_lora_weights(path)
    attaching.attach(again, adapter.read(path))
    assert np.abs(mine - plain).max() > 1e-2
    assert np.abs(mine - picture(stock)).max() < 1e-4
    assert np.abs(mine - picture(again)).max() < 1e-4
    assert adapter.read(path).provenance == provenance(base)


def test_a_kohya_file_says_the_true_alpha_and_names_the_only_text_encoder(tmp_path, base):
    pipe, path = tuned(base), tmp_path / "a.safetensors"
    encoders = {"text_encoder": pipe.text_encoder}
    adapter.save(path, pipe.unet, provenance(base), text_encoders=encoders, dialect="kohya")
    tensors = load_file(path)
    name = f"lora_unet_{QUERY.replace('.', '_')}"
    assert tensors[f"{name}.alpha"].item() == 1
    assert tensors[f"{name}.lora_down.weight"].shape == (RANK, 32)
    text = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    assert tensors[f"{text}.alpha"].item() == 3
    assert tensors[f"{text}.lora_up.weight"].shape == (16, 2)


@pytest.mark.parametrize("dialect", ["diffusers", "kohya"])
def test_dora_comes_back_with_its_norms(tmp_path, base, dialect):
    ours, path = tuned(base, ("to_q", "conv1"), use_dora=True), tmp_path / "a.safetensors"
    encoders = {"text_encoder": ours.text_encoder}
    adapter.save(path, ours.unet, provenance(base), text_encoders=encoders, dialect=dialect)
    again = load(base)
    attaching.attach(again, adapter.read(path))
    assert np.abs(picture(ours) - picture(again)).max() < 1e-4


def encoder(kind):
    words = pipelines.tokenizer()
    return kind(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=16,
            projection_dim=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )


def parts(**vae_options) -> dict:
    words = pipelines.tokenizer()
    second = encoder(CLIPTextModelWithProjection)
    return {
        "vae": pipelines.vae(**vae_options),
        "tokenizer": words,
        "tokenizer_2": words,
        "text_encoder_2": second,
    }


def sdxl(layers: int):
    """A tiny pipeline of SDXL's classes, the same each time."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=layers,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
    )
    text = encoder(CLIPTextModel)
    pipe = StableDiffusionXLPipeline(
        **parts(), text_encoder=text, unet=unet, scheduler=DDIMScheduler(), add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sd3():
    """A tiny pipeline of SD 3's classes without its largest text encoder, the same each time."""
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
    )
    pipe = StableDiffusion3Pipeline(
        **parts(shift_factor=0.0),
        text_encoder=encoder(CLIPTextModelWithProjection),
        text_encoder_3=None,
        tokenizer_3=None,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("dialect", ["diffusers", "kohya"])
@pytest.mark.parametrize("blocks", [1, 2])
def test_sdxl_with_both_text_encoders_comes_back_as_it_was_trained(tmp_path, base, dialect, blocks):
    ours, path = sdxl(blocks), tmp_path / "a.safetensors"
    plain = picture(ours)
    encoders = {"text_encoder": ours.text_encoder, "text_encoder_2": ours.text_encoder_2}
    tune(ours.unet, RANK, 1, EVERYTHING)
    for seed, model in enumerate(encoders.values()):
        tune(model, 2, 3, SELF_ATTENTION, seed)
    mine = picture(ours)
    adapter.save(path, ours.unet, provenance(base), text_encoders=encoders, dialect=dialect)
    stock, again = sdxl(blocks), sdxl(blocks)
    stock.load_lora_weights(path)
    attaching.attach(again, adapter.read(path))
    assert np.abs(mine - plain).max() > 1e-2
    assert np.abs(mine - picture(stock)).max() < 1e-4
    assert np.abs(mine - picture(again)).max() < 1e-4


def test_a_kohya_file_for_sdxl_has_the_names_of_the_original(tmp_path, base):
    pipe, path = sdxl(2), tmp_path / "a.safetensors"
    tune(pipe.unet, RANK, 1, ("to_q",))
    tune(pipe.text_encoder, 2, 3, SELF_ATTENTION)
    encoders = {"text_encoder": pipe.text_encoder}
    adapter.save(path, pipe.unet, provenance(base), text_encoders=encoders, dialect="kohya")
    stems = {key.partition(".")[0] for key in load_file(path)}
    assert "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_q" in stems
    assert "lora_te1_text_model_encoder_layers_1_self_attn_q_proj" in stems
    assert not any("down_blocks" in stem for stem in stems)


@pytest.mark.parametrize("dialect", ["diffusers", "kohya"])
def test_a_transformer_comes_back_as_it_was_trained(tmp_path, base, dialect, refused):
    ours, path = sd3(), tmp_path / "a.safetensors"
    tune(ours.transformer, RANK, 1, (*ATTENTION, "add_q_proj", "to_add_out", "ff_context.net.2", "proj_out"))
    tune(ours.text_encoder, 2, 3, SELF_ATTENTION)
    encoders = {"text_encoder": ours.text_encoder}
    options = {"prefix": "transformer", "text_encoders": encoders, "dialect": dialect}
    adapter.save(path, ours.transformer, provenance(base), **options)
    again = sd3()
    attaching.attach(again, adapter.read(path))
    mine = picture(ours)
    assert np.abs(mine - picture(again)).max() < 1e-4
    if dialect == "diffusers":  # stock diffusers reads no other of SD 3
        stock = sd3()
        stock.load_lora_weights(path)
        assert np.abs(mine - picture(stock)).max() < 1e-4
    with refused("SD 3", "loaded is SDXL", "LoRA tensors matched"):
        attaching.attach(sdxl(1), adapter.read(path))
