"""What a synthetic set says of itself: card, contact sheets, image metadata, and how stock tools open it."""

import io
import json
import shutil
from xml.etree import ElementTree

import pipelines
import pytest
import stub_sampler
import torch
import yaml
from PIL import Image
from stub_sampler import CLASSES, noise, rows

from generate.outputs import contact_sheets
from generate.outputs.metadata import SOURCE_TYPE, png
from orchard import shards

IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set of two classes with rejected images."""
    where = tmp_path_factory.mktemp("set")
    base = pipelines.tiny(where / "base")
    photos = stub_sampler.photos(where / "photos")

    def draw(row):
        return Image.new("RGB", (32, 32), "red") if row.index == 3 and row.label == "apple" else noise(row)

    with pytest.MonkeyPatch.context() as patch:
        options = {"classes": CLASSES, "screens": ("flat", "duplicate", "memorised"), "data": str(photos)}
        stub_sampler.generate(patch, base, where / "s", draw, **options)
    return where / "s"


def description(data: bytes) -> dict[str, str]:
    """The attributes of the XMP description in a PNG file."""
    packet = Image.open(io.BytesIO(data)).info["XML:com.adobe.xmp"]
    return next(
        ElementTree.fromstring(packet).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    ).attrib


def test_an_image_says_that_it_is_synthetic_with_prompt_and_seed(folder):
    row = rows(folder)[0]
    found = description(row["image"]["bytes"])
    assert found[f"{IPTC}DigitalSourceType"] == SOURCE_TYPE
    assert found[f"{IPTC}DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert found[f"{IPTC}AIPromptInformation"] == row["prompt"] == "a photo of apple"
    assert found["{urn:orchard:sample}seed"] == str(row["seed"])


def test_signs_of_markup_in_a_prompt_stay_text():
    prompt = "a \"red\" <apple> & 'pear' ünder 7 €"
    data = png(Image.new("RGB", (4, 4)), prompt=prompt, system="mini")
    assert description(data)[f"{IPTC}AIPromptInformation"] == prompt


def test_the_card_says_what_is_in_the_set_and_what_was_rejected(folder):
    text = (folder / "README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "other"
    assert [files["split"] for files in head["configs"][0]["data_files"]] == ["train", "rejected"]
    assert "These images are synthetic" in text
    assert "![apple](sheets/apple.png)" in text and "![pear](sheets/pear.png)" in text
    assert "sheets/rejected" not in text
    assert "| apple | 10 | 1 | a photo of apple |" in text
    assert "| flat | its contrast is below 4.0 | 1 | 0 |" in text
    assert "99% of these are to their nearest neighbour | 0 | 8 |" in text
    assert (
        json.loads((folder / "manifest.json").read_text())["arguments"]["apple"]["base_digest"][:12] in text
    )


def test_the_contact_sheet_holds_the_images_in_their_order(folder):
    sheet = Image.open(folder / "sheets" / "apple.png")
    for place, row in enumerate(rows(folder)[:10]):
        y, x = (k * (32 + contact_sheets.GAP) for k in divmod(place, contact_sheets.COLUMNS))
        cell = sheet.crop((x, y, x + 32, y + 32))
        assert cell.tobytes() == Image.open(io.BytesIO(row["image"]["bytes"])).tobytes()
    assert (
        description((folder / "sheets" / "apple.png").read_bytes())[f"{IPTC}DigitalSourceType"] == SOURCE_TYPE
    )
    assert Image.open(folder / "sheets" / "rejected" / "apple.png").getpixel((5, 5)) == (255, 0, 0)


def test_stock_datasets_opens_both_splits(folder, tmp_path):
    from datasets import load_dataset

    found = load_dataset(str(folder), cache_dir=str(tmp_path))
    assert {name: len(split) for name, split in found.items()} == {"train": 20, "rejected": 1}
    assert found["rejected"][0]["reason"] == "flat"
    tensors = found["train"].with_format("torch")[:2]
    assert tensors["label"].tolist() == [0, 0]
    assert [image.shape for image in tensors["image"]] == [torch.Size([3, 32, 32])] * 2


def test_a_manifest_of_the_first_schema_is_still_read(folder, tmp_path):
    old = tmp_path / "old"
    (old / "data").mkdir(parents=True)
    for path in (folder / "data").glob("train-*"):
        (old / "data" / path.name).write_bytes(path.read_bytes())
    shutil.copytree(folder / "ledgers", old / "ledgers")
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = ("classes", "rows", "arguments", "versions", "trained_on", "unknown_ledger", "files")
    (old / "manifest.json").write_text(json.dumps({"schema": 1} | {key: manifest[key] for key in kept}))
    assert shards.read(old).counts() == {"apple": 10, "pear": 10}
    assert shards.ledger(shards.read_manifest(old)) == {"generator": frozenset()}
