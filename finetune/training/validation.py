"""The loss on photos that are held out, at noise and times that never change."""

import torch

from finetune.models.family import Family
from finetune.training.batches import Cache, draw
from finetune.training.objective import PLAIN
from orchard.images import splits
from orchard.images.images import ImageSet
from orchard.images.splits import stable_hash

SHARE, DRAWS = 0.1, 8
BATCH = 8


def hold_out(photos: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Photos to train on, and a tenth of each class, at least one, to validate on."""
    chosen = splits.hold_out(photos, SHARE, "validation of the generator")
    return (
        photos.keep(p for p in photos.photos if p.sha256 not in chosen),
        photos.keep(p for p in photos.photos if p.sha256 in chosen),
    )


@torch.no_grad()
def loss(family: Family, cache: Cache, seed: int) -> float:
    """Mean loss of the held-out photos over `DRAWS` fixed draws of `BATCH`, noise levels weighing alike.

    The weights are taken as they stand: see `finetune.training.learner.Learner.in_use`.
    """
    network = family.network
    fixed = stable_hash("validation", seed)
    draws = (draw(cache, k, batch_size=BATCH, seed=fixed, flip=False) for k in range(DRAWS))
    found = [family.loss(network, batch, PLAIN).item() for batch in draws]
    return sum(found) / len(found)
