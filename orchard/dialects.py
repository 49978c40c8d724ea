"""The names that LoRA tensors go by in files of different tools, and the scale each layer is applied at.

The toolkit's own name of a tensor is ``component.module.role``: ``unet``, ``transformer`` or a text encoder,
the module's path as diffusers and transformers spell it, and one of the roles below. Everything here works
on names and tensors alone; whether a model has such a module is asked in `orchard.layers`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from orchard.names import module_of, original_of, split_words
from orchard.scaling import Scaling

if TYPE_CHECKING:
    from torch import Tensor

DOWN, UP, BIAS = "lora_A.weight", "lora_B.weight", "lora_B.bias"
MAGNITUDE, DORA_SCALE, ALPHA = "lora_magnitude_vector", "dora_scale", "alpha"
ROLES = (DOWN, UP, BIAS, MAGNITUDE, DORA_SCALE, ALPHA)

_ENDINGS = tuple(
    (re.compile(pattern + "$"), role)
    for pattern, role in (
        # peft may leave the adapter's name in: lora_A.default.weight
        (r"\.lora_(?:A|down)(?:\.\w+)?\.weight", DOWN),
        (r"\.lora_(?:B|up)(?:\.\w+)?\.weight", UP),
        (r"[._]lora(?:_linear_layer)?\.down\.weight", DOWN),
        (r"[._]lora(?:_linear_layer)?\.up\.weight", UP),
        (r"\.lora_B(?:\.\w+)?\.bias", BIAS),
        (r"\.lora_magnitude_vector(?:\.\w+)*", MAGNITUDE),
        (r"\.dora_scale", DORA_SCALE),
        (r"(?:[._]lora)?\.alpha", ALPHA),
    )
)
_KOHYA = re.compile(r"lora_(unet|transformer|te[123]?)_([^.]+)")
_COMPONENTS = {
    "unet": "unet",
    "transformer": "transformer",
    "te": "text_encoder",
    "te1": "text_encoder",
    "te2": "text_encoder_2",
    "te3": "text_encoder_3",
}
_TO_KOHYA = {"text_encoder": "te1", "text_encoder_2": "te2", "text_encoder_3": "te3"}
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
    if match := _KOHYA.fullmatch(stem):
        component = _COMPONENTS[match[1]]
        return f"{component}.{module_of(component, split_words(match[2]), layers)}"
    stem = stem.removeprefix(_BASE_OF_PEFT).removeprefix("model.")
    head, _, rest = stem.partition(".")
    if head == "diffusion_model":
        return f"unet.{module_of('unet', rest, layers)}"
    if head in _COMPONENTS.values():
        return f"{head}.{module_of(head, rest, layers)}"
    owner = _component_of(head)
    return f"{owner}.{module_of(owner, stem, layers)}" if owner else None


def _component_of(head: str) -> str | None:
    """The component that has a child of this name."""
    if head in ("text_model", "text_projection", "encoder"):
        return "text_encoder"
    if head in ("transformer_blocks", "single_transformer_blocks", "context_embedder", "proj_out"):
        return "transformer"
    blocks = ("down_blocks", "mid_block", "up_blocks", "input_blocks", "middle_block", "output_blocks")
    return "unet" if head in (*blocks, "conv_in", "conv_out", "time_embedding", "add_embedding") else None


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


def split_name(name: str) -> tuple[str, str]:
    """``component.module`` and role of a name; no role when it is not one of the toolkit's."""
    return next(
        ((name.removesuffix(f".{role}"), role) for role in ROLES if name.endswith(f".{role}")), (name, "")
    )


def saved_by_peft(keys: Iterable[str]) -> bool:
    """Whether some key is as peft itself writes it: no component of a pipeline before the module."""
    named = (*_COMPONENTS.values(), "diffusion_model")
    return any(
        key.startswith(_BASE_OF_PEFT) or (".lora_A." in key and key.partition(".")[0] not in named)
        for key in keys
    )


def is_alpha(name: str) -> bool:
    """Whether a name, in the toolkit's spelling or another, is that of an alpha."""
    return name.endswith(f".{ALPHA}")


def scales(
    shapes: Mapping[str, tuple[int, ...]], alphas: Mapping[str, Tensor], configs: Mapping[str, Scaling]
) -> dict[str, float]:
    """``component.module`` -> alpha / rank. Without alpha and config the alpha is the rank.

    Raises:
        ValueError: an alpha is not one number.
    """
    found = {}
    for name, shape in shapes.items():
        module, role = split_name(name)
        if role != DOWN or len(shape) < 2 or not shape[0]:
            continue
        component, _, path = module.partition(".")
        alpha, config = alphas.get(f"{module}.{ALPHA}"), configs.get(component) or configs.get("")
        if alpha is None:
            found[module] = config.of(path, shape[0]) if config else 1.0
        elif alpha.numel() == 1:
            found[module] = alpha.float().item() / shape[0]
        else:
            raise ValueError(f"{module}.{ALPHA} is not one number")
    return found


