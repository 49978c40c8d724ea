"""Ways to bring an image to a shape; apart from the pixels, so that options can name them at once."""

from collections.abc import Iterable
from typing import Literal, get_args

from orchard.images.boxes import Box, clipped

Fit = Literal["pad", "crop"]
"""pad: all of it, on white; crop: what its centre has of the shape."""
FITS: tuple[Fit, ...] = get_args(Fit)


def framed_boxes(
    boxes: Iterable[Box], size: tuple[int, int], to: tuple[int, int], fit: Fit = "pad"
) -> tuple[Box, ...]:
    """Boxes of an image of (height, width) ``size`` in what `orchard.images.images.framed` makes of it.

    They are clipped; what a crop leaves less than a pixel of is dropped.
    """
    (height, width), (to_height, to_width) = size, to
    left, top, across, down = _padded(size, to) if fit == "pad" else _cropped(size, to)
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


def _cropped(size: tuple[int, int], to: tuple[int, int]) -> tuple[float, float, float, float]:
    """The same of `PIL.ImageOps.fit`: what lies outside ``to`` is cut off."""
    (height, width), (to_height, to_width) = size, to
    scale = max(to_height / height, to_width / width)
    across, down = width * scale, height * scale
    return (to_width - across) / 2, (to_height - down) / 2, across, down
