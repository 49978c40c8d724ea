"""LoRA files of every tool: applied at alpha / rank where they fit, refused in one line where they do not."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pictures
import pipelines
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from generate.command import generate
from generate.config import Generate
from orchard import adapter, bases, dialects, layers, shards

CPU = torch.device("cpu")
RANK = 4
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
SELF_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> bases.Base:
    return bases.resolve(str(pipelines.tiny(tmp_path_factory.mktemp("base"))))


def load(base: bases.Base):
    return bases.load(base, torch.float32, CPU)


def matrices(*modules: str, width: int = 32, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """Module -> (down, up), drawn for square layers of ``width``."""
    g = torch.Generator().manual_seed(seed)
    return {
        m: (torch.randn(RANK, width, generator=g), torch.randn(width, RANK, generator=g)) for m in modules
    }


def written(path: Path, tensors: dict[str, Tensor], **header: str) -> adapter.Adapter:
    whole = {key: value.contiguous() for key, value in tensors.items()}
    save_file(whole, path, metadata={"format": "pt", **header})
    return adapter.read(path)


def fused(pipe, module: str) -> Tensor:
    """What the attached LoRA adds to a weight of the UNet."""
    before = pipe.unet.get_submodule(module).base_layer.weight.detach().clone()
    pipe.fuse_lora()
    after = pipe.unet.get_submodule(module).base_layer.weight.detach().clone()
    pipe.unfuse_lora()
    return after - before


def picture(pipe) -> np.ndarray:
    generator = torch.Generator().manual_seed(5)
    return pipe("an apple", generator=generator, num_inference_steps=2, output_type="np").images[0]


def kohya(found: dict[str, tuple[Tensor, Tensor]], alpha: float | None) -> dict[str, Tensor]:
    tensors = {}
    for module, (down, up) in found.items():
        name = f"lora_unet_{module.replace('.', '_')}"
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    return tensors


@pytest.mark.parametrize(("alpha", "scale"), [(4.0, 1.0), (1.0, 0.25), (None, 1.0)])
def test_a_kohya_file_is_applied_at_alpha_over_rank(tmp_path, base, alpha, scale):
    found = matrices(QUERY, OUT)
    one = written(tmp_path / "a.safetensors", kohya(found, alpha))
    pipe = load(base)
    adapter.attach(pipe, one)
    assert one.scale == scale
    assert one.tensors == 4
    for module, (down, up) in found.items():
        assert torch.allclose(fused(pipe, module), scale * up @ down, atol=1e-5)


def test_layers_may_differ_in_rank_and_alpha(tmp_path, base):
    found = matrices(QUERY, OUT)
    down, up = found[OUT]
    tensors = kohya({QUERY: found[QUERY]}, 1.0) | kohya({OUT: (down[:2], up[:, :2])}, 3.0)
    one = written(tmp_path / "a.safetensors", tensors)
    pipe = load(base)
    adapter.attach(pipe, one)
    assert one.scale is None
    assert torch.allclose(fused(pipe, QUERY), 0.25 * found[QUERY][1] @ found[QUERY][0], atol=1e-5)
    assert torch.allclose(fused(pipe, OUT), 1.5 * up[:, :2] @ down[:2], atol=1e-5)


def _pairs(down: str, up: str) -> Callable[[str], tuple[str, str]]:
    return lambda module: (down.format(module), up.format(module))


def _processor(module: str) -> tuple[str, str]:
    """Names of diffusers before 0.20: the layer's own name is part of the last word but one."""
    parent, _, last = module.removesuffix(".0").rpartition(".")
    return tuple(f"unet.{parent}.processor.{last}_lora.{end}.weight" for end in ("down", "up"))


