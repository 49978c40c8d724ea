"""What can be told of a photo without a model: colours, background, number, whole or cut, near or far."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from scipy import ndimage
from scipy.spatial import ConvexHull

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "grey", "white")
HUES = (12, 42, 66, 168, 255, 300, 338, 361)
"""Where each colour ends, in degrees: red, orange, …, pink, and red again."""
BROWN, BLACK, GREY, WHITE = (COLOURS.index(name) for name in ("brown", "black", "grey", "white"))
NEUTRAL = [BLACK, GREY, WHITE]

WHITE_LEVEL, WHITE_SHARE = 225, 0.65
PLAIN_DISTANCE, PLAIN_SHARE = 40, 0.8
OBJECT_DISTANCE = 60
SCENE_SHARE = 0.55
"""Share of a scene's border that one colour has to have for the scene to be called by it."""
COLOUR_SHARE, COLOUR_SHARE_IN_SCENE = 0.25, 0.6
PIECE = 0.03
SOLID = 0.92
CLOSE, FAR = 0.5, 0.35
FLESH, PITH, SKIN = 0.12, 0.04, 0.55
CITRUS = frozenset(("clementine", "grapefruit", "lemon", "lime", "mandarine", "orange", "pomelo"))

UNSAID, YES, NO = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Of one photo. Colours are names of `COLOURS`; what cannot be told is left out.

    ``ground`` is the colour of a plain background, or of most of a scene's border. ``single``, ``whole`` and
    ``close`` are `UNSAID`, `YES` or `NO` and are told on plain backgrounds alone.
    """

    plain: bool
    ground: str = ""
    colours: tuple[str, ...] = ()
    single: int = UNSAID
    whole: int = UNSAID
    close: int = UNSAID
    letterboxed: bool = False


def measure(pixels: np.ndarray, label: str) -> Traits:
    """(H, W, 3) uint8 photo of a ``label`` -> what can be told of it."""
    named, rim = name_colours(pixels), border(pixels)
    shares = np.bincount(border(named), minlength=len(COLOURS)) / len(rim)
    if white_background(pixels):
        ground, mask = WHITE, pixels.min(axis=-1) < WHITE_LEVEL
    else:
        distance = np.linalg.norm(pixels - np.median(rim, axis=0), axis=-1)
        if (border(distance) < PLAIN_DISTANCE).mean() < PLAIN_SHARE:
            return _scene(named, shares)
        ground, mask = int(shares.argmax()), distance > OBJECT_DISTANCE
    mask = ndimage.binary_opening(mask)
    number, closeness = _extent(mask)
    return Traits(
        plain=True,
        ground=COLOURS[ground],
        colours=_main(named[mask], COLOUR_SHARE),
        single=number,
        whole=_whole(pixels, mask, label in CITRUS),
        close=closeness,
    )


def _scene(named: np.ndarray, shares: np.ndarray) -> Traits:
    """Its middle gives the colour, and only where most of it has one."""
    height, width = named.shape
    middle = named[height // 4 : height - height // 4, width // 4 : width - width // 4]
    ground = COLOURS[int(shares.argmax())] if shares.max() >= SCENE_SHARE else ""
    return Traits(plain=False, ground=ground, colours=_main(middle.ravel(), COLOUR_SHARE_IN_SCENE)[:1])


def name_colours(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) positions in `COLOURS`."""
    hue, saturation, value = np.moveaxis(rgb_to_hsv(pixels / 255), -1, 0)
    hue = hue * 360
    names = np.digitize(hue, HUES[:-1]) % (len(HUES) - 1)
    warm = (hue < 42) | (hue >= 338)
    names[(warm & (value < 0.55) & (saturation < 0.85)) | ((hue >= 12) & (hue < 66) & (value < 0.45))] = BROWN
    names[((hue < 15) | (hue >= 320)) & (saturation < 0.5) & (value > 0.7)] = COLOURS.index("pink")
    names[saturation < 0.15] = GREY
    names[(saturation < 0.12) & (value > 0.85)] = WHITE
    names[value < 0.18] = BLACK
    return names


def border(values: np.ndarray, width: int = 3) -> np.ndarray:
    """(H, W, ...) -> (K, ...): the outermost ``width`` pixels."""
    inside = np.zeros(values.shape[:2], bool)
    inside[width:-width, width:-width] = True
    return values[~inside]


def white_background(pixels: np.ndarray) -> bool:
    """(H, W, 3) uint8 -> most of the border is near white."""
    return bool((border(pixels, 1).min(axis=-1) >= WHITE_LEVEL).mean() >= WHITE_SHARE)


def _main(named: np.ndarray, least: float) -> tuple[str, ...]:
    """The one or two colours that have ``least`` of what is coloured, the larger first."""
    counts = np.bincount(named, minlength=len(COLOURS)).astype(float)
    total = counts.sum()
    counts[NEUTRAL] = 0
    if counts.sum() <= 0.35 * total:
        return ()
    shares = counts / counts.sum()
    return tuple(COLOURS[i] for i in np.argsort(-shares)[:2] if shares[i] >= least)


def _extent(mask: np.ndarray) -> tuple[int, int]:
    """(H, W) bool object -> ``single`` and ``close``.

    One piece is single only when it fills its convex hull: two touching circles fill 0.88 of theirs, and
    a bunch is left unsaid.
    """
    share = float(mask.mean())
    close = YES if share > CLOSE else NO if share < FAR else UNSAID
    numbers, _ = ndimage.label(mask)
    large = np.flatnonzero(np.bincount(numbers.ravel())[1:] >= PIECE * mask.size) + 1
    if len(large) != 1:
        return (NO if len(large) else UNSAID), close
    return (YES if solidity(numbers == large[0]) > SOLID else UNSAID), close


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


def solidity(piece: np.ndarray) -> float:
    """(H, W) bool -> area over the area of the convex hull, pixels taken as unit squares."""
    corners = np.concatenate([np.argwhere(piece) + offset for offset in product((0, 1), repeat=2)])
    return float(piece.sum() / ConvexHull(corners).volume)  # in two dimensions, volume is the area


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
