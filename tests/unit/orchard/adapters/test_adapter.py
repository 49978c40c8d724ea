"""The adapter's file: what the stock pipeline makes of it, what its header says, what is refused."""

import math
from pathlib import Path

import numpy as np
import pipelines
import pytest
import torch
from safetensors.torch import load_file

from finetune.models import lora
from orchard.adapters import adapter, attaching
from orchard.bases import bases

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


def provenance(base: bases.Base, **changes) -> adapter.Provenance:
    values = {
        "base": base.name,
        "base_digest": base.digest,
        "family": base.family,
        "resolution": base.resolution,
        "classes": ["apple"],
        "all_classes": ["apple", "pear"],
        "prompt": "a photo of {label}",
        "rank": 4,
        "alpha": 4.0,
        "steps": 1,
        "seed": 0,
        "losses": {},
        "trained_on": ["0" * 64],
        "data": "test",
    }
    return adapter.Provenance(**(values | changes))


@pytest.mark.parametrize("alpha", [4.0, 1.0])
def test_the_file_gives_the_stock_pipeline_our_own_image(tmp_path, folder, alpha):
    base = bases.resolve(str(folder))
    ours = bases.load(base, torch.float32, CPU)
    plain = _image(ours)
    parameters = lora.inject(ours.unet, 4, alpha, seed=0)
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    mine = _image(ours)
    adapter.save(tmp_path / "apple.safetensors", ours.unet, provenance(base, alpha=alpha))

    from diffusers import StableDiffusionPipeline

    stock = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    stock.set_progress_bar_config(disable=True)
    stock.load_lora_weights(tmp_path / "apple.safetensors")
    theirs = _image(stock)
    assert np.abs(mine - plain).max() > 1e-2
    assert np.abs(mine - theirs).max() < 1e-4


def _image(pipe) -> np.ndarray:
    generator = torch.Generator().manual_seed(5)
    return pipe("a photo of apple", generator=generator, num_inference_steps=3, output_type="np").images[0]


def test_alpha_over_rank_is_what_is_applied(tmp_path, folder):
    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, CPU)
    for parameter in lora.inject(pipe.unet, 4, 2.0, seed=0):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(1))
    path = tmp_path / "a.safetensors"
    adapter.save(path, pipe.unet, provenance(base, alpha=2.0))
    fresh = bases.load(base, torch.float32, CPU)
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    before = fresh.unet.get_submodule(name).weight.detach().clone()
    attaching.attach(fresh, adapter.read(path))
    fresh.fuse_lora()
    tensors = load_file(path)
    up, down = tensors[f"unet.{name}.lora_B.weight"], tensors[f"unet.{name}.lora_A.weight"]
    after = fresh.unet.get_submodule(name).base_layer.weight
    assert torch.allclose(after, before + 2.0 / 4 * up @ down, atol=1e-5)


def test_the_header_comes_back_as_it_was_written(tmp_path, folder):
    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, CPU)
    lora.inject(pipe.unet, 4, 4, seed=0)
    written = provenance(base, classes=["Äpfel & <b>"], all_classes=["Äpfel & <b>", "pear"])
    adapter.save(tmp_path / "a.safetensors", pipe.unet, written)
    found = adapter.read(tmp_path / "a.safetensors")
    assert found.provenance == written
    assert found.cross_attention_dim == 16


def test_a_lora_for_another_width_is_refused_before_loading(tmp_path, folder, refused):
    other = bases.resolve(str(pipelines.tiny(tmp_path / "wide", width=32)))
    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, CPU)
    lora.inject(pipe.unet, 4, 4, seed=0)
    adapter.save(tmp_path / "a.safetensors", pipe.unet, provenance(base))
    with refused("a.safetensors", "text width 16", "text width 32"):
        adapter.require_fit(adapter.read(tmp_path / "a.safetensors"), other)


def test_weights_that_are_not_finite_are_refused(tmp_path, folder, refused):
    from safetensors.torch import save_file

    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    tensors = {
        f"{name}.lora_A.weight": torch.full((4, 32), math.nan),
        f"{name}.lora_B.weight": torch.ones(32, 4),
    }
    save_file(tensors, tmp_path / "nan.safetensors")
    with refused("1 of 2", "NaN"):
        adapter.require_finite(adapter.read(tmp_path / "nan.safetensors"))


def test_a_lora_of_which_half_matches_is_refused(tmp_path, folder, refused):
    from safetensors.torch import save_file

    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, CPU)
    lora.inject(pipe.unet, 4, 4, seed=0)
    adapter.save(tmp_path / "a.safetensors", pipe.unet, provenance(base))
    tensors = load_file(tmp_path / "a.safetensors")
    renamed = {key.replace("mid_block", "no_block"): value for key, value in tensors.items()}
    save_file(renamed, tmp_path / "half.safetensors")
    found = adapter.read(tmp_path / "half.safetensors")
    with refused("half.safetensors"):
        attaching.attach(bases.load(base, torch.float32, CPU), found)


def test_a_lora_made_on_other_weights_of_the_same_base_is_refused(tmp_path, folder, refused):
    base = bases.resolve(str(folder))
    pipe = bases.load(base, torch.float32, CPU)
    lora.inject(pipe.unet, 4, 4, seed=0)
    adapter.save(tmp_path / "a.safetensors", pipe.unet, provenance(base, base_digest="0" * 64))
    with refused("other weights", "train it again"):
        adapter.require_fit(adapter.read(tmp_path / "a.safetensors"), base)


@pytest.mark.parametrize("content", [b"", b"hello" * 10])
def test_a_file_that_is_not_safetensors_is_refused(tmp_path, refused, content):
    (tmp_path / "a.safetensors").write_bytes(content)
    with refused("a.safetensors", "not a safetensors file"):
        adapter.read(tmp_path / "a.safetensors")


def test_removing_the_adapter_gives_the_base_back(folder):
    pipe = bases.load(bases.resolve(str(folder)), torch.float32, CPU)
    plain = _image(pipe)
    for parameter in lora.inject(pipe.unet, 4, 4, seed=0):
        torch.nn.init.ones_(parameter)
    lora.remove(pipe.unet)
    assert np.array_equal(_image(pipe), plain)
