"""Tensors that FSDP shards over processes: gathered, and sharded again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds a part of the network, so that all must take part when it is called."""
    return accelerator.distributed_type == DistributedType.FSDP


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


@contextmanager
def gathered_parameters(models: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Inside, trainable parameters are whole tensors, to be saved; the models cannot be called meanwhile.

    Called by all processes. Without shards nothing changes.
    """
    shards = [
        (module, name, parameter)
        for model in models
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.requires_grad and isinstance(parameter, DTensor)
    ]
    for module, name, parameter in shards:
        module.register_parameter(name, torch.nn.Parameter(gathered(parameter)))
    yield
    for module, name, parameter in shards:
        module.register_parameter(name, parameter)
