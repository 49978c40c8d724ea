"""Sets in the formats of other tools, as those tools read them back."""

import csv
import io
import json
import tracemalloc
from collections import Counter

import datasets
import numpy as np
import pytest
from PIL import Image
from stub_sampler import rows

from generate.export import export
from orchard import audits, shards

FORMATS = ("imagefolder", "webdataset", "coco", "csv")


@pytest.fixture
def folder(tmp_path):
    """A set of two of three classes, with a box in one image and a rejected one."""
    return made(tmp_path / "s", {"apple": 3, "v1.2 pear": 2})


def made(folder, counts, side=8):
    classes = [*counts, "none"]
    for number, (label, count) in enumerate(counts.items()):
        table = [row(index, number, label, side) for index in range(count + 1)]
        table[1]["box"] = [[1.0, 2.0, 5.0, 8.0], [0.0, 0.0, 2.0, 2.0]]
        table[0]["reason"] = "flat"
        header = shards.ShardHeader(
            label=label,
            classes=classes,
            arguments={"shard_size": 8, "base": "mini", "base_digest": "0" * 64, "lora": "", "prompt": "x"},
            trained_on=[],
            versions={},
            count=count,
        )
        shards.store(folder, 0, table, header)
    shards.write_manifest(folder, shards.manifest_of(folder))
    return folder


def row(index, number, label, side):
    file = io.BytesIO()
    pixels = np.random.default_rng([number, index]).integers(0, 255, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return {
        "image": {"bytes": file.getvalue(), "path": f"../../{label}.png"},
        "label": number,
        "prompt": f'a photo of "{label}", é',
        "seed": 2**62 + index,
        "index": index,
        "reason": "",
    }


def pixels(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).tobytes()


def expected(folder) -> Counter:
    """(class, pixels) of the images that are kept."""
    classes = shards.read_manifest(folder)["classes"]
    return Counter((classes[one["label"]], pixels(one["image"]["bytes"])) for one in rows(folder))


def loaded(kind: str, folder, **options):
    return datasets.load_dataset(kind, data_dir=str(folder), cache_dir=str(folder.parent / "c"), **options)[
        "train"
    ]


def test_an_image_folder_has_the_classes_names_and_no_rejected_image(folder, tmp_path):
    assert export(synthetic=str(folder), output=tmp_path / "out") == tmp_path / "out"
    found = loaded("imagefolder", tmp_path / "out")
    names = found.features["label"].names
    assert names == ["apple", "v1.2_pear"]
    said = Counter((names[one["label"]].replace("_", " "), one["image"].tobytes()) for one in found)
    assert said == expected(folder)


def test_a_web_dataset_has_pixels_class_and_facts_in_each_sample(folder, tmp_path):
    export(synthetic=str(folder), output=tmp_path / "out", format="webdataset")
    classes = (tmp_path / "out" / "classes.txt").read_text().splitlines()
    found = datasets.load_dataset(
        "webdataset",
        data_files=str(tmp_path / "out" / "*.tar"),
        cache_dir=str(tmp_path / "c"),
        split="train",
    )
    said = Counter((classes[int(one["cls"])], one["png"].tobytes()) for one in found)
    assert said == expected(folder)
    first, row = found[0]["json"], rows(folder)[0]
    assert (first["label"], first["prompt"], first["seed"]) == ("apple", row["prompt"], row["seed"])
    assert "strength" not in first or first["strength"] is None


def test_a_web_dataset_goes_on_in_another_file_when_one_is_large(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("generate.export.webdataset.LARGEST", len(rows(folder)[0]["image"]["bytes"]) * 2)
    for name in ("a", "b"):
        export(synthetic=str(folder), output=tmp_path / name, format="webdataset")
    files = sorted(path.name for path in (tmp_path / "a").glob("*.tar"))
    assert len(files) > 1 and files[0] == "train-000000.tar"
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_coco_has_the_boxes_that_are_known(folder, tmp_path, capsys):
    export(synthetic=str(folder), output=tmp_path / "out", format="coco")
    assert "annotations.json has 4 boxes, of 2 of 5 images" in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "annotations.json").read_text())
    names = {one["id"]: one["name"] for one in found["categories"]}
    assert names == {1: "apple", 2: "v1.2 pear", 3: "none"}
    said = Counter()
    for image in found["images"]:
        data = (tmp_path / "out" / "images" / image["file_name"]).read_bytes()
        assert Image.open(io.BytesIO(data)).size == (image["width"], image["height"])
        said[names[image["category_id"]], pixels(data)] += 1
    assert said == expected(folder)
    of_first = [one for one in found["annotations"] if one["image_id"] == found["images"][0]["id"]]
    assert [(one["bbox"], one["area"], one["category_id"]) for one in of_first] == [
        ([1, 2, 4, 6], 24, 1),
        ([0, 0, 2, 2], 4, 1),
    ]


