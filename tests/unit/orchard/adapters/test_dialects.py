"""LoRA files of every tool are applied at alpha / rank."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pipelines
import pytest
import torch
from loras import OUT, QUERY, RANK, fused, kohya, load, matrices, written
from peft import LoraConfig, get_peft_model
from torch.nn import functional as F

from generate.config import Generate
from generate.sampling import loras
from orchard.adapters import adapter, attaching
from orchard.bases import bases


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> bases.Base:
    return bases.resolve(str(pipelines.tiny(tmp_path_factory.mktemp("base"))))


@pytest.mark.parametrize(("alpha", "scale"), [(4.0, 1.0), (1.0, 0.25), (None, 1.0)])
def test_a_kohya_file_is_applied_at_alpha_over_rank(tmp_path, base, alpha, scale):
    found = matrices(QUERY, OUT)
    one = written(tmp_path / "a.safetensors", kohya(found, alpha))
    pipe = load(base)
    attaching.attach(pipe, one)
    assert one.scale == scale
    for module, (down, up) in found.items():
        assert torch.allclose(fused(pipe, module), scale * up @ down, atol=1e-5)


def test_layers_may_differ_in_rank_and_alpha(tmp_path, base):
    found = matrices(QUERY, OUT)
    down, up = found[OUT]
    tensors = kohya({QUERY: found[QUERY]}, 1.0) | kohya({OUT: (down[:2], up[:, :2])}, 3.0)
    one = written(tmp_path / "a.safetensors", tensors)
    pipe = load(base)
    attaching.attach(pipe, one)
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
    "lycoris": lambda module: tuple(
        f"lycoris_{module.replace('.', '_')}.lora_{end}.weight" for end in ("down", "up")
    ),
    "lycoris of unet": lambda module: tuple(
        f"lycoris_unet_{module.replace('.', '_')}.lora_{end}.weight" for end in ("down", "up")
    ),
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
    attaching.attach(pipe, written(tmp_path / "a.safetensors", tensors))
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
    attaching.attach(pipe, one)
    assert one.scale == pytest.approx(scale)
    assert torch.allclose(fused(pipe, QUERY), scale * up @ down, atol=1e-5)


def tuned_by_peft(folder: Path, base: bases.Base, **options: Any) -> dict[str, torch.Tensor]:
    """An adapter that peft has tuned for five steps and saved; what it adds by peft's own merge."""
    unet = load(base).unet
    before = {name: value.clone() for name, value in unet.state_dict().items()}
    torch.manual_seed(0)
    model = get_peft_model(unet, LoraConfig(**{"r": RANK, "lora_alpha": 6, "target_modules": PEFT} | options))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(5):
        latents, states = torch.randn(1, 4, 16, 16), torch.randn(1, 5, 16)
        model(latents, torch.tensor([3]), states).sample.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    merged = model.merge_and_unload().state_dict()
    return {name: merged[f"{name}.weight"] - before[f"{name}.weight"] for name in (QUERY, OUT)}


PEFT = ["to_q", "to_out.0"]
PEFT_OPTIONS: dict[str, dict[str, Any]] = {
    **{init: {"init_lora_weights": init} for init in ("pissa", "olora", "gaussian", "orthogonal", "mica")},
    "random from the start": {"init_lora_weights": False},
    "pissa by the root": {"init_lora_weights": "pissa", "use_rslora": True},
    "olora with patterns": {
        "init_lora_weights": "olora",
        "alpha_pattern": {"attn1.to_q": 2},
        "rank_pattern": {"to_out.0": 2},
    },
    "patterns": {"alpha_pattern": {"attn1.to_q": 2}, "rank_pattern": {"attn2.to_out.0": 8}},
    "root and patterns": {"use_rslora": True, "rank_pattern": {"attn2.to_out.0": 8}},
    "dora": {"use_dora": True},
    "dora from pissa": {"use_dora": True, "init_lora_weights": "pissa"},
}


@pytest.mark.parametrize("name", PEFT_OPTIONS)
def test_what_peft_has_tuned_adds_what_peft_itself_merges(tmp_path, base, name):
    wanted = tuned_by_peft(tmp_path, base, **PEFT_OPTIONS[name])
    one = adapter.read(adapter.find(str(tmp_path)))
    attaching.require_matching_layers(one, base)
    pipe = load(base)
    attaching.attach(pipe, one)
    for module, value in wanted.items():
        assert value.abs().max() > 1e-3
        assert torch.allclose(fused(pipe, module), value, atol=1e-5), module


def test_what_starts_from_the_bases_weights_wants_them_at_hand_and_linear(tmp_path, base, refused):
    config = {"lora_alpha": 4, "r": 4, "init_lora_weights": "pissa"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    path, module = tmp_path / "adapter_model.safetensors", "mid_block.attentions.0.proj_in"
    tensors = dict(zip(FORMS["peft"](module), matrices(module)[module], strict=True))
    with refused("adapter_model.safetensors", module, "is a convolution"):
        attaching.require_matching_layers(written(path, tensors), base)
    with refused("adapter_model.safetensors", "pissa", "--offload model"):
        loras.blends(Generate(lora=(str(path),), offload="layers"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "corda"}, "corda"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"init_lora_weights": "lora_ga"}, "lora_ga"),
        ({"init_lora_weights": "of tomorrow"}, "of tomorrow"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"bias": "lora_only"}, "bias lora_only"),
        ({"use_qalora": True}, "use_qalora"),
        ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens"),
        ({"kasa_config": {"a": 1}}, "kasa_config"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "unet."])
