"""LoRA files under the names of SD 3's original code, where query, key and value are one layer."""

from collections import defaultdict

import pipelines
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from loras import CPU, written
from torch import Tensor

from orchard.adapters import adapter, attaching, dialects
from orchard.bases import bases

WIDTH, RANK = 16, 4
SHAPES = {
    "x_embedder.proj": (WIDTH, 4, 2, 2),
    "context_embedder": (WIDTH, 48),
    "t_embedder.mlp.0": (WIDTH, 256),
    "t_embedder.mlp.2": (WIDTH, WIDTH),
    "y_embedder.mlp.0": (WIDTH, 40),
    "y_embedder.mlp.2": (WIDTH, WIDTH),
    "final_layer.linear": (16, WIDTH),
    "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
    "joint_blocks.0.x_block.attn2.qkv": (3 * WIDTH, WIDTH),
    "joint_blocks.0.x_block.attn2.proj": (WIDTH, WIDTH),
    "joint_blocks.0.x_block.adaLN_modulation.1": (9 * WIDTH, WIDTH),
    "joint_blocks.1.x_block.adaLN_modulation.1": (6 * WIDTH, WIDTH),
    "joint_blocks.0.context_block.adaLN_modulation.1": (6 * WIDTH, WIDTH),
    "joint_blocks.1.context_block.adaLN_modulation.1": (2 * WIDTH, WIDTH),
    "joint_blocks.0.context_block.attn.proj": (WIDTH, WIDTH),
    "joint_blocks.0.context_block.mlp.fc1": (4 * WIDTH, WIDTH),
    "joint_blocks.0.context_block.mlp.fc2": (WIDTH, 4 * WIDTH),
    **{
        f"joint_blocks.{i}.{part}": shape
        for i in (0, 1)
        for part, shape in {
            "x_block.attn.qkv": (3 * WIDTH, WIDTH),
            "context_block.attn.qkv": (3 * WIDTH, WIDTH),
            "x_block.attn.proj": (WIDTH, WIDTH),
            "x_block.mlp.fc1": (4 * WIDTH, WIDTH),
            "x_block.mlp.fc2": (WIDTH, 4 * WIDTH),
        }.items()
    },
}
"""Every layer of the original of `pipelines.tiny_sd3`: (out, in) or (out, in, height, width)."""
FUSED = "joint_blocks.1.context_block.attn.qkv"


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> bases.Base:
    return bases.resolve(str(pipelines.tiny_sd3(tmp_path_factory.mktemp("base"))))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pairs() -> dict[str, tuple[Tensor, Tensor]]:
    return {
        name: (drawn(RANK, *shape[1:], seed=i), drawn(shape[0], RANK, *[1] * (len(shape) - 2), seed=-1 - i))
        for i, (name, shape) in enumerate(SHAPES.items())
    }


def product(down: Tensor, up: Tensor) -> Tensor:
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def updates(base: bases.Base, one: adapter.Adapter) -> dict[str, Tensor]:
    """What the attached adapter adds to each weight of the transformer."""
    pipe = bases.load(base, torch.float32, CPU)
    before = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    attaching.attach(pipe, one)
    pipe.fuse_lora()
    after = {name.replace(".base_layer", ""): value for name, value in pipe.transformer.state_dict().items()}
    return {
        name.removesuffix(".weight"): after[name] - value
        for name, value in before.items()
        if not torch.equal(after[name], value)
    }


def kohya(name: str) -> str:
    return f"lora_unet_{name.replace('.', '_')}"


