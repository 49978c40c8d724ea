"""The domain gap: synthetic images against real training photos; the real test photos are the yardstick."""

from collections.abc import Mapping, Sequence

from evaluate.experiment.shown_images import ShownImages
from evaluate.gap.feature_metrics import Cloud, Gap, Gaps, measure
from evaluate.report.pictures import ReadPixels
from orchard.classifiers.embeddings import Embed
from orchard.images.images import ImageSet

FEWEST = 4
"""Images from which distances between sets are measured."""
MOST = 200
"""Images of a class that are compared at a time."""


def gaps(shown: ShownImages, embeds: Mapping[str, Embed], read: ReadPixels) -> Gaps:
    """Every measure of `evaluate.gap.feature_metrics` in the features of every network.

    Our own network has seen the training photos, not the test photos: what it makes of the latter says how
    large a gap is without any generator.
    """
    if len(shown.synthetic) < FEWEST or len(shown.real) < FEWEST:
        return {}
    return {name: _in_features(shown, embed, read) for name, embed in embeds.items()}


def _in_features(shown: ShownImages, embed: Embed, read: ReadPixels) -> dict[str, Gap]:
    def cloud(images: ImageSet) -> Cloud:
        return Cloud(features=embed(read(images.photos)), labels=images.labels())

    sides = {"synthetic": shown.synthetic, "test": shown.test}
    sides = {name: images for name, images in sides.items() if len(images) >= FEWEST}
    real = cloud(shown.real)
    each = each_class([images.counts() for images in sides.values()], shown.real.classes)
    return {name: measure(cloud(images), real, shown.real.classes, each) for name, images in sides.items()}


def each_class(counts: Sequence[Mapping[str, int]], classes: Sequence[str]) -> dict[int, int]:
    """Class by class the images that every side has which has the class at all, from 2 to `MOST`."""
    found = {place: [of[name] for of in counts if of.get(name)] for place, name in enumerate(classes)}
    return {place: max(2, min(MOST, *there)) for place, there in found.items() if there}
