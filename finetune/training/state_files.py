"""Nested state (of an optimiser, of a scaler) as one safetensors file, which runs no code when it is read."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from orchard.files import checked_json, checked_safetensors
from orchard.files.atomic import whole_file

SHAPE = "shape"


def save(path: Path, value: Any) -> None:
    """Write tensors in any nesting of dicts, lists, tuples and plain values, whole or not at all."""
    tensors: dict[str, torch.Tensor] = {}
    shape = _packed(value, tensors)
    with whole_file(path) as aside:
        save_file(tensors, aside, metadata={SHAPE: json.dumps(shape)})


def load(path: Path) -> Any:
    """What `save` wrote, tensors on the CPU.

    Raises:
        ValueError: it is something else.
    """
    try:
        with checked_safetensors.opened(path) as file:
            return _unpacked(
                checked_json.parse((file.metadata() or {})[SHAPE], finite=False), file.get_tensor
            )
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path.name} holds no state ({error})") from None


def _packed(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """``value`` in JSON's types, each container and tensor as a pair of its kind and its contents."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return ["tensor", name]
    if isinstance(value, dict):
        # JSON's keys are strings, an optimiser's are numbers.
        return ["dict", [[key, _packed(item, tensors)] for key, item in value.items()]]
    if isinstance(value, list | tuple):
        return [type(value).__name__, [_packed(item, tensors) for item in value]]
    assert value is None or isinstance(value, bool | int | float | str), value
    return ["plain", value]


def _unpacked(packed: Any, tensor: Any) -> Any:
    kind, content = packed
    if kind == "tensor":
        return tensor(content)
    if kind == "dict":
        return {key: _unpacked(item, tensor) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_unpacked(item, tensor) for item in content]
        return items if kind == "list" else tuple(items)
    return content
