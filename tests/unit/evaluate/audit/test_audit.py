"""The audit by its commands: an adapter planted that knows its photos, copies, and their innocent kin."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from evaluate.audit import audit
from evaluate.audit.attacks import ALL, attack
from evaluate.audit.by_loss import GAIN, LOSS
from evaluate.audit.by_nearness import NEAREST
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
    (copied / audits.CARD).write_text(f"# Set\n{audits.START}\n{audits.END}\n", encoding="utf-8")
    (found,) = audit(data=str(photos), synthetic=str(copied), output=tmp_path / "audit")
    assert [(one.subject, one.kind) for one in found.attacks] == [(n, NEAREST) for n in (*CLASSES, ALL)]
    assert [one.auc for one in found.attacks] == [1.0, 1.0, 1.0]
    assert found.said[-1].startswith(f"the set: {2 * EACH} of {2 * EACH} synthetic images (100.0%)")
    assert found.said[-1].endswith("(photos of photos)")
    text = (copied / audits.CARD).read_text(encoding="utf-8")
    assert text.startswith("# Set\n") and "## Audit\n" in text and "AUC 1.000" in text
    written = json.loads((tmp_path / "audit" / "audit.json").read_text())["found"]
    assert written[0]["attacks"][0]["auc"] == 1.0
    assert audits.quoted(copied, audits.of_set(shards.read_manifest(copied))) == found.said


def test_a_class_that_was_made_from_no_photo_has_nothing_to_tell(photos, tmp_path, capsys):
    train_photos = sources.load(str(photos)).of("train")
    ledger = sorted(one.sha256 for one in train_photos.photos if one.label == "x")
    one_class = synthetic(tmp_path / "one", train_photos.photos, ledger)
    (found,) = audit(data=str(photos), synthetic=str(one_class), output=tmp_path / "audit")
    assert [one.subject for one in found.attacks] == ["x"]
    line = f"nearest   y: 0 photos trained on (by the ledger), {2 * EACH} others: no attack"
    assert line in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.needs("fruit")
def test_an_adapter_planted_to_know_its_photos_is_found_out_and_the_untuned_base_is_not(fruit, tmp_path):
    where = {"data": str(fruit), "output": tmp_path / "adapters", "precision": "fp32"}
    train(TrainLora(classes=("apple",), shots=3, steps=250, batch_size=3, flip=False, sheets=False, **where))
    file = tmp_path / "adapters" / "apple.safetensors"
    options = {"output": tmp_path / "audit", "count": 2, "draws": 8, "precision": "fp32"}
    found, together = audit(data=str(fruit), lora=(str(file),), **options)
    loss, gain = found.attacks
    assert together.said[0].startswith("drawn from the adapters: ") and not together.attacks
    assert all(line.endswith(f"(8 draws a photo of {fruit.name})") for line in found.said)
    assert (loss.kind, gain.kind, gain.members) == (LOSS, GAIN, 3)
    assert gain.auc >= 0.95, found.said
    assert gain.interval[0] > 0.5
    (measured,) = (tmp_path / "audit").glob("*/losses.json")
    (entry,) = json.loads(measured.read_text())["adapters"]
    alone = [[one["base"] for one in entry["photos"] if one["member"] == side] for side in (True, False)]
    untuned = attack("base", LOSS, *([-value for value in side] for side in alone))
    assert untuned.interval[0] < 0.5 < untuned.interval[1]
    assert f"- {found.said[0]}\n- {found.said[1]}\n- {together.said[0]}" in (
        file.parent / audits.CARD
    ).read_text(encoding="utf-8")


def test_photos_that_a_set_was_not_made_from_are_no_proof_of_its_innocence(photos, tmp_path, refused):
    everything = sources.load(str(photos))
    for ledger in (["0" * 64], sorted(everything.hashes())):
        copied = synthetic(tmp_path / str(len(ledger)), everything.of("train").photos, ledger)
        with refused(f"--data {photos}: has no class with both photos"):
            audit(data=str(photos), synthetic=str(copied), output=tmp_path / "audit")
        assert not (copied / audits.FILE).exists()


def test_two_audits_into_one_folder_keep_what_both_found(photos, tmp_path):
    everything = sources.load(str(photos)).of("train")
    sets = [
        synthetic(tmp_path / name, photos_of, sorted(everything.hashes()))
        for name, photos_of in (("all", everything.photos), ("some", everything.photos[::3]))
    ]
    for folder in (*sets, sets[0]):
        audit(data=str(photos), synthetic=str(folder), output=tmp_path / "audit")
    written = json.loads((tmp_path / "audit" / "audit.json").read_text())["found"]
    assert [one["arguments"]["synthetic"] for one in written] == [str(sets[1]), str(sets[0])]


def test_notes_that_cannot_be_read_are_told_before_the_work(photos, tmp_path, refused, monkeypatch):
    everything = sources.load(str(photos)).of("train")
    folder = synthetic(tmp_path / "s", everything.photos, sorted(everything.hashes()))
    monkeypatch.setattr("evaluate.audit.by_nearness.attack", lambda *_: pytest.fail("worked"))
    for path in (folder / audits.FILE, tmp_path / "audit" / "audit.json"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("x", encoding="utf-8")
        with refused(str(path), "remove it"):
            audit(data=str(photos), synthetic=str(folder), output=tmp_path / "audit")
        path.unlink()


def test_what_cannot_be_attacked_is_refused_in_one_line(photos, tmp_path, refused):
    with refused("--lora or --synthetic"):
        audit(data=str(photos))
    with refused("missing.safetensors"):
        audit(data=str(photos), lora=("missing.safetensors",), output=tmp_path / "audit")
    assert not (tmp_path / "audit").exists()