SPELLINGS = {
    "sd-scripts": lambda name: (f"{kohya(name)}.lora_down.weight", f"{kohya(name)}.lora_up.weight"),
    "ComfyUI": lambda name: tuple(f"diffusion_model.{name}.lora_{end}.weight" for end in "AB"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_layer_adds_to_diffusers_weights_what_it_adds_to_the_originals(tmp_path, base, spelling):
    """diffusers' own conversion of the original's weights tells what goes where."""
    found = pairs()
    tensors = {
        key: value
        for name, two in found.items()
        for key, value in zip(SPELLINGS[spelling](name), two, strict=True)
    }
    if spelling == "sd-scripts":
        tensors |= {f"{kohya(name)}.alpha": torch.tensor(1.0) for name in found}
    scale = 1 / RANK if spelling == "sd-scripts" else 1.0
    whole = defaultdict(lambda: torch.zeros(6), pos_embed=torch.zeros(1))
    whole |= {f"{name}.weight": scale * product(*two) for name, two in found.items()}
    converted = convert_sd3_transformer_checkpoint_to_diffusers(Popping(whole))
    wanted = {
        name.removesuffix(".weight"): value for name, value in converted.items() if name.endswith(".weight")
    }
    one = written(tmp_path / "a.safetensors", tensors)
    attaching.require_matching_layers(one, base)
    ours = updates(base, one)
    assert ours.keys() == wanted.keys()
    assert len(ours) > len(SHAPES)
    for name, value in wanted.items():
        torch.testing.assert_close(ours[name], value, atol=1e-5, rtol=1e-5, msg=name)


class Popping(dict):
    """Weights, with biases of zeros that diffusers' conversion wants too."""

    def pop(self, key, *default):
        return super().pop(key, torch.zeros(6))


LYCORIS = {
    "loha": {
        "hada_w1_a": (48, 4),
        "hada_w1_b": (4, WIDTH),
        "hada_w2_a": (48, 4),
        "hada_w2_b": (4, WIDTH),
    },
    "lokr": {"lokr_w1": (6, 4), "lokr_w2_a": (8, 2), "lokr_w2_b": (2, 4)},
    "lokr of products": {
        "lokr_w1_a": (12, 2),
        "lokr_w1_b": (2, 4),
        "lokr_w2_a": (4, 2),
        "lokr_w2_b": (2, 4),
    },
}


@pytest.mark.parametrize("method", LYCORIS)
def test_lycoris_methods_on_the_three_are_divided_too(tmp_path, base, method):
    parts = {role: drawn(*shape, seed=i) for i, (role, shape) in enumerate(LYCORIS[method].items())}
    if method == "loha":
        first, second = (parts[f"hada_w{n}_a"] @ parts[f"hada_w{n}_b"] for n in (1, 2))
        whole = first * second
    else:
        small = parts.get("lokr_w1", parts.get("lokr_w1_a", drawn(1, 1)))
        small = small @ parts["lokr_w1_b"] if "lokr_w1_b" in parts else small
        whole = torch.kron(small, parts["lokr_w2_a"] @ parts["lokr_w2_b"])
    one = written(tmp_path / "a.safetensors", {f"{kohya(FUSED)}.{role}": v for role, v in parts.items()})
    ours = updates(base, one)
    for name, wanted in zip("qkv", whole.chunk(3), strict=True):
        found = ours[f"transformer_blocks.1.attn.add_{name}_proj"]
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_norms_of_rows_of_the_three_are_divided_too(tmp_path, base):
    down, up, norms = drawn(RANK, WIDTH), drawn(48, RANK, seed=1), drawn(48, 1, seed=2).abs()
    stem = kohya(FUSED)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.dora_scale": norms}
    ours = updates(base, written(tmp_path / "a.safetensors", tensors))
    blocks = bases.load(base, torch.float32, CPU).transformer.transformer_blocks
    for name, more, norm in zip("qkv", (up @ down).chunk(3), norms.chunk(3), strict=True):
        before = getattr(blocks[1].attn, f"add_{name}_proj").weight.detach()
        after = norm * (before + more) / (before + more).norm(dim=1, keepdim=True)
        found = ours[f"transformer_blocks.1.attn.add_{name}_proj"]
        torch.testing.assert_close(found, after - before, atol=1e-5, rtol=1e-5)


def test_what_cannot_be_divided_is_refused_by_name(tmp_path, base, refused):
    parts = {"lokr_w1": (4, 4), "lokr_w2": (12, 4)}
    tensors = {f"{kohya(FUSED)}.{role}": drawn(*shape) for role, shape in parts.items()}
    with refused("0 of 2", "SD 3", f"no place for transformer.{FUSED}.lokr_w1"):
        attaching.require_matching_layers(written(tmp_path / "a.safetensors", tensors), base)


def test_a_layer_under_both_names_is_refused(tmp_path, base, refused):
    down, up = drawn(RANK, WIDTH), drawn(WIDTH, RANK)
    names = ("lora_unet_joint_blocks_0_x_block_attn_proj", "transformer.transformer_blocks.0.attn.to_out.0")
    tensors = {f"{names[0]}.lora_down.weight": down, f"{names[0]}.lora_up.weight": up}
    tensors |= {f"{names[1]}.lora_A.weight": down + 1, f"{names[1]}.lora_B.weight": up + 1}
    with refused("a.safetensors", "transformer_blocks.0.attn.to_out.0"):
        attaching.require_matching_layers(written(tmp_path / "a.safetensors", tensors), base)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (
            "text_encoders.clip_l.transformer.text_model.encoder.layers.0.mlp.fc1",
            "text_encoder.text_model.encoder.layers.0.mlp.fc1",
        ),
        (
            "text_encoders.clip_g.text_model.encoder.layers.0.self_attn.q_proj",
            "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj",
        ),
        ("text_encoders.clip_h.transformer.text_projection", "text_encoder.text_projection"),
        (
            "lycoris_time_text_embed_text_embedder_linear_1",
            "transformer.time_text_embed.text_embedder.linear_1",
        ),
        ("lycoris_transformer_blocks_0_attn2_to_q", "transformer.transformer_blocks.0.attn2.to_q"),
        ("lycoris_norm_out_linear", "transformer.norm_out.linear"),
    ],
)
def test_other_tools_spell_text_encoders_and_layers_so(key, name):
    assert dialects.canonical(f"{key}.lora_down.weight") == f"{name}.lora_A.weight"


