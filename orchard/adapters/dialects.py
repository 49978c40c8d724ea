"""The names that an adapter's tensors go by in files of different tools.

The toolkit's own name of a tensor is ``component.module.role``: ``unet``, ``transformer`` or a text encoder,
the module's path as diffusers and transformers spell it, and a role of `orchard.adapters.tensor_roles`.
Everything here works on names and tensors alone; whether a model has such a module is asked in
`orchard.adapters.layers`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from orchard.adapters import mmdit
from orchard.adapters.module_names import module_of, original_of, split_words
from orchard.adapters.tensor_roles import (
    ALPHA,
    BIAS,
    DORA_SCALE,
    DOWN,
    LOHA,
    LOKR,
    MAGNITUDE,
    MID,
    UP,
    by_module,
    method_of,
    rank,
    split_name,
)

if TYPE_CHECKING:
    from torch import Tensor

_ENDINGS = tuple(
    (re.compile(pattern + "$"), role)
    for pattern, role in (
        # peft may leave the adapter's name in: lora_A.default.weight
        (r"\.lora_(?:A|down)(?:\.\w+)?\.weight", DOWN),
        (r"\.lora_(?:B|up)(?:\.\w+)?\.weight", UP),
        (r"[._]lora(?:_linear_layer)?\.down\.weight", DOWN),
        (r"[._]lora(?:_linear_layer)?\.up\.weight", UP),
        (r"\.lora_mid\.weight", MID),
        (r"\.lora_B(?:\.\w+)?\.bias", BIAS),
        (r"\.lora_magnitude_vector(?:\.\w+)*", MAGNITUDE),
        (r"\.dora_scale", DORA_SCALE),
        (r"(?:[._]lora)?\.alpha", ALPHA),
        *((rf"\.{role}(?:\.\w+)?", role) for role in (*LOHA, *LOKR)),
    )
)
_KOHYA = re.compile(r"(?:lora|lycoris)_(unet|transformer(?!_blocks_)|te[123]?)_([^.]+)")
_LYCORIS = "lycoris_"
"""What LyCORIS itself begins names with, mostly without saying which component they are of."""
_OTHERS = "of its methods LoRA, LoCon, DoRA, LoHa and LoKr load"
_FOREIGN = tuple(
    (re.compile(pattern), what, instead)
    for pattern, what, instead in (
        (r"\.(?:diff|diff_b)$", "LyCORIS's full weights", _OTHERS),
        (r"\.(?:w|b)_norm$", "LyCORIS's norms", _OTHERS),
        (r"\.[ab][12]\.weight$", "LyCORIS's GLoRA", _OTHERS),
        (r"\.oft_(?:blocks|diag)$|^oft_unet_", "LyCORIS's OFT", _OTHERS),
        (r"\.on_input$", "LyCORIS's (IA)3", _OTHERS),
        (
            r"^(?:(?:lora|lycoris)_te3_|text_encoder_3\.|text_encoders\.t5xxl\.)",
            "a LoRA of T5, which stock pipelines do not load",
            "train the CLIP text encoders alone",
        ),
        (r"^lllite_", "a ControlNet-LLLite", "give a LoRA"),
        (r"^lora_prior_", "a LoRA of Stable Cascade", "give one of Stable Diffusion"),
        (
            r"\.(?:reshape_weight|set_weight)$",
            "ComfyUI's replaced weights",
            "give a LoRA that adds to weights",
        ),
    )
)
"""Keys of what is known but not read, its name, and what to do."""
_COMPONENTS = {
    "unet": "unet",
    "transformer": "transformer",
    "te": "text_encoder",
    "te1": "text_encoder",
    "te2": "text_encoder_2",
    "te3": "text_encoder_3",
}
_COMFY_ENCODERS = {
    **dict.fromkeys(("clip_l", "clip_h"), "text_encoder"),
    "clip_g": "text_encoder_2",
    "t5xxl": "text_encoder_3",
}
"""Text encoders as ComfyUI calls them, after `text_encoders.`."""
_TO_KOHYA = {"text_encoder": "te1", "text_encoder_2": "te2", "text_encoder_3": "te3"}
_KOHYA_ROLES = {
    DOWN: "lora_down.weight",
    UP: "lora_up.weight",
    MAGNITUDE: DORA_SCALE,
    **{role: role for role in (*LOHA, *LOKR)},
}
_BASE_OF_PEFT = "base_model.model."

T = TypeVar("T")


def canonical(key: str, layers: int = 2) -> str | None:
    """The toolkit's name of a tensor, or None when ``key`` is not one of a LoRA for Stable Diffusion.

    ``layers`` is the number of layers a block, which names after the original SDXL code are counted in.
    """
    for ending, role in _ENDINGS:
        if match := ending.search(key):
            where = _component_and_module(key[: match.start()], layers)
            return f"{where}.{role}" if where else None
    return None


def _component_and_module(stem: str, layers: int) -> str | None:
    component, path = _split(stem)
    if component == "unet" and mmdit.is_original(path):
        component = "transformer"
    return f"{component}.{module_of(component, path, layers)}" if component else None


def _split(stem: str) -> tuple[str, str]:
    """Component and path of a module, neither changed into the toolkit's; no component if none is told."""
    if match := _KOHYA.fullmatch(stem):
        return _COMPONENTS[match[1]], split_words(match[2])
    if stem.startswith(_LYCORIS):
        stem = split_words(stem.removeprefix(_LYCORIS))
    stem = stem.removeprefix(_BASE_OF_PEFT).removeprefix("model.")
    head, _, rest = stem.partition(".")
    if head == "diffusion_model":
        return "unet", rest
    if head == "text_encoders":
        encoder, _, rest = rest.partition(".")
        return _COMFY_ENCODERS.get(encoder, ""), rest.removeprefix("transformer.")
    if head in _COMPONENTS.values():
        return head, rest
    return _component_of(head), stem


