"""Captions: the class, and what can be told of a photo without a model."""

from itertools import product

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from mini.data import WHITE, Photos

TEMPLATE = "a photo of {label}"
PHRASES = (
    ("", "scene background", "white background"),
    ("", "single", "several"),
    ("", "close", "far"),
)
"""What a caption may add to its class; the first of each says nothing."""
COMBINATIONS = tuple(product(*(range(len(choices)) for choices in PHRASES)))
PIECE = 0.03
SOLID = 0.92
CLOSE, FAR = 0.5, 0.35
KEPT = 0.7
PLAIN = 0.3
DROPPED = 0.1


def table(names: tuple[str, ...]) -> list[str]:
    """Every caption; row ``27 * label + 9 * background + 3 * number + distance``, and last the empty one."""
    captions = []
    for name in names:
        for combination in COMBINATIONS:
            words = [choices[i] for choices, i in zip(PHRASES, combination, strict=True)]
            captions.append(", ".join([TEMPLATE.format(label=name), *filter(None, words)]))
    return [*captions, ""]


def draw(labels: np.ndarray, traits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(B,) labels and (B, 3) traits -> (B,) rows of `table`.

    Each phrase is said in `KEPT` of the draws, and none in `PLAIN` of them whatever there would be to say:
    else the plain caption would come to mean a scene, of which least can be told. `DROPPED` of the
    captions are empty, for classifier-free guidance.
    """
    said = traits * (rng.random(traits.shape) < KEPT)
    said[rng.random(len(traits)) < PLAIN] = 0
    rows = np.ravel_multi_index((labels, *said.T), (labels.max() + 1, *map(len, PHRASES)))
    return np.where(rng.random(len(labels)) < DROPPED, -1, rows)


def traits(photos: Photos) -> np.ndarray:
    """(N, 3) positions in `PHRASES`; number and distance are told on white backgrounds alone."""
    found = np.zeros((len(photos.white), len(PHRASES)), dtype=np.int64)
    found[:, 0] = 1 + photos.white
    for row in np.flatnonzero(photos.white):
        found[row, 1:] = foreground(photos.pixels[row])
    return found


def foreground(pixels: np.ndarray) -> tuple[int, int]:
    """(H, W, 3) uint8 on white -> number and distance, as positions in `PHRASES`.

    One piece is single only when it fills its convex hull: two touching circles fill 0.88 of theirs, and
    a bunch is left unsaid.
    """
    mask = pixels.min(axis=-1) < WHITE
    share = float(mask.mean())
    distance = 1 if share > CLOSE else 2 if share < FAR else 0
    numbers, _ = ndimage.label(mask)
    large = np.flatnonzero(np.bincount(numbers.ravel())[1:] >= PIECE * mask.size) + 1
    if len(large) != 1:
        return (2 if len(large) else 0), distance
    return int(solidity(numbers == large[0]) > SOLID), distance


def solidity(piece: np.ndarray) -> float:
    """(H, W) bool -> area over the area of the convex hull, pixels taken as unit squares."""
    corners = np.concatenate([np.argwhere(piece) + offset for offset in product((0, 1), repeat=2)])
    return float(piece.sum() / ConvexHull(corners).volume)  # in two dimensions, volume is the area
