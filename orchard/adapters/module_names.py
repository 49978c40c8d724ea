"""Paths of modules inside Stable Diffusion, as other tools spell them -> as diffusers does."""

import re

_JOINED = re.compile(
    "(?:"
    "(?:down|up|input|output|transformer|single_transformer|joint|double|single)_blocks|mid_block|middle_block|"
    "to_(?:q|k|v|out|add_out)|add_[qkv]_proj|(?:q|k|v|out)_proj|proj_(?:in|out|mlp)|self_attn|"
    "conv_(?:in|out|shortcut)|time_emb_proj|time_embedding|add_embedding|class_embedding|linear_[12]|"
    "time_embed|label_emb|(?:in|out|emb)_layers|skip_connection|text_model|text_projection|"
    "ff_context|norm1_context|norm_out|pos_embed|context_embedder|time_text_embed|(?:timestep|text)_embedder|"
    "(?:x|context)_block|adaLN_modulation|(?:x|y|t)_embedder|final_layer"
    r")(?=_|$)|[^_]+"
)
"""Names with an underscore of their own, else whatever stands between two underscores."""

_BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)(?:\.(\d+))?\.(.+)")
_SINGLE = {
    "input_blocks.0.0": "conv_in",
    "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_RESNET = {
    "in_layers.2": "conv1",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_DIFFUSERS = re.compile(
    r"(down|mid|up)_blocks?(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_OLD_TEXT = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}


def split_words(joined: str) -> str:
    """``down_blocks_1_to_out_0`` -> ``down_blocks.1.to_out.0``: kohya's underscores as dots again."""
    return ".".join(_JOINED.findall(joined))


def module_of(component: str, path: str, layers: int) -> str:
    """The module that ``path`` of a file means; a path that is not known is left as it is."""
    path = path.replace(".processor", "")
    if component.startswith("text_encoder"):
        parent, _, last = path.rpartition(".")
        if parent.endswith("self_attn") and last in _OLD_TEXT:
            path = f"{parent}.{_OLD_TEXT[last]}"
        # Newer transformers leave this level out; files keep it.
        return f"text_model.{path}" if path.startswith(("encoder.layers.", "embeddings.")) else path
    path = _from_original(path, layers) if component == "unet" else path
    return f"{path}.0" if path.endswith(".to_out") else path


def _from_original(path: str, layers: int) -> str:
    """A path of the original UNet, in blocks of ``layers`` layers, as diffusers spells it."""
    if path in _SINGLE:
        return _SINGLE[path]
    match = _BLOCK.fullmatch(path)
    if match is None:
        return path
    kind, first, second, rest = match[1], int(match[2]), int(match[3] or 0), match[4]
    if kind == "middle_block":
        place = "attentions.0" if first == 1 else f"resnets.{first // 2}"
        return f"mid_block.{place}.{_RESNET.get(rest, rest)}"
    # A block ends with its sampler, and the first input block is conv_in.
    block, layer = divmod(first - (kind == "input_blocks"), layers + 1)
    if kind == "input_blocks" and rest == "op":
        return f"down_blocks.{block}.downsamplers.0.conv"
    if kind == "output_blocks" and rest == "conv":
        return f"up_blocks.{block}.upsamplers.0.conv"
    side = "down_blocks" if kind == "input_blocks" else "up_blocks"
    place = "attentions" if second else "resnets"
    return f"{side}.{block}.{place}.{layer}.{_RESNET.get(rest, rest)}"


def original_of(path: str, layers: int) -> str:
    """A path of diffusers' UNet as the original SDXL spells it: the inverse of what `module_of` does."""
    single = {new: old for old, new in _SINGLE.items()}
    if path in single:
        return single[path]
    match = _DIFFUSERS.fullmatch(path)
    if match is None:
        return path
    side, kind, place, rest = match[1], match[3], int(match[4]), match[5]
    if kind == "resnets":
        rest = {new: old for old, new in _RESNET.items()}.get(rest, rest)
    if side == "mid":
        return f"middle_block.{1 if kind == 'attentions' else 2 * place}.{rest}"
    first = int(match[2] or 0) * (layers + 1) + (side == "down")
    if kind == "downsamplers":
        return f"input_blocks.{first + layers}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.2.conv"
    block = "input_blocks" if side == "down" else "output_blocks"
    return f"{block}.{first + place}.{int(kind == 'attentions')}.{rest}"
