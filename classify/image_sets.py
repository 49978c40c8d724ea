"""The two sets of one classifier, and the checks that keep the test images out of training."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from classify.config import Classify, Validation
from classify.sizes import Sizes, native, resolve
from orchard import shards
from orchard.classifiers.classifier import seen_by
from orchard.datasets import sources
from orchard.errors import UserError
from orchard.images import splits
from orchard.images.images import TEST, TRAIN, ImageSet


@dataclass(frozen=True, kw_only=True)
class Sets:
    """What is trained on, what is scored on, and the real images behind the former."""

    train: ImageSet
    test: ImageSet
    """With the class list of ``train``; a class may have no image here."""
    seen: frozenset[str]
    """SHA-256 of every real image that training, or the generator of its images, has seen."""
    sizes: Sizes


def load(config: Classify) -> Sets:
    """Load and check both sets; no pixels yet.

    Raises:
        UserError: a set cannot be read, a class is short of images or unknown, a test image was seen.
    """
    folder = Path(config.train).expanduser()
    synthetic = shards.is_synthetic(folder)
    whole = shards.read(folder) if synthetic else sources.load(config.train, option="--train")
    train = whole.of(TRAIN)
    splits.require_split(train)
    other = sources.load(config.test, option="--test")
    seen = (whole.seen if synthetic else train.hashes()) | seen_by(config.pretrained)
    if config.test == config.train:  # two splits of one set
        splits.require_apart(f"--train {config.train}", whole)
    test = with_classes(scored(other, seen), train, config)
    require_unseen(config.train, train.hashes() | seen, test)
    return Sets(train=train, test=test, seen=seen, sizes=resolve(config.size, native(train.photos)))


def scored(test: ImageSet, seen: frozenset[str]) -> ImageSet:
    """The images to score: the set's own test split, or all of them where it has none.

    Where training, or the generator, has seen some of a set without a split, the rest is its held-out part.
    """
    if not test.drawn or test.hashes() & seen:
        return test.of(TEST)
    return replace(test, notes=tuple(note for note in test.notes if note != splits.DRAWN))


def with_classes(test: ImageSet, train: ImageSet, config: Classify) -> ImageSet:
    """``test`` labelled by the class list of ``train``, by name; raise `UserError` on an unknown one."""
    unknown = sorted({photo.label for photo in test.photos} - set(train.classes))
    if unknown:
        raise UserError(
            f"--test {config.test}: class {', '.join(unknown)} is not in --train {config.train}, which "
            f"has {', '.join(train.classes)}; remove it from the test set or train with it"
        )
    if not test.photos:
        raise UserError(f"--test {config.test}: no test images; name a set that has some")
    return replace(test, classes=train.classes)


def require_unseen(train: str, seen: frozenset[str], test: ImageSet) -> None:
    """Raise `UserError` naming a test image that training, or what made its images, has seen."""
    leaked = [photo.path for photo in test.photos if photo.sha256 in seen]
    if leaked:
        plural = "image" if len(leaked) == 1 else "images"
        raise UserError(
            f"--train {train} has seen {len(leaked)} test {plural}, e.g. {leaked[0]}; "
            "train without them, or name another --test"
        )


def parts(train: ImageSet, validation: Validation, seed: int) -> tuple[ImageSet, ImageSet]:
    """The training images -> those to train on, those to validate on."""
    return (train, train.keep(())) if validation == "none" else splits.validation(train, seed)


def labelled(part: ImageSet, sizes: Sizes, advance: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
    """Every image decoded whole: (N, size, size, 3) uint8 pixels and (N,) int64 labels."""
    return sizes.pixels(part.photos, advance), part.labels()
