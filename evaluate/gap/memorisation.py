"""How near synthetic images come to real ones: copies of training images, and of test images."""

from typing import Any

from orchard.images.framing import FITS
from orchard.images.images import ImageSet
from orchard.images.thumbnails import Originals, Thumbnails, of_photos


def measure(synthetic: ImageSet, train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """`memorisation` of the sets."""
    return memorisation(*(of_photos(part.photos) for part in (synthetic, train, test)))


def memorisation(synthetic: Thumbnails, train: Thumbnails, test: Thumbnails) -> dict[str, Any]:
    """Thumbnails of N synthetic, of training and of test images -> how many synthetic images are copies.

    A synthetic image is a near copy when its distance to the nearest real image is below ``thresholds``, the
    training images' `closest_share`, whole on white or by its centre square (`Originals`). ``natural`` is
    the share of test images that are as near to a training image, which no generator has made. Shares run
    from 0 to 1.
    """
    originals = Originals(train)
    images = len(synthetic[0])
    found = {
        "images": images,
        "thresholds": dict(zip(FITS, originals.thresholds, strict=True)),
        "natural": float((originals.nearness(test) < 1).mean()),
    }
    for name, real in (("train", originals), ("test", Originals(test, among=train))):
        near = int((real.nearness(synthetic) < 1).sum())
        found |= {f"near_{name}": near, f"share_near_{name}": near / images}
    return found


def sentence(found: dict[str, Any]) -> str:
    """What `memorisation` found, for people."""
    return (
        f"{found['near_train']} of {found['images']} synthetic images ({found['share_near_train']:.1%}) are "
        f"near copies of a training image, {found['near_test']} of a test image; by the same measure "
        f"{found['natural']:.1%} of the test images are copies of a training image"
    )
