"""The one size that the images of an experiment are brought to."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from classify.config import SMALLEST
from orchard.images.arrays import decoded
from orchard.images.images import FORMATS, Photo, decode

LARGEST = 256
"""Pixels: the input side where nothing asks for a smaller one."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Input side of a classifier and the smaller side that every image goes by first."""

    size: int
    """Pixels of the classifier's input."""
    through: int | None
    """Pixels that every image is first reduced to, or None where all are large enough."""

    def pixels(
        self, photos: Sequence[Photo], advance: Callable[[int], None] = lambda count: None
    ) -> np.ndarray:
        """(N, size, size, 3) uint8, each picture whole, on white where it is not square; as `decoded`.

        Centre squares and squashed pictures were worse on validation images: docs/log/fruit.md.
        """
        return decoded(photos, self.size, self.through, advance)


def resolve(asked: int, native: int) -> Sizes:
    """Asked side (0 = automatic) and the native side of the images -> `Sizes`, all in pixels.

    Images of 64 pixels enlarged to 256 look blurred; a real image that is to be compared with them
    has to be as blurred, else a network tells the sources apart instead of the classes.
    """
    size = asked or max(SMALLEST, min(LARGEST, native))
    return Sizes(size=size, through=native if native < size else None)


def native(photos: Sequence[Photo]) -> int:
    """Pixels of the largest short side among ``photos``; read from the headers, not the pixels.

    For a synthetic set, whose images are all alike, that is its size. Raises `UserError` for a
    file that is no image.
    """
    assert photos
    return max(_short_side(photo) for photo in photos)


def _short_side(photo: Photo) -> int:
    data = photo.read()
    try:
        return min(Image.open(io.BytesIO(data), formats=FORMATS).size)
    except Exception:  # readers raise whatever a damaged header leads them into
        return min(decode(data, photo.path).size)  # raises the error that users get everywhere
