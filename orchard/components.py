"""Parts of a base, told from their files alone: what they are made from, how large they are."""

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchard import typed
from orchard.run import file_hash

if TYPE_CHECKING:
    from orchard.bases import Base

FILES = frozenset((".safetensors", ".json", ".txt", ".model"))
"""Weights, configs and tokenizers."""


def weights_hash(path: Path) -> str:
    """The file's SHA-256; the Hub's cache names large files by it, which saves reading them."""
    real = path.resolve()
    is_hash = len(real.name) == 64 and all(c in "0123456789abcdef" for c in real.name)
    state = real.stat()
    return real.name if is_hash else _hash_of(real, state.st_size, state.st_mtime_ns)


@functools.cache
def _hash_of(path: Path, size: int, changed: int) -> str:
    return file_hash(path)


def digest(base: "Base", parts: Sequence[str]) -> str:
    """Hash of everything that the named components are loaded from: weights, configs, tokenizer files."""
    found = hashlib.sha256()
    if base.file:
        found.update(f"{weights_hash(base.file)}\n".encode())
    for part in parts:
        for path in sorted((base.folder / part).glob("*")):
            if path.suffix in FILES:
                found.update(f"{part}/{path.name}:{weights_hash(path)}\n".encode())
    return found.hexdigest()


def latent_shape(base: "Base", size: Sequence[int]) -> tuple[int, int, int]:
    """(height, width) of an image in pixels -> (channels, height, width) of its latents."""
    config = typed.parse(typed.read(base.folder / "vae" / "config.json"))
    factor = 2 ** (len(config["block_out_channels"]) - 1)
    return config.get("latent_channels", 4), size[0] // factor, size[1] // factor
