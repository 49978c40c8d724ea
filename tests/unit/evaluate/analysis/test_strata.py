"""Kinds of test images, and the accuracy on each."""

import numpy as np
import pytest
from PIL import Image
from runs import run, wrong_at

from evaluate.analysis.intervals import wilson
from evaluate.analysis.strata import accuracies, background, describe, shape
from orchard.datasets import sources

BOX = (
    "<object><name>apple</name><bndbox>"
    "<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object>"
)


def scene(border, size=(200, 100)):
    pixels = np.full((size[1], size[0], 3), border, np.uint8)
    pixels[20:80, 40:160] = (200, 20, 20)
    return Image.fromarray(pixels)


def test_background_is_told_by_the_border_alone():
    assert background(scene(255)) == "white"
    assert background(scene(235)) == "white"
    assert background(scene(180)) == "scene"
    assert background(Image.fromarray(np.full((90, 90, 3), (255, 255, 90), np.uint8))) == "scene"


def test_an_object_may_cross_the_border_of_a_white_image():
    pixels = np.array(scene(255))
    pixels[:, 160:] = (200, 20, 20)
    assert background(Image.fromarray(pixels)) == "white"


def test_an_image_is_long_from_seven_fifths_on_either_way():
    sizes = [(140, 100), (100, 140), (139, 100), (100, 100)]
    assert [shape(scene(255).resize(size)) for size in sizes] == ["long", "long", "compact", "compact"]


def test_kinds_of_a_set_come_from_its_images_and_its_boxes(tmp_path):
    for label in ("apple", "pear"):
        for i, border in enumerate((255, 120)):
            folder = tmp_path / label
            folder.mkdir(exist_ok=True)
            scene(border).save(folder / f"{i}.png")
    (tmp_path / "apple" / "0.xml").write_text(f"<annotation>{BOX}</annotation>")
    (tmp_path / "apple" / "1.xml").write_text(f"<annotation>{BOX}{BOX}</annotation>")
    (tmp_path / "pear" / "0.xml").write_text("<annotation><object>")
    assert describe(sources.load(str(tmp_path)).photos) == {
        "apple/0.png": {"background": "white", "objects": "one", "shape": "long"},
        "apple/1.png": {"background": "scene", "objects": "several", "shape": "long"},
        "pear/0.png": {"background": "white", "shape": "long"},
        "pear/1.png": {"background": "scene", "shape": "long"},
    }


def test_accuracy_of_each_kind_is_a_mean_over_runs_and_its_interval_counts_images():
    records = [run(wrong_at(10, 0), seed=0), run(wrong_at(10, 0, 4, 5), seed=1)]
    strata = {f"test/{i}.jpg": {"background": "white" if i < 4 else "scene"} for i in range(9)}
    white, in_scene = (one for one in accuracies(records, strata) if one.what != "class")
    assert (white.kind, white.images, white.accuracy.mean) == ("white", 4, pytest.approx(6 / 8))
    assert (in_scene.kind, in_scene.images, in_scene.accuracy.mean) == ("scene", 5, pytest.approx(8 / 10))
    assert white.interval == pytest.approx(wilson(3, 4))
    assert in_scene.interval == (0.0, 1.0)  # two seeds, 3 and 5 of 5 right


def test_kinds_that_no_test_image_has_are_left_out():
    assert {one.what for one in accuracies([run(wrong_at(3))], {})} == {"class"}


def test_recall_of_a_class_and_its_change_count_the_images_of_the_class_alone():
    records = [run(wrong_at(10, 0)), run(wrong_at(10, 3, 6, 1), ratio=0.3)]
    apple, banana, orange = (one for one in accuracies(records, {}) if one.arm.ratio < 1)
    assert [one.images for one in (apple, banana, orange)] == [4, 3, 3]
    assert apple.accuracy.mean == pytest.approx(2 / 4)
    assert apple.interval == pytest.approx(wilson(2, 4))
    # Of four images one is better and two are worse. Bonett and Price add one of either.
    assert apple.points == pytest.approx(-25)
    mean, squares = (2 - 3) / 6, (2 + 3) / 6
    half = 1.959964 * ((squares - mean**2) / 6) ** 0.5
    assert apple.change == pytest.approx((100 * (mean - half), 100 * (mean + half)))
    assert (orange.points, banana.points) == (0.0, pytest.approx(-100 / 3))
