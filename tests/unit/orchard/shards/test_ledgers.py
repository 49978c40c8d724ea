"""What a set has seen lies in its folder once; shards are read with it alone, and old ones as they were."""

import hashlib
import json
import random
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from shell import EVALUATE, refusal
from stub_sampler import CLASSES, flat_at, indices

from classify.config import Classify
from classify.image_sets import load as load_for_classify
from generate.command import generate
from generate.config import Generate
from generate.export.command import export
from generate.export.config import Export
from orchard import shards

SCREENS = ("flat", "memorised")


def listed(folder):
    return sorted(path.name for path in (folder / "ledgers").iterdir())


def footer(path):
    return json.loads(pq.read_schema(path).metadata[shards.KEY])


def of_training(photos):
    """SHA-256 of the real training images, by hand."""
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in photos.glob("train/*/*.png"))


def rescreen(folder):
    generate(Generate(output=folder, rescreen=True, screens=("flat",)))


@pytest.fixture
def folder(tmp_path, generate):
    """A complete set of two classes that was compared with the real photos; one image is rejected."""
    generate(tmp_path / "s", flat_at(3), classes=CLASSES, screens=SCREENS)
    return tmp_path / "s"


@pytest.fixture
def ledger(folder):
    (path,) = (folder / "ledgers").iterdir()
    return path


def embedded(path, folder):
    """Write a shard's footer as the version before did, the whole list in it."""
    (shard,) = (
        one for split in ("train", "rejected") for one in shards.existing(folder, split) if one.path == path
    )
    whole = {screen: shards.hashes(folder, seen) for screen, seen in shard.header.screened_with.items()}
    header = replace(shard.header, screened_with=whole, schema=3)
    table = pq.read_table(path)
    pq.write_table(
        table.replace_schema_metadata(table.schema.metadata | {shards.KEY: header.encoded()}), path
    )


def test_a_list_lies_in_the_folder_once_under_its_own_hash(folder, ledger, photos):
    seen = of_training(photos)
    assert ledger.read_text().splitlines() == seen and len(seen) == 8
    name = hashlib.sha256(ledger.read_bytes()).hexdigest()
    assert ledger.name == f"{name}.txt"
    paths = sorted((folder / "data").iterdir())
    assert len(paths) == 6  # of which two have what was rejected
    for path in paths:
        assert footer(path)["screened_with"] == {"memorised": {"sha256": name, "count": 8}}
        assert footer(path)["schema"] == 4 and seen[0].encode() not in path.read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["screened_with"] == {"memorised": seen}
    assert manifest["ledgers"] == [f"ledgers/{name}.txt"]
    assert shards.read(folder).seen == set(seen)


def test_the_list_is_there_before_the_first_shard_that_names_it(tmp_path, generate, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pq, "ParquetWriter", stop)
        generate(tmp_path / "s", screens=SCREENS)
    assert len(listed(tmp_path / "s")) == 1 and not list((tmp_path / "s").glob("data/*.parquet"))
    generate(tmp_path / "s", screens=SCREENS)
    assert len(listed(tmp_path / "s")) == 1 and indices(tmp_path / "s") == list(range(10))


def test_a_set_that_has_seen_nothing_has_no_list(tmp_path, generate):
    generate(tmp_path / "s")
    assert not (tmp_path / "s" / "ledgers").exists()
    assert footer(shards.path_of(tmp_path / "s", "apple", 0))["trained_on"] == []


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_shards_are_not_read_without_their_list(folder, ledger, photos, refused, damage):
    readers = {
        "read": lambda: shards.read(folder),
        "rejected": lambda: list(shards.rejected(folder, shards.read_manifest(folder))),
        "unscreened": lambda: shards.read_unscreened(folder, "flat"),
        "manifest": lambda: shards.manifest_of(folder),
        "export": lambda: export(Export(synthetic=str(folder), output=folder.parent / "out")),
        "classify": lambda: load_for_classify(Classify(train=str(folder), test=str(photos))),
    }
    ledger.unlink() if damage == "missing" else ledger.write_bytes(ledger.read_bytes().replace(b"0", b"1"))
    for read in readers.values():
        with refused(f"ledgers/{ledger.name}: {damage}", "put it back, or repeat the generate command"):
            read()


