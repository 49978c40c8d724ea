"""What is told of a picture is what was drawn, and how it is said."""

import numpy as np
import pytest
from pictures import disc, noise
from PIL import Image

from orchard.images.boxes import Box
from orchard.images.traits import NO, UNSAID, YES, Traits, context, measure, of_image, solidity

RED, GREEN, BLUE, GREY, WHITE = (200, 20, 20), (60, 160, 40), (40, 60, 200), (90, 90, 90), (255, 255, 255)


def scene(*circles) -> np.ndarray:
    """Discs on coloured noise."""
    picture = disc((0, 0, 0), *circles)
    busy = np.asarray(noise(0, (80, 80)))
    return np.where((picture == 0).all(axis=-1, keepdims=True), busy, picture)


@pytest.mark.parametrize(
    ("picture", "boxes", "colours", "said"),
    [
        (disc(WHITE, (40, 40, 36, RED)), [], ("red",), "white background, single, close"),
        (disc(BLUE, (40, 40, 12, GREEN)), [], ("green",), "blue background, single, far"),
        (disc(GREY, (20, 20, 14, RED), (60, 60, 14, GREEN)), [], ("green", "red"),
         "grey background, several, far"),
        (scene((40, 40, 30, RED)), [], ("red",), "scene background"),
        (scene((40, 40, 38, RED)), [(2, 2, 78, 78)], ("red",), "scene background, single, close"),
        (scene((15, 15, 10, GREEN)), [(5, 5, 25, 25)], ("green",), "scene background, single, far"),
        (scene((20, 20, 14, RED), (60, 60, 14, RED)), [(6, 6, 34, 34), (46, 46, 74, 74)], ("red",),
         "scene background, several, far"),
    ],
)  # fmt: skip
def test_what_is_told_of_a_picture_is_what_was_drawn(picture, boxes, colours, said):
    found = measure(picture, [Box(*box) for box in boxes])
    assert (set(found.colours), context(found)) == (set(colours), said)


def test_boxes_go_before_what_a_plain_background_shows():
    touching = disc(WHITE, (40, 28, 13, RED), (40, 53, 13, RED))
    assert measure(touching).single == UNSAID
    assert measure(touching, [Box(15, 27, 41, 53), Box(40, 27, 66, 53)]).single == NO


def test_a_box_around_one_of_two_objects_does_not_make_them_one():
    apart = disc(WHITE, (40, 20, 13, RED), (40, 60, 13, RED))
    touching = disc(WHITE, (40, 28, 13, RED), (40, 53, 13, RED))
    assert measure(apart, [Box(7, 27, 33, 53)]).single == NO
    assert measure(touching, [Box(15, 27, 41, 53)]).single == UNSAID
    assert measure(touching, [Box(15, 27, 66, 53)]).single == YES


def test_the_colour_of_an_object_is_that_inside_its_box():
    found = measure(scene((15, 15, 10, BLUE), (55, 55, 24, RED)), [Box(5, 5, 25, 25)])
    assert found.colours == ("blue",)


def test_what_is_told_does_not_depend_on_the_size_of_the_photo():
    small = Image.fromarray(disc(WHITE, (40, 40, 30, RED), side=80))
    large = small.resize((960, 960), Image.Resampling.NEAREST)
    boxes = [Box(10, 10, 70, 70)]
    assert of_image(large, [Box(*(12 * edge for edge in box)) for box in boxes]) == of_image(small, boxes)


def test_a_busy_border_is_a_scene_and_called_by_the_colour_that_most_of_it_has():
    busy = np.asarray(noise(0, (80, 80)))
    found = measure(busy)
    assert (found.plain, found.ground, found.colours) == (False, "", ())
    leaves = busy.copy()
    leaves[:, :, 1] = 255 - leaves[:, :, 1] // 8
    leaves[:, :, ::2] //= 2
    assert measure(leaves).ground == "green"


def test_what_cannot_be_told_is_not_said():
    assert context(Traits(plain=False, ground="green")) == "scene background"
    assert context(Traits(plain=True, ground="blue", close=YES)) == "blue background, close"


def test_a_disc_fills_its_hull_and_a_ring_does_not():
    whole, hole = (np.all(disc(WHITE, (40, 40, radius, RED)) == RED, axis=-1) for radius in (20, 15))
    assert solidity(whole) > 0.95
    assert solidity(whole & ~hole) < 0.6
