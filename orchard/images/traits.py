"""What can be told of a photo without a model, and the words for it.

The embedded base was trained on the same measures in the same words.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from matplotlib.colors import rgb_to_hsv
from PIL import Image
from scipy import ndimage
from scipy.spatial import ConvexHull

from orchard.images.boxes import Box

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "grey", "white")
HUES = (12, 42, 66, 168, 255, 300, 338, 361)
"""Where each colour ends, in degrees: red, orange, …, pink, and red again."""
BROWN, BLACK, GREY, WHITE = (COLOURS.index(name) for name in ("brown", "black", "grey", "white"))
NEUTRAL = [BLACK, GREY, WHITE]

SIDE = 128
"""Pixels of the longer side that a photo is reduced to before it is measured."""
WHITE_LEVEL, WHITE_SHARE = 225, 0.65
"""Channels of a white pixel are at least this; so many of the border have to be, since objects cross it."""
PLAIN_DISTANCE, PLAIN_SHARE = 40, 0.8
OBJECT_DISTANCE = 60
SCENE_SHARE = 0.55
"""Share of a scene's border that one colour has to have for the scene to be called by it."""
COLOUR_SHARE, COLOUR_SHARE_IN_SCENE = 0.25, 0.6
PIECE = 0.03
SOLID = 0.92
CLOSE, FAR = 0.5, 0.35
UNBOXED = 0.3
"""Share of what stands before a plain background up to which one box is taken for all there is."""
IN_BOX = np.pi / 4
"""Share of its box that an object fills: what an ellipse does."""

SQUARE_ENOUGH = 1.1
"""Long side over short side up to which white bars make no difference."""
LETTERBOXED = "letterboxed"

