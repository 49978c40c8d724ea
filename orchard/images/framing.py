"""Ways to bring an image to a shape; apart from the pixels, so that options can name them at once."""

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from orchard.images.boxes import Box, clipped

Fit = Literal["pad", "crop"]
"""pad: all of it, on white; crop: what its centre has of the shape, moved so far that no object is cut."""
FITS: tuple[Fit, ...] = get_args(Fit)


def framed_boxes(
    boxes: Iterable[Box],
    size: tuple[int, int],
    to: tuple[int, int],
    fit: Fit = "pad",
    keep: Sequence[Box] = (),
) -> tuple[Box, ...]:
    """Boxes of an image of (height, width) ``size`` in what `orchard.images.images.framed` makes of it.

    They are clipped; what a crop leaves less than a pixel of is dropped. ``keep`` as there.
    """
    (height, width), (to_height, to_width) = size, to
    left, top, across, down = _padded(size, to) if fit == "pad" else _cropped(size, to, keep)
    moved = (
        Box(
            left + box.left * across / width,
            top + box.top * down / height,
            left + box.right * across / width,
            top + box.bottom * down / height,
        )
        for box in boxes
    )
    return clipped(moved, (to_width, to_height))


def _padded(size: tuple[int, int], to: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, width and height of the whole image within ``to``, as `PIL.ImageOps.pad` rounds them."""
    (height, width), (to_height, to_width) = size, to
    if width / height > to_width / to_height:
        down = round(height / width * to_width)
        return 0, round((to_height - down) * 0.5), to_width, down
    across = round(width / height * to_height)
    return round((to_width - across) * 0.5), 0, across, to_height


def _cropped(
    size: tuple[int, int], to: tuple[int, int], keep: Sequence[Box]
) -> tuple[float, float, float, float]:
    """The same of what `window` shows: what lies outside ``to`` is cut off."""
    (height, width), (to_height, to_width) = size, to
    shown = window(size, to, keep)
    across, down = (to_width / (shown.right - shown.left), to_height / (shown.bottom - shown.top))
    return -shown.left * across, -shown.top * down, width * across, height * down


def window(size: tuple[int, int], to: tuple[int, int], keep: Sequence[Box] = ()) -> Box:
    """What a crop to the shape of ``to`` shows of an image, (height, width) each: the most of its centre.

    Moved no farther than it takes to show all boxes of ``keep``; where they do not fit, it is larger and
    reaches over the image's edges.
    """
    (height, width), (to_height, to_width) = size, to
    scale = min(width / to_width, height / to_height)
    around = Box(
        min((box.left for box in keep), default=width / 2),
        min((box.top for box in keep), default=height / 2),
        max((box.right for box in keep), default=width / 2),
        max((box.bottom for box in keep), default=height / 2),
    )
    scale = max(scale, (around.right - around.left) / to_width, (around.bottom - around.top) / to_height)
    left = _start(width, scale * to_width, around.left, around.right)
    top = _start(height, scale * to_height, around.top, around.bottom)
    return Box(left, top, left + scale * to_width, top + scale * to_height)


def _start(side: float, length: float, first: float, last: float) -> float:
    """Where a stretch of a side begins that shows ``first`` to ``last``, and the middle if it can."""
    middle = (side - length) / 2
    return middle if length >= side else min(max(middle, last - length), first)
