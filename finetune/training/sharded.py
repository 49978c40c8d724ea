"""Tensors that FSDP spreads over processes: whole, and back in shards."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch.distributed.tensor import DTensor, distribute_tensor


def gathered(value: Any) -> Any:
    """``value`` with every sharded tensor in its dicts and lists made whole; called by all processes."""
    if isinstance(value, DTensor):
        return cast(DTensor, value.detach()).full_tensor()
    if isinstance(value, dict):
        return {key: gathered(item) for key, item in value.items()}
    if isinstance(value, list):
        return [gathered(item) for item in value]
    return value


def scattered(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``whole`` on the device of ``like`` and sharded as it is."""
    placed = whole.to(like.device)
    if isinstance(like, DTensor):
        return distribute_tensor(placed, like.device_mesh, like.placements)
    return placed


def optimizer_state(state: Mapping[str, Any], parameters: Sequence[torch.nn.Parameter]) -> dict[str, Any]:
    """An optimiser's whole ``state``, its tensors of a parameter's shape sharded as that parameter is."""
    found = {
        number: {
            name: scattered(value, parameters[number])
            if isinstance(value, torch.Tensor) and value.shape == parameters[number].shape
            else value
            for name, value in of_one.items()
        }
        for number, of_one in state["state"].items()
    }
    return {**state, "state": found}


def make_whole(model: torch.nn.Module) -> None:
    """Put whole tensors in the place of trainable shards, to be saved; ``model`` cannot be called any more.

    Called by all processes. Without shards nothing changes.
    """
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and isinstance(parameter, DTensor):
                module.register_parameter(name, torch.nn.Parameter(gathered(parameter)))