def test_what_peft_would_apply_in_another_way_is_refused_by_name(tmp_path, refused, options, word, prefix):
    """Where the config stands beside the file, and where diffusers puts it into the header."""
    down, up = matrices(QUERY)[QUERY]
    config = {"peft_type": "LORA", "lora_alpha": 4, "r": 4} | options
    text = json.dumps({f"{prefix}{key}": value for key, value in config.items()})
    header = {adapter.DIFFUSERS_HEADER: text} if prefix else {}
    if not prefix:
        (tmp_path / "adapter_config.json").write_text(text)
    tensors = dict(zip(FORMS["peft"](QUERY), (down, up), strict=True))
    with refused("adapter_model.safetensors", "its config says", word):
        written(tmp_path / "adapter_model.safetensors", tensors, **header)


def test_a_config_beside_the_file_of_another_tool_is_not_its_own(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2, "r": 4}))
    assert written(tmp_path / "a.safetensors", kohya(matrices(QUERY), None)).scale == 1


def test_two_dialects_in_one_file_load_together(tmp_path, base):
    found = matrices(QUERY, OUT)
    tensors = kohya({QUERY: found[QUERY]}, 1.0)
    tensors |= dict(zip(FORMS["diffusers"](OUT), found[OUT], strict=True))
    pipe = load(base)
    attaching.attach(pipe, written(tmp_path / "a.safetensors", tensors))
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
    attaching.attach(pipe, written(tmp_path / "a.safetensors", kohya({QUERY: (down, up)}, 3.0)))
    assert torch.allclose(fused(pipe, QUERY), 0.75 * up.float() @ down.float(), atol=1e-5)


def test_a_convolution_of_one_pixel_and_a_linear_layer_take_each_others_form(tmp_path, base):
    found = matrices(QUERY, "mid_block.attentions.0.proj_in")
    tensors = kohya(found, None)
    for key in [key for key in tensors if "to_q" in key]:
        tensors[key] = tensors[key][:, :, None, None]
    pipe = load(base)
    assert isinstance(pipe.unet.mid_block.attentions[0].proj_in, torch.nn.Conv2d)
    attaching.attach(pipe, written(tmp_path / "a.safetensors", tensors))
    for module, (down, up) in found.items():
        assert torch.allclose(fused(pipe, module).flatten(1), up @ down, atol=1e-5)


@pytest.mark.parametrize("prefix", ["lora_unet", "lycoris"])
@pytest.mark.parametrize("flat", [False, True])
def test_a_convolution_of_three_factors_is_the_three_one_after_the_other(tmp_path, base, prefix, flat):
    """LoCon's `lora_mid`: https://arxiv.org/abs/2309.14859, with alpha 2 of rank 4."""
    module, draw = "down_blocks.0.resnets.0.conv1", torch.Generator().manual_seed(1)
    shapes = {"down": (RANK, 16, 1, 1), "mid": (RANK, RANK, 3, 3), "up": (16, RANK, 1, 1)}
    factors = {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    stem = f"{prefix}_{module.replace('.', '_')}"
    tensors = {f"{stem}.lora_{name}.weight": value for name, value in factors.items()}
    if flat:
        tensors[f"{stem}.lora_down.weight"] = factors["down"][:, :, 0, 0]
    one = written(tmp_path / "a.safetensors", tensors | {f"{stem}.alpha": torch.tensor(2.0)})
    assert one.methods == ("lora",)
    attaching.require_matching_layers(one, base)
    pipe = load(base)
    attaching.attach(pipe, one)
    image = torch.randn(1, 16, 8, 8, generator=draw)
    through = F.conv2d(F.conv2d(image, factors["down"]), factors["mid"], padding=1)
    wanted = 0.5 * F.conv2d(through, factors["up"])
    found = F.conv2d(image, fused(pipe, module), padding=1)
    assert torch.allclose(found, wanted, atol=1e-4 * wanted.abs().max())


def test_lycoris_of_the_text_encoder_loads(tmp_path, base):
    draw = torch.Generator().manual_seed(1)
    stem = "lycoris_text_model_encoder_layers_0_self_attn_q_proj"
    down, up = torch.randn(RANK, 16, generator=draw), torch.randn(16, RANK, generator=draw)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    pipe = load(base)
    attaching.attach(pipe, written(tmp_path / "a.safetensors", tensors))
    layer = next(m for n, m in pipe.text_encoder.named_modules() if n.endswith("layers.0.self_attn.q_proj"))
    states = torch.randn(3, 16, generator=draw)
    assert torch.allclose(layer(states) - layer.base_layer(states), states @ down.T @ up.T, atol=1e-4)


def test_kohya_norms_of_rows_are_applied_as_dora_defines_them(tmp_path, base):
    (down, up), norms = matrices(QUERY)[QUERY], torch.rand(32, 1) + 0.5
    tensors = kohya({QUERY: (down, up)}, 2.0) | {f"lora_unet_{QUERY.replace('.', '_')}.dora_scale": norms}
    pipe = load(base)
    attaching.attach(pipe, written(tmp_path / "a.safetensors", tensors))
    layer = pipe.unet.get_submodule(QUERY)
    weight = layer.base_layer.weight.detach() + 0.5 * up @ down
    states = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    wanted = F.linear(states, norms * weight / weight.norm(dim=1, keepdim=True))
    assert torch.allclose(layer(states), wanted, atol=1e-4)


def test_kohya_norms_of_columns_are_refused(tmp_path, base, refused):
    name = f"lora_unet_{QUERY.replace('.', '_')}"
    tensors = kohya(matrices(QUERY), 2.0) | {f"{name}.dora_scale": torch.ones(1, 32)}
    with refused("0 of 3", "a.safetensors"):
        attaching.attach(load(base), written(tmp_path / "a.safetensors", tensors))
