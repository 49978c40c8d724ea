import itertools
import random
from dataclasses import replace

import pytest
from pictures import image_set, numbered, photo

from orchard.images.images import TEST, TRAIN
from orchard.images.splits import hold_out, ranked, require_split, separate, stable_hash, subset, validation


def test_hold_out_is_stratified():
    images = numbered({"apple": 50, "fig": 10, "pear": 5})
    chosen = hold_out(images, 0.2, "test")
    assert images.keep(p for p in images.photos if p.sha256 in chosen).counts() == {
        "apple": 10,
        "fig": 2,
        "pear": 1,
    }


def test_hold_out_depends_on_contents_alone():
    images = numbered({"apple": 30, "pear": 20})
    renamed = [replace(p, path=f"other/{i}.png") for i, p in enumerate(images.photos)]
    random.Random(1).shuffle(renamed)
    assert hold_out(images.keep(renamed), 0.2, "test") == hold_out(images, 0.2, "test")


def test_hold_out_changes_with_its_salt():
    images = numbered({"apple": 30})
    assert hold_out(images, 0.2, "a") != hold_out(images, 0.2, "b")


def test_copies_stay_on_one_side():
    copies = [photo(f"apple/{i}-{n}", "apple", data=b"%d" % i) for i in range(10) for n in range(3)]
    images = separate(image_set(copies))
    train, test = images.of(TRAIN), images.of(TEST)
    assert not train.hashes() & test.hashes()
    assert (len(train), len(test)) == (24, 6)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.99])
def test_every_class_is_on_both_sides(share):
    images = numbered({"apple": 4, "fig": 2, "pear": 4})
    held = hold_out(images, share, "test")
    assert all(images.keep(p for p in images.photos if p.sha256 in held).counts().values())
    assert all(images.keep(p for p in images.photos if p.sha256 not in held).counts().values())


def test_ten_percent_of_four_images_is_one_a_class():
    assert len(hold_out(numbered({"apple": 4, "pear": 4, "plum": 4}), 0.1, "test")) == 3


def test_single_image_trains_and_is_never_tested():
    images = separate(numbered({"apple": 4, "pear": 4, "plum": 1}))
    assert images.of(TRAIN).counts()["plum"] == 1
    assert images.of(TEST).counts() == {"apple": 1, "pear": 1, "plum": 0}


@pytest.mark.parametrize(("count", "said"), [(1, "1 image "), (0, "0 images ")])
def test_class_too_small_to_split_is_named(count, said, refused):
    images = separate(numbered({"apple": 4, "pear": 4, "plum": count}))
    with refused(f"class plum has {said}in training, needs at least 2"):
        require_split(images)


def test_copies_of_one_file_are_no_two_images(refused):
    images = separate(numbered({"apple": 4, "pear": 4}))
    copies = [replace(p, sha256="0" * 64) if p.label == "pear" else p for p in images.photos]
    with refused("class pear has", "all copies of one file", "at least two that differ"):
        require_split(images.keep(replace(photo, split=TRAIN) for photo in copies))


def test_set_without_a_test_split_says_that_it_gets_one():
    images = separate(numbered({"apple": 10}, split=""))
    assert (len(images.of(TRAIN)), len(images.of(TEST))) == (8, 2)
    assert images.notes == ("no test split found: 20% of each class held out for test by content hash",)


def test_own_test_split_is_kept():
    images = image_set([photo("1", "x"), photo("2", "x", TEST), photo("3", "x", "")])
    assert [p.split for p in separate(images).photos] == [TRAIN, TEST, TRAIN]


def test_test_image_is_left_out_of_training_with_a_note():
    images = image_set([photo("train/1", "x", data=b"same"), photo("2", "x"), photo("3", "x", TEST, b"same")])
    result = separate(images)
    assert [(p.path, p.split) for p in result.photos] == [("2", TRAIN), ("3", TEST)]
    assert result.notes == ("left 1 out of training, being in the test split too: train/1",)


def test_long_list_of_shared_images_is_cut():
    twins = [photo(f"{split}/{i}", "x", split, b"%d" % i) for split in (TRAIN, TEST) for i in range(7)]
    (note,) = separate(image_set(twins)).notes
    assert note.startswith("left 7 out of training")
    assert note.endswith("train/4, …")


def test_file_under_two_classes_is_noted():
    images = image_set([photo("x/1", "x", data=b"same"), photo("y/1", "y", data=b"same"), photo("y/2", "y")])
    assert "1 images also stand under another class, byte for byte: y/1" in separate(images).notes


def test_unknown_class_in_the_test_split_is_refused_by_name(refused):
    known = [photo(name, name) for name in "xyz"]
    with refused("class w is in the test split", "training has x, y, z"):
        separate(image_set([*known, *(photo(f"test {name}", name, TEST) for name in "yzw")]))


def test_test_split_alone_is_refused(refused):
    with refused("class x, y", "training has none at all"):
        separate(numbered({"x": 1, "y": 1}, TEST))


def test_validation_is_drawn_from_training_and_covers_it():
    images = separate(numbered({"apple": 25, "pear": 25}))
    rest, held = validation(images.of(TRAIN), seed=3)
    assert rest.hashes() | held.hashes() == images.of(TRAIN).hashes()
    assert not rest.hashes() & held.hashes()
    assert not images.of(TEST).hashes() & (rest.hashes() | held.hashes())
    assert held.counts() == {"apple": 2, "pear": 2}  # a tenth of 20 training images


def test_validation_refuses_to_see_test_images():
    with pytest.raises(AssertionError, match="apple/0"):
        validation(numbered({"apple": 5}, TEST), seed=0)


def test_another_seed_draws_another_validation_set():
    images = numbered({"apple": 40})
    assert validation(images, 0)[1].hashes() == validation(images, 0)[1].hashes()
    assert validation(images, 0)[1].hashes() != validation(images, 1)[1].hashes()


def test_smaller_subset_lies_in_a_larger_one():
    photos = numbered({"apple": 16}).photos
    drawn = [subset(photos, count, "shots", 0) for count in (1, 2, 4, 8, 16)]
    for small, large in itertools.pairwise(drawn):
        assert large[: len(small)] == small


def test_subset_cannot_be_larger_than_the_set():
    with pytest.raises(AssertionError, match=r"\(3, 2\)"):
        subset(numbered({"apple": 2}).photos, 3)


def test_rank_does_not_depend_on_order():
    photos = list(numbered({"apple": 20}).photos)
    assert ranked(reversed(photos), "salt") == ranked(photos, "salt")
    assert ranked(photos, "salt") != ranked(photos, "pepper")


def test_stable_hash_is_the_documented_number():
    # printf 'a\x1f1' | sha256sum | cut -c1-16, shifted right by one bit
    assert stable_hash("a", 1) == 0x839E11A421D370BE >> 1
    assert stable_hash("a", 1) == stable_hash("a", "1") != stable_hash("a1")
    assert 0 <= stable_hash("b") < 2**63
