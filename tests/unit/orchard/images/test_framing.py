"""Crops that never cut a box: as near to the centre as they can, larger only where they must."""

import numpy as np
import pytest
from PIL import Image

from orchard.images.boxes import Box
from orchard.images.framing import framed_boxes, window
from orchard.images.images import framed

RED, GREY = (255, 0, 0), (90, 90, 90)


def photo(size: tuple[int, int], *boxes: Box) -> Image.Image:
    """Grey, with the boxes in red."""
    pixels = np.full((*size, 3), GREY, np.uint8)
    for left, top, right, bottom in boxes:
        pixels[int(top) : int(bottom), int(left) : int(right)] = RED
    return Image.fromarray(pixels)


def red(image: Image.Image) -> tuple[int, int, int, int]:
    """The edges of what is red."""
    pixels = np.asarray(image).astype(int)
    return Image.fromarray(((pixels[..., 0] - pixels[..., 1] > 128) * 255).astype(np.uint8)).getbbox()


def white(image: Image.Image) -> int:
    return int((np.asarray(image).min(axis=-1) == 255).sum())


@pytest.mark.parametrize(
    ("size", "to", "box", "shown"),
    [
        ((100, 300), (50, 50), Box(120, 20, 180, 80), Box(100, 0, 200, 100)),
        ((100, 300), (50, 50), Box(10, 20, 60, 80), Box(10, 0, 110, 100)),
        ((100, 300), (50, 50), Box(230, 0, 300, 100), Box(200, 0, 300, 100)),
        ((300, 100), (50, 50), Box(0, 250, 100, 290), Box(0, 190, 100, 290)),
        ((100, 300), (64, 128), Box(0, 20, 60, 80), Box(0, 0, 200, 100)),
        ((100, 300), (50, 50), Box(20, 20, 180, 80), Box(20, -30, 180, 130)),
        ((100, 300), (50, 50), Box(0, 0, 300, 100), Box(0, -100, 300, 200)),
    ],
)
def test_a_crop_moves_or_grows_no_more_than_the_box_asks_for(size, to, box, shown):
    assert window(size, to, [box]) == pytest.approx(shown)
    image = framed(photo(size, box), to, "crop", [box])
    assert image.size == to[::-1]
    (moved,) = framed_boxes([box], size, to, "crop", [box])
    assert moved == pytest.approx(red(image), abs=1.0)
    scale = to[1] / (shown.right - shown.left)
    assert moved.right - moved.left == pytest.approx(scale * (box.right - box.left))
    assert moved.bottom - moved.top == pytest.approx(scale * (box.bottom - box.top))


def test_what_a_crop_shows_beyond_the_photo_is_white_and_nothing_else_is():
    wide = Box(20, 20, 180, 80)
    image = framed(photo((100, 300), wide), (64, 64), "crop", [wide])
    assert white(image) == (64 - 40) * 64  # 100 of 160 rows are the photo's
    assert white(framed(photo((100, 300), wide), (64, 64), "crop")) == 0


def test_several_boxes_are_all_shown():
    boxes = [Box(10, 10, 30, 30), Box(90, 70, 110, 90)]
    assert window((100, 300), (50, 50), boxes) == pytest.approx(Box(10, 0, 110, 100))


def test_without_boxes_or_with_one_in_the_middle_a_crop_is_the_centre():
    plain = photo((90, 200), Box(90, 30, 110, 60))
    kept = framed(plain, (48, 48), "crop", [Box(90, 30, 110, 60)])
    difference = np.asarray(kept).astype(int) - np.asarray(framed(plain, (48, 48), "crop"))
    assert abs(difference).max() <= 1


def test_a_photo_that_is_a_line_has_a_row_of_its_own():
    line = framed(photo((2, 2000)), (64, 64), "crop", [Box(0, 0, 2000, 2)])
    assert white(line) == 63 * 64
