"""Names alone: kohya's underscores, layers of the original SDXL, families."""

import pipelines
import pytest
import torch
from loras import load

from orchard.adapters import dialects, layers, module_names
from orchard.bases import bases


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> bases.Base:
    return bases.resolve(str(pipelines.tiny(tmp_path_factory.mktemp("base"))))


ORIGINAL = (
    (
        "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    ),
    (
        "input_blocks_8_1_transformer_blocks_9_attn2_to_out_0",
        "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0",
    ),
    (
        "output_blocks_2_1_transformer_blocks_3_ff_net_0_proj",
        "up_blocks.0.attentions.2.transformer_blocks.3.ff.net.0.proj",
    ),
    ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
    ("output_blocks_5_2_conv", "up_blocks.1.upsamplers.0.conv"),
    ("middle_block_1_proj_in", "mid_block.attentions.0.proj_in"),
    ("middle_block_2_out_layers_3", "mid_block.resnets.1.conv2"),
    ("input_blocks_7_0_emb_layers_1", "down_blocks.2.resnets.0.time_emb_proj"),
    ("output_blocks_8_0_skip_connection", "up_blocks.2.resnets.2.conv_shortcut"),
    ("input_blocks_0_0", "conv_in"),
    ("out_2", "conv_out"),
    ("time_embed_2", "time_embedding.linear_2"),
    ("label_emb_0_0", "add_embedding.linear_1"),
)
"""Names of the original SDXL and of diffusers, counted by hand in the two configs."""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("te_text_model_encoder_layers_0_mlp_fc1", "text_encoder.text_model.encoder.layers.0.mlp.fc1"),
        (
            "te1_text_model_encoder_layers_0_self_attn_out_proj",
            "text_encoder.text_model.encoder.layers.0.self_attn.out_proj",
        ),
        ("te2_text_projection", "text_encoder_2.text_projection"),
        ("unet_conv_out", "unet.conv_out"),
        (
            "transformer_transformer_blocks_3_attn_to_add_out",
            "transformer.transformer_blocks.3.attn.to_add_out",
        ),
        (
            "transformer_transformer_blocks_3_norm1_context_linear",
            "transformer.transformer_blocks.3.norm1_context.linear",
        ),
        *((f"unet_{text}", f"unet.{name}") for text, name in ORIGINAL),
    ],
)
def test_kohya_underscores_are_split_where_the_model_has_dots(text, name):
    assert dialects.canonical(f"lora_{text}.lora_down.weight") == f"{name}.lora_A.weight"


@pytest.mark.parametrize(("text", "name"), ORIGINAL)
def test_modules_of_sdxl_get_the_names_of_the_original(text, name):
    assert module_names.original_of(name, 2).replace(".", "_") == text


def test_every_layer_of_the_tiny_models_survives_kohyas_names(base):
    pipe = load(base)
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    for place, model in (("unet", pipe.unet), ("text_encoder", pipe.text_encoder)):
        paths = [n for n, m in model.named_modules() if isinstance(m, kinds)]
        assert paths
        tensors = {f"{place}.{name}.lora_A.weight": torch.zeros(1, 1) for name in paths}
        there = dialects.to_kohya(tensors, {})
        back = {k for k in dialects.rename(there) if not k.endswith("alpha")}
        assert back == set(dialects.rename(tensors))


def test_a_tensor_without_a_name_in_kohyas_dialect_is_an_error():
    with pytest.raises(ValueError, match="no name"):
        dialects.to_kohya({"unet.conv_in.lora_B.bias": torch.ones(3)}, {})
    with pytest.raises(ValueError, match="no name"):
        dialects.to_kohya({"unet.a_b.lora_A.weight": torch.ones(3, 3)}, {})


def test_two_text_encoders_are_numbered():
    keys = [f"text_encoder{n}.text_model.encoder.layers.0.mlp.fc1.lora_A.weight" for n in ("", "_2")]
    there = dialects.to_kohya({key: torch.ones(2, 4) for key in keys}, {}, dialects.Kohya(two_encoders=True))
    stem = "text_model_encoder_layers_0_mlp_fc1"
    assert {key.partition(".")[0] for key in there} == {f"lora_te1_{stem}", f"lora_te2_{stem}"}
    assert {float(value) for key, value in there.items() if key.endswith("alpha")} == {2}


@pytest.mark.parametrize(
    ("key", "width", "made_for"),
    [
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 768, "SD 1 (text width 768)"),
        ("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v", 1024, "SD 2 (text width 1024)"),
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", 2048, "SDXL (text width 2048)"),
        ("unet.mid_block.attentions.0.transformer_blocks.9.attn1.to_q", 1280, "SDXL"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", 1024, "SD 2"),
        ("transformer.transformer_blocks.0.attn.to_q", 1536, "SD 3"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv", 1536, "SD 3"),
        ("lora_unet_double_blocks_0_img_attn_qkv", 3072, "FLUX"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q", 1280, None),
    ],
)
def test_the_family_is_told_from_names_and_widths(key, width, made_for):
    assert layers.family(dialects.rename({f"{key}.lora_A.weight": (4, width)})) == made_for