FORMS = {
    "diffusers": _pairs("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
    "diffusers lora.down": _pairs("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
    "diffusers processor": _processor,
    "processor without unet": lambda module: tuple(n.removeprefix("unet.") for n in _processor(module)),
    "peft": _pairs("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
    "peft of unet": _pairs(
        "base_model.model.unet.{}.lora_A.weight", "base_model.model.unet.{}.lora_B.weight"
    ),
    "peft with a name": _pairs(
        "base_model.model.{}.lora_A.default.weight", "base_model.model.{}.lora_B.default.weight"
    ),
    "no prefix": _pairs("{}.lora_A.weight", "{}.lora_B.weight"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_spelling_loads_and_adds_up_times_down(tmp_path, base, form):
    found = matrices(QUERY, OUT)
    tensors = {key: t for m, two in found.items() for key, t in zip(FORMS[form](m), two, strict=True)}
    pipe = load(base)
    adapter.attach(pipe, written(tmp_path / "a.safetensors", tensors))
    for module, (down, up) in found.items():
        assert torch.allclose(fused(pipe, module), up @ down, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"lora_alpha": 2, "r": 4}, 0.5),
        ({"lora_alpha": 2, "r": 4, "use_rslora": True}, 2 / math.sqrt(4)),
        ({"lora_alpha": 9, "r": 4, "alpha_pattern": {"attn1.to_q": 1}}, 0.25),
    ],
)
@pytest.mark.parametrize("where", ["header", "prefixed header", "beside"])
def test_a_peft_file_takes_its_alpha_from_its_config(tmp_path, base, config, scale, where):
    (down, up) = matrices(QUERY)[QUERY]
    tensors = dict(zip(FORMS["peft"](QUERY), (down, up), strict=True))
    header = {}
    if where == "header":
        header = {adapter.DIFFUSERS_HEADER: json.dumps(config)}
    elif where == "prefixed header":
        header = {adapter.DIFFUSERS_HEADER: json.dumps({f"unet.{k}": v for k, v in config.items()})}
    else:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    one = written(tmp_path / "adapter_model.safetensors", tensors, **header)
    pipe = load(base)
    adapter.attach(pipe, one)
    assert one.scale == pytest.approx(scale)
    assert torch.allclose(fused(pipe, QUERY), scale * up @ down, atol=1e-5)


def test_a_config_beside_the_file_of_another_tool_is_not_its_own(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2, "r": 4}))
    assert written(tmp_path / "a.safetensors", kohya(matrices(QUERY), None)).scale == 1


def test_two_dialects_in_one_file_load_together(tmp_path, base):
    found = matrices(QUERY, OUT)
    tensors = kohya({QUERY: found[QUERY]}, 1.0)
    tensors |= dict(zip(FORMS["diffusers"](OUT), found[OUT], strict=True))
    pipe = load(base)
    adapter.attach(pipe, written(tmp_path / "a.safetensors", tensors))
    assert torch.allclose(fused(pipe, QUERY), 0.25 * found[QUERY][1] @ found[QUERY][0], atol=1e-5)
    assert torch.allclose(fused(pipe, OUT), found[OUT][1] @ found[OUT][0], atol=1e-5)


def test_one_tensor_under_two_names_is_refused(tmp_path, refused):
    (down, up) = matrices(QUERY)[QUERY]
    tensors = kohya({QUERY: (down, up)}, 1.0) | {f"unet.{QUERY}.lora_A.weight": down + 1}
    with refused("a.safetensors", "name the same tensor"):
        written(tmp_path / "a.safetensors", tensors)


def test_half_precision_files_add_their_product_in_single_precision(tmp_path, base):
    (down, up) = (t.half() for t in matrices(QUERY)[QUERY])
    pipe = load(base)
    adapter.attach(pipe, written(tmp_path / "a.safetensors", kohya({QUERY: (down, up)}, 3.0)))
    assert torch.allclose(fused(pipe, QUERY), 0.75 * up.float() @ down.float(), atol=1e-5)


