"""A label is a place in a list of classes: wherever two lists meet, classes agree by name or are refused."""

import json
from pathlib import Path

import datasets
import loras
import numpy as np
import pictures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from runs import run as record
from runs import wrong_at

from classify.config import Classify
from classify.image_sets import load as classify_sets
from evaluate.config import Evaluate
from evaluate.experiment.image_sets import load as evaluate_sets
from evaluate.report.html_page import require_records
from generate.config import Generate
from generate.planning.jobs import jobs
from generate.screening.screens import Screens, plan
from mini import data as mini_data
from orchard import shards
from orchard.classifiers import classifier
from orchard.classifiers.networks import build
from orchard.classifiers.predict import probabilities
from orchard.datasets import sources
from orchard.images.images import decode

COLOURS = {"apple": (200, 0, 0), "kiwi": (0, 120, 0), "pear": (200, 200, 0)}
LISTS = (("apple", "pear"), ("pear", "apple"))
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def square(label: str, seed: int) -> dict:
    """The cell of an image in the colour of its class, and like no other."""
    image = pictures.noise(seed, (16, 16)).point(lambda value: value // 8)
    image = Image.fromarray(np.asarray(image) + np.array(COLOURS[label], np.uint8))
    return {"bytes": pictures.encoded(image), "path": f"{label}-{seed}.png"}


def table(names: tuple[str, ...], seed: int, count: int = 4) -> datasets.Dataset:
    """So many images of each class, labelled by places in ``names``."""
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(names)))
    rows = [
        {"image": square(label, seed + 2 * k + names.index(label)), "label": names.index(label)}
        for label in sorted(names)
        for k in range(count)
    ]
    return datasets.Dataset.from_list(rows, features=features)


def colour_of(photo) -> str:
    """The class that the pixels of a photo are of."""
    mean = np.asarray(decode(photo.read(), photo.path)).reshape(-1, 3).mean(0)
    return min(COLOURS, key=lambda name: np.abs(mean - COLOURS[name]).sum())


def adapters(folder: Path, base: Path, classes: tuple[str, ...], *names: str) -> list[str]:
    """Files of the classes called ``names``, of a real set with the class list ``classes``."""
    folder.mkdir()
    found = loras.trained(folder, base, list(classes))
    return [found[name] for name in names]


OTHERS = [("kiwi", "lemon"), ("pear", "apple"), ("apple", "kiwi", "pear")]


@pytest.mark.parametrize("other", OTHERS, ids=str)
@pytest.mark.parametrize("fuse", [False, True])
def test_adapters_of_other_class_lists_are_refused_in_the_plan(tmp_path, base, refused, other, fuse):
    first = adapters(tmp_path / "a", base, ("apple", "pear"), "apple")
    second = adapters(tmp_path / "b", base, other, other[0] if other[0] != "apple" else "kiwi")
    with refused("--lora: apple.safetensors has the class list apple, pear, ", ", ".join(other)):
        jobs(Generate(lora=(*first, *second), fuse=fuse), "fp32")


def test_a_set_of_another_class_list_is_not_gone_on_with(tmp_path, base, refused):
    from generate.command import generate

    small = {"count": 1, "steps": 1, "precision": "fp32", "output": str(tmp_path / "s"), "screens": ("none",)}
    generate(Generate(lora=tuple(adapters(tmp_path / "a", base, ("apple", "pear"), "apple")), **small))
    with refused("its class list is apple, pear, not pear, apple"):
        generate(Generate(lora=tuple(adapters(tmp_path / "b", base, ("pear", "apple"), "pear")), **small))


def written(folder: Path, label: str, classes: tuple[str, ...], place: int | None = None) -> Path:
    """A shard with one row of a class."""
    path = shards.path_of(folder, label, 0)
    header = shards.ShardHeader(
        label=label, classes=list(classes), arguments={}, trained_on=[], versions={}, count=1
    )
    number = classes.index(label) if place is None else place
    row = dict.fromkeys(("prompt", "scheduler", "lora", "base"), "") | dict.fromkeys(("seed", "index"), 0)
    shards.write(path, [{"image": square(label, 0), "label": number, **row}], header)
    return path


def test_shards_of_several_class_lists_make_no_set(tmp_path, refused):
    written(tmp_path, "apple", ("apple", "pear"))
    written(tmp_path, "kiwi", ("kiwi", "lemon"))
    with refused("train-kiwi-00000.parquet: its class list is kiwi, lemon", "apple, pear"):
        shards.manifest_of(tmp_path)


def test_a_row_of_another_class_than_its_shard_is_refused(tmp_path, refused):
    path = written(tmp_path, "apple", ("apple", "pear"), place=1)
    with refused("row 0 is of class pear, not apple"):
        shards.rows_of(path)


@pytest.mark.parametrize("second", ["train-1", "test-0"])
def test_parquet_files_that_number_classes_differently_are_refused(tmp_path, refused, second):
    for seed, (name, names) in enumerate(zip(("train-0", second), LISTS, strict=True)):
        table(names, 10 * seed).to_parquet(tmp_path / f"{name}.parquet")
    with refused("numbers the classes", "pear, apple", "apple, pear"):
        sources.load(str(tmp_path))


