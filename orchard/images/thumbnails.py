"""How near two images are: the correlation of their thumbnails."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from orchard.errors import listed
from orchard.images.arrays import Images
from orchard.images.framing import FITS
from orchard.images.images import ImageSet, Photo, pixels, sized

SIDE = 32
"""Pixels of a thumbnail's side."""
QUANTILE = 0.01
ASKED = 5000
"""Images that are asked for their nearest neighbours to tell the quantile."""
PAIRS = 2**23
"""Pairs of images that are compared together."""
ROWS = 4096
"""Images that are brought to floats together."""
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


def saved_again(test: ImageSet, test_pixels: Images, train: ImageSet, train_pixels: Images) -> list[str]:
    """A note where test images are training images saved again, mirrored or not; their bytes differ, so the
    hashes do not tell. Pixels are (N, S, S, 3) uint8, one way of framing for all.
    """
    if not len(test) or not len(train):
        return []
    where, distances = References(shrunk(train_pixels)).closest(shrunk(test_pixels))
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


def shrunk(images: Images) -> np.ndarray:
    """(N, S, S, 3) uint8 -> (N, SIDE, SIDE, 3) uint8."""
    size, kind = (SIDE, SIDE), Image.Resampling.LANCZOS
    return np.stack([np.asarray(Image.fromarray(image).resize(size, kind)) for image in images])


def near_pairs(images: np.ndarray, farthest: float) -> Iterator[tuple[int, int, float]]:
    """(N, S, S, 3) uint8 -> every two places, the earlier first, whose distance is below ``farthest``."""
    small = shrunk(images) if len(images) else images
    for start, alike in References(small)._alike(small) if len(images) else ():
        for row, earlier in zip(*np.nonzero(1 - alike < farthest), strict=True):
            if earlier < start + row:
                yield int(earlier), start + int(row), float(1 - alike[row, earlier])


def closest_share(images: np.ndarray) -> float:
    """(N, S, S, 3) uint8 -> the distance below which an image counts as a copy of one of these.

    It is the 1% quantile of the images' distances to their own nearest neighbour, asked of `ASKED` of them
    at most: what is nearer than that would be one of the closest pairs in a hundred among the images
    themselves. At most `FARTHEST`.
    """
    if len(images) < 2:
        return FARTHEST
    asked = np.arange(0, len(images), -(-len(images) // ASKED))
    _, distances = References(images).closest(images[asked], own=asked)
    return min(float(np.quantile(distances, QUANTILE)), FARTHEST)


def nearest(queries: np.ndarray, references: np.ndarray, *, same: bool = False) -> np.ndarray:
    """(N, S, S, 3), (M, S, S, 3) uint8 -> (N,) distance of each query to its nearest reference, 0 to 2.

    ``same``: both are one set, and an image is not its own neighbour.
    """
    own = np.arange(len(queries)) if same else None
    return References(references).closest(queries, own)[1]


class References:
    """(M, S, S, 3) uint8 images that others are compared with; 12 KB of memory each.

    The distance is 1 - the correlation of the RGB values, the smaller one of the image and its mirror image,
    so that neither brightness nor contrast hides a copy.
    """

    def __init__(self, images: np.ndarray) -> None:
        self.rows = _rows(images)

    def nearest(self, queries: np.ndarray) -> np.ndarray:
        """As the function of this name."""
        return self.closest(queries)[1]

    def closest(self, queries: np.ndarray, own: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(N, S, S, 3) uint8 -> (N,) place of the nearest reference of each, and (N,) its distance.

        ``own``: (N,) places of the queries among the references; none is its own neighbour.
        """
        places, alikes = np.zeros(len(queries), dtype=np.intp), np.zeros(len(queries), dtype=np.float32)
        for start, alike in self._alike(queries):
            some = slice(start, start + len(alike))
            if own is not None:
                alike[np.arange(len(alike)), own[some]] = -np.inf
            places[some], alikes[some] = alike.argmax(axis=1), alike.max(axis=1)
        return places, 1 - alikes

    def _alike(self, queries: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """The first of some queries, and (C, M) correlations of these with every reference."""
        size = max(1, PAIRS // len(self.rows))
        for start in range(0, len(queries), size):
            some = queries[start : start + size]
            # A query's mirror image is as near to a reference as the query to the reference's.
            alike = _rows(some) @ self.rows.T
            yield start, np.maximum(alike, _rows(some[:, :, ::-1]) @ self.rows.T, out=alike)


def _rows(images: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) uint8 -> (N, 3 S S) float32 rows of mean 0 and length 1; flat images give zeros."""
    found = np.empty((len(images), images[0].size if len(images) else 0), np.float32)
    for start in range(0, len(images), ROWS):
        rows = images[start : start + ROWS].reshape(-1, found.shape[1]).astype(np.float32)
        rows -= rows.mean(axis=1, keepdims=True)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
        found[start : start + ROWS] = rows
    return found
