"""Synthetic sets that anybody may have made."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stub_sampler
from hypothesis import given
from hypothesis import strategies as st
from mutations import changed, damaged, fuzz, works_or_refuses

from orchard import shards
from orchard.files import atomic
from orchard.shards import header


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A small synthetic set of two classes."""
    return write(tmp_path_factory.mktemp("set"))


def write(folder: Path) -> Path:
    """The set, with a manifest."""
    for label in stub_sampler.CLASSES:
        rows = [_row(label, index) for index in range(3)]
        shards.store(folder, 0, rows, _origin(label))
    shards.write_manifest(folder, shards.manifest_of(folder))
    return folder


def _origin(label: str) -> shards.ShardHeader:
    return shards.ShardHeader(
        label=label,
        classes=list(stub_sampler.CLASSES),
        arguments={"lora": "", "base": "mini"},
        trained_on=["0" * 64],
        versions={"torch": "2"},
        count=2,
        screened_with={"x": []},
    )


def _row(label: str, index: int) -> dict:
    row = stub_sampler.row(index, label)
    image = {"bytes": stub_sampler.pictures.encoded(stub_sampler.noise(row)), "path": f"{label}-{index}.png"}
    return {
        "image": image,
        "label": stub_sampler.CLASSES.index(label),
        "prompt": "p",
        "index": index,
        "seed": row.seed,
        "attempt": 0,
        "steps": 1,
        "guidance": 1.0,
        "scheduler": "base",
        "lora": "",
        "base": "mini",
        "reason": "flat" if index == 2 else None,
    }


@pytest.fixture
def put_back(made):
    """Undo what a test does to the set."""
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    yield made
    for path in set(made.rglob("*")) - before.keys():
        if path.is_file():
            path.unlink()
    for path, data in before.items():
        path.write_bytes(data)


def sealed(folder: Path) -> Path:
    """The folder, its manifest giving the hashes of the files that lie there: a stranger can do that too."""
    path = folder / shards.MANIFEST
    manifest = json.loads(path.read_text())
    for entry in (*manifest["files"], *manifest["rejected_files"]):
        entry["sha256"] = hashlib.sha256((folder / entry["name"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))
    return folder


def read(folder: Path) -> None:
    """All that evaluate, classify and a resumed generate do with a set."""
    for split in (shards.TRAIN, shards.REJECTED):
        works_or_refuses(lambda split=split: [shards.rows_of(s.path) for s in shards.existing(folder, split)])
    works_or_refuses(lambda: shards.manifest_of(folder))
    works_or_refuses(lambda: shards.load(folder, "apple", 0))

    def whole() -> None:
        found = shards.read(folder)
        found.labels()
        shards.ledger(shards.read_manifest(folder))
        assert set(found.labels().tolist()) <= set(range(len(found.classes)))

    works_or_refuses(whole)


@fuzz(100)
@given(data=st.data())
def test_a_damaged_shard_is_read_or_refused(put_back, data):
    path = (
        put_back
        / "data"
        / data.draw(st.sampled_from(["train-apple-00000.parquet", "rejected-pear-00000.parquet"]))
    )
    whole = path.read_bytes()
    path.write_bytes(data.draw(damaged(whole)))
    read(sealed(put_back))
    path.write_bytes(whole)


@fuzz(200)
@given(data=st.data())
def test_a_strange_manifest_is_read_or_refused(put_back, data):
    path = put_back / shards.MANIFEST
    whole = path.read_text()
    path.write_text(json.dumps(data.draw(changed(json.loads(whole)))))
    read(put_back)
    path.write_text(whole)


@fuzz(120)
@given(data=st.data())
def test_a_shard_of_strange_origin_is_read_or_refused(put_back, data):
    path = put_back / "data" / "train-apple-00000.parquet"
    whole = path.read_bytes()
    table = pq.read_table(path)
    value = data.draw(changed(json.loads(table.schema.metadata[shards.KEY])))
    metadata = table.schema.metadata | {shards.KEY: json.dumps(value).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    header.decoded.cache_clear()
    read(sealed(put_back))
    path.write_bytes(whole)


def rewritten(path: Path, change) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def _with(name: str, values: object):
    def change(table):
        return table.set_column(table.schema.get_field_index(name), name, [values])

    return change


IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
CONTENTS = {
    "no label column": (lambda table: table.drop_columns(["label"]), "no column label"),
    "labels as text": (_with("label", pa.array(["0", "0"])), "column label is of type string"),
    "a label out of range": (_with("label", pa.array([0, 2])), "row 1 has no class"),
    "a label below zero": (_with("label", pa.array([-1, 0])), "row 0 has no class"),
    "no label": (_with("label", pa.array([None, 0], pa.int64())), "row 0 has no class"),
    "images as text": (_with("image", pa.array(["a", "b"])), "column image is of type string"),
    "paths alone": (
        _with(
            "image",
            pa.array(
                [{"bytes": None, "path": "/etc/passwd"}] * 2,
                pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            ),
        ),
        "row 0 has no image",
    ),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_rows_that_are_none_are_refused(put_back, refused, name):
    change, words = CONTENTS[name]
    rewritten(put_back / "data" / "train-apple-00000.parquet", change)
    with refused("train-apple-00000.parquet", words):
        shards.read(sealed(put_back))


def test_a_foreign_table_is_refused(put_back, refused):
    pq.write_table(pa.table({"x": [1]}), put_back / "data" / "train-apple-00000.parquet")
    with refused("train-apple-00000.parquet", "not a whole shard"):
        shards.read(sealed(put_back))


@pytest.mark.parametrize(
    "name", ["../x.parquet", "/etc/passwd", "data/../../x", "data/x.parquet", "data/", ""]
)
def test_a_manifest_leads_nowhere_else(put_back, refused, name):
    manifest = shards.read_manifest(put_back)
    manifest["files"][0]["name"] = name
    atomic.write_json(put_back / shards.MANIFEST, manifest)
    with refused("is not a shard's name"):
        shards.read(put_back)


def test_equal_rows_that_unpack_to_more_than_memory_are_refused(put_back, refused, monkeypatch):
    from orchard.shards import contents

    monkeypatch.setattr(contents, "LARGEST", 2**20)
    path = put_back / "data" / "train-apple-00000.parquet"
    image = {"bytes": bytes(2**16), "path": "x"}

    def many(table):
        rows = [{**table.to_pylist()[0], "image": image, "index": i} for i in range(64)]
        return pa.Table.from_pylist(rows, table.schema)

    rewritten(path, many)
    assert path.stat().st_size < 2**17
    with refused("take more than"):
        shards.rows_of(path)
