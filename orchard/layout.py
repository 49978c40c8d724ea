"""A real set as class folders on disk, so that a command can be given a part of one."""

from pathlib import Path

from orchard import splits
from orchard.errors import UserError
from orchard.images import ImageSet, Photo
from orchard.run import whole_file


def write(folder: Path, train: ImageSet, test: ImageSet) -> None:
    """Write the photos' files as ``train/CLASS`` and ``test/CLASS``, named by their hashes, captions beside.

    Raises:
        UserError: a class name that cannot be a folder's.
    """
    for name in train.classes:
        if "/" in name or name.startswith(".") or splits.canonical(name):
            raise UserError(f"class {name!r} cannot be a folder's name; rename it")
    for split, images in (("train", train), ("test", test)):
        for photo in images.photos:
            _write(folder / split / photo.label, photo)


def _write(folder: Path, photo: Photo) -> None:
    path = folder / f"{photo.sha256[:16]}{Path(photo.path).suffix or '.png'}"
    with whole_file(path) as aside:
        aside.write_bytes(photo.read())
    if photo.text:
        with whole_file(path.with_suffix(".txt")) as aside:
            aside.write_text(photo.text, encoding="utf-8")