def test_a_convolution_of_one_pixel_and_a_linear_layer_take_each_others_form(tmp_path, base):
    found = matrices(QUERY, "mid_block.attentions.0.proj_in")
    tensors = kohya(found, None)
    for key in [key for key in tensors if "to_q" in key]:
        tensors[key] = tensors[key][:, :, None, None]
    pipe = load(base)
    assert isinstance(pipe.unet.mid_block.attentions[0].proj_in, torch.nn.Conv2d)
    adapter.attach(pipe, written(tmp_path / "a.safetensors", tensors))
    for module, (down, up) in found.items():
        assert torch.allclose(fused(pipe, module).flatten(1), up @ down, atol=1e-5)


# Refusals.


def good(tmp_path: Path) -> adapter.Adapter:
    return written(tmp_path / "good.safetensors", kohya(matrices(QUERY), None))


WIDE = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
BAD = {
    "wrong width": (
        {f"unet.{WIDE}.lora_A.weight": torch.ones(4, 2048), f"unet.{WIDE}.lora_B.weight": torch.ones(32, 4)},
        ("0 of 2 LoRA tensors matched", "SDXL", "a pipeline of text width 16"),
    ),
    "layers the base lacks": (
        {f"unet.down_blocks.3.attentions.0.{role}.weight": torch.ones(4, 4) for role in ("lora_A", "lora_B")},
        ("0 of 2 LoRA tensors matched", "SD 1 or SD 2"),
    ),
    "SD 3": (
        {
            "transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(4, 64),
            "transformer.transformer_blocks.0.attn.to_q.lora_B.weight": torch.ones(64, 4),
        },
        ("0 of 2 LoRA tensors matched", "SD 3"),
    ),
    "language model": (
        {
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(4, 64),
            "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": torch.ones(64, 4),
        },
        ("0 of 2 LoRA tensors matched", "an unknown family"),
    ),
    "no up matrix": (
        {**kohya(matrices(QUERY), None), f"unet.{OUT}.lora_A.weight": torch.ones(4, 32)},
        ("2 of 3 LoRA tensors matched", OUT),
    ),
    "ranks that differ": (
        {f"unet.{QUERY}.lora_A.weight": torch.ones(4, 32), f"unet.{QUERY}.lora_B.weight": torch.ones(32, 3)},
        ("0 of 2",),
    ),
    "scalars": (
        {f"unet.{QUERY}.lora_A.weight": torch.tensor(1.0), f"unet.{QUERY}.lora_B.weight": torch.tensor(1.0)},
        ("0 of 2",),
    ),
    "another method": (
        {**kohya(matrices(QUERY), None), "lora_unet_conv_in.hada_w1_a": torch.ones(4, 4)},
        ("2 of 3", "hada_w1_a"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_and_a_good_file_still_loads(tmp_path, base, refused, name):
    tensors, words = BAD[name]
    bad = written(tmp_path / "bad.safetensors", tensors)
    pipe = load(base)
    plain = picture(pipe)
    with refused("bad.safetensors", *words):
        adapter.attach(pipe, bad)
    assert np.array_equal(picture(pipe), plain)
    assert not hasattr(pipe.unet, "peft_config")
    adapter.attach(pipe, good(tmp_path))
    down, up = matrices(QUERY)[QUERY]
    assert torch.allclose(fused(pipe, QUERY), up @ down, atol=1e-5)


def test_a_file_of_another_width_is_refused_with_both_families_before_a_model_is_loaded(
    tmp_path, base, refused
):
    tensors, _ = BAD["wrong width"]
    with refused("bad.safetensors", "SDXL (text width 2048)", "text width 16"):
        adapter.require_fit(written(tmp_path / "bad.safetensors", tensors), base)


def test_attaching_replaces_what_was_attached(tmp_path, base):
    pipe = load(base)
    adapter.attach(pipe, good(tmp_path))
    found = matrices(QUERY, seed=7)
    adapter.attach(pipe, written(tmp_path / "b.safetensors", kohya(found, None)))
    assert torch.allclose(fused(pipe, QUERY), found[QUERY][1] @ found[QUERY][0], atol=1e-5)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "none of its 0 tensors"),
        ({"unet.conv_in.weight": torch.ones(2, 2)}, "none of its 1 tensors"),
        ({**kohya(matrices(QUERY), None), f"unet.{QUERY}.alpha": torch.ones(2)}, "is not one number"),
    ],
)
def test_files_without_lora_or_with_a_strange_alpha_are_refused(tmp_path, refused, tensors, words):
    with refused("a.safetensors", words):
        written(tmp_path / "a.safetensors", tensors)


