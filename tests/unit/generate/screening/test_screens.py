"""Screens: what they reject, and by what they tell it."""

import json

import numpy as np
import pytest
import stub_sampler
from PIL import Image
from stub_sampler import flat_at, indices, noise, row, rows, shaded

from generate.screening import near_hashes, screens
from orchard import shards


def test_a_flat_image_is_kept_apart_and_replaced_by_the_next_number(tmp_path, generate):
    generate(tmp_path / "s", flat_at(3, 10))
    assert indices(tmp_path / "s") == [0, 1, 2, 4, 5, 6, 7, 8, 9, 11]
    rejected = rows(tmp_path / "s", "rejected")
    assert [(r["index"], r["reason"], r["score"]) for r in rejected] == [(3, "flat", 0), (10, "flat", 0)]
    assert all(r["reason"] == "" and r["score"] is None for r in rows(tmp_path / "s"))
    assert rows(tmp_path / "s")[0]["contrast"] == pytest.approx(
        np.asarray(noise(row(0)).convert("L")).std(), rel=1e-5
    )


def test_without_a_screen_its_images_stand_where_they_were(tmp_path, generate):
    def draw(one):
        return noise(row(2)) if one.index == 5 else flat_at(3, 10)(one)

    generate(tmp_path / "s", draw)
    folder = tmp_path / "s"
    assert indices(folder) == [0, 1, 2, 4, 6, 7, 8, 9, 11, 12]
    assert shards.rejections(shards.read_manifest(folder)) == {"duplicate": 1, "flat": 2}
    assert _numbers(shards.read(folder)) == indices(folder)
    assert _numbers(shards.read_unscreened(folder, "flat")) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert _numbers(shards.read_unscreened(folder, "duplicate")) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 11]
    assert shards.read_unscreened(folder, "memorised").digest() == shards.read(folder).digest()


def _numbers(images):
    return [int(photo.path.removesuffix(".png").rsplit("-", 1)[1]) for photo in images.photos]


def test_of_near_duplicates_the_first_stays(tmp_path, generate):
    def draw(one):
        if one.index in (5, 9):  # the same picture, brighter and in another size
            return noise(row(2)).resize((64, 64)).resize((32, 32)).point(lambda v: min(255, v + 9))
        return noise(one)

    generate(tmp_path / "s", draw)
    assert indices(tmp_path / "s") == [0, 1, 2, 3, 4, 6, 7, 8, 10, 11]
    found = rows(tmp_path / "s", "rejected")
    assert [(r["index"], r["reason"]) for r in found] == [(5, "duplicate"), (9, "duplicate")]
    assert all(0 <= r["score"] <= near_hashes.BITS for r in found)


def test_duplicates_are_searched_within_a_class(tmp_path, generate):
    generate(tmp_path / "s", lambda one: noise(row(one.index)), classes=("apple", "pear"))
    assert indices(tmp_path / "s") == [*range(10), *range(10)]


def test_a_verdict_on_duplicates_depends_on_earlier_images_alone():
    generator = np.random.default_rng(0)
    centres = generator.integers(0, 2**63, 30, dtype=np.uint64)
    flips = np.uint64(1) << generator.integers(0, 64, (400, 3)).astype(np.uint64)
    numbers = centres[generator.integers(0, 30, 400)] ^ np.bitwise_xor.reduce(flips, axis=1)
    found = near_hashes.find(numbers)
    staying: list[int] = []
    for place, number in enumerate(numbers):  # by the definition, one pair after the other
        if all(bin(int(number) ^ int(numbers[other])).count("1") > near_hashes.BITS for other in staying):
            staying.append(place)
    assert sorted(set(range(400)) - set(found)) == staying
    assert 30 <= len(staying) < 300
    assert {k: v for k, v in found.items() if k < 100} == near_hashes.find(numbers[:100])


def test_among_more_images_than_are_looked_at_together_the_verdicts_are_the_same(monkeypatch):
    generator = np.random.default_rng(1)
    flips = np.uint64(1) << generator.integers(0, 64, (300, 5)).astype(np.uint64)
    numbers = np.uint64(2**40 - 1) ^ np.bitwise_xor.reduce(flips, axis=1)
    whole = near_hashes.find(numbers)
    assert 100 < len(whole) < 300
    for block, pairs in ((1, 1), (7, 50), (64, 2**20)):
        monkeypatch.setattr(near_hashes, "BLOCK", block)
        monkeypatch.setattr(near_hashes, "PAIRS", pairs)
        assert near_hashes.find(numbers) == whole