@pytest.mark.slow
def test_evaluate_says_in_one_line_that_a_list_is_missing(folder, ledger, photos):
    ledger.unlink()
    words = ("--data", photos, "--synthetic", folder, "--ratios", 1, "--seeds", 1)
    assert f"{ledger.name}: missing" in refusal(
        folder.parent, *EVALUATE, *words, "--output", folder.parent / "e"
    )


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_the_command_that_made_the_shards_lists_the_images_again(folder, ledger, generate, damage):
    whole = ledger.read_bytes()
    ledger.unlink() if damage == "missing" else ledger.write_bytes(whole[:-1])
    assert generate(folder, flat_at(3), classes=CLASSES, screens=SCREENS) == 0
    assert ledger.read_bytes() == whole and shards.read(folder).counts() == {"apple": 10, "pear": 10}


def test_generate_refuses_before_sampling_what_it_does_not_know_itself(tmp_path, generate, refused):
    folder = tmp_path / "s"
    generate(folder, screens=SCREENS)
    (folder / "ledgers" / listed(folder)[0]).unlink()
    with refused(".txt: missing"):
        generate(folder, lambda row: pytest.fail("sampled"), classes=("pear",))
    with refused(".txt: missing"):
        rescreen(folder)


def test_an_interrupted_set_needs_its_folder_alone(folder, tmp_path, generate, photos):
    (folder / "manifest.json").unlink()
    moved = folder.rename(tmp_path / "moved")
    manifest = shards.manifest_of(moved)
    assert manifest["screened_with"] == {"memorised": of_training(photos)}


def test_shards_that_hold_the_whole_list_are_read_and_gone_on_with(folder, ledger, generate, photos):
    (folder / "manifest.json").unlink()
    for path in (folder / "data").iterdir():
        embedded(path, folder)
    ledger.unlink()
    before = indices(folder)
    manifest = shards.manifest_of(folder)
    assert manifest["screened_with"] == {"memorised": of_training(photos)} and manifest["ledgers"] == []
    shards.write_manifest(folder, manifest)
    assert shards.read(folder).seen == set(of_training(photos)) and indices(folder) == before
    generate(folder, flat_at(3), classes=CLASSES, screens=SCREENS, count=12)
    assert {shard.header.schema for shard in shards.existing(folder)} == {3, 4}
    assert shards.read(folder).seen == set(of_training(photos))
    assert shards.read_manifest(folder)["ledgers"] == [f"ledgers/{ledger.name}"]


def test_what_is_screened_again_names_the_new_lists(folder):
    rescreen(folder)
    assert shards.read_manifest(folder)["ledgers"] == []
    assert shards.read(folder).seen == frozenset()


@pytest.mark.parametrize("card", [True, False])
def test_datasets_takes_no_list_for_data(folder, tmp_path, card):
    if not card:  # as a stopped run leaves it
        (folder / "README.md").unlink()
    found = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert found["train"].num_rows == 20 and "text" not in found["train"].column_names


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a" * 63, ""])
def test_a_list_lies_nowhere_else(folder, refused, name):
    path = shards.path_of(folder, "apple", 0)
    table = pq.read_table(path)
    header = footer(path) | {"screened_with": {"memorised": {"sha256": name, "count": 1}}}
    metadata = table.schema.metadata | {shards.KEY: json.dumps(header).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with refused("train-apple-00000.parquet", "is no SHA-256"):
        shards.existing(folder)
    manifest = json.loads((folder / "manifest.json").read_text()) | {"ledgers": [f"ledgers/{name}.txt"]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with refused("manifest.json", "is not a ledger's name"):
        shards.read_manifest(folder)


def test_a_footer_does_not_grow_with_the_photos(tmp_path, folder):
    (shard, *_) = shards.existing(folder)
    rows = shards.rows_of(shard.path)
    sizes = []
    for number in (10, 10_000):
        seen = [f"{random.Random(i).getrandbits(256):064x}" for i in range(number)]
        path = shards.path_of(tmp_path / str(number), "apple", 0)
        shards.write(path, rows, replace(shard.header, trained_on=seen, screened_with={"memorised": seen}))
        sizes.append(len(pq.read_schema(path).metadata[shards.KEY]))
        assert shards.hashes(
            tmp_path / str(number), shards.existing(tmp_path / str(number))[0].header.trained_on
        ) == sorted(seen)
        assert len(listed(tmp_path / str(number))) == 1
    assert sizes[1] - sizes[0] == 2 * len("0" * 3)  # the digits of two counts
