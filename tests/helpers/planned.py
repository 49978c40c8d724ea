"""Sets of photos that were never decoded, and the runs that an experiment on them has."""

from types import SimpleNamespace

import pictures

from classify.sizes import Sizes
from evaluate.config import Evaluate
from evaluate.experiment.image_sets import Sets
from evaluate.experiment.plan import plan
from orchard.images.images import TEST, TRAIN, ImageSet

COUNTS = {"apple": 20, "pear": 16}


def some(kind: str, counts: dict[str, int], split: str = TRAIN) -> ImageSet:
    photos = [
        pictures.photo(f"{kind}/{n}/{i}", n, split) for n, count in counts.items() for i in range(count)
    ]
    return pictures.image_set(photos, sorted(counts))


def sets(**changes) -> Sets:
    """Twenty apples and sixteen pears to train on, six to test on, thirty synthetic ones a class."""
    values = {
        "train": some("train", COUNTS),
        "test": some("test", {"apple": 4, "pear": 2}, TEST),
        "synthetic": some("synthetic", {"apple": 60, "pear": 60}),
        "unscreened": {},
        "external": {},
        "manifest": {},
        "base": SimpleNamespace(name="mini", digest="d", resolution=64),
        "sizes": Sizes(size=64, through=None),
    }
    return Sets(**(values | changes))


def planned(given: Sets | None = None, shares=(1.0, 0.5, 0.0), **options):
    config = Evaluate(**options)
    config.require_valid()
    return plan(config, given or sets(), shares, "fp32")


def hashes(photos) -> set[str]:
    return {photo.sha256 for photo in photos}
