"""Small pipelines written as one file under the keys of the original releases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

State = Mapping[str, Tensor]

UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    ".norm1.": ".in_layers.0.",
    ".conv1.": ".in_layers.2.",
    ".time_emb_proj.": ".emb_layers.1.",
    ".norm2.": ".out_layers.0.",
    ".conv2.": ".out_layers.3.",
    ".conv_shortcut.": ".skip_connection.",
}
VAE = {
    "encoder.down_blocks.0.downsamplers.0.conv": "encoder.down.0.downsample.conv",
    "decoder.up_blocks.0.upsamplers.0.conv": "decoder.up.1.upsample.conv",
    **{f"encoder.down_blocks.{i}.resnets.0": f"encoder.down.{i}.block.0" for i in (0, 1)},
    **{f"decoder.up_blocks.{1 - i}.resnets.{k}": f"decoder.up.{i}.block.{k}" for i in (0, 1) for k in (0, 1)},
    **{
        f"{half}.mid_block.resnets.{k}": f"{half}.mid.block_{k + 1}"
        for half in ("encoder", "decoder")
        for k in (0, 1)
    },
    "encoder.conv_norm_out": "encoder.norm_out",
    "decoder.conv_norm_out": "decoder.norm_out",
}
OPEN_CLIP = {
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "final_layer_norm": "ln_final",
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
}


def write(pipe: Any, path: Path) -> Path:
    """Write a pipeline of `pipelines.tiny` or `pipelines.tiny_sdxl` as one file."""
    clip = {f"text_model.{key}": value for key, value in pipe.text_encoder.state_dict().items()}
    if hasattr(pipe, "text_encoder_2"):
        text = _under("conditioner.embedders.0.transformer.", clip)
        text |= _under("conditioner.embedders.1.model.", _open_clip(pipe.text_encoder_2.state_dict()))
    else:
        text = _under("cond_stage_model.transformer.", clip)
    tensors = {
        **_under("model.diffusion_model.", _unet(pipe.unet.state_dict())),
        **_under(
            "first_stage_model.", _renamed(pipe.vae.state_dict(), VAE, {".conv_shortcut.": ".nin_shortcut."})
        ),
        **text,
    }
    save_file({key: value.contiguous() for key, value in tensors.items()}, path)
    return path


def _under(prefix: str, state: State) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def _unet(state: State) -> dict[str, Tensor]:
    resnets = {key: value for key, value in state.items() if ".resnets." in key}
    others = {key: value for key, value in state.items() if key not in resnets}
    return _renamed(resnets, UNET, UNET_RESNET) | _renamed(others, UNET, {})


def _renamed(state: State, heads: Mapping[str, str], parts: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        head = next((name for name in heads if key.startswith(f"{name}.")), None)
        renamed = heads[head] + key.removeprefix(head) if head else key
        for ours, theirs in parts.items():
            renamed = renamed.replace(ours, theirs)
        found[renamed] = value
    return found


def _open_clip(state: State) -> dict[str, Tensor]:
    """A CLIP text encoder with query, key and value in one matrix and the projection transposed."""
    found = {}
    for key, value in state.items():
        if key == "text_projection.weight":
            found["text_projection"] = value.T
            continue
        renamed = key.removeprefix("text_model.")
        for ours, theirs in OPEN_CLIP.items():
            renamed = renamed.replace(ours, theirs)
        if ".q_proj." in renamed:
            three = [state[key.replace("q_proj", f"{name}_proj")] for name in "qkv"]
            found[renamed.replace("self_attn.q_proj.", "attn.in_proj_")] = torch.cat(three)
        elif ".k_proj." not in renamed and ".v_proj." not in renamed:
            found[renamed] = value
    return found