def test_a_copy_of_a_training_image_is_rejected_and_test_images_stay_unseen(tmp_path, generate, photos):
    def draw(one):
        path = {2: "train/pear/1.png", 4: "test/apple/1.png"}.get(one.index)
        if path is None:
            return noise(one)
        return Image.open(photos / path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((32, 32))

    generate(tmp_path / "s", draw, screens=("memorised",))
    found = rows(tmp_path / "s", "rejected")
    assert [(r["index"], r["reason"]) for r in found] == [(2, "memorised")]
    # Enlarging the copy and reducing it again blurs it a little; noise is about 1 away.
    assert found[0]["score"] < 0.1 < 0.5 < rows(tmp_path / "s")[0]["nearest_train"]
    seen = set(json.loads((tmp_path / "s" / "manifest.json").read_text())["screened_with"]["memorised"])
    files = {split: {digest(p) for p in (photos / split).rglob("*.png")} for split in ("train", "test")}
    assert seen == files["train"] and not seen & files["test"]


def digest(path):
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return stub_sampler.classifier(tmp_path_factory.mktemp("classifier"))


def test_what_a_classifier_takes_for_another_class_is_rejected(tmp_path, generate, classifier):
    options = {"screens": ("off_class",), "screen_classifier": classifier / "c"}
    generate(tmp_path / "s", lambda one: shaded(one.seed, 190 * (one.index in (1, 7))), **options)
    found = rows(tmp_path / "s", "rejected")
    assert [(r["index"], r["reason"]) for r in found] == [(1, "off_class"), (7, "off_class")]
    assert all(r["score"] < 0 for r in found)
    assert all(0 <= r["class_margin"] <= 1 for r in rows(tmp_path / "s"))
    seen = shards.read_manifest(tmp_path / "s")["screened_with"]["off_class"]
    assert set(seen) == {digest(p) for p in (classifier / "photos" / "train").rglob("*.png")}


def test_the_experiment_refuses_a_set_whose_screen_has_seen_a_test_image(
    tmp_path, generate, classifier, refused
):
    from evaluate.config import Evaluate
    from evaluate.experiment.image_sets import load
    from evaluate.experiment.mixtures import parse

    options = {"screens": ("off_class",), "screen_classifier": classifier / "c"}
    draw = lambda one: shaded(one.seed, 190 * (one.label == "pear"))  # noqa: E731
    generate(tmp_path / "s", draw, classes=("apple", "pear"), **options)
    # A set whose test images are the ones that the classifier was trained on.
    for split, other in (("train", "test"), ("test", "train")):
        (tmp_path / "swapped").mkdir(exist_ok=True)
        (tmp_path / "swapped" / split).symlink_to(classifier / "photos" / other)
    config = Evaluate(data=str(tmp_path / "swapped"), synthetic=str(tmp_path / "s"))
    with refused("its screen off_class has seen 16 test images", "apple/"):
        load(config, parse(("0.5",)))
    assert load(Evaluate(data=str(classifier / "photos"), synthetic=str(tmp_path / "s")), parse(("0.5",)))


def test_a_dry_run_names_the_screens(tmp_path, generate, capsys):
    generate(tmp_path / "s", screens=("memorised", "flat"), dry_run=True)
    assert "screens   flat, memorised; rejected" in capsys.readouterr().out
    generate(tmp_path / "s", screens=("none",), dry_run=True)
    assert "screens   none\n" in capsys.readouterr().out


def test_other_screens_for_a_class_that_is_there_are_refused(tmp_path, generate, refused):
    generate(tmp_path / "s")
    with refused("apple is there with screens", "flat"):
        generate(tmp_path / "s", screens=("none",))


def test_without_screens_nothing_is_rejected(tmp_path, generate):
    generate(tmp_path / "s", flat_at(3), screens=("none",))
    assert indices(tmp_path / "s") == list(range(10))
    assert not list((tmp_path / "s").rglob("*rejected*"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"screens": ("none", "flat")}, "--screens none"),
        ({"screens": ("off_class",)}, "--screen_classifier"),
        ({"screens": ("flat", "flat")}, "flat is given twice"),
        ({"reject_limit": -1.0}, "--reject_limit -1"),
    ],
)
def test_screens_that_do_not_go_together_are_refused(tmp_path, generate, refused, options, word):
    with refused(word):
        generate(tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_contrast_is_the_spread_of_grey_levels():
    halves = np.zeros((4, 4, 3), np.uint8)
    halves[:2] = 100
    assert screens.contrast(Image.fromarray(halves)) == 50
