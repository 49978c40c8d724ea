"""The classifier of real images alone that the experiment keeps, so that its features can measure the gap."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from classify import store
from classify.sizes import Sizes
from evaluate.answers import Record
from evaluate.config import Evaluate
from evaluate.features import Embed, of_classifier
from orchard.images import ImageSet

FILE = "real_only.safetensors"


def offer(config: Evaluate, train: ImageSet, sizes: Sizes, model: nn.Module, record: Record) -> None:
    """Keep ``model`` in the experiment's folder if its run is the one: real images alone, first seed."""
    plain = record.get("arm", "ratio") == "ratio" and record["shots"] is None and not record["n_synthetic"]
    if not plain or record["ratio"] != 1.0 or record["seed"] != config.seed:
        return
    about = store.Record(
        model=config.model,
        classes=train.classes,
        size=sizes.size,
        through=sizes.through,
        seed=config.seed,
        steps=config.steps,
        data=config.data,
        trained_on=tuple(sorted(train.hashes())),
    )
    store.save(config.output / FILE, model, about)


def features(folders: Iterable[Path], device: torch.device) -> Embed | None:
    """Of the classifier in the first of ``folders`` that has one; `None` where none has."""
    path = next((folder / FILE for folder in folders if (folder / FILE).is_file()), None)
    if path is None:
        return None
    model, _ = store.load(path, device)
    return of_classifier(model, device)