@pytest.mark.parametrize("text", ["{", "[]", '{"lora_alpha": null}', '{"lora_alpha": 1, "alpha_pattern": 3}'])
def test_a_config_that_cannot_be_read_is_refused(tmp_path, refused, text):
    tensors = dict(zip(FORMS["peft"](QUERY), matrices(QUERY)[QUERY], strict=True))
    with refused("a.safetensors", "cannot be read"):
        written(tmp_path / "a.safetensors", tensors, **{adapter.DIFFUSERS_HEADER: text})


def test_generate_writes_no_shard_for_a_lora_that_does_nothing(tmp_path, base, refused):
    tensors, words = BAD["layers the base lacks"]
    written(tmp_path / "bad.safetensors", tensors)
    good(tmp_path)
    pictures.write(tmp_path / "real", [f"{label}/{i}.png" for label in ("apple", "pear") for i in range(3)])

    def run(name: str) -> None:
        options = {"base": base.name, "data": str(tmp_path / "real"), "classes": ("apple",)}
        lora = (str(tmp_path / f"{name}.safetensors"),)
        generate(Generate(lora=lora, output=tmp_path / "out", count=1, steps=1, precision="fp32", **options))

    with refused("bad.safetensors", *words):
        run("bad")
    assert not list((tmp_path / "out").rglob("*.parquet"))
    run("good")
    assert shards.existing(tmp_path / "out")[0].origin.arguments["lora_scale"] == 1


def test_rows_from_before_the_scale_was_recorded_can_be_gone_on_with(tmp_path):
    old = shards.Origin(
        label="apple", classes=["apple"], arguments={"seed": 0}, trained_on=None, versions={}, count=1
    )
    new = dataclasses.replace(old, arguments={"seed": 0, "lora_scale": 0.5})
    shard = shards.Shard(path=tmp_path, number=0, rows=1, origin=old)
    shards.require_same([shard], new, tmp_path)


# Round trips.


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


def tuned(base: bases.Base, **options):
    """A pipeline with a random LoRA of scale 1/4 on the UNet and 3/2 on the text encoder."""
    pipe = load(base)
    config = {"target_modules": ["to_q", "to_k", "to_v", "to_out.0"]} | options
    pipe.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=1, **config))
    pipe.text_encoder.add_adapter(
        LoraConfig(r=2, lora_alpha=3, target_modules=list(SELF_ATTENTION)), "default"
    )
    generator = torch.Generator().manual_seed(1)
    for model in (pipe.unet, pipe.text_encoder):
        for name, parameter in model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3, generator=generator)
            elif "magnitude" in name:
                parameter.data *= 1.3
    return pipe


EVERYTHING = ["to_k", "proj_in", "ff.net.0.proj", "ff.net.2", "conv1", "conv_shortcut", "time_emb_proj"]


