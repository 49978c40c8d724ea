"""A part of a set on disk is a set of its own, with the same files, classes and captions."""

from dataclasses import replace

import pictures
import pytest

from orchard.datasets import folders, sources
from orchard.images.images import TEST, TRAIN


def photo(name: str, label: str, seed: int, **changes):
    data = pictures.encoded(pictures.noise(seed))
    return replace(pictures.photo(name, label, data=data), **changes)


def test_what_is_written_is_read_as_the_same_files_in_their_splits(tmp_path):
    train = pictures.image_set(
        [photo("a b.PNG", "big apple", 0, text="two apples"), photo("c.jpg", "pear", 1)]
    )
    test = train.keep([photo("d", "pear", 2)])
    folders.write(tmp_path / "part", train, test)
    found = sources.load(str(tmp_path / "part"))
    assert found.classes == ("big apple", "pear")
    assert found.of(TRAIN).digest() == train.digest()
    assert found.of(TEST).digest() == test.digest()
    assert [p.text for p in found.of(TRAIN).photos] == ["two apples", None]


@pytest.mark.parametrize("name", ["a/b", ".hidden", "test"])
def test_a_class_that_cannot_be_a_folder_is_refused(tmp_path, name, refused):
    images = pictures.image_set([photo("a.png", name, 0)])
    with refused(repr(name), "rename"):
        folders.write(tmp_path, images, images.keep(()))
