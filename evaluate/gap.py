"""The domain gap: synthetic images against real training photos; the real test photos are the yardstick."""

from collections.abc import Mapping

import torch

from evaluate import witness
from evaluate.config import Evaluate
from evaluate.distances import Cloud, Gap, Gaps, measure
from evaluate.features import Embed, of_backbone
from evaluate.sets import Sets
from orchard.images import ImageSet

OWN = "our real-trained classifier"
FEWEST = 4
"""Images from which distances between sets are measured."""
MOST = 200
"""Images of each class that are compared at a time."""


def networks(config: Evaluate, device: torch.device) -> dict[str, Embed]:
    """The networks whose features are at hand, by name.

    Raises:
        UserError: ``--backbone`` cannot be loaded.
    """
    own = witness.features((config.output, *config.also), device)
    found = {OWN: own} if own else {}
    return {**found, config.backbone: of_backbone(config.backbone, device)} if config.backbone else found


def gaps(sets: Sets, embeds: Mapping[str, Embed]) -> Gaps:
    """Every measure of `evaluate.distances` in the features of every network.

    Our own network has seen the training photos, not the test photos: what it makes of the latter says how
    large a gap is without any generator.
    """
    if len(sets.synthetic) < FEWEST or len(sets.train) < FEWEST:
        return {}
    return {name: _in_features(sets, embed) for name, embed in embeds.items()}


def _in_features(sets: Sets, embed: Embed) -> dict[str, Gap]:
    def cloud(images: ImageSet) -> Cloud:
        return Cloud(features=embed(sets.sizes.pixels(images.photos)), labels=images.labels())

    sides = {"synthetic": sets.synthetic, "test": sets.test}
    sides = {name: images for name, images in sides.items() if len(images) >= FEWEST}
    counts = [count for images in sides.values() for count in images.counts().values() if count]
    each = min(MOST, max(2, min(counts)))
    real = cloud(sets.train)
    return {name: measure(cloud(images), real, sets.train.classes, each) for name, images in sides.items()}
