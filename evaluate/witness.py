"""The classifier of real images alone that the experiment keeps, so that its features can measure the gap."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classify import store
from classify.sizes import Sizes
from evaluate.config import Evaluate
from evaluate.features import Embed, of_classifier
from orchard.images import ImageSet

FILE = "real_only.safetensors"


def is_witness(record: Mapping[str, Any], config: Evaluate) -> bool:
    """Whether the run is the one to keep: all real images, no others, and the sweep's first seed."""
    plain = record.get("arm", "ratio") == "ratio" and record["shots"] is None and not record["n_synthetic"]
    return plain and record["ratio"] == 1.0 and record["seed"] == config.seed


def keep(model: nn.Module, config: Evaluate, train: ImageSet, sizes: Sizes) -> None:
    """Write the classifier into the experiment's folder, whole or not at all."""
    record = store.Record(
        model=config.model,
        classes=train.classes,
        size=sizes.size,
        through=sizes.through,
        seed=config.seed,
        steps=config.steps,
        data=config.data,
        trained_on=tuple(sorted(train.hashes())),
    )
    store.save(config.output / FILE, model, record)


def features(folder: Path, device: torch.device) -> Embed | None:
    """Of the classifier in ``folder``; `None` where the sweep had no run of real images alone."""
    path = folder / FILE
    if not path.is_file():
        return None
    model, _ = store.load(path, device)
    return of_classifier(model, device)
