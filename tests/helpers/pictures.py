"""Small images and image folders for tests, drawn when they are needed."""

import io
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from orchard.images.images import TRAIN, ImageSet, Photo, sha256

RED, BLUE = (255, 0, 0), (0, 0, 255)
Colour = tuple[int, int, int]
ORIENTATION = 274


def noise(seed: int, size: tuple[int, int] = (8, 8)) -> Image.Image:
    """An RGB image of random pixels; another seed is another image."""
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def disc(ground: Colour, *circles: tuple[int, int, int, Colour], side: int = 80) -> np.ndarray:
    """(side, side, 3) uint8: discs of (row, column, radius, colour) on a ground."""
    picture = Image.new("RGB", (side, side), ground)
    for row, column, radius, colour in circles:
        box = (column - radius, row - radius, column + radius, row + radius)
        ImageDraw.Draw(picture).ellipse(box, fill=colour)
    return np.asarray(picture)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(orientation: int | None = None) -> bytes:
    """An 8x6 JPEG, left half red and right half blue, with an EXIF orientation if one is given."""
    image = Image.new("RGB", (8, 6), RED)
    image.paste(BLUE, (4, 0, 8, 6))
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION] = orientation
    return encoded(image, "JPEG", quality=100, subsampling=0, exif=exif)


def half_a_jpeg() -> bytes:
    """A 200x200 noise JPEG cut in the middle: it opens and verifies, and only a full decode fails."""
    whole = encoded(noise(0, (200, 200)), "JPEG")
    return whole[: len(whole) // 2]


def write(root: Path, files: Iterable[str] | Mapping[str, bytes]) -> Path:
    """Write files below ``root``; names without bytes get a noise image each, a new one every time."""
    contents = files if isinstance(files, Mapping) else dict.fromkeys(files)
    for seed, (name, data) in enumerate(contents.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(noise(seed)) if data is None else data)
    return root


def photo(path: str, label: str, split: str = TRAIN, data: bytes | None = None) -> Photo:
    """A photo whose bytes are its path, unless ``data`` is given."""
    data = path.encode() if data is None else data
    return Photo(path=path, label=label, split=split, sha256=sha256(data), read=partial(bytes, data))


def image_set(photos: Iterable[Photo], classes: Iterable[str] | None = None) -> ImageSet:
    """A set named "test set"; its classes are the labels unless given."""
    photos = tuple(photos)
    names = sorted({p.label for p in photos}) if classes is None else classes
    return ImageSet(name="test set", classes=tuple(names), photos=photos)


def numbered(counts: Mapping[str, int], split: str = TRAIN) -> ImageSet:
    """``{"apple": 2}`` -> a set with photos apple/0 and apple/1 of different contents."""
    return image_set(
        (photo(f"{label}/{i}", label, split) for label, count in counts.items() for i in range(count)),
        sorted(counts),
    )
