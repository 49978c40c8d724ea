"""rsLoRA, PiSSA, ranks by pattern and LoRA+: what they learn, and what other tools make of their files."""

import json
from pathlib import Path

import numpy as np
import pipelines
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors import safe_open
from safetensors.torch import load_file

from finetune.config import TrainLora
from finetune.models import lora, targets
from finetune.models.families import family_of
from finetune.training import learner
from orchard.adapters import adapter, attaching
from orchard.adapters.provenance import Provenance

VARIANTS = {
    "rslora": {"use_rslora": True, "alpha": 3.0},
    "pissa": {"init_lora_weights": "pissa"},
    "pattern": {"rank_pattern": ("attn2.to_k=5", "to_v=2")},
    "all": {
        "use_rslora": True,
        "init_lora_weights": "pissa",
        "rank_pattern": ("attn2.to_k=5", "k_proj=1"),
        "alpha": 2.0,
        "train_text_encoder": True,
    },
}


def learned(folder: Path, **options):
    """Base and family with an adapter that has moved away from its start, and the targets."""
    base, pipe = pipelines.load(folder)
    config = TrainLora(rank=3, **options)
    family = family_of(pipe, base, trains_text=config.train_text_encoder)
    chosen = targets.resolve(("attention",), pipe, base.family, trains_text=config.train_text_encoder)
    part = lora.Layers(targets=chosen, config=config)
    generator = torch.Generator().manual_seed(0)
    for parameters in part.put_in(family).values():
        for parameter in parameters:
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    return base, family, part


def provenance(base, **changes) -> Provenance:
    known = {"base": base.name, "base_digest": base.digest, "family": base.family, "resolution": 32}
    usual = {"classes": ["apple"], "all_classes": ["apple"], "prompt": "a photo of {label}", "rank": 3}
    rest = {"alpha": 3.0, "steps": 1, "seed": 0, "losses": {}, "trained_on": [], "data": "test"}
    return Provenance(**{**known, **usual, **rest, **changes})


def picture(pipe) -> np.ndarray:
    options = {"num_inference_steps": 2, "output_type": "np", "height": 32, "width": 32}
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        return pipe("an apple", generator=generator, guidance_scale=2.0, **options).images[0]


@pytest.mark.parametrize(
    ("name", "variant"),
    [("sd", "rslora"), ("sd", "pissa"), ("sd", "pattern"), ("sd", "all"), ("sdxl", "all"), ("sd3", "all")],
)
def test_stock_diffusers_and_generate_apply_the_file_as_it_was_trained(folders, tmp_path, name, variant):
    base, family, part = learned(folders[name], **VARIANTS[variant])
    trained = picture(family.pipe)
    with part.base_alone(family):
        plain = picture(family.pipe)
    part.save(tmp_path / "a.safetensors", family, provenance(base))
    assert np.abs(trained - plain).max() > 1e-3

    _, stock = pipelines.load(folders[name])
    assert np.abs(picture(stock) - plain).max() < 1e-5  # PiSSA, too, leaves the base as it was
    stock.load_lora_weights(tmp_path, weight_name="a.safetensors")
    assert np.abs(picture(stock) - trained).max() < 1e-4

    _, ours = pipelines.load(folders[name])
    attaching.attach(ours, adapter.read(tmp_path / "a.safetensors"))
    assert np.abs(picture(ours) - trained).max() < 1e-4

    part.take_out(family)
    assert np.abs(picture(family.pipe) - plain).max() == 0


@pytest.mark.parametrize("export", ["kohya", "merged"])
@pytest.mark.parametrize("variant", ["rslora", "pissa", "pattern"])
def test_kohyas_alpha_over_rank_gives_the_update_that_was_trained(folders, tmp_path, variant, export):
    """As WebUI and ComfyUI compute it: up x down x alpha / rank, with nothing else to go by."""
    base, family, part = learned(folders["sd"], **VARIANTS[variant], export=export)
    part.save(tmp_path / "a.safetensors", family, provenance(base))
    tensors = load_file(tmp_path / export / "a.safetensors")
    for path, layer in family.denoiser.named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        stem = f"lora_unet_{path.replace('.', '_')}"
        down, up = tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"]
        written = up @ down * tensors[f"{stem}.alpha"] / len(down)
        layer.merge()
        assert torch.allclose(written, sum(map(layer.get_delta_weight, layer.active_adapters)), atol=1e-5)
        layer.unmerge()


