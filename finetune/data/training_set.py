"""The training photos a run may see, every one of them decoded before anything expensive begins."""

from collections.abc import Mapping
from dataclasses import replace

from finetune.config import TrainLora
from finetune.generators.config import TrainGenerator
from orchard.cli import cli
from orchard.errors import UserError
from orchard.images import images, splits
from orchard.images.images import TRAIN, ImageSet

Sizes = Mapping[str, tuple[int, int]]
"""(height, width) of a photo, upright, by its file's hash."""


def select(everything: ImageSet, config: TrainLora | TrainGenerator) -> tuple[ImageSet, Sizes]:
    """The photos of a real set to train on, and their sizes.

    Raises:
        UserError: a class has too few photos, or a photo is not whole and ``--skip_bad`` is not given.
    """
    train_split = everything.of(TRAIN)
    chosen = config.classes or train_split.classes
    wanted = frozenset(chosen)
    photos = train_split.keep(photo for photo in train_split.photos if photo.label in wanted)
    sizes: Sizes = {}
    if config.skip_bad:
        photos, sizes = _without_bad(photos)
    least = max(2 if config.validate_every else 1, config.shots)
    by_class = photos.by_class()
    for name in chosen:
        _require_enough(name, len(by_class[name]), least)
    if config.shots:
        drawn = (splits.subset(by_class[name], config.shots, "shots", config.seed) for name in chosen)
        photos = photos.keep(photo for one in drawn for photo in one)
    return photos, sizes or sizes_of(photos)


def _without_bad(photos: ImageSet) -> tuple[ImageSet, Sizes]:
    found = list(zip(photos.photos, images.measure(photos.photos), strict=True))
    problems = [str(size) for _, size in found if isinstance(size, UserError)]
    sizes = {photo.sha256: size for photo, size in found if not isinstance(size, UserError)}
    note = f"skipped {len(problems)} files that are not whole images"
    kept = photos.keep(photo for photo in photos.photos if photo.sha256 in sizes)
    return replace(kept, notes=(*photos.notes, *problems, note)), sizes


def _require_enough(name: str, count: int, least: int) -> None:
    cli.check(
        count >= least,
        f"class {name} has {count} training images, needs at least {least}; "
        "add some or choose others with --classes",
    )


def sizes_of(photos: ImageSet) -> Sizes:
    """Their sizes; raises `UserError` for a photo that is not whole."""
    sizes = {}
    for photo, size in zip(photos.photos, images.measure(photos.photos), strict=True):
        if isinstance(size, UserError):
            raise UserError(f"{size}, or pass --skip_bad")
        sizes[photo.sha256] = size
    return sizes
