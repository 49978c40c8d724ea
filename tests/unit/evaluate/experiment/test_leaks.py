"""Nothing is scored on an image that it, its generator, a screen or its weights have seen."""

import json
from pathlib import Path

import numpy as np
import pictures
import pytest
from squares import write_images, write_shards

from evaluate.config import Evaluate
from evaluate.experiment import leaks
from evaluate.experiment.image_sets import load
from orchard.classifiers import classifier
from orchard.classifiers.networks import build
from orchard.images.images import sha256


@pytest.fixture
def data(tmp_path) -> Path:
    write_images(tmp_path / "set" / "train", {"x": 4, "y": 4})
    write_images(tmp_path / "set" / "test", {"x": 2, "y": 2}, seed=1)
    return tmp_path / "set"


def digest(path: Path) -> str:
    return sha256(path.read_bytes())


def config(data: Path, **options) -> Evaluate:
    return Evaluate(data=str(data), size=32, **options)


def test_a_generator_that_saw_a_test_image_is_refused_and_the_image_named(data, tmp_path, refused):
    shards = write_shards(tmp_path / "shards", [digest(data / "test" / "y" / "1.png")])
    with refused("its generator has seen 1 test image", "test/y/1.png"):
        load(config(data, synthetic=shards), (0.5,))


def test_a_screen_that_saw_a_test_image_is_refused_and_the_image_named(data, tmp_path, refused):
    shards = write_shards(tmp_path / "shards", [])
    path = shards / "manifest.json"
    seen = {"memorised": [digest(data / "test" / "x" / "0.png")]}
    manifest = json.loads(path.read_text()) | {"screened_with": seen}
    path.write_text(json.dumps(manifest))
    with refused("its screen memorised has seen 1 test image", "test/x/0.png"):
        load(config(data, synthetic=shards), (0.5,))


def test_a_test_image_among_the_synthetic_ones_is_refused(data, tmp_path, refused):
    shards = write_shards(tmp_path / "shards", [])
    from orchard import shards as reader

    planted = reader.read(shards).photos[3]
    (data / "test" / "y" / "again.png").write_bytes(planted.read())
    with refused("among its images", "1 test image", "test/y/again.png"):
        load(config(data, synthetic=shards), (0.5,))


def test_a_test_image_under_another_name_in_training_is_refused(data, refused):
    (data / "train" / "x" / "copy.png").write_bytes((data / "test" / "x" / "1.png").read_bytes())
    with refused("train/x/copy.png", "byte for byte"):
        load(config(data), (1.0,))


def test_an_external_image_that_was_trained_on_is_refused(data, tmp_path, refused):
    external = write_images(tmp_path / "shelf", {"x": 3, "y": 3}, seed=7)
    name = str(external)
    assert load(config(data, external=(name,)), (1.0,)).external[name].counts() == {"x": 3, "y": 3}
    (external / "y" / "2.png").write_bytes((data / "train" / "y" / "0.png").read_bytes())
    with refused("training has seen 1 test image", f"--external {external}", "y/2.png"):
        load(config(data, external=(name,)), (1.0,))


def test_folds_train_on_test_images_so_no_external_set_may_hold_one(data, tmp_path, refused):
    external = write_images(tmp_path / "shelf", {"x": 3, "y": 3}, seed=7)
    (external / "x" / "0.png").write_bytes((data / "test" / "x" / "0.png").read_bytes())
    load(config(data, external=(str(external),)), (1.0,))
    with refused("training has seen 1 test image", "x/0.png"):
        load(config(data, external=(str(external),), folds=2), (1.0,))


def test_an_unknown_external_class_is_refused_and_an_absent_one_counts_zero(data, tmp_path, refused):
    external = write_images(tmp_path / "shelf", {"y": 3}, seed=7)
    assert load(config(data, external=(str(external),)), (1.0,)).external[str(external)].classes == ("x", "y")
    write_images(tmp_path / "more", {"y": 3, "w": 3}, seed=8)
    with refused("--external", "class w", "x, y"):
        load(config(data, external=(str(tmp_path / "more"),)), (1.0,))


@pytest.mark.parametrize("place", ["test", "train"])
def test_weights_of_ours_that_know_too_much_are_refused(data, tmp_path, refused, place):
    seen = digest(data / place / "x" / "0.png")
    header = classifier.Record(
        model="cnn", classes=("x", "y"), size=32, through=None, seed=0, steps=1, data="", trained_on=(seen,)
    )
    classifier.save(tmp_path / "own" / classifier.FILE, build("cnn", 2, 32, 0), header)
    options = {"pretrained": str(tmp_path / "own"), "shots": ("1",)} if place == "train" else {}
    with refused("--pretrained", "has seen 1 test image", "x/0.png"):
        load(config(data, **({"pretrained": str(tmp_path / "own")} | options)), (1.0,))


def test_adapters_of_an_arm_may_know_that_arms_images_alone(refused):
    manifest = {"trained_on": ["a", "b"], "screened_with": {}, "unknown_ledger": []}
    leaks.require_own("arms/1", manifest, {"a", "b", "c"})
    with refused("arms/1", "1 images that are not the arm's"):
        leaks.require_own("arms/1", manifest, {"a", "c"})
    with refused("1 images that are not the arm's"):
        leaks.require_own("arms/1", manifest | {"screened_with": {"memorised": ["d"]}}, {"a", "b"})
    with refused("not recorded"):
        leaks.require_own("arms/1", manifest | {"unknown_ledger": ["apple"]}, {"a", "b"})


def test_copies_of_a_file_stay_in_one_fold():
    from orchard.images.splits import folds

    photos = [pictures.photo(f"{i}", name) for name in ("x", "y") for i in range(12)]
    twin = pictures.photo("twin", "x", data=photos[3].read())
    parts = folds(pictures.image_set([*photos, twin]), 4, 0)
    assert sum(len(part) for part in parts) == len({photo.sha256 for photo in photos})
    assert np.ptp([len(part) for part in parts]) <= 1
