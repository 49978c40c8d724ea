"""How near two images are: the correlation of their thumbnails."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from orchard.errors import listed
from orchard.images.framing import FITS
from orchard.images.images import ImageSet, Photo, pixels, sized

SIDE = 32
"""Pixels of a thumbnail's side."""
QUANTILE = 0.01
CHUNK = 1024
Thumbnails = Sequence[np.ndarray]
"""(N, SIDE, SIDE, 3) uint8 of the same N images for each of `FITS`: a generator learns from one of them."""
FARTHEST = 0.1
"""No image is a copy of one that is farther away, however far apart the images themselves are: of few, one a
class, none has a near neighbour. docs/report.md has where it comes from."""
LEAST = 1e-4
"""Stands in for a threshold of zero, which images that are there twice would give: an exact copy is one."""
SAVED = 0.005
"""Distance below which an image is another one saved again: JPEG at quality 50, or half the side, moves the
fruit photos by up to 0.0006, and the two nearest of them lie 0.024 apart."""


def of_photos(photos: Sequence[Photo]) -> Thumbnails:
    """Of every photo."""
    return [pixels(photos, SIDE, fit=fit) for fit in FITS]


def of_image(image: Image.Image) -> Thumbnails:
    """Of one image."""
    return [sized(image, SIDE, fit=fit)[None] for fit in FITS]


class Originals:
    """Images that may have been copied.

    ``among`` are those whose `closest_share` says from where on an image counts as a copy; by default the
    images themselves.
    """

    def __init__(self, images: Thumbnails, among: Thumbnails | None = None) -> None:
        self.references = [References(framing) for framing in images]
        self.thresholds = [max(closest_share(framing), LEAST) for framing in among or images]

    def nearness(self, queries: Thumbnails) -> np.ndarray:
        """(N,) distance to the nearest original over the threshold: below 1 it is a copy in some framing."""
        framings = zip(self.references, queries, self.thresholds, strict=True)
        return np.min([one.nearest(query) / threshold for one, query, threshold in framings], axis=0)


def saved_again(
    test: ImageSet, test_pixels: np.ndarray, train: ImageSet, train_pixels: np.ndarray
) -> list[str]:
    """A note where test images are training images saved again, mirrored or not; their bytes differ, so the
    hashes do not tell. Pixels are (N, S, S, 3) uint8, one way of framing for all.
    """
    if not len(test) or not len(train):
        return []
    where, distances = References(_small(train_pixels)).closest(_small(test_pixels))
    pairs = [
        (one, train.photos[k]) for one, k, d in zip(test.photos, where, distances, strict=True) if d < SAVED
    ]
    if not pairs:
        return []
    names = [f"{one.path} ({other.path})" for one, other in pairs]
    apart = sum(one.label != other.label for one, other in pairs)
    classes = f", {apart} of them under another class" if apart else ""
    return [
        f"{len(pairs)} of {len(test)} test images of {test.name} look like training images saved "
        f"again{classes}: {listed(names)}; what was trained on them is no test"
    ]


def _small(images: np.ndarray) -> np.ndarray:
    size, kind = (SIDE, SIDE), Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(image).resize(size, kind)) for image in images])


def near_pairs(images: np.ndarray, farthest: float) -> Iterator[tuple[int, int, float]]:
    """(N, S, S, 3) uint8 -> every two places, the earlier first, whose distance is below ``farthest``."""
    small = _small(images) if len(images) else images
    start = 0
    for alike in References(small)._chunks(_rows(small), False) if len(images) else ():
        for row, earlier in zip(*np.nonzero(1 - alike < farthest), strict=True):
            if earlier < start + row:
                yield int(earlier), start + int(row), float(1 - alike[row, earlier])
        start += len(alike)


def closest_share(images: np.ndarray) -> float:
    """(N, S, S, 3) uint8 -> the distance below which an image counts as a copy of one of these.

    It is the 1% quantile of the images' distances to their own nearest neighbour (`nearest`): what is nearer
    than that would be one of the closest pairs in a hundred among the images themselves. At most `FARTHEST`.
    """
    if len(images) < 2:
        return FARTHEST
    return min(float(np.quantile(nearest(images, images, same=True), QUANTILE)), FARTHEST)


def nearest(queries: np.ndarray, references: np.ndarray, *, same: bool = False) -> np.ndarray:
    """(N, S, S, 3), (M, S, S, 3) uint8 -> (N,) distance of each query to its nearest reference, 0 to 2.

    ``same``: both are one set, and an image is not its own neighbour.
    """
    return References(references).nearest(queries, same=same)


class References:
    """(M, S, S, 3) uint8 images that others are compared with.

    The distance is 1 - the correlation of the RGB values, the smaller one of the reference and its mirror
    image, so that neither brightness nor contrast hides a copy.
    """

    def __init__(self, images: np.ndarray) -> None:
        self.both = np.stack([_rows(images), _rows(images[:, :, ::-1])])

    def nearest(self, queries: np.ndarray, *, same: bool = False) -> np.ndarray:
        """As the function of this name."""
        return 1 - np.concatenate([alike.max(axis=1) for alike in self._chunks(_rows(queries), same)])

    def closest(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, S, S, 3) uint8 -> (N,) place of the nearest reference of each, and (N,) its distance."""
        found = [(alike.argmax(axis=1), alike.max(axis=1)) for alike in self._chunks(_rows(queries), False)]
        places, alikes = zip(*found, strict=True)
        return np.concatenate(places), 1 - np.concatenate(alikes)

    def _chunks(self, queries: np.ndarray, same: bool) -> Iterator[np.ndarray]:
        """(C, M) correlations of so many queries at a time with every reference."""
        for start in range(0, len(queries), CHUNK):
            rows = queries[start : start + CHUNK]
            alike = (self.both @ rows.T).max(axis=0).T
            if same:
                alike[np.arange(len(rows)), start + np.arange(len(rows))] = -np.inf
            yield alike


def _rows(images: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) uint8 -> (N, 3 S S) float32 rows of mean 0 and length 1; flat images give zeros."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
