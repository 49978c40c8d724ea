"""The audit by its commands: an adapter planted that knows its photos, copies, and their innocent kin."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from evaluate.audit import audit
from evaluate.audit.attacks import ALL, GAIN, LOSS, NEAREST, attack
from finetune.command import train
from finetune.config import TrainLora
from orchard import audits, shards
from orchard.datasets import sources

CLASSES = ("x", "y")
EACH = 6
"""Photos of a class in each split."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Blobs of noise: nothing but the photo itself tells one that was trained on."""
    folder, rng = tmp_path_factory.mktemp("real") / "photos", np.random.default_rng(0)
    for split in ("train", "test"):
        for label in CLASSES:
            (folder / split / label).mkdir(parents=True)
            for index in range(EACH):
                small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                image = Image.fromarray(small).resize((32, 32), Image.Resampling.NEAREST)
                image.save(folder / split / label / f"{index}.png")
    return folder


def synthetic(folder, photos, trained_on):
    """A set whose images are ``photos``."""
    for place, label in enumerate(CLASSES):
        rows = []
        for photo in (one for one in photos if one.label == label):
            buffer = io.BytesIO()
            photo.image().save(buffer, "PNG")
            columns = dict.fromkeys(("seed", "index", "steps", "guidance"), 0)
            names = dict.fromkeys(("prompt", "scheduler", "lora", "base"), "")
            image = {"bytes": buffer.getvalue(), "path": photo.path.replace("/", "-")}
            rows.append({"image": image, "label": place, **columns, **names})
        header = shards.ShardHeader(
            label=label,
            classes=list(CLASSES),
            arguments={},
            trained_on=trained_on,
            versions={},
            count=len(rows),
        )
        shards.write(shards.path_of(folder, label, 0), rows, header)
    shards.write_manifest(folder, shards.manifest_of(folder))
    return folder


def test_a_set_of_copies_gives_its_photos_away_and_one_of_the_others_does_not(photos, tmp_path):
    everything = sources.load(str(photos))
    train_photos = everything.of("train")
    ledger = sorted(train_photos.hashes())
    copied = synthetic(tmp_path / "copied", train_photos.photos, ledger)
    (copied / audits.CARD).write_text("# Set\n", encoding="utf-8")
    found = audit(data=str(photos), synthetic=str(copied), output=tmp_path / "audit")
    assert [(one.subject, one.kind) for one in found.attacks] == [(n, NEAREST) for n in (*CLASSES, ALL)]
    assert [one.auc for one in found.attacks] == [1.0, 1.0, 1.0]
    (copies,) = found.copies
    assert (copies.found["near_train"], copies.found["near_test"]) == (2 * EACH, 0)
    text = (copied / audits.CARD).read_text(encoding="utf-8")
    assert text.startswith("# Set\n\n## Audit\n") and "AUC 1.000" in text
    written = json.loads((tmp_path / "audit" / audits.FILE).read_text())
    assert written["said"] == found.said and written["attacks"][0]["auc"] == 1.0
    assert "near_train" in written["copies"][0]["found"]
    now = {audits.SHARDS: audits.digest(shards.read_manifest(copied)["files"])}
    assert audits.found(copied, now) == found.said


@pytest.mark.slow
@pytest.mark.needs("fruit")
def test_an_adapter_planted_to_know_its_photos_is_found_out_and_the_untuned_base_is_not(fruit, tmp_path):
    where = {"data": str(fruit), "output": tmp_path / "adapters", "precision": "fp32"}
    train(TrainLora(classes=("apple",), shots=3, steps=250, batch_size=3, flip=False, sheets=False, **where))
    file = tmp_path / "adapters" / "apple.safetensors"
    options = {"output": tmp_path / "audit", "count": 2, "draws": 8, "precision": "fp32"}
    found = audit(data=str(fruit), lora=(str(file),), **options)
    loss, gain = found.attacks
    assert (loss.kind, gain.kind, gain.members) == (LOSS, GAIN, 3)
    assert gain.auc >= 0.95, found.said
    assert gain.interval[0] > 0.5
    (entry,) = json.loads((tmp_path / "audit" / "losses.json").read_text())["adapters"]
    alone = [[one["base"] for one in entry["photos"] if one["member"] == side] for side in (True, False)]
    untuned = attack("base", LOSS, *([-value for value in side] for side in alone))
    assert untuned.interval[0] < 0.5 < untuned.interval[1]
    assert f"- {found.said[0]}" in (file.parent / audits.CARD).read_text(encoding="utf-8")


def test_what_cannot_be_attacked_is_refused_in_one_line(photos, tmp_path, refused):
    with refused("--lora or --synthetic"):
        audit(data=str(photos))
    with refused("missing.safetensors"):
        audit(data=str(photos), lora=("missing.safetensors",), output=tmp_path / "audit")
    everything = sources.load(str(photos))
    whole = synthetic(tmp_path / "whole", everything.photos, sorted(everything.hashes()))
    with refused("was not made from"):
        audit(data=str(photos), synthetic=str(whole), output=tmp_path / "audit")
    assert not (tmp_path / "audit").exists()
