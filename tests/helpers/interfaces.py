"""What WebUI and ComfyUI add to a checkpoint's weights for a LoRA file, by the formulas in their sources.

WebUI: extensions-builtin/Lora/networks.py, network.py, network_lora.py, network_hada.py, network_lokr.py.
ComfyUI: comfy/lora.py, comfy/weight_adapter/lora.py, loha.py, lokr.py, comfy/utils.py.
"""

import math
import re
from collections.abc import Mapping
from types import SimpleNamespace

import torch
from diffusers.loaders.lora_conversion_utils import _maybe_map_sgm_blocks_to_diffusers
from torch import Tensor

RESNETS = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}
BLOCKS = {"down_blocks": "input_blocks", "mid_block": "middle_block", "up_blocks": "output_blocks"}


def webui(tensors: Mapping[str, Tensor], *, sdxl: bool) -> dict[str, Tensor]:
    """Update by component and path in diffusers, joined by underscores; (out, in x height x width)."""
    found = {}
    for stem, parts in _grouped(tensors).items():
        dim = None
        if {"lora_up.weight", "lora_down.weight"} <= parts.keys():
            up, down = (parts[f"lora_{end}.weight"] for end in ("up", "down"))
            update, dim = up.reshape(len(up), -1) @ down.reshape(len(down), -1), len(down)
        elif "hada_w1_a" in parts:
            one, two = (parts[f"hada_w{n}_a"] @ parts[f"hada_w{n}_b"] for n in (1, 2))
            update, dim = one * two, len(parts["hada_w1_b"])
        else:
            factors = []
            for name in ("lokr_w1", "lokr_w2"):
                if f"{name}_b" in parts:
                    dim = len(parts[f"{name}_b"])
                factors.append(parts[name] if name in parts else parts[f"{name}_a"] @ parts[f"{name}_b"])
            update = _kron(*factors)
        scale = parts["alpha"].item() / dim if dim and "alpha" in parts else 1.0
        found[_in_diffusers(_webui_layer(stem, sdxl))] = update * scale
    return found


def comfyui(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Update by component and path in diffusers, joined by underscores; (out, in x height x width)."""
    found = {}
    for stem, parts in _grouped(tensors).items():
        rank = math.inf
        if "lora_up.weight" in parts:
            down = parts["lora_down.weight"]
            update, rank = torch.mm(parts["lora_up.weight"].flatten(1), down.flatten(1)), down.shape[0]
        elif "hada_w1_a" in parts:
            update = torch.mm(parts["hada_w1_a"], parts["hada_w1_b"])
            update = update * torch.mm(parts["hada_w2_a"], parts["hada_w2_b"])
            rank = parts["hada_w1_b"].shape[0]
        else:
            first, second = parts.get("lokr_w1"), parts.get("lokr_w2")
            if first is None:
                first, rank = parts["lokr_w1_a"].mm(parts["lokr_w1_b"]), parts["lokr_w1_b"].shape[0]
            if second is None:
                second, rank = parts["lokr_w2_a"].mm(parts["lokr_w2_b"]), parts["lokr_w2_b"].shape[0]
            update = _kron(first, second)
        strength = parts["alpha"].item() / rank if "alpha" in parts and math.isfinite(rank) else 1.0
        found[_in_diffusers(stem)] = strength * update
    return found


def _grouped(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        stem, _, part = key.partition(".")
        groups.setdefault(stem, {})[part] = value
    return groups


def _kron(first: Tensor, second: Tensor) -> Tensor:
    """The Kronecker product, of the second's kernel too; flat."""
    whole = torch.kron(first[:, :, None, None], second) if second.ndim == 4 else torch.kron(first, second)
    return whole.flatten(1)


def _webui_layer(stem: str, sdxl: bool) -> str:
    """The layer of the original that WebUI takes a name for."""
    if match := re.fullmatch(r"lora_unet_(down|up)_blocks_(\d)_(attentions|resnets)_(\d)_(.+)", stem):
        block, layer, place = int(match[2]), int(match[4]), int(match[3] == "attentions")
        rest = match[5] if place else RESNETS.get(match[5], match[5])
        side, first = ("input", 1) if match[1] == "down" else ("output", 0)
        return f"diffusion_model_{side}_blocks_{first + 3 * block + layer}_{place}_{rest}"
    if match := re.fullmatch(r"lora_unet_mid_block_(attentions|resnets)_(\d)_(.+)", stem):
        number = 1 if match[1] == "attentions" else 2 * int(match[2])
        return f"diffusion_model_middle_block_{number}_{RESNETS.get(match[3], match[3])}"
    if match := re.fullmatch(r"lora_te2_text_model_encoder_layers_(\d+)_self_attn_(.+)", stem):
        return f"1_model_transformer_resblocks_{match[1]}_attn_{match[2]}"
    if sdxl:
        stem = stem.replace("lora_te1_text_model", "0_transformer_text_model")
    stem = stem.replace("lora_te_text_model", "transformer_text_model")
    return stem.replace("lora_unet", "diffusion_model")


PLACES = (
    ("1_model_transformer_resblocks_", "text_encoder_2_text_model_encoder_layers_"),
    ("0_transformer_text_model_", "text_encoder_text_model_"),
    ("transformer_text_model_", "text_encoder_text_model_"),
    ("lora_te_", "text_encoder_"),
    ("lora_te1_", "text_encoder_"),
    ("lora_te2_", "text_encoder_2_"),
    ("lora_transformer_", "transformer_"),
)


def _in_diffusers(layer: str) -> str:
    """A layer of WebUI's or ComfyUI's models in diffusers; blocks by diffusers' own map, two layers each."""
    for theirs, ours in PLACES:
        if layer.startswith(theirs):
            renamed = ours + layer.removeprefix(theirs)
            return renamed.replace("_attn_", "_self_attn_") if theirs.startswith("1_") else renamed
    name = layer.replace("diffusion_model", "lora_unet")
    (name,) = _maybe_map_sgm_blocks_to_diffusers({name: None}, SimpleNamespace(layers_per_block=2))
    for ours, theirs in (RESNETS | BLOCKS).items():
        name = name.replace(theirs, ours)
    return name.removeprefix("lora_")
