"""Photos of a synthetic set stay in their shards, and are read from there by row group."""

import random

import pyarrow.parquet as pq
import pytest
from pictures import encoded, noise
from squares import write_shards

from orchard import shards
from orchard.errors import UserError
from orchard.images.images import sha256
from orchard.shards import files, reading

COUNT = 9


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two shards of three row groups each."""
    monkeypatch.setattr(files, "GROUP", 2000)  # the images are noise of 16 pixels: 800 bytes
    write_shards(tmp_path / "s", [], count=COUNT)
    groups = [pq.read_metadata(path).num_row_groups for path in (tmp_path / "s" / "data").iterdir()]
    assert groups == [3, 3]
    return tmp_path / "s"


def rows(folder):
    paths = sorted((folder / "data").iterdir())
    return [row for path in paths for row in pq.read_table(path, columns=["image"])["image"].to_pylist()]


def test_photos_give_the_bytes_of_their_rows_in_any_order(folder):
    found, there = shards.read(folder), rows(folder)
    assert [photo.path for photo in found.photos] == [row["path"] for row in there]
    pairs = list(zip(found.photos, there, strict=True))
    random.Random(0).shuffle(pairs)
    for photo, row in pairs:
        assert photo.read() == row["bytes"]
        assert photo.sha256 == sha256(row["bytes"])


def test_a_row_group_is_read_once_for_rows_in_order(folder, monkeypatch):
    reading._images.cache_clear()
    for photo in shards.read(folder).photos:
        photo.read()
    assert reading._images.cache_info().misses == 6
    assert reading._images.cache_info().currsize <= reading.GROUPS


def test_a_shard_that_was_altered_since_is_refused(folder):
    reading._images.cache_clear()
    found = shards.read(folder)
    path = shards.path_of(folder, "x", 0)
    table = shards.rows_of(path)
    other = encoded(noise(99, (16, 16)))
    header = files.header_of(path)
    shards.write(path, [row | {"image": {"bytes": other, "path": "x.png"}} for row in table], header)
    with pytest.raises(UserError, match=r"train-x-00000\.parquet: not the shard that manifest\.json names"):
        found.photos[0].read()
    path.unlink()
    with pytest.raises(UserError, match=r"train-x-00000\.parquet: not a whole shard"):
        found.photos[-COUNT - 1].read()
    assert found.photos[-1].read() == rows(folder)[-1]["bytes"]
