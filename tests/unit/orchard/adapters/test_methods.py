"""LoHa, LoKr and DoRA files add what their definitions say, and what does not fit is refused."""

import json

import numpy as np
import pipelines
import pytest
import torch
from loras import OUT, QUERY, fused, good, load, picture, written
from torch import Tensor
from torch.nn import functional as F

from finetune.models import lora
from orchard.adapters import attaching, peft_state
from orchard.bases import bases

CONV = "mid_block.resnets.0.conv1"
WIDTH = 32


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> bases.Base:
    return bases.resolve(str(pipelines.tiny(tmp_path_factory.mktemp("base"))))


def drawn(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {role: torch.randn(shape, generator=generator) for role, shape in shapes.items()}


def lycoris(module: str, parts: dict[str, Tensor], alpha: float | None) -> dict[str, Tensor]:
    """The tensors as LyCORIS names them."""
    stem = f"lora_unet_{module.replace('.', '_')}"
    tensors = {f"{stem}.{role}": value for role, value in parts.items()}
    return tensors if alpha is None else tensors | {f"{stem}.alpha": torch.tensor(alpha)}


def core(t: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Tucker: the core's two ranks go to out and in."""
    return torch.einsum("ijhw,io,jn->onhw", t, a, b)


LOHA = drawn(hada_w1_a=(WIDTH, 4), hada_w1_b=(4, WIDTH), hada_w2_a=(WIDTH, 4), hada_w2_b=(4, WIDTH))
TUCKER = drawn(
    hada_t1=(4, 4, 3, 3),
    hada_w1_a=(4, WIDTH),
    hada_w1_b=(4, WIDTH),
    hada_t2=(4, 4, 3, 3),
    hada_w2_a=(4, WIDTH),
    hada_w2_b=(4, WIDTH),
)
LOKR = drawn(lokr_w1=(4, 8), lokr_w2_a=(8, 2), lokr_w2_b=(2, 4))
BOTH = drawn(lokr_w1_a=(2, 2), lokr_w1_b=(2, 4), lokr_w2_a=(16, 2), lokr_w2_b=(2, 8))
WHOLE = drawn(lokr_w1=(4, 8), lokr_w2=(8, 4))
KERNEL = drawn(lokr_w1=(4, 8), lokr_w2=(8, 4, 3, 3))
CASES = {
    "loha": (
        QUERY,
        LOHA,
        0.5,
        (LOHA["hada_w1_a"] @ LOHA["hada_w1_b"]) * (LOHA["hada_w2_a"] @ LOHA["hada_w2_b"]),
    ),
    "loha with cores": (
        CONV,
        TUCKER,
        0.5,
        core(TUCKER["hada_t1"], TUCKER["hada_w1_a"], TUCKER["hada_w1_b"])
        * core(TUCKER["hada_t2"], TUCKER["hada_w2_a"], TUCKER["hada_w2_b"]),
    ),
    "lokr": (QUERY, LOKR, 1.0, torch.kron(LOKR["lokr_w1"], LOKR["lokr_w2_a"] @ LOKR["lokr_w2_b"])),
    "lokr of products": (
        QUERY,
        BOTH,
        1.0,
        torch.kron(BOTH["lokr_w1_a"] @ BOTH["lokr_w1_b"], BOTH["lokr_w2_a"] @ BOTH["lokr_w2_b"]),
    ),
    "lokr of whole matrices": (QUERY, WHOLE, None, torch.kron(WHOLE["lokr_w1"], WHOLE["lokr_w2"])),
    "lokr of a kernel": (
        CONV,
        KERNEL,
        None,
        torch.stack(
            [
                torch.kron(KERNEL["lokr_w1"], KERNEL["lokr_w2"][:, :, i, j])
                for i in range(3)
                for j in range(3)
            ],
            dim=-1,
        ).view(WIDTH, WIDTH, 3, 3),
    ),
}
"""Module, tensors, alpha / rank at an alpha of 2 (None where it is not read), what they add at scale 1."""


@pytest.mark.parametrize("name", CASES)
def test_a_lycoris_file_adds_what_its_method_defines_at_alpha_over_rank(tmp_path, base, name):
    module, parts, scale, added = CASES[name]
    one = written(tmp_path / "a.safetensors", lycoris(module, parts, 2.0))
    assert one.methods == (name.partition(" ")[0],)
    assert one.scale == (scale or 1.0)
    attaching.require_matching_layers(one, base)
    pipe = load(base)
    attaching.attach(pipe, one)
    assert torch.allclose(fused(pipe, module), (scale or 1.0) * added, atol=1e-4)
    attaching.attach(pipe, good(tmp_path))
    assert not any(hasattr(layer, "hada_w1_a") or hasattr(layer, "lokr_w1") for layer in pipe.unet.modules())
    assert pipe.unet.get_submodule(CONV).weight.shape == (WIDTH, WIDTH, 3, 3)


@pytest.mark.parametrize(("parts", "scale"), [(LOHA, 0.5), (WHOLE, 0.25)], ids=["loha", "whole lokr"])
def test_a_file_that_peft_saved_takes_its_scale_from_the_config_beside_it(tmp_path, base, parts, scale):
    kind = "LOHA" if parts is LOHA else "LOKR"
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": kind, "alpha": 2, "r": 8}))
    tensors = {f"base_model.model.{QUERY}.{role}": value for role, value in parts.items()}
    one = written(tmp_path / "adapter_model.safetensors", tensors)
    assert one.scale == pytest.approx(scale)
    attaching.attach(load(base), one)


BAD = {
    "wrong width": (
        lycoris("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", LOHA, None),
        ("0 of 4 LoRA tensors matched", "a pipeline of text width 16"),
    ),
    "half of a product": (lycoris(QUERY, drawn(lokr_w1=(4, 8), lokr_w2_a=(8, 2)), None), ("0 of 2",)),
    "halves that differ": (
        lycoris(QUERY, {**LOHA, "hada_w2_b": torch.ones(4, 8)}, None),
        ("0 of 4", "hada_w1_a"),
    ),
    "norms of rows of LoHa": (
        lycoris(QUERY, {**LOHA, "dora_scale": torch.ones(WIDTH, 1)}, None),
        ("0 of 5",),
    ),
    "layers the base lacks": (
        lycoris("down_blocks.3.attentions.0.proj_in", WHOLE, None),
        ("0 of 2", "SD 1 or SD 2"),
    ),
    "two methods": (
        lycoris(QUERY, LOHA, None) | lycoris(OUT, WHOLE, None),
        ("holds loha and lokr", "single method"),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused_and_the_base_is_as_it_was(tmp_path, base, refused, name):
    tensors, words = BAD[name]
    bad = written(tmp_path / "bad.safetensors", tensors)
    pipe = load(base)
    with refused("bad.safetensors", *words):
        attaching.require_matching_layers(bad, base)
    with refused("bad.safetensors", *words):
        attaching.attach(pipe, bad)
    assert not hasattr(pipe.unet, "peft_config")


def test_norms_of_a_text_encoder_are_applied_as_dora_defines_them(tmp_path, base):
    """Stock diffusers would leave them at the base's own norms if they were under another name."""
    pipe = load(base)
    stem = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    parts = drawn(down=(2, 16), up=(16, 2))
    norms = torch.rand(16, 1, generator=torch.Generator().manual_seed(3)) + 0.5
    tensors = {f"{stem}.lora_down.weight": parts["down"], f"{stem}.lora_up.weight": parts["up"]}
    tensors |= {f"{stem}.alpha": torch.tensor(1.0), f"{stem}.dora_scale": norms}
    attaching.attach(pipe, written(tmp_path / "a.safetensors", tensors))
    layer = pipe.text_encoder.get_submodule("encoder.layers.0.self_attn.q_proj")
    weight = layer.base_layer.weight.detach() + 0.5 * parts["up"] @ parts["down"]
    states = torch.randn(3, 16, generator=torch.Generator().manual_seed(2))
    wanted = F.linear(states, norms * weight / weight.norm(dim=1, keepdim=True), layer.base_layer.bias)
    assert torch.allclose(layer(states), wanted, atol=1e-4)


def test_nothing_of_an_adapter_stays_in_a_pipeline_that_gets_another(tmp_path, base):
    fresh = load(base)
    attaching.attach(fresh, good(tmp_path))
    pipe = load(base)
    attaching.attach(pipe, written(tmp_path / "a.safetensors", lycoris(QUERY, LOHA, 2.0)))
    assert np.abs(picture(pipe) - picture(fresh)).max() > 1e-3
    attaching.attach(pipe, good(tmp_path))
    assert np.array_equal(picture(pipe), picture(fresh))


def rows(weight: Tensor) -> Tensor:
    """(out,) norms of a weight's rows, in double precision."""
    return weight.detach().double().flatten(1).norm(dim=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dora_begins_at_the_norms_of_a_rounded_base_and_changes_nothing(dtype):
    torch.manual_seed(0)
    network = pipelines.unet(cross_attention_dim=16).to(dtype)
    plain = {name: one for name, one in network.named_modules() if name.endswith((".to_q", ".conv1"))}
    tuned = lora.inject(network, 4, 4, seed=0, targets=("to_q", "conv1"), method="dora")
    found = peft_state.dora_layers(network)
    assert found.keys() == plain.keys() and all(parameter.dtype == torch.float32 for parameter in tuned)
    for name, layer in found.items():
        norms = layer.lora_magnitude_vector["default"].weight
        assert any(norms is parameter for parameter in tuned)
        torch.testing.assert_close(norms.flatten().double(), rows(plain[name].weight), rtol=1e-6, atol=0)
        inputs = torch.randn(
            3, plain[name].weight.shape[1], *([5, 5] if plain[name].weight.ndim == 4 else [])
        )
        for autocast in (False, True):
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                said, expected = layer(inputs.to(dtype)), plain[name](inputs.to(dtype))
            torch.testing.assert_close(said, expected.to(said.dtype), rtol=1e-6, atol=1e-6)


def test_norms_in_a_step_are_those_of_base_and_update_in_float32():
    torch.manual_seed(0)
    network = pipelines.unet(cross_attention_dim=16).to(torch.bfloat16)
    lora.inject(network, 4, 4, seed=0, targets=("to_q", "conv1"), method="dora")
    for layer in peft_state.dora_layers(network).values():
        down, up = layer.lora_A["default"], layer.lora_B["default"]
        torch.nn.init.normal_(up.weight)
        weight = layer.get_base_layer().weight
        update = (up.weight.double().flatten(1) @ down.weight.double().flatten(1)).reshape(weight.shape)
        norms = layer.lora_magnitude_vector["default"]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            own = norms.get_lora_weight(lora_A=down, lora_B=up).reshape(weight.shape)
            found = norms.get_weight_norm(weight=weight, lora_weight=own, scaling=1.0)
        torch.testing.assert_close(
            found.flatten().double(), rows(weight.double() + update), rtol=1e-6, atol=0
        )


def test_a_dora_file_has_its_norms_whole_in_a_base_of_bfloat16(tmp_path, base):
    pipe = load(base)
    lora.inject(pipe.unet, 4, 4, seed=0, targets=("to_q", "conv1"), method="dora")
    tensors = peft_state.tensors({"unet": pipe.unet})
    norms = {name: value for name, value in tensors.items() if name.endswith("magnitude_vector")}
    half = bases.load(base, torch.bfloat16, torch.device("cpu"))
    attaching.attach(half, written(tmp_path / "a.safetensors", tensors))
    found = peft_state.dora_layers(half.unet)
    assert len(found) == len(norms) > 1
    for path, layer in found.items():
        own = layer.lora_magnitude_vector["default"]
        assert torch.equal(own.weight.detach(), norms[f"unet.{path}.lora_magnitude_vector"])
        weight = layer.get_base_layer().weight
        taken = own.get_weight_norm(weight=weight, lora_weight=torch.zeros_like(weight), scaling=1.0)
        torch.testing.assert_close(taken.flatten().double(), rows(weight), rtol=1e-6, atol=0)
    assert picture(half).shape == (32, 32, 3)
