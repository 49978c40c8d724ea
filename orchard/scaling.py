"""What a peft config says of the scale of a LoRA."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """What a peft config says of the scale; only files without alphas need it."""

    alpha: float
    patterns: dict[str, float] = field(default_factory=dict)
    """Regular expression for the end of a module's path -> its own alpha."""
    by_root: bool = False
    """Divide by the root of the rank (rsLoRA)."""

    def of(self, module: str, rank: int) -> float:
        """The scale of ``module``, a path without its component."""
        names = (module, module.removeprefix("text_model."))
        own = (
            alpha
            for pattern, alpha in self.patterns.items()
            if any(re.match(rf"(?:.*\.)?(?:{pattern})$", name) for name in names)
        )
        return next(own, self.alpha) / (math.sqrt(rank) if self.by_root else rank)


def scalings_of(text: str) -> dict[str, Scaling]:
    """Component -> `Scaling`, from a peft config as JSON; ``""`` stands for every component.

    diffusers puts the configs of all components into one object, with keys like ``unet.lora_alpha``.

    Raises:
        ValueError: not such a config.
    """
    try:
        config = json.loads(text)
        if not isinstance(config, dict):
            raise ValueError("not an object")
        prefixes = {key.removesuffix("lora_alpha") for key in config if key.endswith("lora_alpha")}
        return {prefix.rstrip("."): _scaling(config, prefix) for prefix in prefixes}
    except (ValueError, TypeError, AttributeError, re.error) as error:
        raise ValueError(f"its LoRA config cannot be read ({error})") from None


def _scaling(config: Mapping[str, Any], prefix: str) -> Scaling:
    patterns = config.get(f"{prefix}alpha_pattern") or {}
    for pattern in patterns:
        re.compile(pattern)
    return Scaling(
        alpha=float(config[f"{prefix}lora_alpha"]),
        patterns={pattern: float(alpha) for pattern, alpha in patterns.items()},
        by_root=bool(config.get(f"{prefix}use_rslora")),
    )
