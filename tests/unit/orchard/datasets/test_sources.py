import os
import subprocess
import sys
import time

import datasets
import pytest
from conftest import ROOT, either
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from huggingface_hub import HfApi
from pictures import encoded, noise, write

from orchard import memory
from orchard.datasets import sources
from orchard.datasets.demo import NOTICE
from orchard.files import scratch
from orchard.images.images import TEST, TRAIN, decode, sha256

PICTURES = [encoded(noise(seed)) for seed in range(8)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def table(labels, kind=None, names=None, start=0, **columns):
    """A table of PNG bytes, one a label."""
    cells = [
        {"bytes": PICTURES[start + i], "path": name} for i, name in enumerate(names or [None] * len(labels))
    ]
    features = Features(image=datasets.Image(), label=kind or Value("string"))
    for key in columns:
        features[key] = Value("string")
    return Dataset.from_dict({"image": cells, "label": labels, **columns}, features=features)


@either("fruit")
def test_kaggle_download_is_read_as_it_is(fruit):
    images = sources.load(str(fruit))
    assert images.classes == ("apple", "banana", "orange")
    assert images.of(TRAIN).counts() == {"apple": 75, "banana": 73, "orange": 72}
    assert images.of(TEST).counts() == {"apple": 19, "banana": 18, "orange": 18}
    assert images.notes == ()


@either("fruit")
def test_mixed_photos_come_when_asked_for(fruit, monkeypatch):
    monkeypatch.setenv(sources.FRUIT_VARIABLE, str(fruit))
    images = sources.load("fruit", ("apple", "mixed"))
    assert images.name == "fruit"
    assert images.of(TRAIN).counts()["mixed"] == 20
    assert images.of(TEST).counts()["mixed"] == 5


@pytest.mark.parametrize(
    ("signs", "train", "test"),
    [("stand-in", 62, 19), pytest.param("real", 580, 190, marks=pytest.mark.needs("signs"))],
    indirect=["signs"],
)
def test_class_folders_with_their_own_split_are_kept(signs, train, test):
    images = sources.load(str(signs))
    assert images.classes == ("no_entry", "priority_road", "stop", "turn_right_ahead", "yield")
    assert (len(images.of(TRAIN)), len(images.of(TEST))) == (train, test)


def test_demo_set_says_what_it_is():
    images = sources.load("demo")
    assert (len(images.of(TRAIN)), len(images.of(TEST))) == (120, 48)
    assert NOTICE in images.notes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", ("--data is empty",)),
        ("./nowhere", ("--data ./nowhere: no such folder", "--data demo")),
        (str(ROOT / "orchard" / "errors.py"), ("a file, not a folder",)),
        ("no spaces/allowed here", ("not", "no spaces/allowed here", "--data demo")),
    ],
)
def test_data_that_is_not_there_is_one_line(data, words, refused):
    with refused(*words):
        sources.load(data)


def test_unknown_class_is_named_with_the_choices(tmp_path, refused):
    with refused("--classes kiwi plum: not in", "which has apple, pear"):
        sources.load(str(write(tmp_path, ["apple/a.png", "pear/b.png"])), ("plum", "apple", "kiwi"))


def test_fruit_variable_with_a_wrong_path_is_refused(monkeypatch, refused):
    monkeypatch.setenv(sources.FRUIT_VARIABLE, "/nowhere")
    with refused("ORCHARD_FRUIT=/nowhere: no such folder"):
        sources.load("fruit")


