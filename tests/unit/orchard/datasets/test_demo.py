import itertools

import numpy as np
import pytest

from orchard.datasets import demo
from orchard.images.images import TEST, TRAIN, decode, pixels


@pytest.fixture(scope="module")
def images():
    return demo.render()


def test_counts_are_as_announced(images):
    assert images.of(TRAIN).counts() == {"apple": 40, "banana": 40, "orange": 40}
    assert images.of(TEST).counts() == {"apple": 16, "banana": 16, "orange": 16}


def test_every_drawing_is_another_one(images):
    assert len(images.hashes()) == len(images) == len({p.path for p in images.photos})


def test_rendering_again_gives_the_same_bytes(images):
    again = demo.render()
    assert [p.sha256 for p in again.photos] == [p.sha256 for p in images.photos]
    assert again.photos[-1].read() == images.photos[-1].read()


def test_files_are_uncompressed_so_that_hashes_do_not_depend_on_a_codec(images):
    photo = images.photos[0]
    assert photo.path == "train/apple_000.bmp"
    # A BMP of 24-bit pixels: 54 bytes of head, then the rows, bottom first, blue before red.
    rows = np.frombuffer(photo.read()[54:], np.uint8).reshape(demo.SIDE, demo.SIDE, 3)[::-1, :, ::-1]
    assert np.array_equal(rows, np.asarray(decode(photo.read(), photo.path)))


def test_classes_differ_in_colour_and_shape(images):
    means = {
        name: pixels([p for p in images.of(TEST).photos if p.label == name], 32).mean(axis=(0, 1, 2))
        for name in images.classes
    }
    gaps = [np.abs(means[a] - means[b]).max() for a, b in itertools.combinations(images.classes, 2)]
    assert min(gaps) > 8


def test_a_box_holds_the_drawing_and_no_more(images):
    for photo in images.photos:
        (box,) = photo.boxes()
        left, top, right, bottom = map(int, box)
        drawn = (np.asarray(photo.image()) != np.asarray(photo.image())[0, 0]).any(axis=2)
        assert drawn[top:bottom, left:right].sum() == drawn.sum()
        inside = drawn[top:bottom, left:right]
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_notice_travels_with_the_set(images):
    assert images.notes == (demo.NOTICE,)
    assert "say nothing about photos" in demo.NOTICE