def _component_of(head: str) -> str:
    """The component that has a child of this name, or nothing."""
    if head in ("text_model", "text_projection", "encoder"):
        return "text_encoder"
    if head in ("transformer_blocks", "single_transformer_blocks", "joint_blocks", "context_embedder"):
        return "transformer"
    if head in ("pos_embed", "time_text_embed", "norm_out", "proj_out"):
        return "transformer"
    blocks = ("down_blocks", "mid_block", "up_blocks", "input_blocks", "middle_block", "output_blocks")
    return "unet" if head in (*blocks, "conv_in", "conv_out", "time_embedding", "add_embedding") else ""


def rename(tensors: Mapping[str, T], layers: int = 2) -> dict[str, T]:
    """The same values under the toolkit's names; a key that is no LoRA's stays as it is.

    Raises:
        ValueError: two keys, of different dialects, name one tensor.
    """
    named: dict[str, T] = {}
    origins: dict[str, str] = {}
    for key, value in tensors.items():
        name = canonical(key, layers) or key
        if name in named:
            raise ValueError(f"{origins[name]} and {key} name the same tensor")
        named[name], origins[name] = value, key
    return named


def dialect_of(keys: Sequence[str]) -> str:
    """The tool whose names the keys are, in words."""
    if any(key.startswith(_LYCORIS) for key in keys):
        return "LyCORIS"
    if any(_KOHYA.match(key) for key in keys):
        return "kohya"
    return "peft" if saved_by_peft(keys) else "diffusers"


def foreign(keys: Iterable[str]) -> str | None:
    """What a key tells of that is not read, and what to do; None when all may be an adapter's."""
    found = (
        f"{what} ({key[:120]}); {instead}"
        for key in keys
        for pattern, what, instead in _FOREIGN
        if pattern.search(key)
    )
    return next(found, None)


def saved_by_peft(keys: Iterable[str]) -> bool:
    """Whether some key is as peft itself writes it: no component of a pipeline before the module."""
    return any(key.startswith(_BASE_OF_PEFT) or _is_bare(key) for key in keys)


def _is_bare(key: str) -> bool:
    known = (*_COMPONENTS.values(), "diffusion_model", "text_encoders")
    spelled = any(part in key for part in (".lora_A.", ".hada_", ".lokr_"))
    return spelled and key.partition(".")[0] not in known and not _KOHYA.match(key)


def is_alpha(name: str) -> bool:
    """Whether a name, in the toolkit's spelling or another, is that of an alpha."""
    return name.endswith(f".{ALPHA}")


