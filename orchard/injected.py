"""What peft has put into models; each function takes models by their places in a pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchard import dialects
from orchard.roles import ALPHA, split_name

if TYPE_CHECKING:
    from torch import Tensor


def tensors(models: Mapping[str, Any]) -> dict[str, Tensor]:
    """Their adapter under the toolkit's names, float32 on the CPU."""
    from peft.utils import get_peft_model_state_dict

    found = {}
    for place, model in models.items():
        # Left to itself peft asks the Hub whether the vocabulary has grown.
        for key, value in get_peft_model_state_dict(model, save_embedding_layers=False).items():
            found[f"{place}.{key}"] = value.detach().float().cpu().contiguous()
    return dialects.rename(found)


def scales(models: Mapping[str, Any]) -> dict[str, float]:
    """``component.module`` -> what the layer's update is multiplied by."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = {
        f"{place}.{name}.{ALPHA}": layer.scaling["default"]  # type: ignore[attr-defined]
        for place, model in models.items()
        for name, layer in model.named_modules()
        if isinstance(layer, BaseTunerLayer)
    }
    return {split_name(name)[0]: scale for name, scale in dialects.rename(found).items()}


def configs(models: Mapping[str, Any]) -> dict[str, Any]:
    """Their peft configs in one object of plain values, with keys like ``unet.r``."""
    return {
        f"{place}.{key}": _plain(value)
        for place, model in models.items()
        for key, value in model.peft_config["default"].to_dict().items()
    }


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | list | type(None)) else str(value)
