"""The scale that each layer of an adapter is applied at: from alphas in the file, else from a peft config."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchard import typed
from orchard.dialects import is_alpha, rename, saved_by_peft
from orchard.roles import (
    ALPHA,
    DORA_SCALE,
    MAGNITUDE,
    SCALED,
    UP,
    Shape,
    by_module,
    method_of,
    rank,
    split_name,
)

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_PATTERN, MOST_REPEATS = 1000, 3
"""Characters, and ``*`` or the like, in a pattern of a peft config; those of real files are module names."""
_PEFT_ALPHA = {"LOHA": "alpha", "LOKR": "alpha"}
"""peft types whose configs call it otherwise than ``lora_alpha``."""


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
    config = path.with_name("adapter_config.json")
    # With another file of peft's own name there, the config is that one's.
    whose = path.with_name("adapter_model.safetensors")
    if saved_by_peft(keys) and config.is_file() and (whose == path or not whose.exists()):
        try:
            return scalings_of(typed.read(config))
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
        config = typed.parse(text)
        if not isinstance(config, dict):
            raise ValueError("not an object")
        key = _PEFT_ALPHA.get(str(config.get("peft_type")), "lora_alpha")
        prefixes = {name.removesuffix(key) for name in config if name.endswith(key)}
        return {prefix.rstrip("."): _scaling(config, prefix, key) for prefix in prefixes}
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, re.error) as error:
        raise ValueError(f"its LoRA config cannot be read ({error})") from None


def _scaling(config: Mapping[str, Any], prefix: str, key: str) -> Scaling:
    found = Scaling(
        alpha=float(config[f"{prefix}{key}"]),
        patterns=_patterns(config, f"{prefix}alpha_pattern"),
        by_root=bool(config.get(f"{prefix}use_rslora")),
        rank=float(config.get(f"{prefix}r") or 0),
        rank_patterns=_patterns(config, f"{prefix}rank_pattern"),
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
        component, _, path = module.partition(".")
        alpha, config = alphas.get(f"{module}.{ALPHA}"), configs.get(component) or configs.get("")
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
    """An adapter of any dialect -> the toolkit's names, float32, every layer's scale put into its tensors.

    What they add to a weight is then up x down, or the like in the other methods, with no alpha left to be
    read in one way or another. Keys that are no adapter's stay as they are.

    Raises:
        ValueError: two keys name one tensor, or an alpha is not one number.
    """
    named = rename(tensors, layers)
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
    return plain


def _magnitude(scale: Tensor, up: Tensor | None) -> tuple[str, Tensor]:
    """kohya's (out, 1[, 1, 1]) norms as peft's (out,) or (1, out, 1, 1).

    Norms over the other axis, (1, in), are left: peft has no such layer, so they find no place.
    """
    if up is None or scale.shape[:1] != up.shape[:1] or scale.numel() != up.shape[0]:
        return DORA_SCALE, scale
    return MAGNITUDE, scale.reshape(1, -1, 1, 1) if up.ndim == 4 else scale.flatten()