UNSAID, YES, NO = 0, 1, 2
WORDS = {"single": {YES: "single", NO: "several"}, "close": {YES: "close", NO: "far"}}


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Of one photo. Colours are names of `COLOURS`; what cannot be told is left out.

    ``ground`` is the colour of a plain background, or of most of a scene's border. ``single`` and ``close``
    are `UNSAID`, `YES` or `NO`; without boxes they are told on plain backgrounds alone.
    """

    plain: bool
    ground: str = ""
    colours: tuple[str, ...] = ()
    single: int = UNSAID
    close: int = UNSAID


def measure(pixels: np.ndarray, boxes: Sequence[Box] = ()) -> Traits:
    """(H, W, 3) uint8 photo and the boxes of its objects, where they are known -> what can be told of it."""
    named, size = name_colours(pixels), pixels.shape[:2]
    ground, mask = background(pixels, named)
    boxed = covered(size, boxes)
    if mask is None:
        inside = covered(size, map(_middle, boxes or [Box(0, 0, size[1], size[0])]))
        colours = main_colours(named[inside], COLOUR_SHARE if boxes else COLOUR_SHARE_IN_SCENE)
        colours = colours if boxes else colours[:1]
        single, share = UNSAID, IN_BOX * float(boxed.mean()) if boxes else None
    else:
        inside = mask & boxed
        colours = main_colours(named[inside if inside.any() else mask], COLOUR_SHARE)
        single, share = _single(mask), float(mask.mean())
    if len(boxes) > 1:
        single = NO
    elif boxes and single == UNSAID and (mask is None or (mask & ~boxed).sum() <= UNBOXED * mask.sum()):
        single = YES
    close = UNSAID if share is None else YES if share > CLOSE else NO if share < FAR else UNSAID
    return Traits(plain=mask is not None, ground=ground, colours=colours, single=single, close=close)


def of_image(image: Image.Image, boxes: Iterable[Box] = ()) -> Traits:
    """What can be told of a photo of any size; ``boxes`` are in its pixels."""
    pixels = reduced(image)
    scale = pixels.shape[1] / image.width
    return measure(pixels, [Box(*(edge * scale for edge in box)) for box in boxes])


def context(traits: Traits, *, letterboxed: bool = False) -> str:
    """All that is no matter of the class, as in ``white background, single, close``."""
    ground = traits.ground if traits.plain else "scene"
    said = [words.get(getattr(traits, name), "") for name, words in WORDS.items()]
    return ", ".join(filter(None, [f"{ground} background", *said, LETTERBOXED if letterboxed else ""]))


def shows_bars(traits: Traits, size: tuple[int, int]) -> bool:
    """Whether white bars can be seen around a photo of that size that is padded to a square."""
    return max(size) > SQUARE_ENOUGH * min(size) and not (traits.plain and traits.ground == COLOURS[WHITE])


def reduced(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of the image, at most `SIDE` pixels long."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    return np.asarray(small)


def background(pixels: np.ndarray, named: np.ndarray) -> tuple[str, np.ndarray | None]:
    """The colour of a plain background, and the (H, W) bool object before it.

    Of a scene the colour that most of its border has, if any, and no object. ``named`` as `name_colours`.
    """
    rim = border(pixels)
    shares = np.bincount(border(named), minlength=len(COLOURS)) / len(rim)
    if white_background(pixels):
        ground, mask = WHITE, pixels.min(axis=-1) < WHITE_LEVEL
    else:
        distance = np.linalg.norm(pixels - np.median(rim, axis=0), axis=-1)
        ground, mask = int(shares.argmax()), distance > OBJECT_DISTANCE
        if (border(distance) < PLAIN_DISTANCE).mean() < PLAIN_SHARE:
            return (COLOURS[ground] if shares[ground] >= SCENE_SHARE else ""), None
    return COLOURS[ground], ndimage.binary_opening(mask)


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


def white_background(pixels: np.ndarray, level: int = WHITE_LEVEL, width: int = 1) -> bool:
    """(H, W, 3) uint8 -> most of the border, ``width`` pixels wide, is ``level`` or more in all channels."""
    return bool((border(pixels, width).min(axis=-1) >= level).mean() >= WHITE_SHARE)


def main_colours(named: np.ndarray, least: float) -> tuple[str, ...]:
    """The one or two colours that have ``least`` of what is coloured, the larger first."""
    counts = np.bincount(named, minlength=len(COLOURS)).astype(float)
    total = counts.sum()
    counts[NEUTRAL] = 0
    if counts.sum() <= 0.35 * total:
        return ()
    shares = counts / counts.sum()
    return tuple(COLOURS[i] for i in np.argsort(-shares)[:2] if shares[i] >= least)


def covered(size: tuple[int, int], boxes: Iterable[Box]) -> np.ndarray:
    """(height, width) -> (height, width) bool: the pixels in any of the boxes, at least one of each."""
    mask = np.zeros(size, bool)
    for box in boxes:
        left, top = int(box.left), int(box.top)
        mask[top : max(round(box.bottom), top + 1), left : max(round(box.right), left + 1)] = True
    return mask


def _middle(box: Box) -> Box:
    """Without a quarter at each side."""
    across, down = (box.right - box.left) // 4, (box.bottom - box.top) // 4
    return Box(box.left + across, box.top + down, box.right - across, box.bottom - down)


def _single(mask: np.ndarray) -> int:
    """Whether an (H, W) bool object is one.

    A piece is so only when it fills its convex hull: two touching circles fill 0.88 of theirs, and a bunch is
    left unsaid.
    """
    numbers, _ = ndimage.label(mask)
    large = np.flatnonzero(np.bincount(numbers.ravel())[1:] >= PIECE * mask.size) + 1
    if len(large) != 1:
        return NO if len(large) else UNSAID
    return YES if solidity(numbers == large[0]) > SOLID else UNSAID


def solidity(piece: np.ndarray) -> float:
    """(H, W) bool -> area over the area of the convex hull, pixels taken as unit squares."""
    corners = np.concatenate([np.argwhere(piece) + offset for offset in product((0, 1), repeat=2)])
    return float(piece.sum() / ConvexHull(corners).volume)  # in two dimensions, volume is the area
