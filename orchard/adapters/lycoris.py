"""LoHa and LoKr in a pipeline through peft: stock Stable Diffusion pipelines load neither."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orchard.adapters.layers import path_in
from orchard.adapters.tensor_roles import Method, by_module
from orchard.bases.pipeline import Pipeline

if TYPE_CHECKING:
    from torch import Tensor

METHODS: tuple[Method, ...] = ("loha", "lokr")


def attach(pipe: Pipeline, tensors: Mapping[str, Tensor], method: Method) -> None:
    """Add an adapter under the toolkit's names, at scale 1, to models of ``pipe``.

    Every module must be there and its tensors must fit it: `orchard.adapters.layers.match_layers`.
    """
    components: dict[str, dict[str, Mapping[str, Tensor]]] = {}
    for module, parts in by_module(tensors).items():
        component, _, path = module.partition(".")
        components.setdefault(component, {})[path_in(getattr(pipe, component), path)] = parts
    for component, modules in components.items():
        _attach(getattr(pipe, component), modules, method)


def _attach(model: Any, modules: Mapping[str, Mapping[str, Tensor]], method: Method) -> None:
    from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model

    kind = LoHaConfig if method == "loha" else LoKrConfig
    # A pattern, since peft takes a name in a list for the end of a name.
    wanted = "|".join(map(re.escape, modules))
    inject_adapter_in_model(kind(r=1, alpha=1, target_modules=f"(?:{wanted})"), model)
    for path, parts in modules.items():
        _fill(model.get_submodule(path), parts)


def _fill(layer: Any, parts: Mapping[str, Tensor]) -> None:
    """Put the tensors in place of peft's own, which are of the shapes that it would have chosen."""
    from torch.nn import Parameter

    weight = layer.get_base_layer().weight
    for role in layer.adapter_layer_names:
        held = getattr(layer, role)
        if "default" in held:
            del held["default"]
        if role in parts:
            held["default"] = Parameter(parts[role].to(weight.device, weight.dtype), requires_grad=False)
