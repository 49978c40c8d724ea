"""The scale that each layer of an adapter is applied at: from alphas in the file, else from a peft config."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard.adapters import mmdit
from orchard.adapters.dialects import is_alpha, rename, saved_by_peft
from orchard.adapters.tensor_roles import (
    ALPHA,
    DORA_SCALE,
    DOWN,
    MAGNITUDE,
    MID,
    SCALED,
    UP,
    Shape,
    by_module,
    method_of,
    rank,
    split_name,
)
from orchard.files import checked_json

if TYPE_CHECKING:
    from torch import Tensor

PEFT_CONFIG = "adapter_config.json"
"""What peft writes beside the weights."""
LONGEST_PATTERN, MOST_REPEATS = 1000, 3
"""Characters, and ``*`` or the like, in a pattern of a peft config; those of real files are module names."""
_PEFT_ALPHA = {"LOHA": "alpha", "LOKR": "alpha"}
"""peft types whose configs call it otherwise than ``lora_alpha``."""
_PEFT_TYPES = ("LORA", *_PEFT_ALPHA)
TAKEN_OUT = ("pissa", "olora")
"""Initialisations that take what the adapter starts from out of the base's weights, which alone decide it."""
_PLAIN = ("true", "false", "none", "gaussian", "orthogonal", "eva", "mica", "lycoris")
"""Initialisations that leave the base as it is."""
_OTHERWISE = (
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config", "use_bdlora"),
    *("use_qalora", "layer_replication", "modules_to_save", "trainable_token_indices"),
)
"""Options of peft by which an adapter does something else than add a product, or holds more than that."""


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What a peft config says of the scale; only files without alphas need it."""

    alpha: float
    patterns: dict[str, float] = field(default_factory=dict)
    """Regular expression for the end of a module's path -> its own alpha."""
    by_root: bool = False
    """Divide by the root of the rank (rsLoRA)."""
    rank: float = 0
    """Rank of layers whose tensors do not show it; 0 when the config does not say."""
    rank_patterns: dict[str, float] = field(default_factory=dict)
    """As ``patterns``, for ``rank``."""
    taken_out: str = ""
    """The one of `TAKEN_OUT` that the adapter starts from; its product has to be taken off again."""

    def of(self, module: str, rank: int | None) -> float:
        """The scale of ``module``, a path without its component; ``rank`` as its tensors show it."""
        own = rank or _matching(self.rank_patterns, module, self.rank)
        if own is None:
            return 1.0
        return (_matching(self.patterns, module, self.alpha) or 0.0) / (
            math.sqrt(own) if self.by_root else own
        )


def _matching(patterns: Mapping[str, float], module: str, default: float | None) -> float | None:
    """The value of the first pattern for the end of ``module``."""
    names = (module, module.removeprefix("text_model."))
    found = (
        value
        for pattern, value in patterns.items()
        if any(re.match(rf"(?:.*\.)?(?:{pattern})$", name) for name in names)
    )
    return next(found, default)


def of_file(path: Path, header: str | None, keys: Sequence[str]) -> dict[str, Scaling]:
    """`scalings_of` the config in the header, else beside a file with ``keys`` that peft itself has saved."""
    if header is not None:
        return scalings_of(header)
    config = path.with_name(PEFT_CONFIG)
    # With another file of peft's own name there, the config is that one's.
    whose = path.with_name("adapter_model.safetensors")
    if saved_by_peft(keys) and config.is_file() and (whose == path or not whose.exists()):
        try:
            return scalings_of(checked_json.read(config))
        except OSError as error:
            raise ValueError(f"{config.name} beside it cannot be read ({error.strerror})") from None
    return {}


def scalings_of(text: str) -> dict[str, Scaling]:
    """Component -> `Scaling`, from a peft config as JSON; ``""`` stands for every component.

    diffusers puts the configs of all components into one object, with keys like ``unet.lora_alpha``.

    Raises:
        ValueError: not such a config.
    """
    try:
        config = checked_json.parse(text)
        if not isinstance(config, dict):
            raise ValueError("not an object")
        key = _PEFT_ALPHA.get(str(config.get("peft_type")), "lora_alpha")
        prefixes = {name.removesuffix(key) for name in config if name.endswith(key)}
        found = {prefix.rstrip("."): _scaling(config, prefix, key) for prefix in prefixes}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, re.error) as error:
        raise ValueError(f"its LoRA config cannot be read ({error})") from None
    kinds = {name.removesuffix("peft_type") for name in config if name.endswith("peft_type")}
    for prefix in sorted(prefixes | kinds):
        _require_known(config, prefix)
    return found


def _require_known(config: Mapping[str, Any], prefix: str) -> None:
    """Raise `ValueError` for what would be applied otherwise than peft does."""
    kind = str(config.get(f"{prefix}peft_type") or "LORA").rpartition(".")[2]
    if kind not in _PEFT_TYPES:
        raise ValueError(f"its config says {kind[:60]}; of peft's methods {', '.join(_PEFT_TYPES)} load")
    wrong = [key for key in _OTHERWISE if config.get(f"{prefix}{key}")]
    if config.get(f"{prefix}bias") not in (None, "none"):
        wrong.append("bias")
    if wrong:
        said = str(config[f"{prefix}{wrong[0]}"])[:60]
        raise ValueError(f"its config says {wrong[0]} {said}, which is not supported; train without it")
    start = _start(config, prefix)
    if start not in (*_PLAIN, *TAKEN_OUT):
        raise ValueError(
            f"its config says init_lora_weights {start[:60]}, which changed the base's weights as only its "
            "training run knows; save it with peft's path_initial_model_for_weight_conversion"
        )