@pytest.mark.parametrize("encoder", ["text_encoder", "text_encoder_2"])
@pytest.mark.parametrize("tool", ["ComfyUI", "sd-scripts"])
def test_a_lora_of_either_clip_loads(tmp_path, base, encoder, tool):
    width = {"text_encoder": 16, "text_encoder_2": 24}[encoder]
    place = "text_model.encoder.layers.0.self_attn.q_proj"
    stem = {
        ("text_encoder", "ComfyUI"): f"text_encoders.clip_l.transformer.{place}",
        ("text_encoder_2", "ComfyUI"): f"text_encoders.clip_g.transformer.{place}",
        ("text_encoder", "sd-scripts"): f"lora_te1_{place.replace('.', '_')}",
        ("text_encoder_2", "sd-scripts"): f"lora_te2_{place.replace('.', '_')}",
    }[encoder, tool]
    down, up = drawn(2, width), drawn(width, 2, seed=1)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    pipe = bases.load(base, torch.float32, CPU)
    attaching.attach(pipe, written(tmp_path / "a.safetensors", tensors))
    layer = next(m for n, m in getattr(pipe, encoder).named_modules() if n.endswith("0.self_attn.q_proj"))
    states = drawn(3, width, seed=2)
    torch.testing.assert_close(
        layer(states) - layer.base_layer(states), states @ down.T @ up.T, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight", ("a LoRA of T5", "CLIP")),
        ("text_encoders.t5xxl.transformer.encoder.block.0.q.lora_A.weight", ("a LoRA of T5", "CLIP")),
        ("text_encoder_3.encoder.block.0.q.lora_A.weight", ("a LoRA of T5", "CLIP")),
        ("bundle_emb.cat.string_to_param.*", ("WebUI's bundled embeddings", "without them")),
        ("lllite_unet_input_blocks_4_1_attn1_to_q.down.0.weight", ("ControlNet-LLLite",)),
        ("lora_prior_unet_blocks_0.lora_down.weight", ("Stable Cascade",)),
        ("diffusion_model.img_in.reshape_weight", ("ComfyUI's replaced weights",)),
    ],
)
@pytest.mark.parametrize("beside", [True, False])
def test_what_is_known_but_not_read_is_named_with_what_to_do(tmp_path, refused, key, words, beside):
    other = {f"{kohya(FUSED)}.lora_down.weight": drawn(RANK, WIDTH)} if beside else {}
    with refused("a.safetensors", key, *words):
        written(tmp_path / "a.safetensors", {key: torch.ones(4, 4), **other})
