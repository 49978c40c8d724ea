"""Shards that were altered after they were written are not read, and generate makes them anew."""

import pictures
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shell import CLASSIFY, EVALUATE, refusal
from stub_sampler import CLASSES, unlucky

from classify.config import Classify
from classify.image_sets import load as load_for_classify
from evaluate.config import Evaluate
from evaluate.experiment.image_sets import load as load_for_evaluate
from evaluate.experiment.mixtures import parse
from orchard import shards

APPLE = "train-apple-00001.parquet"
OPTIONS = {"classes": CLASSES, "count": 12, "shard_size": 4, "reject_limit": 4.0}


@pytest.fixture
def generate(generate):
    return lambda output, **options: generate(output, unlucky, **{**OPTIONS, **options})


@pytest.fixture
def folder(tmp_path, generate):
    """A complete set that has rejected images."""
    generate(tmp_path / "s")
    assert list((tmp_path / "s" / "data").glob("rejected-*"))
    return tmp_path / "s"


def flip(path, generate):
    """One bit, in the bytes of an image."""
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 40] ^= 1
    path.write_bytes(data)


def replace_an_image(path, generate):
    """Another picture in the first row; the file is a whole one as any library writes it."""
    table = pq.read_table(path)
    images = table["image"].to_pylist()
    images[0]["bytes"] = pictures.encoded(pictures.noise(99, (32, 32)))
    column = pa.array(images, table.schema.field("image").type)
    pq.write_table(table.set_column(table.schema.get_field_index("image"), "image", [column]), path)


def put_another_run_s(path, generate):
    """The shard that a run with another seed has under this name."""
    other = path.parents[2] / "other"
    generate(other, seed=1)
    path.write_bytes((other / "data" / path.name).read_bytes())


ALTERATIONS = (flip, replace_an_image, put_another_run_s)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def evaluate(folder, photos):
    load_for_evaluate(Evaluate(data=str(photos), synthetic=str(folder)), parse(("0.5",)))


def classify(folder, photos):
    load_for_classify(Classify(train=str(folder), test=str(photos)))


@pytest.mark.parametrize("alter", ALTERATIONS)
def test_an_altered_shard_is_refused_by_name_until_it_is_made_anew(folder, generate, photos, refused, alter):
    before = files(folder)
    alter(folder / "data" / APPLE, generate)
    assert files(folder)[APPLE] != before[APPLE]
    for read in (evaluate, classify):
        with refused(str(folder / "data" / APPLE), "delete it and run generate again"):
            read(folder, photos)
    altered = files(folder)
    with refused(str(folder)):  # a shard of other arguments is told by those
        generate(folder, verify=True)
    assert files(folder) == altered
    (folder / "data" / APPLE).unlink()
    generate(folder)
    assert files(folder) == before
    for read in (evaluate, classify):
        read(folder, photos)


@pytest.mark.parametrize("alter", [flip, replace_an_image])
def test_generate_names_an_altered_shard_and_does_not_go_on(folder, generate, refused, alter):
    alter(folder / "data" / APPLE, generate)
    before = files(folder)
    for options in ({"verify": True}, {"count": 30}):
        with refused(str(folder / "data" / APPLE), "delete it and run generate again"):
            generate(folder, **options)
    assert files(folder) == before


def test_a_whole_set_is_told_by_the_sizes_of_its_files_unless_asked_for_more(
    folder, generate, refused, monkeypatch
):
    hashed = []
    monkeypatch.setattr("orchard.shards.manifest.require_hash", lambda path, _: hashed.append(path.name))
    generate(folder)
    assert hashed == []
    generate(folder, verify=True)
    assert sorted(hashed) == sorted(path.name for path in (folder / "data").iterdir())
    with (folder / "data" / APPLE).open("ab") as file:
        file.write(b"PAR1")
    with refused(APPLE):
        generate(folder)


def test_a_manifest_without_sizes_is_gone_by_its_hashes(folder, generate, refused):
    manifest = shards.read_manifest(folder)
    for entry in (*manifest["files"], *manifest["rejected_files"]):
        del entry["size"]
    shards.write_manifest(folder, manifest)
    flip(folder / "data" / APPLE, generate)
    with refused(APPLE, "delete it and run generate again"):
        generate(folder)


def test_an_altered_shard_of_rejected_images_is_told_before_any_training(folder, generate, photos, refused):
    path = next(iter(sorted((folder / "data").glob("rejected-*"))))
    replace_an_image(path, generate)
    with refused(path.name, "delete it and run generate again"):
        evaluate(folder, photos)
    path.unlink()  # whoever does not want to see them may delete them
    evaluate(folder, photos)


def test_a_shard_that_the_manifest_does_not_name_is_no_part_of_the_set(folder, generate, refused):
    data = (folder / "data" / APPLE).read_bytes()
    (folder / "data" / "train-apple-00099.parquet").write_bytes(data)
    with refused("train-apple-00099.parquet", "delete it"):
        generate(folder)


@pytest.mark.parametrize("name", ["train-apple-00000.parquet", "train-pear-00001.parquet"])
def test_a_stopped_run_does_not_go_on_from_a_shard_under_another_s_name(folder, generate, refused, name):
    before = files(folder)
    (folder / "manifest.json").unlink()
    (folder / "data" / name).write_bytes(before[APPLE])
    with refused(name, "delete it and run generate again"):
        generate(folder)
    (folder / "data" / name).unlink()
    generate(folder)
    assert files(folder) == before


def test_a_stopped_run_does_not_carry_flipped_bytes_on(tmp_path, generate, refused):
    """The shard is half there, and would be written anew with the rows that it has."""
    generate(tmp_path / "s", count=3, screens=("none",))
    (tmp_path / "s" / "manifest.json").unlink()
    path = tmp_path / "s" / "data" / "train-apple-00000.parquet"
    flip(path, generate)
    with refused(path.name, "not a whole shard", "delete it and run generate again"):
        generate(tmp_path / "s", screens=("none",))


def test_an_unreadable_manifest_is_written_anew_once_it_is_deleted(folder, generate, refused):
    before = files(folder)
    (folder / "manifest.json").write_text("{")
    with refused("manifest.json", "delete it and run generate again"):
        generate(folder)
    (folder / "manifest.json").unlink()
    generate(folder)
    assert files(folder) == before


def test_the_commands_end_in_one_line(folder, tmp_path, generate, photos):
    flip(folder / "data" / APPLE, generate)
    small = ("--steps", 1, "--size", 32, "--dry_run")
    for words in (
        (*EVALUATE, "--data", photos, "--synthetic", folder, "--ratios", 0.5, *small),
        (*CLASSIFY, "--train", folder, "--test", photos, *small),
    ):
        line = refusal(tmp_path, *words)
        assert APPLE in line and "delete it and run generate again" in line
