"""How near synthetic images come to real ones: copies of training images, and of test images."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from orchard.images import ImageSet, pixels

SIDE = 32
QUANTILE = 0.01
CHUNK = 1024


def measure(synthetic: ImageSet, train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """`memorisation` of the sets' centre squares, which is what a generator learns from."""
    return memorisation(*(pixels(part.photos, SIDE) for part in (synthetic, train, test)))


def memorisation(synthetic: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """(N, S, S, 3), (M, S, S, 3), (T, S, S, 3) uint8 pixels -> how many synthetic images are copies.

    A synthetic image is a near copy when its distance to the nearest real image (`nearest`) is below
    ``threshold``: the 1% quantile of the training images' distances to their own nearest neighbour, as if
    it were one of the closest pairs in a hundred among the real photos themselves. ``natural`` is the
    share of test images that are as near to a training image, which no generator has made. Shares run
    from 0 to 1; at least two training images are needed.
    """
    assert len(train) >= 2, len(train)
    own = nearest(train, train, same=True)
    threshold = float(np.quantile(own, QUANTILE))
    found = {
        "images": len(synthetic),
        "threshold": threshold,
        "natural": float((nearest(test, train) < threshold).mean()),
    }
    for name, real in (("train", train), ("test", test)):
        near = int((nearest(synthetic, real) < threshold).sum())
        found |= {f"near_{name}": near, f"share_near_{name}": near / len(synthetic)}
    return found


def sentence(found: dict[str, Any]) -> str:
    """What `memorisation` found, for people."""
    return (
        f"{found['near_train']} of {found['images']} synthetic images ({found['share_near_train']:.1%}) are "
        f"nearer to a training image than {1 - QUANTILE:.0%} of the training images are to their nearest "
        f"neighbour, {found['near_test']} are that near to a test image; of the test images, "
        f"{found['natural']:.1%} are that near to a training image"
    )


def nearest(queries: np.ndarray, references: np.ndarray, *, same: bool = False) -> np.ndarray:
    """(N, S, S, 3), (M, S, S, 3) uint8 -> (N,) distance of each query to its nearest reference, 0 to 2.

    The distance is 1 - the correlation of the RGB values, the smaller one of the reference and its mirror
    image, so that neither brightness nor contrast hides a copy. ``same``: both are one set, and an
    image is not its own neighbour.
    """
    both = np.stack([_rows(references), _rows(references[:, :, ::-1])])
    return np.concatenate(list(_chunks(_rows(queries), both, same)))


def _chunks(queries: np.ndarray, references: np.ndarray, same: bool) -> Iterator[np.ndarray]:
    for start in range(0, len(queries), CHUNK):
        rows = queries[start : start + CHUNK]
        alike = (references @ rows.T).max(axis=0).T
        if same:
            alike[np.arange(len(rows)), start + np.arange(len(rows))] = -np.inf
        yield 1 - alike.max(axis=1)


def _rows(images: np.ndarray) -> np.ndarray:
    """(N, S, S, 3) uint8 -> (N, 3 S S) float32 rows of mean 0 and length 1; flat images give zeros."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
