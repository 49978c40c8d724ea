"""What peft has put into models; each function takes models by their places in a pipeline."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchard.adapters import dialects
from orchard.adapters.tensor_roles import ALPHA, split_name

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


def layers(models: Mapping[str, Any]) -> dict[str, Any]:
    """``component.module`` -> its layer with an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = {
        f"{place}.{name}.{ALPHA}": layer
        for place, model in models.items()
        for name, layer in model.named_modules()
        if isinstance(layer, BaseTunerLayer)
    }
    return {split_name(name)[0]: layer for name, layer in dialects.rename(found).items()}


def scales(models: Mapping[str, Any]) -> dict[str, float]:
    """``component.module`` -> what the layer's update is multiplied by."""
    return {module: layer.scaling["default"] for module, layer in layers(models).items()}


def keep_norms_exact(model: Any) -> None:
    """Let the DoRA layers of a model take norms of rows in float32, whatever the base's own precision.

    bfloat16 would round each by up to 0.4%, and the row is scaled by what was learned over it.
    """
    from peft.tuners.lora.dora import DoraConv2dLayer, DoraLinearLayer

    for layer in model.modules():
        kind: Any = type(layer)
        if kind in (DoraConv2dLayer, DoraLinearLayer):
            layer.__class__ = _exact(kind)


@functools.cache
def _exact(kind: Any) -> Any:
    import torch

    class Exact(kind):
        def get_lora_weight(self, lora_A: Any, lora_B: Any, adapter_name: str | None = None) -> Tensor:  # noqa: N803
            with torch.autocast(lora_A.weight.device.type, enabled=False):
                return super().get_lora_weight(lora_A, lora_B, adapter_name=adapter_name)

        def get_weight_norm(
            self, weight: Tensor, lora_weight: Tensor, scaling: float, adapter_name: str | None = None
        ) -> Tensor:
            return super().get_weight_norm(
                weight.float(), lora_weight.float(), scaling, adapter_name=adapter_name
            )

    return Exact


def dora_layers(model: Any) -> dict[str, Any]:
    """A model's layers with DoRA by their paths."""
    return {
        path: layer for path, layer in model.named_modules() if getattr(layer, "lora_magnitude_vector", None)
    }


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
