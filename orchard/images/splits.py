"""Seeded, stratified, nested subsets, and the one test split that every command agrees on."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from orchard.errors import UserError, listed
from orchard.images.images import TEST, TRAIN, ImageSet, Photo, require_labelled

TEST_SHARE = 0.2
VALIDATION_SHARE = 0.1
DRAWN = f"no test split found: {TEST_SHARE:.0%} of each class held out for test by content hash"
NAMES = {
    "train": TRAIN,
    "train_zip": TRAIN,
    "training": TRAIN,
    "test": TEST,
    "test_zip": TEST,
    "testing": TEST,
    "val": TRAIN,
    "valid": TRAIN,
    "validation": TRAIN,
}


def canonical(name: str) -> str | None:
    """A folder's or split's name -> train, test, or None when it names no split.

    A validation folder joins the training split: validation images are drawn from there anew.
    """
    return NAMES.get(name.lower())


def stable_hash(*parts: object) -> int:
    """A 63-bit number that depends on the parts alone, on every machine and in every process."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def ranked(photos: Iterable[Photo], *salt: object) -> list[Photo]:
    """The photos in an order that depends on their contents and ``salt`` alone."""
    return sorted(photos, key=lambda p: (stable_hash(*salt, p.sha256), p.sha256, p.path))


def separate(images: ImageSet) -> ImageSet:
    """Give every photo its split: the set's own, else one drawn from the files' hashes.

    Raises:
        UserError: a class of the test split is not in the training split, or is too small to split.
    """
    images = replace(images, notes=(*images.notes, *_contradictions(images)))
    if any(photo.split == TEST for photo in images.photos):
        return _own_splits(images)
    chosen = hold_out(images, TEST_SHARE, "test")
    photos = tuple(_moved(p, TEST if p.sha256 in chosen else TRAIN) for p in images.photos)
    return replace(images, photos=photos, notes=(*images.notes, DRAWN), drawn=True)


def _contradictions(images: ImageSet) -> list[str]:
    """A note when the same file stands under two classes."""
    labels: dict[str, str] = {}
    twice = [p.path for p in images.photos if labels.setdefault(p.sha256, p.label) != p.label]
    if not twice:
        return []
    return [f"{len(twice)} images also stand under another class, byte for byte: {listed(twice)}"]


def _own_splits(images: ImageSet) -> ImageSet:
    photos = [_moved(p, p.split or TRAIN) for p in images.photos]
    train = {p.label for p in photos if p.split == TRAIN}
    unknown = sorted({p.label for p in photos if p.split == TEST} - train)
    if unknown:
        raise UserError(
            f"{images.name}: class {', '.join(unknown)} is in the test split but has no training "
            f"images (training has {', '.join(sorted(train)) or 'none at all'}); add some or remove it"
        )
    held_out = {p.sha256 for p in photos if p.split == TEST}
    leaked = [p.path for p in photos if p.split == TRAIN and p.sha256 in held_out]
    notes = images.notes
    if leaked:
        note = f"left {len(leaked)} out of training, being in the test split too: {listed(leaked)}"
        notes = (*notes, note)
    kept = tuple(p for p in photos if p.split == TEST or p.sha256 not in held_out)
    return replace(images, photos=kept, notes=notes, leaked=tuple(leaked))


def require_apart(flag: str, images: ImageSet) -> None:
    """Raise `UserError` naming training files that are test images under another name, byte for byte."""
    if images.leaked:
        raise UserError(
            f"{flag}: {len(images.leaked)} training images are test images under another name, byte for "
            f"byte: {listed(images.leaked)}; remove them from one of the two"
        )


def _moved(photo: Photo, split: str) -> Photo:
    return replace(photo, split=split)


def hold_out(images: ImageSet, share: float, salt: str) -> frozenset[str]:
    """Hashes of a stratified ``share`` of the set, at least one per class, never a whole class.

    Copies of one file count once, so they stay on one side.
    """
    chosen: set[str] = set()
    for name, contents in _contents(images).items():
        if len(contents) < 2:
            # A single image stays in training; commands that need more say so with `require_split`.
            continue
        count = min(max(round(share * len(contents)), 1), len(contents) - 1)
        order = sorted(contents, key=lambda digest: stable_hash(salt, name, digest))
        chosen.update(order[:count])
    return frozenset(chosen)


def _contents(images: ImageSet) -> dict[str, set[str]]:
    contents: dict[str, set[str]] = {name: set() for name in images.classes}
    for photo in images.photos:
        contents[photo.label].add(photo.sha256)
    return contents


def require_split(images: ImageSet) -> None:
    """Raise `UserError` unless there are classes, each with an image to train and another to validate on."""
    if len(images.classes) < 2:
        raise UserError(
            f"{images.name}: one class alone ({', '.join(images.classes)}), a classifier needs two; "
            "expected one folder per class, or files named CLASS_NUMBER.jpg"
        )
    training, why = images.of(TRAIN), "one to train on and one to validate on"
    require_labelled(training, 2, why)
    for name, contents in _contents(training).items():
        if len(contents) < 2:
            raise UserError(
                f"class {name} has {training.counts()[name]} images in training, all copies of one file; it "
                f"needs at least two that differ ({why})"
            )


def validation(images: ImageSet, seed: int) -> tuple[ImageSet, ImageSet]:
    """The training split -> (rest, validation), stratified; another seed draws another one."""
    test = [photo.path for photo in images.photos if photo.split == TEST]
    assert not test, f"validation is drawn from training images, not {listed(test)}"
    chosen = hold_out(images, VALIDATION_SHARE, f"validation {seed}")
    return (
        images.keep(p for p in images.photos if p.sha256 not in chosen),
        images.keep(p for p in images.photos if p.sha256 in chosen),
    )


def folds(images: ImageSet, count: int, *salt: object) -> list[frozenset[str]]:
    """The hashes of the set in ``count`` stratified parts that differ by at most one image.

    Copies of one file stay together, whatever their classes.

    Raises:
        UserError: a class with fewer images than parts.
    """
    dealt: list[str] = []
    for name, contents in _contents(images).items():
        if len(contents) < count:
            plural = "image" if len(contents) == 1 else "images"
            raise UserError(f"class {name} has {len(contents)} {plural}, {count} folds need at least {count}")
        dealt += sorted(contents.difference(dealt), key=lambda digest: stable_hash(*salt, name, digest))
    # One class after the other, so that every class is spread evenly and so are the leftovers.
    return [frozenset(dealt[fold::count]) for fold in range(count)]


def subset(photos: Sequence[Photo], count: int, *salt: object) -> list[Photo]:
    """The first ``count`` of a seeded order, so a smaller subset lies in a larger one."""
    assert count <= len(photos), (count, len(photos))
    return ranked(photos, *salt)[:count]