def _start(config: Mapping[str, Any], prefix: str) -> str:
    return str(config.get(f"{prefix}init_lora_weights", True)).lower()


def _scaling(config: Mapping[str, Any], prefix: str, key: str) -> Scaling:
    found = Scaling(
        alpha=float(config[f"{prefix}{key}"]),
        patterns=_patterns(config, f"{prefix}alpha_pattern"),
        by_root=bool(config.get(f"{prefix}use_rslora")),
        rank=float(config.get(f"{prefix}r") or 0),
        rank_patterns=_patterns(config, f"{prefix}rank_pattern"),
        taken_out=start if (start := _start(config, prefix)) in TAKEN_OUT else "",
    )
    numbers = (found.rank, *found.rank_patterns.values())
    if not all(0 <= number < math.inf for number in numbers):
        raise ValueError(f"a rank of {min(numbers)}")
    return found


def _patterns(config: Mapping[str, Any], key: str) -> dict[str, float]:
    patterns = config.get(key) or {}
    for pattern in patterns:
        _require_bounded(pattern)
    return {pattern: float(value) for pattern, value in patterns.items()}


def _require_bounded(pattern: str) -> None:
    """Raise `ValueError` for a regular expression that could take for ever on a module's path."""
    repeats = len(re.findall(r"[*+{]", pattern))
    if len(pattern) > LONGEST_PATTERN or repeats > MOST_REPEATS or re.search(r"\)[*+{]|\\[1-9]", pattern):
        raise ValueError(f"the pattern {pattern[:60]!r} is too intricate")
    re.compile(pattern)


def config_of(configs: Mapping[str, Scaling], module: str) -> tuple[Scaling | None, str]:
    """What the configs say of ``component.module``, and its path without the component."""
    component, _, path = module.partition(".")
    return configs.get(component) or configs.get(""), path


def scales(
    shapes: Mapping[str, Shape], alphas: Mapping[str, Tensor], configs: Mapping[str, Scaling]
) -> dict[str, float]:
    """``component.module`` -> alpha / rank. Without alpha and config the alpha is the rank.

    Raises:
        ValueError: an alpha is not one number.
    """
    found = {}
    for module, parts in by_module(shapes).items():
        own = rank(parts)
        whole = method_of(parts) == "lokr" and own is None
        if own is None and not whole:
            continue
        config, path = config_of(configs, module)
        alpha = alphas.get(f"{module}.{ALPHA}")
        if alpha is not None and (alpha.numel() != 1 or alpha.is_complex() or not alpha.float().isfinite()):
            raise ValueError(f"{module}.{ALPHA} is not one number")
        if alpha is None:
            found[module] = config.of(path, own) if config else 1.0
        else:
            # The alpha of two whole matrices is read by no tool.
            found[module] = alpha.float().item() / own if own else 1.0
    if found and not any(found.values()):
        raise ValueError("every alpha is 0, so it would do nothing")
    if strange := [module for module, scale in found.items() if not math.isfinite(scale)]:
        raise ValueError(f"alpha / rank of {strange[0]} is no finite number")
    return found


def normalise(
    tensors: Mapping[str, Tensor], configs: Mapping[str, Scaling] | None = None, layers: int = 2
) -> dict[str, Tensor]:
    """An adapter of any dialect -> diffusers' layers, float32, every layer's scale put into its tensors.

    What they add to a weight is then up x down, or the like in the other methods, with no alpha left to be
    read in one way or another. Keys that are no adapter's stay as they are.

    Raises:
        ValueError: two keys name one tensor or layer, or an alpha is not one number.
    """
    named = _without_cores(rename(tensors, layers))
    shapes = {name: tuple(value.shape) for name, value in named.items()}
    factors = scales(shapes, {n: t for n, t in named.items() if is_alpha(n)}, configs or {})
    plain = {}
    for name, value in named.items():
        module, role = split_name(name)
        if role in SCALED:
            plain[name] = value.float() * factors.get(module, 1.0)
        elif role == DORA_SCALE:
            role, magnitude = _magnitude(value.float(), named.get(f"{module}.{UP}"))
            plain[f"{module}.{role}"] = magnitude
        elif role != ALPHA:
            plain[name] = value.float()
    return mmdit.as_diffusers(plain)


def _without_cores(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LoCon's convolutions of three factors as of two: the core goes into the down matrix.

    One after the other they are a 1x1 convolution to r channels, the core's, and a 1x1 convolution from them.
    One that does not go with its matrix stays, and finds no place.
    """
    import torch

    plain = dict(named)
    for module, parts in by_module(named).items():
        core, down = parts.get(MID), parts.get(DOWN)
        if core is None or down is None or core.ndim != 4 or down.shape[2:] not in ((), (1, 1)):
            continue
        if core.shape[1] == len(down) == len(core):
            del plain[f"{module}.{MID}"]
            plain[f"{module}.{DOWN}"] = torch.einsum("ijhw,jc->ichw", core.float(), down.flatten(1).float())
    return plain


def _magnitude(scale: Tensor, up: Tensor | None) -> tuple[str, Tensor]:
    """kohya's (out, 1[, 1, 1]) norms as peft's (out,) or (1, out, 1, 1).

    Norms over the other axis, (1, in), are left: peft has no such layer, so they find no place.
    """
    if up is None or scale.shape[:1] != up.shape[:1] or scale.numel() != up.shape[0]:
        return DORA_SCALE, scale
    return MAGNITUDE, scale.reshape(1, -1, 1, 1) if up.ndim == 4 else scale.flatten()