def for_stock(named: Mapping[str, T]) -> dict[str, T]:
    """The toolkit's names as stock diffusers reads them.

    Its loader of text encoders knows ``lora_A`` on attention layers alone, ``lora_linear_layer`` on all, and
    wants an ending after the name of DoRA's norms.
    """
    spelled = {
        DOWN: "lora_linear_layer.down.weight",
        UP: "lora_linear_layer.up.weight",
        MAGNITUDE: f"{MAGNITUDE}.weight",
    }
    renamed = {}
    for name, value in named.items():
        module, role = split_name(name)
        known = name.startswith("text_encoder") and role in spelled
        renamed[f"{module}.{spelled[role]}" if known else name] = value
    return renamed


@dataclass(frozen=True, kw_only=True)
class Kohya:
    """How kohya's tools spell the modules of a pipeline."""

    two_encoders: bool = False
    """The first text encoder is ``te1``, as in SDXL, not ``te``."""
    original_layers: int | None = None
    """For SDXL: layers a block of a UNet whose modules are named as in the original; else as in diffusers."""
    version: str = ""
    """What sd-scripts call the base; none for SD 3, of which they read other names."""

    def stem(self, module: str) -> str:
        """``component.module`` -> what a tensor's name starts with.

        Raises:
            ValueError: the module has no name that could be read back.
        """
        component, _, path = module.partition(".")
        if component == "unet" and self.original_layers:
            path = original_of(path, self.original_layers)
        short = _TO_KOHYA if self.two_encoders else _TO_KOHYA | {"text_encoder": "te"}
        stem = f"lora_{short.get(component, component)}_{path.replace('.', '_')}"
        if canonical(f"{stem}.{ALPHA}", self.original_layers or 2) != f"{module}.{ALPHA}":
            raise ValueError(f"{module} has no name in kohya's dialect")
        return stem


def to_kohya(
    tensors: Mapping[str, Tensor], scales: Mapping[str, float], spelling: Kohya | None = None
) -> dict[str, Tensor]:
    """An adapter under any names -> kohya's names, LyCORIS's for LoHa and LoKr, each layer with its alpha.

    ``scales`` is ``component.module`` -> alpha / rank, 1 if absent. A LoKr of two whole matrices has no rank:
    its scale goes into the first.

    Raises:
        ValueError: a tensor that has no name in this dialect.
    """
    from torch import tensor

    spelling = spelling or Kohya()
    written = {}
    for module, parts in by_module(rename(tensors)).items():
        stem, scale = spelling.stem(module), scales.get(module, 1.0)
        own = rank({role: tuple(value.shape) for role, value in parts.items()})
        for role, value in parts.items():
            if role not in _KOHYA_ROLES:
                raise ValueError(f"{module}.{role} has no name in kohya's dialect")
            written[f"{stem}.{_KOHYA_ROLES[role]}"] = _as_column(value) if role == MAGNITUDE else value
        if own is None:
            written[f"{stem}.lokr_w1"] = parts["lokr_w1"] * scale
        else:
            written[f"{stem}.{ALPHA}"] = tensor(float(scale * own))
    return written


def kohya_header(written: Mapping[str, Tensor], spelling: Kohya) -> dict[str, str]:
    """What sd-scripts say in the header of a file with these tensors.

    By the version WebUI tells which checkpoints to show the file for.
    """
    if not spelling.version:
        return {}
    modules = by_module(rename(written, spelling.original_layers or 2))
    shapes = [{role: tuple(value.shape) for role, value in parts.items()} for parts in modules.values()]
    lycoris = any(method_of(parts) in ("loha", "lokr") for parts in shapes)
    alphas = {parts[ALPHA].item() for parts in modules.values() if ALPHA in parts}
    return {
        "ss_base_model_version": spelling.version,
        "ss_v2": str(spelling.version == "sd_v2"),
        "ss_network_module": "lycoris.kohya" if lycoris else "networks.lora",
        "ss_network_dim": _one({found for parts in shapes if (found := rank(parts))}),
        "ss_network_alpha": _one(alphas),
    }


def _one(values: set[Any]) -> str:
    """The value that all layers share."""
    return str(values.pop()) if len(values) == 1 else "Dynamic"


def _as_column(magnitude: Tensor) -> Tensor:
    """peft's norms, (1, out, 1, 1) of a convolution and (out,) of a linear layer, as (out, 1[, 1, 1])."""
    return magnitude.reshape(-1, *[1] * max(magnitude.ndim - 1, 1))
