"""What peft has put into models; each function takes models by their places in a pipeline."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchard.adapters import dialects
from orchard.adapters.tensor_roles import ALPHA, split_name

if TYPE_CHECKING:
    from torch import Tensor

START = "start"
"""An adapter beside the one that learns: what that one started from, negative (PiSSA)."""


def tensors(models: Mapping[str, Any]) -> dict[str, Tensor]:
    """Their adapter under the toolkit's names, float32 on the CPU."""
    import torch
    from peft.utils import get_peft_model_state_dict

    found = {}
    for place, model in models.items():
        # Left to itself peft asks the Hub whether the vocabulary has grown.
        options: dict[str, Any] = {"save_embedding_layers": False}
        start = {}
        if START in model.peft_config:
            start = get_peft_model_state_dict(model, adapter_name=START, **options)
        for key, value in get_peft_model_state_dict(model, **options).items():
            if key in start:
                value = torch.cat([value, start[key]], dim=0 if ".lora_A." in key else 1)
            found[f"{place}.{key}"] = value.detach().float().cpu().contiguous()
    return dialects.rename(found)


def tuned_layers(model: Any) -> dict[str, Any]:
    """A model's layers with an adapter by their paths."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {path: layer for path, layer in model.named_modules() if isinstance(layer, BaseTunerLayer)}


def layers(models: Mapping[str, Any]) -> dict[str, Any]:
    """``component.module`` -> its layer with an adapter."""
    found = {
        f"{place}.{name}.{ALPHA}": layer
        for place, model in models.items()
        for name, layer in tuned_layers(model).items()
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
        for key, value in (model.peft_config["default"].to_dict() | _folded(model)).items()
    }


def _folded(model: Any) -> dict[str, Any]:
    """What a config says of `tensors` that have ranks of their own, rsLoRA's scale, or a `START` in them.

    As the config of plain LoRA, each layer's rank and alpha in it, so that whoever reads those alone applies
    the right scale.
    """
    config = model.peft_config["default"]
    if not (getattr(config, "use_rslora", False) or config.rank_pattern or START in model.peft_config):
        return {}
    parts = 2 if START in model.peft_config else 1
    found = {
        path.removeprefix("text_model."): (parts * layer.r["default"], layer.scaling["default"])
        for path, layer in tuned_layers(model).items()
    }
    ranks = {path: rank for path, (rank, _) in found.items()}
    alphas = {path: rank * scale for path, (rank, scale) in found.items()}
    (rank, _), *_ = Counter(ranks.values()).most_common()
    (alpha, _), *_ = Counter(alphas.values()).most_common()
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {path: own for path, own in ranks.items() if own != rank},
        "alpha_pattern": {path: own for path, own in alphas.items() if own != alpha},
        "use_rslora": False,
        "init_lora_weights": True,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, str | int | float | bool | list | type(None)) else str(value)