def test_what_was_exported_of_an_adapter_goes_when_another_one_replaces_it(folders, tmp_path):
    for export in ("kohya", "merged", "none"):
        base, family, part = learned(folders["sd"], export=export)
        part.save(tmp_path / "a.safetensors", family, provenance(base))
        part.take_out(family)
        found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*"))
        assert found == ([f"{export}/a.safetensors"] if export != "none" else [])


def test_pissa_starts_where_pefts_does_and_changes_nothing_yet(folders):
    base, pipe = pipelines.load(folders["sd"])
    plain = picture(pipe)
    weight = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    lora.inject(pipe.unet, 3, 6, 0, pissa=True)
    assert np.abs(picture(pipe) - plain).max() < 1e-4
    _, other = pipelines.load(folders["sd"])
    config = LoraConfig(
        r=3, lora_alpha=6, init_lora_weights="pissa", target_modules=sorted(targets.ATTENTION)
    )
    inject_adapter_in_model(config, other.unet)
    for path, layer in other.unet.named_modules():
        if hasattr(layer, "lora_A"):
            mine = pipe.unet.get_submodule(path)
            assert torch.allclose(
                mine.get_delta_weight("default"), layer.get_delta_weight("default"), atol=1e-5
            )
            assert torch.equal(mine.base_layer.weight, weight[f"{path}.weight"])
    assert base.family == "sd"


def test_the_header_says_each_layers_rank_and_alpha_as_plain_lora_has_them(folders, tmp_path):
    base, family, part = learned(folders["sd"], use_rslora=True, alpha=3.0, rank_pattern=("attn2.to_k=4",))
    part.save(tmp_path / "a.safetensors", family, provenance(base))
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        said = json.loads(file.metadata()["lora_adapter_metadata"])
    assert not said["unet.use_rslora"] and said["unet.r"] == 3
    assert said["unet.lora_alpha"] == pytest.approx(3 * 3**0.5)
    assert set(said["unet.rank_pattern"].values()) == {4}
    assert list(set(said["unet.alpha_pattern"].values())) == pytest.approx([3 * 4**0.5])
    assert all(name.endswith("attn2.to_k") for name in said["unet.rank_pattern"])


def test_the_first_pattern_that_names_a_layer_gives_its_rank(folders):
    _, pipe = pipelines.load(folders["sd"])
    found = targets.ranks_of(pipe.unet, ("to_k", "to_q"), ("mid_block=2", "to_k=5"))
    assert {rank for name, rank in found.items() if name.startswith("mid_block")} == {2}
    assert {rank for name, rank in found.items() if not name.startswith("mid_block")} == {5}
    assert all(name.endswith("to_k") for name, rank in found.items() if rank == 5)


def test_b_matrices_learn_faster_with_lora_plus(folders):
    _, family, part = learned(folders["sd"], loraplus_lr_ratio=16, train_text_encoder=True)
    config = TrainLora(
        loraplus_lr_ratio=16, learning_rate=0.01, text_encoder_learning_rate=0.002, train_text_encoder=True
    )
    found = {
        name: [p for p in model.parameters() if p.requires_grad] for name, model in family.models.items()
    }
    rates = {
        id(one): group["relative"]
        for group in learner.parameter_groups(found, family, config)
        for one in group["params"]
    }
    for component, own in (("unet", 1), ("text_encoder", 0.2)):
        for name, one in family.models[component].named_parameters():
            if one.requires_grad:
                assert rates[id(one)] == pytest.approx(own * (16 if ".lora_B." in name else 1))
    assert part.config.loraplus_lr_ratio == 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_rslora": True, "method": "loha"}, ("--use_rslora", "lora or dora")),
        ({"init_lora_weights": "pissa", "method": "dora"}, ("--init_lora_weights pissa", "not dora")),
        ({"loraplus_lr_ratio": 16.0, "method": "full"}, ("--loraplus_lr_ratio 16", "not full")),
        ({"loraplus_lr_ratio": 0.5}, ("--loraplus_lr_ratio 0.5", "1 or more")),
        ({"rank_pattern": ("mid_block",)}, ("--rank_pattern mid_block", "PART=RANK")),
        ({"rank_pattern": ("mid_block=0",)}, ("--rank_pattern mid_block=0", "1 to 128")),
    ],
)
def test_variants_that_a_method_has_no_place_for_are_refused(refused, options, words):
    with refused(*words):
        TrainLora(**options).require_valid()


def test_a_pattern_that_no_layer_fits_is_refused(folders, refused):
    _, pipe = pipelines.load(folders["sd"])
    chosen = targets.resolve(("attention",), pipe, "sd", trains_text=False)
    with refused("--rank_pattern conv_in=4", "conv_in", "mid_block"):
        targets.require_ranks(("conv_in=4",), pipe, chosen)
