"""Mixtures: how many images of each kind and class, and which."""

import pytest
from pictures import photo

from evaluate.experiment.mixtures import ALL, draw, mix, parse, require_enough


def test_all_are_the_four_mixtures_of_the_report():
    assert parse(("all",)) == [1.0, 0.5, 0.3, 0.0] == list(ALL)


def test_lists_may_be_spaced_or_comma_separated():
    assert parse(("0.3,1", "0.5")) == parse(("1", "0.5", "0.3")) == [1.0, 0.5, 0.3]


@pytest.mark.parametrize("word", ["1.2", "-0.1", "half", "nan"])
def test_a_share_out_of_range_is_refused(word, refused):
    with refused("--ratios", word, "0 to 1"):
        parse((word,))


def test_substitute_keeps_the_total_of_each_class():
    mixture = mix("substitute", 0.3, {"apple": 60, "pear": 50})
    assert mixture.real == {"apple": 18, "pear": 15}
    assert mixture.synthetic == {"apple": 42, "pear": 35}


def test_augment_keeps_every_real_image():
    mixture = mix("augment", 0.25, {"apple": 60, "pear": 50})
    assert mixture.real == {"apple": 60, "pear": 50}
    assert mixture.synthetic == {"apple": 180, "pear": 150}


def test_augment_without_real_images_is_refused(refused):
    with refused("augment", "more than 0"):
        mix("augment", 0.0, {"apple": 5})


@pytest.mark.parametrize(("design", "ratio"), [("substitute", 0.1), ("augment", 0.9), ("substitute", 0.9)])
def test_no_class_is_left_out_of_a_mixture(design, ratio):
    mixture = mix(design, ratio, {"apple": 12, "banana": 12, "plum": 2})
    assert min(mixture.real["plum"], mixture.synthetic["plum"]) == 1
    assert mixture.share == pytest.approx(ratio, abs=0.05)


def test_a_share_that_small_classes_would_miss_is_refused_with_one_that_works(refused):
    pairs = dict.fromkeys(("apple", "banana", "plum"), 2)
    with refused("--ratios 0.1", "50% would be real", "give 0.45"):
        mix("substitute", 0.1, pairs)
    assert mix("substitute", 0.45, pairs).real == dict.fromkeys(pairs, 1)
    with refused("--ratios 0.98", "75% would be real", "give 0.79"):
        mix("augment", 0.98, {"apple": 3, "pear": 3})
    assert mix("augment", 0.79, {"apple": 3, "pear": 3}).share == 6 / 8


def test_the_total_that_a_refusal_names_gives_every_class_an_image(refused):
    classes = {"apple": 12, "banana": 12, "plum": 2}
    with refused("--total 3", "give 7 or more"):
        mix("substitute", 0.0, classes, 3)
    assert mix("substitute", 0.0, classes, 7).synthetic == {"apple": 3, "banana": 3, "plum": 1}


def test_a_larger_total_takes_synthetic_images_alone_where_real_ones_run_out(refused):
    assert mix("substitute", 0.0, {"apple": 50, "pear": 50}, 400).synthetic == {"apple": 200, "pear": 200}
    with refused("--total 400", "200 real apple", "there are 50"):
        mix("substitute", 1.0, {"apple": 50, "pear": 50}, 400)


def test_too_few_synthetic_images_are_named_before_anything_runs(refused):
    mixtures = [mix("substitute", share, {"apple": 10, "pear": 10}) for share in (1.0, 0.0)]
    require_enough([mixture.synthetic for mixture in mixtures], {"apple": 10, "pear": 10}, "shards")
    with refused("9 images of pear", "--count 10"):
        require_enough([mixture.synthetic for mixture in mixtures], {"apple": 10, "pear": 9}, "shards")


def test_a_smaller_draw_lies_in_a_larger_one():
    photos = [photo(f"{name}{i}", name) for name in ("apple", "pear") for i in range(20)]
    small, large = (draw(photos, {"apple": n, "pear": n}, "real", 0) for n in (5, 12))
    assert {p.path for p in small} < {p.path for p in large}
    other = draw(photos, {"apple": 5, "pear": 5}, "real", 1)
    assert {p.path for p in small} != {p.path for p in other}


def test_too_few_synthetic_images_name_a_count_that_is_enough_for_every_class(refused):
    wanted = mix("substitute", 0.0, {"apple": 5, "pear": 8})
    with refused("4 images of apple, the mixtures need 5", "--count 8 or more"):
        require_enough([wanted.synthetic], {"apple": 4, "pear": 4}, "shards")
