"""What is odd about the photos of a real set: copies, wrong labels, blurred, dark and ill-sized ones."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import ndimage

from orchard.errors import UserError
from orchard.images import thumbnails, traits
from orchard.images.images import ImageSet, Photo, sized
from review import mislabels
from review.items import Finding, Item, of_photo
from review.session import MOST_THUMBNAILS, THUMBNAIL, encoded

MEASURES = {
    "blur": "blur, 0 sharp to 1",
    "light": "brightness of the lightest parts, 0 to 1",
    "side": "side of a square as large, px",
    "margin": "margin of the label, out of fold",
}
SIDE = 256
"""Pixels of the longer side of a photo whose blur is measured: about what classifiers and generators see."""
BLURRED = 0.62
"""Less than this have 463 of 464 photos of fruit; all have more once they are blurred by 1% of their side."""
WINDOW = 11
"""Pixels over which the photo is blurred once more, as in the paper."""
LIGHTEST, DARK = 99, 0.32
"""A photo is dark whose 99th percentile of brightness is below 0.32: the limits of cleanvision."""
NEAR = 0.01
"""Distance of thumbnails (`orchard.images.thumbnails`) below which two photos are near-duplicates."""
OCTAVE, SPREADS = 1.0, 3.0
"""Sizes are odd that differ from the median by more than a factor of two and by three quartile ranges."""
SLIM = 0.35
"""Short side over long side below which a shape is odd, as in cleanvision."""
FEATURES = 64
"""Pixels of a side from which colours and edges are taken."""
BLOCK = 128
"""Photos whose pixels are in memory together."""
Advance = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Look:
    """What is measured of a photo."""

    width: int
    height: int
    blur: float
    light: float
    context: str

    @property
    def side(self) -> float:
        """Pixels of a square of the same area."""
        return float(np.sqrt(self.width * self.height))


def look(photo: Photo, *, shown: bool) -> tuple[Look, np.ndarray, bytes] | UserError:
    """Measure a photo, or say why it cannot be read; and what one decoding of it gives besides.

    That is (`FEATURES`, `FEATURES`, 3) uint8, whole on white, and WebP for the page if it is ``shown``.
    """
    try:
        image = photo.image()
        found = traits.of_image(image, photo.boxes())
    except UserError as error:
        return error
    grey = image.convert("L")
    grey.thumbnail((SIDE, SIDE))
    measured = Look(
        width=image.width,
        height=image.height,
        blur=blur(np.asarray(grey, dtype=np.float64)),
        light=float(np.percentile(np.asarray(grey), LIGHTEST)) / 255,
        context=traits.context(found),
    )
    return measured, sized(image, FEATURES), encoded(image, THUMBNAIL) if shown else b""


def blur(grey: np.ndarray) -> float:
    """(H, W) grey levels -> how little another blur changes them, 0 (sharp) to 1; 0 without any edge.

    Crete et al. 2007, "The blur effect": the share of the differences between neighbours that is left after
    a mean filter, along the axis of the larger share.
    """
    left = []
    for axis in (0, 1):
        smooth = ndimage.uniform_filter1d(grey, WINDOW, axis=axis)
        sharp, soft = (np.abs(ndimage.sobel(one, axis=axis)) for one in (grey, smooth))
        total = sharp.sum()
        left.append(1 - np.maximum(sharp - soft, 0).sum() / total if total else 0.0)
    return float(max(left))


@dataclass(frozen=True, kw_only=True)
class Examined:
    """The photos of a set with what is odd about them."""

    items: list[Item]
    thumbnails: dict[int, bytes]
    """By the number of the item; of what can be read, and of about `MOST_THUMBNAILS` at most."""


@dataclass(frozen=True, kw_only=True)
class _Looked:
    """What is kept of N photos, of which n can be read."""

    looks: list[Look | UserError]
    features: np.ndarray
    """(n, D), by which possible mislabels are told."""
    small: np.ndarray
    """(n, S, S, 3) uint8, by which near-duplicates are told."""
    thumbnails: dict[int, bytes]


def _look_at_all(images: ImageSet, features: mislabels.Features, advance: Advance) -> _Looked:
    """Decode each photo once, and keep no more of it than the findings need."""
    looks: list[Look | UserError] = []
    told, small = [], []
    shown: dict[int, bytes] = {}
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(images), BLOCK):
            some = images.photos[start : start + BLOCK]
            found = list(pool.map(partial(look, shown=start < MOST_THUMBNAILS), some))
            seen = [(start + k, *one) for k, one in enumerate(found) if not isinstance(one, UserError)]
            looks += [one if isinstance(one, UserError) else one[0] for one in found]
            shown |= {number: picture for number, _, _, picture in seen if picture}
            if seen:
                pixels = np.stack([one for _, _, one, _ in seen])
                told.append(features([images.photos[number] for number, *_ in seen], pixels))
                small.append(thumbnails.shrunk(pixels))
            advance(len(some))
    return _Looked(
        looks=looks,
        features=np.concatenate(told) if told else np.zeros((0, 1)),
        small=np.concatenate(small) if small else np.zeros((0, 1, 1, 3), np.uint8),
        thumbnails=shown,
    )


def examine(images: ImageSet, features: mislabels.Features, advance: Advance) -> Examined:
    """Look at every photo once, then compare them; ``features`` tell possible mislabels."""
    kept = _look_at_all(images, features, advance)
    looks = kept.looks
    numbers = [number for number, one in enumerate(looks) if isinstance(one, Look)]
    seen = [one for one in looks if isinstance(one, Look)]
    findings = {
        number: [Finding(kind="damaged", text=str(one))]
        for number, one in enumerate(looks)
        if isinstance(one, UserError)
    }
    margins: dict[int, float] = {}
    if seen:
        part = images.keep(images.photos[number] for number in numbers)
        probabilities = mislabels.out_of_fold(kept.features, part)
        found = [*_mislabels(part, probabilities), *_copies(part, kept.small, numbers), *_looks(seen)]
        for place, finding in found:
            findings.setdefault(numbers[place], []).append(finding)
        if probabilities is not None:
            margins = dict(
                zip(numbers, mislabels.margins(probabilities, part.labels()).tolist(), strict=True)
            )
    items = [
        of_photo(
            photo, findings=tuple(findings.get(number, ())), **_known(looks[number], margins.get(number))
        )
        for number, photo in enumerate(images.photos)
    ]
    return Examined(items=items, thumbnails=kept.thumbnails)


def _known(one: Look | UserError, margin: float | None) -> dict[str, Any]:
    """What the page lists of a photo besides."""
    if isinstance(one, UserError):
        return {}
    measures = {"blur": one.blur, "light": one.light, "side": one.side}
    return {"context": one.context, "measures": measures | ({} if margin is None else {"margin": margin})}


def _mislabels(images: ImageSet, probabilities: np.ndarray | None) -> Iterator[tuple[int, Finding]]:
    if probabilities is None:
        return
    labels = images.labels()
    for place, other in mislabels.suspects(probabilities, labels).items():
        own, its = (f"{probabilities[place, k]:.2f}" for k in (labels[place], other))
        name = images.classes[other]
        yield place, Finding(kind="mislabel", text=f"looks like {name} ({its}), less like its label ({own})")


def _copies(images: ImageSet, small: np.ndarray, numbers: Sequence[int]) -> Iterator[tuple[int, Finding]]:
    """The nearest copy of each kind; of two in one class and split the later one is the copy."""
    nearest: dict[tuple[int, str], tuple[float, int]] = {}
    for earlier, later, distance in thumbnails.near_pairs(small, NEAR):
        one, other = images.photos[earlier], images.photos[later]
        kinds = [
            *(["copy in class"] if one.label != other.label else []),
            *(["copy in split"] if one.split != other.split else []),
        ]
        for kind in kinds or ["copy"]:
            for place, mate in ((later, earlier), (earlier, later)) if kinds else ((later, earlier),):
                best = nearest.get((place, kind), (np.inf, 0))
                nearest[place, kind] = min(best, (distance, mate))
    for (place, kind), (_, mate) in nearest.items():
        there = images.photos[mate]
        text = f"nearly the same as {of_photo(there).name}, {there.label}, {there.split} split"
        yield place, Finding(kind=kind, text=text, other=numbers[mate])


def _looks(seen: Sequence[Look]) -> Iterator[tuple[int, Finding]]:
    octaves = np.log2([one.side for one in seen])
    low, middle, high = np.quantile(octaves, (0.25, 0.5, 0.75))
    far = max(OCTAVE, SPREADS * (high - low))
    for place, one in enumerate(seen):
        size = f"{one.width} x {one.height} px"
        if abs(octaves[place] - middle) > far:
            usual = f"half of the photos are about {2**middle:.0f} px a side, or smaller"
            yield place, Finding(kind="size", text=f"{size}; {usual}")
        elif min(one.width, one.height) < SLIM * max(one.width, one.height):
            yield place, Finding(kind="size", text=f"{size}, a narrow strip")
        if one.blur > BLURRED:
            yield place, Finding(kind="blurred", text=f"blur {one.blur:.2f}, usual up to {BLURRED}")
        if one.light < DARK:
            yield place, Finding(kind="dark", text=f"its lightest parts have brightness {one.light:.2f} of 1")
