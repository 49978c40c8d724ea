"""A LoRA that does not fit is refused in one line, and leaves nothing behind."""

import dataclasses

import numpy as np
import pictures
import pipelines
import pytest
import torch
from loras import OUT, QUERY, fused, good, kohya, load, matrices, picture, written

from generate.command import generate
from generate.config import Generate
from orchard import shards
from orchard.adapters import adapter, attaching
from orchard.bases import bases


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> bases.Base:
    return bases.resolve(str(pipelines.tiny(tmp_path_factory.mktemp("base"))))


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
    "LyCORIS": (
        {f"lycoris_down_blocks_3_proj_in.lora_{end}.weight": torch.ones(4, 4) for end in ("down", "up")},
        ("0 of 2 LoRA tensors matched", "the names of LyCORIS"),
    ),
    "a core of another rank": (
        {
            **{f"lora_unet_conv_in.lora_{end}.weight": torch.ones(4, 4, 1, 1) for end in ("down", "up")},
            "lora_unet_conv_in.lora_mid.weight": torch.ones(3, 3, 3, 3),
        },
        ("0 of 2", "unet.conv_in.lora_", "the names of kohya"),
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
        attaching.require_matching_layers(bad, base)
    with refused("bad.safetensors", *words):
        attaching.attach(pipe, bad)
    assert np.array_equal(picture(pipe), plain)
    assert not hasattr(pipe.unet, "peft_config")
    attaching.attach(pipe, good(tmp_path))
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
    attaching.attach(pipe, good(tmp_path))
    found = matrices(QUERY, seed=7)
    attaching.attach(pipe, written(tmp_path / "b.safetensors", kohya(found, None)))
    assert torch.allclose(fused(pipe, QUERY), found[QUERY][1] @ found[QUERY][0], atol=1e-5)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "none of its 0 tensors"),
        ({f"lora_unet_{QUERY.replace('.', '_')}.alpha": torch.ones(1)}, "none of its 1 tensors"),
        ({"unet.conv_in.weight": torch.ones(2, 2)}, "none of its 1 tensors"),
        ({**kohya(matrices(QUERY), None), f"unet.{QUERY}.alpha": torch.ones(2)}, "is not one number"),
    ],
)
def test_files_without_lora_or_with_a_strange_alpha_are_refused(tmp_path, refused, tensors, words):
    with refused("a.safetensors", words):
        written(tmp_path / "a.safetensors", tensors)


@pytest.mark.parametrize("text", ["{", "[]", '{"lora_alpha": null}', '{"lora_alpha": 1, "alpha_pattern": 3}'])
def test_a_config_that_cannot_be_read_is_refused(tmp_path, refused, text):
    tensors = {f"base_model.model.{QUERY}.lora_A.weight": torch.ones(4, 32)}
    with refused("a.safetensors", "cannot be read"):
        written(tmp_path / "a.safetensors", tensors, **{adapter.DIFFUSERS_HEADER: text})


@pytest.mark.parametrize(
    ("ending", "word"),
    [
        ("diff", "full weights"),
        ("w_norm", "norms"),
        ("a1.weight", "GLoRA"),
        ("oft_blocks", "OFT"),
        ("on_input", "(IA)3"),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_the_other_methods_of_lycoris_are_named(tmp_path, refused, ending, word, beside):
    tensors = kohya(matrices(QUERY), None) if beside else {}
    with refused("a.safetensors", "LyCORIS", word, ending):
        written(tmp_path / "a.safetensors", tensors | {f"lora_unet_conv_in.{ending}": torch.ones(4, 4)})


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
    assert not (tmp_path / "out").exists()
    run("good")
    assert shards.existing(tmp_path / "out")[0].header.arguments["lora_scale"] == 1


def test_rows_from_before_the_scale_was_recorded_can_be_gone_on_with(tmp_path):
    old = shards.ShardHeader(
        label="apple", classes=["apple"], arguments={"seed": 0}, trained_on=None, versions={}, count=1
    )
    new = dataclasses.replace(old, arguments={"seed": 0, "lora_scale": 0.5})
    shard = shards.Shard(path=tmp_path, number=0, rows=1, size=1, header=old)
    shards.require_same([shard], new, tmp_path)
