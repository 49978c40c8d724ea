"""Adapters of every method on a model, through peft: inject, disable, remove."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer

from finetune.config import TrainLora
from finetune.models.family import Family
from finetune.models.targets import ATTENTION
from orchard.adapters import peft_state
from orchard.adapters.tensor_roles import Method
from orchard.images.splits import stable_hash


def inject(
    model: Any,
    rank: int,
    alpha: float,
    seed: int,
    targets: Iterable[str] = ATTENTION,
    method: Method = "lora",
) -> list[torch.nn.Parameter]:
    """Add a fresh adapter to the layers whose names end so; returns its parameters, the only trainable ones.

    They are float32, whatever the model is.
    """
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(_config(method, rank, alpha, sorted(targets)), model)
    if method == "dora":
        _start_at_exact_norms(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for parameter in parameters:
        # Updates of bf16 weights would be rounded away.
        parameter.data = parameter.data.float()
    return parameters


def _start_at_exact_norms(model: Any) -> None:
    """Let DoRA begin at the norms of the base's rows in float32, as it takes them in every step."""
    peft_state.keep_norms_exact(model)
    for layer in peft_state.dora_layers(model).values():
        layer.lora_magnitude_vector["default"].update_layer(
            base_layer=layer.get_base_layer(),
            lora_A=layer.lora_A["default"].weight,
            lora_B=layer.lora_B["default"].weight,
            scaling=layer.scaling["default"],
        )


def inject_all(
    family: Family, targets: Mapping[str, Sequence[str]], config: TrainLora
) -> dict[str, list[torch.nn.Parameter]]:
    """`inject` into every model of a family as ``config`` says; parameters by component of the pipeline."""
    rank, alpha, method = config.rank, config.alpha or config.rank, config.method
    return {
        name: inject(model, rank, alpha, _seed(family, name, config.seed), targets[name], method)
        for name, model in family.models.items()
    }


def _seed(family: Family, component: str, seed: int) -> int:
    return seed if component == family.prefix else stable_hash(component, seed)


def _config(method: Method, rank: int, alpha: float, targets: list[str]) -> PeftConfig:
    # peft's annotation says int, but it only divides alpha by the rank.
    whole = cast(int, alpha)
    if method == "loha":
        return LoHaConfig(r=rank, alpha=whole, target_modules=targets)
    if method == "lokr":
        return LoKrConfig(r=rank, alpha=whole, target_modules=targets)
    return LoraConfig(
        r=rank,
        lora_alpha=whole,
        init_lora_weights="gaussian",
        target_modules=targets,
        use_dora=method == "dora",
    )


@contextmanager
def disabled(models: Iterable[Any]) -> Iterator[None]:
    """Inside, the models compute what they do without their adapters."""
    layers = [layer for model in models for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def remove(model: Any) -> None:
    """Take the adapter out again, leaving the base as it was."""
    from diffusers.utils import recurse_remove_peft_layers

    recurse_remove_peft_layers(model)
    del model.peft_config
