"""The domain gap: synthetic images against real training photos; the real test photos are the yardstick."""

from collections.abc import Mapping

from evaluate.distances import Cloud, Gap, Gaps, measure
from evaluate.exhibit import Exhibit
from evaluate.features import Embed
from evaluate.pictures import Read
from orchard.images import ImageSet

FEWEST = 4
"""Images from which distances between sets are measured."""
MOST = 200
"""Images of each class that are compared at a time."""


def gaps(shown: Exhibit, embeds: Mapping[str, Embed], read: Read) -> Gaps:
    """Every measure of `evaluate.distances` in the features of every network.

    Our own network has seen the training photos, not the test photos: what it makes of the latter says how
    large a gap is without any generator.
    """
    if len(shown.synthetic) < FEWEST or len(shown.real) < FEWEST:
        return {}
    return {name: _in_features(shown, embed, read) for name, embed in embeds.items()}


def _in_features(shown: Exhibit, embed: Embed, read: Read) -> dict[str, Gap]:
    def cloud(images: ImageSet) -> Cloud:
        return Cloud(features=embed(read(images.photos)), labels=images.labels())

    sides = {"synthetic": shown.synthetic, "test": shown.test}
    sides = {name: images for name, images in sides.items() if len(images) >= FEWEST}
    counts = [count for images in sides.values() for count in images.counts().values() if count]
    each = min(MOST, max(2, min(counts)))
    real = cloud(shown.real)
    return {name: measure(cloud(images), real, shown.real.classes, each) for name, images in sides.items()}
