"""How near synthetic images come to real ones: copies of training images, and of test images."""

from typing import Any

import numpy as np

from orchard.images import ImageSet, pixels
from orchard.thumbnails import QUANTILE, SIDE, closest_share, nearest


def measure(synthetic: ImageSet, train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """`memorisation` of the sets' centre squares, which is what a generator learns from."""
    return memorisation(*(pixels(part.photos, SIDE) for part in (synthetic, train, test)))


def memorisation(synthetic: np.ndarray, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
    """(N, S, S, 3), (M, S, S, 3), (T, S, S, 3) uint8 pixels -> how many synthetic images are copies.

    A synthetic image is a near copy when its distance to the nearest real image (`nearest`) is below
    ``threshold``, the training images' `closest_share`. ``natural`` is the share of test images that are as
    near to a training image, which no generator has made. Shares run from 0 to 1; at least two training
    images are needed.
    """
    threshold = closest_share(train)
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
    be = "is" if found["near_test"] == 1 else "are"
    return (
        f"{found['near_train']} of {found['images']} synthetic images ({found['share_near_train']:.1%}) are "
        f"nearer to a training image than {1 - QUANTILE:.0%} of the training images are to their nearest "
        f"neighbour, {found['near_test']} {be} that near to a test image; of the test images, "
        f"{found['natural']:.1%} are that near to a training image"
    )
