"""The validation loss: on held-out photos, at fixed noise and times."""

import torch

from finetune.models.family import Family
from finetune.step.batches import EncodedDataset, draw
from finetune.step.objective import UNWEIGHTED
from orchard.images.splits import stable_hash

DRAWS, BATCH = 8, 8


@torch.no_grad()
def loss(family: Family, network: torch.nn.Module, held_out: EncodedDataset, seed: int) -> float:
    """Unweighted mean loss of the held-out photos, over `DRAWS` batches of `BATCH` that never change.

    ``network`` is taken as it is: see `finetune.training.learner.Learner.for_inference`.
    """
    fixed = stable_hash("validation", seed)
    draws = (draw(held_out, k, batch_size=BATCH, seed=fixed, flip=False) for k in range(DRAWS))
    found = [family.loss(network, batch, UNWEIGHTED).item() for batch in draws]
    return sum(found) / len(found)
