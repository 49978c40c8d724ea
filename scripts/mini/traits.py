"""What is told of the training photos: `orchard.images.traits`, and whether the fruit is whole or cut."""

from dataclasses import asdict, dataclass

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from scipy import ndimage

from orchard.images import traits
from orchard.images.traits import NO, UNSAID, YES

FLESH, PITH, SKIN = 0.12, 0.04, 0.55
CITRUS = frozenset(("clementine", "grapefruit", "lemon", "lime", "mandarine", "orange", "pomelo"))


@dataclass(frozen=True, kw_only=True)
class Traits(traits.Traits):
    """Of one photo. ``whole`` is `UNSAID`, `YES` or `NO` and is told on plain backgrounds alone."""

    whole: int = UNSAID
    letterboxed: bool = False


def measure(pixels: np.ndarray, label: str) -> Traits:
    """(H, W, 3) uint8 photo of a ``label`` -> what can be told of it."""
    _, mask = traits.background(pixels, traits.name_colours(pixels))
    whole = UNSAID if mask is None else _whole(pixels, mask, label in CITRUS)
    return Traits(**asdict(traits.measure(pixels)), whole=whole)


def _whole(pixels: np.ndarray, mask: np.ndarray, citrus: bool) -> int:
    """Cut fruit shows pale lines (citrus) or a pale piece beside a skin that is not pale (all others)."""
    if not mask.any():
        return UNSAID
    hue, saturation, value = np.moveaxis(rgb_to_hsv(pixels / 255), -1, 0)
    inside = ndimage.binary_erosion(mask, iterations=2)
    pale = ((saturation < 0.42) & (value > 0.72) & inside).sum() / max(inside.sum(), 1)
    if citrus:
        return NO if pale >= PITH else YES if pale < PITH / 4 else UNSAID
    cream = (hue * 360 >= 22) & (hue * 360 < 68) & (saturation > 0.04) & (saturation < 0.45) & (value > 0.75)
    numbers, count = ndimage.label(ndimage.binary_opening(cream & inside))
    flesh = np.bincount(numbers.ravel())[1:].max() / mask.sum() if count else 0.0
    rest = mask & ~(numbers > 0)
    if flesh >= FLESH:
        return NO if rest.any() and float(np.median(saturation[rest])) >= SKIN else UNSAID
    return YES if flesh < FLESH / 10 and pale < PITH else UNSAID


def on_colour(pixels: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 photo on white, (3,) uint8 -> the same on a ground of that colour.

    White is multiplied by the colour, so that shadows and soft edges stay. What is coloured or dark, and
    what it encloses, is the object and keeps its own colours.
    """
    saturation, value = np.moveaxis(rgb_to_hsv(pixels / 255), -1, 0)[1:]
    own = ndimage.binary_fill_holes(ndimage.binary_opening((saturation > 0.2) | (value < 0.45)))
    alpha = ndimage.gaussian_filter(ndimage.binary_erosion(own).astype(np.float32), 0.7)[..., None]
    tinted = pixels / 255 * colour
    return np.clip(alpha * pixels + (1 - alpha) * tinted, 0, 255).round().astype(np.uint8)


def some_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) uint8: a colour that paper or cloth may have, neither neon nor nearly black."""
    hue, saturation, value = rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.25, 1.0)
    return (hsv_to_rgb((hue, saturation, value)) * 255).round().astype(np.uint8)
