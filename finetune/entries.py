"""Encoded photos and prompts on disk: one safetensors file an entry, found again by what it was made from.

A file is believed when it parses, was made from the same things, and its tensors have the checksum that
stands in its header. Several processes may write one entry at once: each writes aside and renames.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from orchard.run import whole_file

Key = Mapping[str, Any]
"""What an entry depends on, in JSON's types; its ``kind`` names the folder."""
Tensors = dict[str, Tensor]
KEY, CHECKSUM = "key", "sha256"


class DamagedError(Exception):
    """A file that is not the entry its name stands for; holds the reason."""


def path_of(folder: Path, key: Key) -> Path:
    """Where the entry of ``key`` lies."""
    return folder / key["kind"] / f"{hashlib.sha256(_canonical(key).encode()).hexdigest()}.safetensors"


def _canonical(key: Key) -> str:
    return json.dumps(key, sort_keys=True)


def write(path: Path, key: Key, tensors: Tensors) -> None:
    """Write an entry, whole or not at all."""
    contents = {name: tensor.contiguous() for name, tensor in tensors.items()}
    header = {KEY: _canonical(key), CHECKSUM: _checksum(contents)}
    with whole_file(path, shared=True) as aside:
        save_file(contents, aside, metadata=header)


def read(path: Path, key: Key) -> Tensors | None:
    """The entry of ``key`` at ``path``, or None when there is none.

    Raises:
        DamagedError: the file is cut off, changed, or the entry of something else.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # Cloned, since the file may be replaced, and open files are few.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, RuntimeError) as error:
        raise DamagedError(f"{path.name} cannot be read: {error}") from None
    if header.get(KEY) != _canonical(key):
        raise DamagedError(f"{path.name} was made from something else")
    if header.get(CHECKSUM) != _checksum(tensors):
        raise DamagedError(f"{path.name} has another checksum")
    return tensors


def _checksum(tensors: Tensors) -> str:
    """Over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
