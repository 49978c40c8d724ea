"""Frozen text encoders wait in the host's memory while an adapter is trained on a device.

What they say of the prompts is in the cache by then; T5 of SD 3 takes 9 GB.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

HOST = torch.device("cpu")


@contextmanager
def at(models: Sequence[Any], device: torch.device) -> Iterator[None]:
    """Have the models on ``device`` inside, and where they were after it, however it ends."""
    homes = [model.device for model in models]
    for model in models:
        model.to(device)
    try:
        yield
    finally:
        for model, home in zip(models, homes, strict=True):
            model.to(home)
