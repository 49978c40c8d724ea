"""Safetensors files that anybody may have written; everything here raises `ValueError` with a reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file as `safetensors.safe_open` gives it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, RuntimeError) as error:  # the last from shapes that torch cannot have
        raise ValueError(str(error)) from None


def load(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file, on the CPU; empty and complex ones, which no network has, are refused."""
    with opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    strange = [name for name, value in tensors.items() if not value.numel() or value.is_complex()]
    if strange:
        raise ValueError(f"{strange[0][:80]} is empty or complex")
    return tensors