@pytest.mark.parametrize("dialect", ["diffusers", "kohya"])
@pytest.mark.parametrize("targets", [None, [*EVERYTHING, "conv_in", "conv_out", "linear_1", "conv"]])
def test_stock_diffusers_and_we_give_the_image_that_was_trained(tmp_path, base, dialect, targets):
    ours = tuned(base, **({"target_modules": targets} if targets else {}))
    mine, path = picture(ours), tmp_path / "a.safetensors"
    encoders = {"text_encoder": ours.text_encoder}
    adapter.save(path, ours.unet, provenance(base), text_encoders=encoders, dialect=dialect)
    stock, again = load(base), load(base)
    plain = picture(stock)
    stock.load_lora_weights(path)
    adapter.attach(again, adapter.read(path))
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
    ours, path = tuned(base, use_dora=True, target_modules=["to_q", "conv1"]), tmp_path / "a.safetensors"
    encoders = {"text_encoder": ours.text_encoder}
    adapter.save(path, ours.unet, provenance(base), text_encoders=encoders, dialect=dialect)
    again = load(base)
    adapter.attach(again, adapter.read(path))
    assert np.abs(picture(ours) - picture(again)).max() < 1e-4


def test_kohya_norms_of_rows_are_applied_as_dora_defines_them(tmp_path, base):
    (down, up), norms = matrices(QUERY)[QUERY], torch.rand(32, 1) + 0.5
    tensors = kohya({QUERY: (down, up)}, 2.0) | {f"lora_unet_{QUERY.replace('.', '_')}.dora_scale": norms}
    pipe = load(base)
    adapter.attach(pipe, written(tmp_path / "a.safetensors", tensors))
    layer = pipe.unet.get_submodule(QUERY)
    weight = layer.base_layer.weight.detach() + 0.5 * up @ down
    states = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    wanted = F.linear(states, norms * weight / weight.norm(dim=1, keepdim=True))
    assert torch.allclose(layer(states), wanted, atol=1e-4)


def test_kohya_norms_of_columns_are_refused(tmp_path, base, refused):
    name = f"lora_unet_{QUERY.replace('.', '_')}"
    tensors = kohya(matrices(QUERY), 2.0) | {f"{name}.dora_scale": torch.ones(1, 32)}
    with refused("0 of 3", "a.safetensors"):
        adapter.attach(load(base), written(tmp_path / "a.safetensors", tensors))


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
        # Names of the original SDXL, counted by hand in its config.
        (
            "unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        ),
        (
            "unet_input_blocks_8_1_transformer_blocks_9_attn2_to_out_0",
            "unet.down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_out.0",
        ),
        (
            "unet_output_blocks_2_1_transformer_blocks_3_ff_net_0_proj",
            "unet.up_blocks.0.attentions.2.transformer_blocks.3.ff.net.0.proj",
        ),
        ("unet_input_blocks_3_0_op", "unet.down_blocks.0.downsamplers.0.conv"),
        ("unet_output_blocks_5_2_conv", "unet.up_blocks.1.upsamplers.0.conv"),
        ("unet_middle_block_1_proj_in", "unet.mid_block.attentions.0.proj_in"),
        ("unet_middle_block_2_out_layers_3", "unet.mid_block.resnets.1.conv2"),
        ("unet_input_blocks_7_0_emb_layers_1", "unet.down_blocks.2.resnets.0.time_emb_proj"),
        ("unet_output_blocks_8_0_skip_connection", "unet.up_blocks.2.resnets.2.conv_shortcut"),
        ("unet_input_blocks_0_0", "unet.conv_in"),
        ("unet_out_2", "unet.conv_out"),
        ("unet_time_embed_2", "unet.time_embedding.linear_2"),
        ("unet_label_emb_0_0", "unet.add_embedding.linear_1"),
    ],
)
def test_kohya_underscores_are_split_where_the_model_has_dots(text, name):
    assert dialects.canonical(f"lora_{text}.lora_down.weight") == f"{name}.lora_A.weight"


def test_every_layer_of_the_tiny_models_survives_kohyas_names(base):
    pipe = load(base)
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    for place, model in (("unet", pipe.unet), ("text_encoder", pipe.text_encoder)):
        names = [n for n, m in model.named_modules() if isinstance(m, kinds)]
        assert names
        tensors = {f"{place}.{name}.lora_A.weight": torch.zeros(1, 1) for name in names}
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
    there = dialects.to_kohya({key: torch.ones(2, 4) for key in keys}, {}, two_encoders=True)
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
