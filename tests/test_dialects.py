"""LoRA files of every tool are applied at alpha / rank."""

import json
import math
from collections.abc import Callable

import pipelines
import pytest
import torch
from loras import OUT, QUERY, fused, kohya, load, matrices, written
from torch.nn import functional as F

from orchard import adapter, attaching, bases


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
    assert one.tensors == 4
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