def test_coco_opens_in_its_own_tool(folder, tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    export(synthetic=str(folder), output=tmp_path / "out", format="coco")
    found = coco.COCO(str(tmp_path / "out" / "annotations.json"))
    assert len(found.getImgIds()) == 5 and len(found.getAnnIds(catIds=[2])) == 2


def test_a_table_has_a_line_an_image_with_its_facts(folder, tmp_path):
    export(synthetic=str(folder), output=tmp_path / "out", format="csv")
    with (tmp_path / "out" / "metadata.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    said = Counter(
        (one["label"], pixels((tmp_path / "out" / one["file_name"]).read_bytes())) for one in lines
    )
    assert said == expected(folder)
    assert [one["prompt"] for one in lines] == [row["prompt"] for row in rows(folder)]
    assert [int(one["seed"]) for one in lines] == [row["seed"] for row in rows(folder)]
    assert json.loads(lines[0]["box"]) == [[1, 2, 5, 8], [0, 0, 2, 2]] and lines[1]["box"] == ""
    found = loaded("imagefolder", tmp_path / "out")
    assert Counter((one["label"], one["image"].tobytes()) for one in found) == said


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_is_written_over_or_half_written(folder, tmp_path, refused, format):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with refused(f"--output {tmp_path / 'out'}: is there already", "new or empty"):
        export(synthetic=str(folder), output=tmp_path / "out", format=format)
    (folder / "data" / "train-v1.2_pear-00000.parquet").unlink()
    with refused("named in manifest.json but missing"):
        export(synthetic=str(folder), output=tmp_path / "new", format=format)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "s"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled_and_a_dry_run_writes_nothing(folder, tmp_path, capsys):
    export(synthetic=str(folder), output=tmp_path / "out", dry_run=True)
    assert not (tmp_path / "out").exists()
    assert f"as imagefolder into {tmp_path / 'out'}: apple 3, v1.2 pear 2" in capsys.readouterr().out
    (tmp_path / "out").mkdir()
    export(synthetic=str(folder), output=tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 5


def test_a_set_that_is_not_complete_is_refused(folder, tmp_path, refused):
    (folder / "manifest.json").unlink()
    with refused("no manifest.json, so not complete"):
        export(synthetic=str(folder), output=tmp_path / "out")
    (tmp_path / "other" / "data").mkdir(parents=True)
    with refused("holds no synthetic set"):
        export(synthetic=str(tmp_path / "other"), output=tmp_path / "out")


@pytest.mark.parametrize("format", FORMATS)
def test_what_the_images_are_goes_with_them_and_what_an_audit_found(folder, tmp_path, format):
    manifest = shards.read_manifest(folder)
    finding = {"attack": "copies", "effort": 1, "said": "none is a copy"}
    audits.write(folder, {audits.digest(manifest["files"]): [finding]}, set())
    export(synthetic=str(folder), output=tmp_path / "out", format=format)
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "**These images are synthetic**" in text and "| apple | 3 | 1 | x | mini |" in text
    assert "- none is a copy\n" in text


@pytest.mark.parametrize("format", FORMATS)
def test_memory_is_that_of_a_shard_whatever_their_number(tmp_path, format):
    peaks = {}
    for number in (2, 8):
        counts = {f"class {place}": 4 for place in range(number)}
        made(tmp_path / f"s{number}", counts, side=160)
        tracemalloc.start()
        export(synthetic=str(tmp_path / f"s{number}"), output=tmp_path / f"out{number}", format=format)
        peaks[number] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    images = 4 * 160**2 * 3  # bytes of a shard's images, which are noise
    assert peaks[8] < peaks[2] + images
