"""What is odd about photos is found: copies, wrong labels, blurred, dark, ill-sized and damaged ones."""

from dataclasses import replace
from functools import partial

import numpy as np
import pictures
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from orchard.datasets import demo
from orchard.images import splits
from orchard.images.images import sha256
from review import checks, mislabels


def altered(photo, change, **more):
    """The photo with its picture changed."""
    data = pictures.encoded(change(photo.image()))
    return replace(photo, sha256=sha256(data), read=partial(bytes, data), annotations=(), **more)


def examine(images):
    found = checks.examine(images, mislabels.colours_and_edges, lambda n: None)
    assert [item.name for item in found.items] == [photo.path for photo in images.photos]
    return found


def kinds(item):
    return {finding.kind for finding in item.findings}


@pytest.fixture(scope="module")
def planted():
    """The demo set with faults, and what they are by the number of the photo."""
    images = splits.separate(demo.render())
    photos = list(images.photos)
    labels = [photo.label for photo in photos]
    rng = np.random.default_rng(1)
    numbers = rng.permutation(len(photos))
    wanted = {}
    for number in numbers[:6]:
        others = [name for name in images.classes if name != labels[number]]
        photos[number] = replace(photos[number], label=others[rng.integers(2)])
        wanted[int(number)] = "mislabel"
    for number in numbers[6:12]:
        photos[number] = altered(photos[number], lambda image: image.filter(ImageFilter.GaussianBlur(4)))
        wanted[int(number)] = "blurred"
    for number in numbers[12:18]:
        photos[number] = altered(photos[number], lambda image: ImageEnhance.Brightness(image).enhance(0.2))
        wanted[int(number)] = "dark"
    for number in numbers[18:21]:
        photos[number] = altered(photos[number], lambda image: image.resize((20, 20)))
        wanted[int(number)] = "size"
    photos[numbers[21]] = replace(photos[numbers[21]], read=lambda: b"no image")
    wanted[int(numbers[21])] = "damaged"
    mirrored = partial(Image.Image.transpose, method=Image.Transpose.FLIP_LEFT_RIGHT)
    for place, (name, split, kind) in enumerate(
        [("apple", "train", "copy"), ("orange", "train", "copy in class"), ("apple", "test", "copy in split")]
    ):
        source = next(
            photos[n]
            for n in numbers[22 + 10 * place :]
            if photos[n].label == "apple" and photos[n].split == "train"
        )
        photos.append(altered(source, mirrored, path=f"copy{place}.png", label=name, split=split))
        wanted[len(photos) - 1] = kind
    return images.keep(photos), wanted


def test_planted_faults_are_found_and_hardly_anything_else(planted):
    images, wanted = planted
    found = examine(images).items
    missed = [kind for n, kind in wanted.items() if kind not in kinds(found[n])]
    assert missed in ([], ["mislabel"])
    # What the rule leaves out, the order by margin still shows first.
    margins = {n: item.measures["margin"] for n, item in enumerate(found) if "margin" in item.measures}
    first = sorted(margins, key=margins.__getitem__)[:10]
    assert {n for n, kind in wanted.items() if kind == "mislabel"} <= set(first)
    mates = {one.other for n in wanted for one in found[n].findings if one.other is not None}
    innocent = set(range(len(found))) - wanted.keys() - mates
    assert sum(bool(found[n].findings) for n in innocent) <= 2


def test_a_clean_set_has_nothing_to_find():
    found = examine(splits.separate(demo.render()))
    assert not [item.name for item in found.items if item.findings]
    assert all(item.measures["margin"] > 0 for item in found.items)
    assert set(found.thumbnails) == set(range(168))


def test_findings_do_not_depend_on_how_many_photos_are_looked_at_together(planted, monkeypatch):
    images, _ = planted
    at_once, found = [], []

    def features(photos, small):
        at_once.append(len(photos))
        return mislabels.colours_and_edges(photos, small)

    for block in (7, 1000):
        monkeypatch.setattr(checks, "BLOCK", block)
        found.append(checks.examine(images, features, lambda n: None))
        assert max(at_once) <= block
    assert found[0].items == found[1].items
    assert found[0].thumbnails == found[1].thumbnails
    few = images.keep(images.photos[:10])
    monkeypatch.setattr(checks, "MOST_THUMBNAILS", 8)
    monkeypatch.setattr(checks, "BLOCK", 4)
    assert set(examine(few).thumbnails) == set(range(8))


def test_copies_are_named_on_both_sides_and_within_a_class_on_the_later_one(planted):
    images, wanted = planted
    found = examine(images).items
    for number, kind in wanted.items():
        if kind.startswith("copy"):
            (finding,) = (one for one in found[number].findings if one.kind == kind)
            assert found[finding.other].name in finding.text
            mate = [one.other for one in found[finding.other].findings if one.kind == kind]
            assert mate == ([] if kind == "copy" else [number])


def test_the_rule_of_confident_learning_by_hand():
    """Three classes; thresholds are 0.7, 0.5 and 0.6."""
    probabilities = np.array(
        [[0.9, 0.1, 0.0], [0.5, 0.45, 0.05], [0.2, 0.7, 0.1], [0.7, 0.3, 0.0], [0.1, 0.3, 0.6]]
    )
    labels = np.array([0, 0, 1, 1, 2])
    assert mislabels.suspects(probabilities, labels) == {3: 0}
    assert mislabels.margins(probabilities, labels) == pytest.approx([0.8, 0.05, 0.5, -0.4, 0.3])


def test_a_class_of_one_photo_has_no_mislabels_to_tell():
    images = pictures.numbered({"apple": 4, "pear": 1})
    features = np.random.default_rng(0).normal(size=(5, 3))
    assert mislabels.out_of_fold(features, images) is None


def test_no_photo_has_a_part_in_what_is_thought_of_it():
    """With labels drawn by chance, a classifier that had seen them would know them."""
    images = pictures.numbered({"apple": 60, "pear": 60})
    features = np.random.default_rng(0).normal(size=(120, 200))
    found = mislabels.out_of_fold(features, images)
    assert abs((found.argmax(axis=1) == images.labels()).mean() - 0.5) < 0.15


def test_blur_is_that_of_the_paper_at_its_ends():
    rng = np.random.default_rng(0)
    assert checks.blur(np.full((50, 50), 7.0)) == 0
    sharp = rng.integers(0, 256, (200, 200)).astype(float)
    ramp = np.tile(np.linspace(0, 255, 200), (200, 1))
    assert checks.blur(sharp) < 0.2 and checks.blur(ramp) > 0.9