def test_a_dataset_card_that_numbers_classes_otherwise_than_its_files_is_refused(tmp_path, refused):
    table(LISTS[0], 0).to_parquet(tmp_path / "train-0.parquet")
    names = "".join(f"          '{k}': {name}\n" for k, name in enumerate(LISTS[1]))
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n"
        f"      class_label:\n        names:\n{names}---\n"
    )
    with refused("train-0.parquet numbers the classes apple, pear, other files pear, apple"):
        sources.load(str(tmp_path))


def test_parquet_files_of_one_list_are_read_by_their_colours(tmp_path):
    for seed in range(2):
        table(LISTS[1], 10 * seed).to_parquet(tmp_path / f"train-{seed}.parquet")
    images = sources.load(str(tmp_path))
    assert len(images) == 16 and all(photo.label == colour_of(photo) for photo in images.photos)


def test_sets_that_number_classes_differently_meet_by_name(tmp_path):
    """As the real set, to score on, and as an external one."""
    for name, names, seed in (("a", LISTS[0], 0), ("b", LISTS[1], 40)):
        table(names, seed, count=10).save_to_disk(tmp_path / name)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    found = classify_sets(Classify(train=a, test=b))
    everything = evaluate_sets(Evaluate(data=a, external=(b,)), [1.0])
    for images in (found.train, found.test, everything.train, everything.test, everything.external[b]):
        assert images.photos and images.classes == ("apple", "pear")
        for photo, place in zip(images.photos, images.labels(), strict=True):
            assert colour_of(photo) == ("apple", "pear")[place]


def saved(folder: Path, classes: tuple[str, ...]) -> torch.nn.Module:
    """A classifier of ours that has learned nothing, whose outputs stand for ``classes``."""
    model = build("cnn", len(classes), 32, seed=5).eval()
    shared = {
        "model": "cnn",
        "size": 32,
        "through": None,
        "seed": 5,
        "steps": 1,
        "data": "",
        "trained_on": (),
    }
    classifier.save(folder / classifier.FILE, model, classifier.Record(classes=classes, **shared))
    return model


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def by_name(model: torch.nn.Module, classes: tuple[str, ...]) -> dict[str, np.ndarray]:
    return dict(zip(classes, probabilities(model, PIXELS, CPU, torch.float32).T, strict=True))


def test_a_pretrained_classifier_is_taken_by_the_names_of_its_outputs(tmp_path):
    there, here = ("apple", "kiwi", "pear"), ("pear", "apple", "kiwi")
    expected = by_name(saved(tmp_path, there), there)
    found = by_name(build("cnn", 3, 32, 0, str(tmp_path), here).eval(), here)
    for name in there:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def test_outputs_of_a_pretrained_classifier_for_other_classes_are_new(tmp_path):
    theirs = saved(tmp_path, ("apple", "kiwi", "pear"))
    model = build("cnn", 3, 32, 0, str(tmp_path), ("apple", "kiwi", "plum"))
    untouched = build("cnn", 3, 32, 0)
    assert torch.equal(model.network[0].weight, theirs.network[0].weight)
    assert torch.equal(model.network[-1].weight, untouched.network[-1].weight)


def test_a_screen_reads_a_classifier_by_the_names_of_its_outputs(tmp_path, base):
    image = Image.fromarray(PIXELS[0])
    found = {}
    for classes in LISTS:
        folder = tmp_path / "-".join(classes)
        model = saved(folder, classes)
        config = Generate(base=str(base), screens=("off_class",), screen_classifier=folder, classes=LISTS[0])
        screens = Screens(config, plan(config, ()))
        found[classes] = {label: screens.judge(image, label)["class_margin"] for label in classes}
        first, second = probabilities(model, PIXELS[:1], CPU, torch.float32)[0]
        assert found[classes][classes[0]] == pytest.approx(first - second)
        assert found[classes][classes[1]] == pytest.approx(second - first)
    # The networks are the same, so their outputs stand for the other class each.
    assert found[LISTS[0]]["apple"] == pytest.approx(found[LISTS[1]]["pear"])


def test_records_that_list_classes_in_another_order_are_refused(refused):
    one, other = (record(wrong_at(3), classes=names, seed=k) for k, names in enumerate(LISTS))
    with refused("records with different classes (apple, pear against pear, apple)"):
        require_records([one, other])


def test_photos_for_the_embedded_base_have_one_class_list(tmp_path, refused):
    for place, names in enumerate(LISTS):
        features = {"info": {"features": {"label": {"names": names}}}}
        rows = pa.table({"label": [0]}).replace_schema_metadata({"huggingface": json.dumps(features)})
        pq.write_table(rows, tmp_path / f"train-{place}.parquet")
    with refused("train-0.parquet and train-1.parquet number their classes differently"):
        mini_data.class_names(tmp_path)
