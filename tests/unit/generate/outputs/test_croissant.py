"""`croissant.json`: what mlcroissant says of it, and the rows that it reads by it."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from stub_sampler import flat_at, noise, rows

from generate.outputs import croissant
from orchard import shards

mlcroissant = pytest.importorskip("mlcroissant")


def found(folder) -> dict:
    return json.loads((folder / "croissant.json").read_text())


def read(folder, name: str) -> list[dict]:
    """The records of one set, by the last part of their names."""
    dataset = mlcroissant.Dataset(str(folder / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    return [
        {key.rpartition("/")[2]: value for key, value in record.items()} for record in dataset.records(name)
    ]


def test_rows_load_through_it_without_the_rejected_ones(tmp_path, generate):
    generate(tmp_path / "s", flat_at(3), count=6, shard_size=4, classes=("apple", "pear"))
    records, expected = read(tmp_path / "s", "images"), rows(tmp_path / "s")
    assert len(records) == len(expected) == 12
    assert shards.existing(tmp_path / "s", shards.REJECTED)
    for record, row in zip(records, expected, strict=True):
        assert np.array_equal(record["image"], Image.open(io.BytesIO(row["image"]["bytes"])))
        assert (record["label"], record["seed"], record["index"]) == (row["label"], row["seed"], row["index"])
        assert record["prompt"].decode() == row["prompt"] and record["guidance"] == row["guidance"]
        assert record.keys() == row.keys() - {"reason", "score"}
    names = [(record["number"], record["name"]) for record in read(tmp_path / "s", "classes")]
    assert [(number, str(name)) for number, name in names] == [(0, "apple"), (1, "pear")]


def test_boxes_and_features_are_arrays(tmp_path, generate):
    generate(tmp_path / "s", noise, count=2)
    (shard,) = shards.existing(tmp_path / "s")
    boxes = [[1.0, 2.0, 10.0, 20.0], [3.0, 4.0, 5.0, 6.0]]
    marked = [{**row, "box": boxes, "features": [0.5, 0.25]} for row in shards.rows_of(shard.path)]
    shards.write(shard.path, marked, shard.header)
    croissant.write(tmp_path / "s", shards.manifest_of(tmp_path / "s"))
    first, _ = read(tmp_path / "s", "images")
    assert np.array(first["box"]).tolist() == boxes and list(first["features"]) == [0.5, 0.25]


def test_it_says_that_the_set_is_synthetic_what_it_comes_from_and_how_it_was_chosen(tmp_path, generate):
    screens = ("flat", "duplicate", "memorised")
    generate(tmp_path / "s", flat_at(3), count=6, screens=screens, candidates=2, keep="random")
    said, manifest = found(tmp_path / "s"), shards.read_manifest(tmp_path / "s")
    assert said["conformsTo"] == [
        "http://mlcommons.org/croissant/1.1",
        "http://mlcommons.org/croissant/RAI/1.0",
    ]
    assert said["rai:hasSyntheticData"] is True
    assert "sampled from a diffusion model" in said["rai:dataCollection"]
    assert any("apple (6), pear (0)" in line for line in said["rai:dataBiases"])
    assert any("of 2 candidates one drawn at random" in line for line in said["rai:dataBiases"])
    assert "rejected" in said["rai:personalSensitiveInformation"][0]
    assert any(
        line.startswith("Screen flat") and line.endswith("; 1 were.")
        for line in said["rai:dataPreprocessingProtocol"]
    )
    (base,) = said["prov:wasDerivedFrom"]
    assert base["@id"] == f"urn:sha256:{manifest['arguments']['apple']['base_digest']}"
    files = {one["contentUrl"]: one["sha256"] for one in said["distribution"] if "sha256" in one}
    assert files == {entry["name"]: entry["sha256"] for entry in manifest["files"]}


def test_it_is_a_function_of_the_manifest_alone(tmp_path, generate):
    generate(tmp_path / "s", noise, count=2)
    shutil.move(tmp_path / "s", tmp_path / "elsewhere")
    manifest = shards.read_manifest(tmp_path / "elsewhere")
    assert croissant.render(manifest) == found(tmp_path / "elsewhere")
    assert str(tmp_path) not in (tmp_path / "elsewhere" / "croissant.json").read_text()