@pytest.mark.parametrize("form", ["saved", "parquet"])
@pytest.mark.parametrize("kind", [ClassLabel(names=["pear", "apple"]), Value("string")])
@pytest.mark.parametrize("free", [2**30, 0])
def test_dataset_folder_is_read(tmp_path, monkeypatch, form, kind, free):
    labels = [1, 0, 0] if isinstance(kind, ClassLabel) else ["apple", "pear", "pear"]
    rows = DatasetDict(train=table(labels, kind), test=table(labels[:1], kind, start=4))
    monkeypatch.setattr(memory, "free", lambda: free)
    monkeypatch.setattr(scratch, "folder", lambda: tmp_path)
    if form == "saved":
        rows.save_to_disk(tmp_path / "set")
    else:
        for split in rows:
            (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
            rows[split].to_parquet(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    images = sources.load(str(tmp_path / "set"))
    assert images.classes == ("apple", "pear")
    assert [p.label for p in images.photos] == ["apple", "pear", "pear", "apple"]
    assert [p.split for p in images.photos] == [TRAIN, TRAIN, TRAIN, TEST]
    assert [p.read() for p in images.photos] == [*PICTURES[:3], PICTURES[4]]
    assert [p.sha256 for p in images.photos] == [sha256(p.read()) for p in images.photos]


def test_saved_single_table_gets_a_test_split(tmp_path):
    table(["a"] * 5, names=[f"{i}.png" for i in range(5)]).save_to_disk(tmp_path / "set")
    images = sources.load(str(tmp_path / "set"))
    assert (len(images.of(TRAIN)), len(images.of(TEST))) == (4, 1)
    assert {p.path for p in images.photos} == {f"{i}.png" for i in range(5)}


def test_dataset_of_paths_reads_the_files(tmp_path, monkeypatch, refused):
    write(tmp_path / "files", {"a.png": PICTURES[0], "b.png": PICTURES[1]})
    cells = [{"bytes": None, "path": str(tmp_path / "files" / name)} for name in ("a.png", "b.png")]
    features = Features(image=datasets.Image(), label=Value("string"))
    rows = Dataset.from_dict({"image": cells, "label": ["x", "x"]}, features=features)
    monkeypatch.setattr(sources, "_open", lambda name: {"train": rows})
    images = sources.from_hub(str(tmp_path))
    assert [(p.path, p.read()) for p in images.photos] == [("a.png", PICTURES[0]), ("b.png", PICTURES[1])]
    (tmp_path / "files" / "b.png").unlink()
    with refused("row 1 of split train", "b.png cannot be read"):
        sources.from_hub(str(tmp_path))
    for name in ("somebody/something", str(write(tmp_path / "elsewhere", ["a.png"]))):
        with refused("row 0 of split train", "a.png lies outside the data set"):
            sources.from_hub(name)


def test_repeated_names_are_told_apart(tmp_path):
    names = ["a.png", "a.png", None, "b.png"]
    splits = DatasetDict(
        train=table(["x"] * 4, names=names), validation=table(["x"] * 4, names=names, start=4)
    )
    splits.save_to_disk(tmp_path / "set")
    paths = [p.path for p in sources.from_hub(str(tmp_path / "set")).photos]
    assert len(set(paths)) == 8
    assert paths[:3] == ["train/000000-a.png", "train/000001-a.png", "train/000002"]
    assert paths[7] == "validation/000003-b.png"


def test_splits_that_number_classes_differently_agree_by_name(tmp_path):
    splits = DatasetDict(
        train=table([0, 1], ClassLabel(names=["x", "y"])),
        test=table([0, 1], ClassLabel(names=["y", "x"]), start=4),
    )
    splits.save_to_disk(tmp_path / "set")
    images = sources.load(str(tmp_path / "set"))
    assert images.of(TEST).labels().tolist() == [1, 0]


def test_splits_that_join_another_are_noted(tmp_path):
    splits = DatasetDict(
        train=table(["x"] * 2), validation=table(["x"], start=2), rejected=table(["x"], start=3)
    )
    splits.save_to_disk(tmp_path / "set")
    images = sources.from_hub(str(tmp_path / "set"))
    assert len(images) == 3
    assert images.notes == ("split validation counts as train", "split rejected is left out")


def test_texts_are_kept(tmp_path):
    table(["x", "x"], text=["a red one", ""]).save_to_disk(tmp_path / "set")
    assert [p.text for p in sources.from_hub(str(tmp_path / "set")).photos] == ["a red one", None]


@pytest.mark.parametrize("column", ["caption", "prompt"])
def test_captions_of_a_dataset_are_read_from_columns_of_the_usual_names(tmp_path, column):
    table(["x", "x"], **{column: ["a red one", ""]}).save_to_disk(tmp_path / "set")
    assert [p.text for p in sources.from_hub(str(tmp_path / "set")).photos] == ["a red one", None]


def test_columns_of_a_dataset_that_are_not_read_are_named(tmp_path, refused):
    both = table(["x"], text=["red"], licence=["free"], caption=["ripe"])
    both.save_to_disk(tmp_path / "set")
    found = sources.from_hub(str(tmp_path / "set"))
    assert found.photos[0].text == "red"
    assert found.notes == ("columns that are not read: caption, licence",)
    both.rename_column("text", "prompt").save_to_disk(tmp_path / "two")
    with refused("columns caption and prompt", "call the one to use 'text'"):
        sources.from_hub(str(tmp_path / "two"))


def test_a_caption_that_is_a_list_is_refused(tmp_path, refused):
    rows = table(["x"]).add_column("text", [["red", "ripe"]])
    rows.save_to_disk(tmp_path / "set")
    with refused("row 0 of split train", "its caption is ['red', 'ripe']", "write a plain string"):
        sources.from_hub(str(tmp_path / "set"))


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_files_that_changed_are_read_anew_though_size_and_time_are_the_same(tmp_path, form):
    """As after two archives were unpacked over one another, which give files the times of their own."""
    kept = {}
    for label, start in (("x", 0), ("y", 4)):
        rows = table([label] * 4, start=start)
        if form == "saved":
            rows.save_to_disk(tmp_path / "set")
        else:
            (tmp_path / "set").mkdir(exist_ok=True)
            rows.to_parquet(tmp_path / "set" / "train.parquet")
        for path in (tmp_path / "set").iterdir():
            state = kept.setdefault(path.name, path.stat())
            assert path.suffix == ".json" or path.stat().st_size == state.st_size
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        found = sources.from_hub(str(tmp_path / "set"))
        assert [p.label for p in found.photos] == [label] * 4
        assert [p.read() for p in found.photos] == PICTURES[start : start + 4]


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_table_without_labels_says_which_columns_it_has(tmp_path, form, refused):
    rows = table(["x", "y"], text=["red", "green"]).remove_columns("label")
    (tmp_path / "set").mkdir()
    if form == "saved":
        rows.save_to_disk(tmp_path / "set")
    else:
        rows.to_parquet(tmp_path / "set" / "train.parquet")
    with refused("no label column", "image, text"):
        sources.load(str(tmp_path / "set"))


def test_table_without_images_says_which_columns_it_has(tmp_path, refused):
    table(["x"], text=["red"]).remove_columns("image").save_to_disk(tmp_path / "set")
    with refused("no image column", "label, text"):
        sources.load(str(tmp_path / "set"))


def test_two_label_columns_are_not_guessed_between(tmp_path, refused):
    kind = ClassLabel(names=["x", "y"])
    rows = table([0, 1], kind).rename_column("label", "fine")
    rows.add_column("coarse", [0, 1], feature=kind).save_to_disk(tmp_path / "set")
    with refused("several label columns, found fine, coarse"):
        sources.load(str(tmp_path / "set"))


@pytest.mark.parametrize(("label", "kind"), [(-1, ClassLabel(names=["x", "y"])), (None, None), ("", None)])
def test_row_without_a_label_is_named(tmp_path, label, kind, refused):
    table([0 if kind else "x", label], kind).save_to_disk(tmp_path / "set")
    with refused("row 1 of split train", f"{label!r} is not a class"):
        sources.load(str(tmp_path / "set"))


def test_row_without_an_image_is_named(tmp_path, refused):
    features = Features(image=datasets.Image(), label=Value("string"))
    rows = Dataset.from_dict({"image": [None], "label": ["x"]}, features=features)
    rows.save_to_disk(tmp_path / "set")
    with refused("row 0 of split train has no image"):
        sources.load(str(tmp_path / "set"))


def test_dataset_that_cannot_be_read_is_one_line(tmp_path, refused):
    with refused("could not be loaded as a dataset"):
        sources.load(str(write(tmp_path, {"train.parquet": b"not parquet"})))


def test_a_later_file_of_a_dataset_that_cannot_be_read_is_one_line(tmp_path, refused):
    write(tmp_path, {"train-00001.parquet": b"not parquet"})
    table(["x", "y"]).to_parquet(tmp_path / "train-00000.parquet")
    with refused("train-00001.parquet: cannot be read", "fix or remove it"):
        sources.load(str(tmp_path))


def test_dataset_of_the_hub_is_read_once_it_is_known_to_be_there(monkeypatch):
    asked = []
    monkeypatch.setattr(HfApi, "dataset_info", lambda self, name, **options: asked.append(name))
    monkeypatch.setattr(datasets, "load_dataset", lambda name: DatasetDict(train=table(["x", "y"] * 3)))
    images = sources.load("somebody/something")
    assert asked == ["somebody/something"]
    assert images.classes == ("x", "y")
    assert [decode(p.read(), p.path).size for p in images.photos] == [(8, 8)] * 6


@pytest.mark.parametrize(
    ("data", "words"),
    [("nobody/nothing", "no connection to the Hub"), ("fruit", "could not be fetched (no connection)")],
)
def test_without_a_network_it_ends_soon_in_one_line(data, words):
    """A proxy that nobody serves stands for the missing network, so the outcome is the same anywhere."""
    code = (
        "from orchard.cli import cli; from orchard.datasets import sources; import sys; sys.argv = ['x']; "
        f"cli.run(cli.Common, lambda config: sources.load({data!r}), 'x')"
    )
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "ORCHARD_", "KAGGLE"))}
    nowhere = "http://127.0.0.1:9"
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=False,
        env={**keep, "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere, "NO_PROXY": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert time.monotonic() - started < 10  # retrying takes 25 s; alone it is below 1 s
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: --data {data}: ")
    assert words in line
    assert "--data demo" in line
