"""Exported files in WebUI and ComfyUI: by their published formulas they add what was trained."""

import json
import math
from collections import OrderedDict

import interfaces
import numpy as np
import pipelines
import pytest
import torch
from diffusers import SD3Transformer2DModel, UNet2DConditionModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from finetune.models import lora
from finetune.models.targets import ATTENTION, FEEDFORWARD
from orchard.adapters import adapter, merged
from orchard.adapters.provenance import Provenance

RANK = 2
TARGETS = sorted((ATTENTION | FEEDFORWARD) - {"mlp.fc1", "mlp.fc2"} | {"proj_in", "conv1", "conv_shortcut"})


def unet(**options) -> UNet2DConditionModel:
    """Two layers a block, as all released ones have, which WebUI counts on."""
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        norm_num_groups=4,
        **options,
    )


def sd(width: int = 16) -> dict[str, torch.nn.Module]:
    encoder = pipelines.text_encoder(CLIPTextModel, 16)
    return {"unet": unet(cross_attention_dim=width), "text_encoder": encoder}


def sdxl() -> dict[str, torch.nn.Module]:
    return {
        "unet": unet(
            cross_attention_dim=40,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
        ),
        "text_encoder": pipelines.text_encoder(CLIPTextModel, 16),
        "text_encoder_2": pipelines.text_encoder(CLIPTextModelWithProjection, 24),
    }


def sd3() -> dict[str, torch.nn.Module]:
    transformer = SD3Transformer2DModel(
        sample_size=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        dual_attention_layers=(0,),
    )
    encoder = pipelines.text_encoder(CLIPTextModelWithProjection, 16)
    return {"transformer": transformer, "text_encoder": encoder}


FAMILIES = {"sd": sd, "sdxl": sdxl, "sd3": sd3, "sd2": lambda: sd(1024)}


def tuned(family: str, method: str) -> dict[str, torch.nn.Module]:
    """Models with random adapters of alpha 3 on rank 2, norms of DoRA between half and one and a half."""
    torch.manual_seed(0)
    models = FAMILIES[family]()
    for seed, model in enumerate(models.values()):
        for parameter in lora.inject(model, RANK, 3.0, seed, TARGETS, method):
            torch.nn.init.normal_(parameter, std=0.3)
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.data = torch.rand_like(parameter) + 0.5
    return models


def saved(path, models: dict[str, torch.nn.Module], method: str, dialect: str) -> dict[str, str]:
    """The header of the file."""
    denoiser, *encoders = models
    origin = Provenance(
        base="tiny",
        base_digest="0" * 64,
        family="sd",
        resolution=32,
        classes=["apple"],
        all_classes=["apple"],
        prompt="{label}",
        rank=RANK,
        alpha=3.0,
        steps=1,
        seed=0,
        losses={},
        trained_on=[],
        data="test",
        method=method,
    )
    others = {name: models[name] for name in encoders}
    adapter.save(path, models[denoiser], origin, prefix=denoiser, text_encoders=others, dialect=dialect)
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def trained(models: dict[str, torch.nn.Module]) -> dict[str, Tensor]:
    """What peft merges into each weight, by component and path, joined by underscores."""
    found = {}
    for place, model in models.items():
        for path, layer in model.named_modules():
            if isinstance(layer, BaseTunerLayer):
                before = layer.get_base_layer().weight.detach().clone()
                layer.merge()
                after = layer.get_base_layer().weight.detach().clone()
                whole = path if place.startswith(("unet", "tran")) else f"text_model.{path}"
                found[f"{place}.{whole}".replace(".", "_").replace("text_model_text_model", "text_model")] = (
                    after - before
                ).flatten(1)
                layer.unmerge()
    return found


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
@pytest.mark.parametrize(
    ("method", "dialect"),
    [
        ("lora", "kohya"),
        ("loha", "kohya"),
        ("lokr", "kohya"),
        ("lora", "merged"),
        ("dora", "merged"),
        ("loha", "merged"),
        ("lokr", "merged"),
    ],
)
def test_webui_and_comfyui_add_what_was_trained(tmp_path, family, method, dialect):
    models = tuned(family, method)
    header = saved(tmp_path / "a.safetensors", models, method, dialect)
    wanted, tensors = trained(models), load_file(tmp_path / "a.safetensors")
    assert dialect == "kohya" or {key.rpartition(".")[2] for key in tensors} == {"alpha", "weight"}
    found = {"ComfyUI": interfaces.comfyui(tensors)}
    if family != "sd3":  # of which WebUI reads no alphas
        found["WebUI"] = interfaces.webui(tensors, sdxl=family == "sdxl")
    for tool, updates in found.items():
        assert updates.keys() == wanted.keys(), tool
        for name, value in wanted.items():
            assert (updates[name] - value).norm() < 1e-5 * value.norm(), f"{tool} {name}"
    if dialect == "merged":
        assert json.loads(header[merged.HEADER])["error"] < 1e-5


VERSIONS = {"sd": ("sd_v1", "False"), "sd2": ("sd_v2", "True"), "sdxl": ("sdxl_base_v1-0", "False")}


@pytest.mark.parametrize("method", ["lora", "lokr"])
@pytest.mark.parametrize("family", [*VERSIONS, "sd3"])
def test_the_header_says_what_webui_shows_a_file_by(tmp_path, family, method):
    """network.py: SDXL where the version begins so, SD 2 where ss_v2 is True, else SD 1."""
    header = saved(tmp_path / "a.safetensors", tuned(family, method), method, "kohya")
    said = {key: value for key, value in header.items() if key.startswith("ss_")}
    if family == "sd3":
        assert not said
        return
    version, second = VERSIONS[family]
    assert (said["ss_base_model_version"], said["ss_v2"]) == (version, second)
    assert said["ss_network_module"] == {"lora": "networks.lora", "lokr": "lycoris.kohya"}[method]
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == (str(RANK), "3.0")


def test_the_header_of_layers_that_differ_says_so(tmp_path):
    models = tuned("sd", "dora")
    said = saved(tmp_path / "a.safetensors", models, "dora", "merged")
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("Dynamic", "1.0")
    tensors = load_file(tmp_path / "a.safetensors")
    ranks = {len(value) for key, value in tensors.items() if key.endswith("lora_down.weight")}
    assert json.loads(said[merged.HEADER])["ranks"] == [min(ranks), max(ranks)]
    assert merged.described(tmp_path / "a.safetensors").startswith(f"ranks {min(ranks)} to {max(ranks)}, ")


def test_the_rank_is_the_least_that_is_exact_and_at_most_128():
    torch.manual_seed(0)
    models, updates = {}, {}
    for place, method in (("unet", "lora"), ("text_encoder", "dora")):
        models[place] = torch.nn.Sequential(OrderedDict(layer=torch.nn.Linear(200, 180, bias=False)))
        for parameter in lora.inject(models[place], 4, 4.0, 0, ["layer"], method):
            torch.nn.init.normal_(parameter)
        updates[place] = trained({place: models[place]}).popitem()[1].numpy().astype(float)
    tensors, _, said = merged.lora(models)
    ranks = {name.partition(".")[0]: len(value) for name, value in tensors.items() if "lora_A" in name}
    assert ranks == {"unet": 4, "text_encoder": 128}
    lost = np.linalg.svd(updates["text_encoder"], compute_uv=False)[128:]
    whole = math.hypot(*(np.linalg.norm(update) for update in updates.values()))
    assert json.loads(said[merged.HEADER])["error"] == pytest.approx(np.linalg.norm(lost) / whole, rel=1e-4)
    assert np.linalg.norm(lost) / whole > 0.001
