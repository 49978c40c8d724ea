"""The classify command: sets, refusals, and what lies in the output folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from squares import write_images, write_shards

from classify import image_sets
from classify.command import classify, score
from classify.config import Classify
from orchard import devices
from orchard.classifiers import classifier
from orchard.classifiers.networks import build
from orchard.classifiers.predict import probabilities
from orchard.datasets import sources
from orchard.errors import UserError
from orchard.images import arrays
from orchard.images.images import sha256


@pytest.fixture
def root(tmp_path):
    """The set of P07: no image of class x in the test folder."""
    write_images(tmp_path / "set" / "train", {"x": 4, "y": 4, "z": 4})
    write_images(tmp_path / "set" / "test", {"y": 2, "z": 3}, seed=1)
    return tmp_path / "set"


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    monkeypatch.setattr(devices, "torch_dtype", lambda precision, device: torch.float32)


def config(tmp_path: Path, train, test, **options) -> Classify:
    small = {"steps": 30, "batch_size": 8, "size": 32, "output": tmp_path / "out"}
    return Classify(train=str(train), test=str(test), **(small | options))


def test_class_missing_from_the_test_folder_keeps_every_name_in_place(tmp_path, root):
    classify(config(tmp_path, root, root))
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["accuracy"] == 1.0
    assert scores["classes"]["x"] == {"images": 0, "right": 0, "recall": None}
    assert scores["classes"]["z"] == {"images": 3, "right": 3, "recall": 1.0}
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").open()]
    assert sorted(line["truth"] for line in lines) == ["y", "y", "z", "z", "z"]
    for line in lines:
        assert list(line["probabilities"]) == ["x", "y", "z"]
        assert max(line["probabilities"], key=line["probabilities"].get) == line["truth"]
        assert sum(line["probabilities"].values()) == pytest.approx(1)


def test_images_on_disk_give_the_classifier_and_the_scores_of_those_in_memory(tmp_path, root, monkeypatch):
    for place, share in (("memory", arrays.SHARE), ("disk", 0)):
        monkeypatch.setattr(arrays, "SHARE", share)
        classify(config(tmp_path, root, root, steps=3, validation="real", output=tmp_path / place))
    memory, disk = (load_file(tmp_path / place / "model.safetensors") for place in ("memory", "disk"))
    assert memory.keys() == disk.keys() and all(memory[name].equal(disk[name]) for name in memory)
    memory, disk = ((tmp_path / place / "predictions.jsonl").read_text() for place in ("memory", "disk"))
    assert memory == disk


def test_separate_test_folder_without_a_split_is_scored_whole_and_by_name(tmp_path, root):
    found = image_sets.load(config(tmp_path, root, root / "test"))
    assert found.test.classes == ("x", "y", "z")
    assert found.test.counts() == {"x": 0, "y": 2, "z": 3}
    assert sorted(found.test.labels()) == [1, 1, 2, 2, 2]


def test_unknown_test_class_is_refused_by_name(tmp_path, root):
    other = write_images(tmp_path / "other", {"y": 1, "z": 1, "w": 1}, seed=2)
    with pytest.raises(UserError, match=r"--test .*other: class w is not in --train .*x, y, z"):
        classify(config(tmp_path, root, other))
    assert not (tmp_path / "out").exists()


def test_set_without_a_test_split_is_scored_on_its_held_out_images(tmp_path):
    folder = write_images(tmp_path / "plain", {"x": 10, "y": 10})
    found = image_sets.load(config(tmp_path, folder, f"{folder}/"))
    held_out = {p.sha256 for p in sources.load(str(folder)).photos if p.split == "test"}
    assert found.test.hashes() == held_out and len(held_out) == 4
    assert not found.train.hashes() & held_out


def test_test_image_in_the_training_set_is_refused_and_named(tmp_path, root):
    copy = write_images(tmp_path / "copy", {"y": 2, "z": 3}, seed=1)
    (copy / "y" / "0.png").write_bytes((root / "train" / "y" / "1.png").read_bytes())
    with pytest.raises(UserError, match=r"has seen 1 test image, e.g. y/0.png"):
        image_sets.load(config(tmp_path, root, copy))


def test_shards_train_whole_and_pass_their_ledger_on(tmp_path, root):
    behind = sha256((root / "train" / "x" / "0.png").read_bytes())
    test = write_images(tmp_path / "test", {"x": 1, "y": 2}, seed=5)
    folder = write_shards(tmp_path / "shards", [behind])
    found = image_sets.load(config(tmp_path, folder, test, size=64))
    assert found.train.counts() == {"x": 5, "y": 5}
    assert found.seen == {behind}
    assert (found.sizes.size, found.sizes.through) == (64, 16)


def test_test_image_behind_the_generator_is_refused_and_named(tmp_path):
    test = write_images(tmp_path / "test", {"x": 1, "y": 2}, seed=5)
    seen = sha256((test / "y" / "1.png").read_bytes())
    folder = write_shards(tmp_path / "shards", [seen])
    with pytest.raises(UserError, match=r"has seen 1 test image, e.g. y/1.png"):
        image_sets.load(config(tmp_path, folder, test))


def test_unfinished_shards_do_not_pass_for_real_images(tmp_path, root):
    folder = write_shards(tmp_path / "shards", [])
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="not complete"):
        image_sets.load(config(tmp_path, folder, root))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": ""}, "--train is missing.*--train fruit"),
        ({"test": ""}, "--test is missing"),
        ({"size": 16}, "--size 16: use 32"),
        ({"steps": 0}, "--steps 0"),
        ({"batch_size": 1}, "--batch_size 1"),
        ({"learning_rate": float("nan")}, "--learning_rate nan"),
        ({"model": "resnet81"}, "--model resnet81"),
        ({"train": "nowhere"}, "--train nowhere: no such folder"),
    ],
)
def test_wrong_options_are_refused_in_one_line(tmp_path, root, options, message):
    with pytest.raises(UserError, match=message):
        classify(config(tmp_path, **({"train": root, "test": root} | options)))
    assert not (tmp_path / "out").exists()


def test_class_with_a_single_image_is_named(tmp_path, root):
    for index in range(1, 4):
        (root / "train" / "x" / f"{index}.png").unlink()
    with pytest.raises(UserError, match="class x has 1 image"):
        classify(config(tmp_path, root, root))


def test_half_an_image_is_named_before_any_training(tmp_path, root):
    path = root / "train" / "x" / "0.png"
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(UserError, match=r"x/0.png: not a whole image"):
        classify(config(tmp_path, root, root))


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, root, capsys):
    classify(config(tmp_path, root, root, dry_run=True))
    printed = capsys.readouterr().out
    assert "x 4, y 4, z 4" in printed and "x 0, y 2, z 3" in printed and "30 steps of 8" in printed
    assert not (tmp_path / "out").exists()


def test_diverging_training_is_one_line_and_saves_nothing(tmp_path, root, monkeypatch):
    def diverge(*_):
        raise FloatingPointError("loss is nan at step 3 of 30")

    monkeypatch.setattr("classify.command.fit", diverge)
    with pytest.raises(UserError, match="step 3 of 30; use a lower --learning_rate"):
        classify(config(tmp_path, root, root))
    assert not list((tmp_path / "out").iterdir())


def test_recall_of_an_absent_class_is_undefined():
    predicted = np.array([[0.1, 0.9, 0.0], [0.6, 0.4, 0.0], [0.2, 0.8, 0.0], [0.9, 0.1, 0.0]])
    found = score(predicted, np.array([1, 1, 1, 0]), ("a", "b", "c"))
    assert found["accuracy"] == 0.75 and found["right"] == 3
    assert found["classes"]["b"] == {"images": 3, "right": 2, "recall": pytest.approx(2 / 3)}
    assert found["classes"]["c"] == {"images": 0, "right": 0, "recall": None}


def record(**changes) -> classifier.Record:
    values = {"model": "cnn", "classes": ("x", "y"), "size": 32, "through": 16, "seed": 3, "steps": 5}
    return classifier.Record(**(values | {"data": "set", "trained_on": ("ab", "cd")} | changes))


def test_saved_classifier_comes_back_the_same(tmp_path):
    model = build("cnn", 2, 32, seed=7).eval()
    classifier.save(tmp_path / classifier.FILE, model, record(validation_accuracy=0.5))
    loaded, found = classifier.load(tmp_path)
    assert found == record(validation_accuracy=0.5) == classifier.read(tmp_path / classifier.FILE)
    assert found.versions["torch"] == torch.__version__.split("+")[0]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    cpu = torch.device("cpu")
    first, again = (probabilities(m, pixels, cpu, torch.float32) for m in (model, loaded))
    assert (first == again).all() and not loaded.training
    assert [path.name for path in tmp_path.iterdir()] == [classifier.FILE]


def test_saved_classifier_lists_every_real_image_it_was_trained_on(tmp_path, root):
    classify(config(tmp_path, root, root, steps=2))
    expected = {sha256(path.read_bytes()) for path in root.glob("train/*/*.png")}
    assert set(classifier.read(tmp_path / "out").trained_on) == expected and len(expected) == 12


def test_classes_are_compared_by_name():
    classifier.require_classes(record(), ["y"])
    with pytest.raises(UserError, match="class w is unknown to the classifier, which has x, y"):
        classifier.require_classes(record(), ["y", "w"])


def test_files_that_are_no_classifier_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(UserError, match="no such classifier"):
        classifier.load(tmp_path)
    (tmp_path / classifier.FILE).write_bytes(b"half")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        classifier.load(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / classifier.FILE)
    with pytest.raises(UserError, match="no `orchard` header"):
        classifier.load(tmp_path)
    classifier.save(tmp_path / classifier.FILE, build("cnn", 2, 32, 0), record(schema=99))
    with pytest.raises(UserError, match="newer version"):
        classifier.load(tmp_path)
    classifier.save(tmp_path / classifier.FILE, build("cnn", 2, 32, 0), record(classes=("x", "y", "z")))
    with pytest.raises(UserError, match="do not fit cnn"):
        classifier.load(tmp_path)