def normalise(
    tensors: Mapping[str, Tensor], configs: Mapping[str, Scaling] | None = None, layers: int = 2
) -> dict[str, Tensor]:
    """LoRA of any dialect -> the toolkit's names, float32, with every layer's scale put into its up matrix.

    Down is (rank, in[, h, w]), up (out, rank[, 1, 1]); what they add to a weight is then up x down, with
    no alpha left to be read in one way or another. Keys that are no LoRA's stay as they are.

    Raises:
        ValueError: two keys name one tensor, or an alpha is not one number.
    """
    named = rename(tensors, layers)
    shapes = {name: tuple(value.shape) for name, value in named.items()}
    factors = scales(shapes, {n: t for n, t in named.items() if is_alpha(n)}, configs or {})
    plain = {}
    for name, value in named.items():
        module, role = split_name(name)
        if role in (UP, BIAS):
            plain[name] = value.float() * factors.get(module, 1.0)
        elif role == DORA_SCALE:
            role, magnitude = _magnitude(value.float(), named.get(f"{module}.{UP}"))
            plain[f"{module}.{role}"] = magnitude
        elif role != ALPHA:
            plain[name] = value.float()
    return plain


def _magnitude(scale: Tensor, up: Tensor | None) -> tuple[str, Tensor]:
    """kohya's (out, 1[, 1, 1]) norms as peft's (out,) or (1, out, 1, 1).

    Norms over the other axis, (1, in), are left: peft has no such layer, so they find no place.
    """
    if up is None or scale.shape[:1] != up.shape[:1] or scale.numel() != up.shape[0]:
        return DORA_SCALE, scale
    return MAGNITUDE, scale.reshape(1, -1, 1, 1) if up.ndim == 4 else scale.flatten()


def for_stock(named: Mapping[str, T]) -> dict[str, T]:
    """The toolkit's names as stock diffusers reads them.

    Its loader of text encoders knows ``lora_A`` on attention layers alone, ``lora_linear_layer`` on all.
    """
    spelled = {DOWN: "lora_linear_layer.down.weight", UP: "lora_linear_layer.up.weight"}
    renamed = {}
    for name, value in named.items():
        module, role = split_name(name)
        known = name.startswith("text_encoder") and role in spelled
        renamed[f"{module}.{spelled[role]}" if known else name] = value
    return renamed


def to_kohya(
    tensors: Mapping[str, Tensor],
    alphas: Mapping[str, float],
    *,
    two_encoders: bool = False,
    original_layers: int | None = None,
) -> dict[str, Tensor]:
    """LoRA under any names -> kohya's names, each layer with its alpha.

    ``alphas`` is ``component.module`` -> alpha, the rank if absent. With ``two_encoders`` the first is
    ``te1``, as in SDXL. ``original_layers`` is for SDXL too: the layers a block of a UNet whose modules are
    to be named as in the original, as kohya has it there; of SD 1 and 2 it keeps the names of diffusers.

    Raises:
        ValueError: a tensor that has no name in this dialect.
    """
    from torch import tensor

    spelled = {DOWN: "lora_down.weight", UP: "lora_up.weight", MAGNITUDE: DORA_SCALE}
    short = _TO_KOHYA if two_encoders else _TO_KOHYA | {"text_encoder": "te"}
    written = {}
    for name, value in rename(tensors).items():
        module, role = split_name(name)
        component, _, path = module.partition(".")
        if component == "unet" and original_layers:
            path = original_of(path, original_layers)
        stem = f"lora_{short.get(component, component)}_{path.replace('.', '_')}"
        if role not in spelled or canonical(f"{stem}.{ALPHA}", original_layers or 2) != f"{module}.{ALPHA}":
            raise ValueError(f"{name} has no name in kohya's dialect")
        # peft's norms of a convolution are (1, out, 1, 1), those of a linear layer (out,).
        column = value.reshape(-1, *[1] * max(value.ndim - 1, 1)) if role == MAGNITUDE else value
        written[f"{stem}.{spelled[role]}"] = column
        if role == DOWN:
            written[f"{stem}.{ALPHA}"] = tensor(float(alphas.get(module, value.shape[0])))
    return written
