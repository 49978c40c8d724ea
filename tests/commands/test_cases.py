"""The known ways in which such projects fail on photos, run through the commands as users type them.

LoRA files and samples have test_cases_sampling; the other forms of P03, P10 and P15 are in test_commands.
"""

import json
import re
from itertools import product
from pathlib import Path

import numpy as np
import pictures
import profiles
import pytest
from PIL import Image, PngImagePlugin
from safetensors import safe_open
from safetensors.torch import load_file
from shell import CLASSIFY, EVALUATE, TRAIN, command, refusal

from evaluate.records import records

TURNS = {3: 2, 6: 3, 8: 1}
"""EXIF orientation -> quarter turns to the left that bring the picture upright."""
WHITE = (255, 255, 255)


def pairs() -> dict[str, tuple[bytes, bytes]]:
    """File name -> the file, and a plain PNG of what is to be seen of it, made without the toolkit."""
    found = {}
    for tag, turns in TURNS.items():
        lying = Image.open(pictures.io.BytesIO(pictures.halves(tag)))
        upright = Image.fromarray(np.rot90(np.asarray(lying), turns))
        found[f"IMG_{tag}.JPG"] = (pictures.halves(tag), pictures.encoded(upright))
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    found["clear.PNG"] = (pictures.encoded(clear), pictures.encoded(Image.new("RGB", (8, 8), WHITE)))
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 255, 0, 0, 0])
    magenta = pictures.encoded(palette, transparency=0)
    found["palette.Png"] = (magenta, pictures.encoded(Image.new("RGB", (8, 8), (255, 255, 255)), "BMP"))
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    found["half.png"] = (pictures.encoded(half), pictures.encoded(Image.new("RGB", (8, 8), (255, 127, 127))))
    phone = Image.new("RGB", (8, 8), profiles.P3_GREEN)
    seen = Image.new("RGB", (8, 8), profiles.SRGB_GREEN)
    found["phone.png"] = (pictures.encoded(phone, icc_profile=profiles.display_p3()), pictures.encoded(seen))
    found["workflow.png"] = (with_a_workflow(), pictures.encoded(pictures.noise(7), "BMP"))
    return found


def with_a_workflow() -> bytes:
    """A picture of a few kilobytes with a compressed text of two megabytes."""
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "{}" * 2**20, zip=True)
    data = pictures.encoded(pictures.noise(7), pnginfo=info)
    assert len(data) < 16 * 2**10
    return data


def odd_set(folder: Path) -> Path:
    """Photos of two classes: turned, transparent, in capitals, with captions and a desktop's files."""
    files: dict[str, bytes | None] = {}
    for place, (name, (file, plain)) in enumerate(pairs().items()):
        for split, end in (("train", b""), ("test", b"\n")):  # else the splits would share files
            files[f"{split}/apple/{name}"] = file + end
            files[f"{split}/apple/plain_{place}.png"] = plain + end
    files |= dict.fromkeys(f"{split}/pear/{i}.JPEG" for split in ("train", "test") for i in range(2))
    leftovers = (
        "train/apple/.DS_Store",
        "train/pear/Thumbs.db",
        "__MACOSX/a.png",
        ".ipynb_checkpoints/b.png",
    )
    files |= dict.fromkeys(leftovers, b"x")
    listed = "".join(f"train/pear/{i}.JPEG,a pear\n" for i in range(1))
    files["metadata.csv"] = f"file_name,text\n{listed}".encode()
    pictures.write(folder, {name: data for name, data in files.items() if data is not None})
    for seed, name in enumerate(name for name, data in files.items() if data is None):
        data = pictures.encoded(pictures.noise(100 + seed), "JPEG")
        pictures.write(folder, {name: data})
    return folder


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    return odd_set(tmp_path_factory.mktemp("odd") / "photos")


def test_p01_p02_p04_p05_p06_p11_p16_p22_training_on_odd_photos_and_a_broken_checkpoint(tmp_path, base, odd):
    words = (*TRAIN, "--base", base, "--data", odd, "--joint", "--batch_size", 2, "--precision", "fp32")
    words = (
        *words,
        "--no_sheets",
        "--steps",
        3,
        "--save_every",
        1,
        "--keep",
        0,
        "--cache",
        tmp_path / "cache",
    )
    said = command(tmp_path, *words)
    assert "train 18 (apple 16, pear 2)" in said
    assert "captions  1 of 18 photos have their own, the others take `a photo of {label}`" in said
    for name in ("__MACOSX", ".ipynb_checkpoints"):
        assert name in said
    assert ".DS_Store" not in said and "Thumbs.db" not in said
    assert "metadata does not list" in said
    assert "apple/IMG_3.JPG" in said
    require_equal_latents(tmp_path / "cache")
    whole = load_file(tmp_path / "adapters" / "joint.safetensors")
    folder = tmp_path / "adapters" / "checkpoints" / "joint"
    assert sorted(path.name for path in folder.iterdir()) == ["step-000001", "step-000002"]
    random = folder / "step-000002" / "random-0.safetensors"
    random.write_bytes(random.read_bytes()[: random.stat().st_size // 2])
    (tmp_path / "adapters" / "joint.safetensors").unlink()
    said = command(tmp_path, *words, "--resume", "latest")
    assert "step-000002 is broken: random-0.safetensors is damaged" in said
    assert "after step 1" in said
    again = load_file(tmp_path / "adapters" / "joint.safetensors")
    assert all(np.array_equal(whole[name], again[name]) for name in whole)


def require_equal_latents(cache: Path) -> None:
    """Raise unless a file has the latents of its plain picture; they are kept by the file's hash."""
    latents = {}
    for path in cache.rglob("photos/*.safetensors"):
        with safe_open(path, framework="pt") as file:
            key = json.loads(file.metadata()["key"])["file"]
        latents[key] = load_file(path)
    assert len(latents) == 18
    for file, plain in pairs().values():
        one, other = (latents[pictures.sha256(data)] for data in (file, plain))
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name], other[name]) for name in one)


def answers(lines: str) -> dict[str, dict[str, float]]:
    return {line["file"]: line["probabilities"] for line in map(json.loads, lines.splitlines())}


def require_alike(found: dict[str, dict[str, float]]) -> None:
    """Raise unless a file and its plain picture got one answer each."""
    assert len(found) == 18
    for place, name in enumerate(pairs()):
        one, other = (found[f"test/apple/{end}"] for end in (name, f"plain_{place}.png"))
        assert one == pytest.approx(other, abs=1e-6), name


def test_p01_p02_p04_p05_p06_p16_p22_scoring_of_odd_photos(tmp_path, odd):
    small = ("--steps", 2, "--size", 32, "--batch_size", 4, "--precision", "fp32")
    command(tmp_path, *CLASSIFY, "--train", odd, "--test", odd, *small)
    require_alike(answers((tmp_path / "classifier" / "predictions.jsonl").read_text()))
    command(tmp_path, *EVALUATE, "--data", odd, "--ratios", 1.0, "--seeds", 1, *small)
    (record,) = records.read(tmp_path / "evaluation")
    assert record["classes"] == ["apple", "pear"]
    require_alike({one["file"]: one["probabilities"] for one in record["predictions"]})


def test_p06_an_image_that_the_metadata_leaves_out_is_kept_and_named(tmp_path, base):
    """All but one are listed; a classifier needs two of a class to train on."""
    places = [f"{split}/{name}" for split in ("train", "train", "test") for name in ("apple", "pear")]
    names = [f"{place}/{i}.png" for i, place in enumerate(places)]
    photos = pictures.write(tmp_path / "photos", names)
    lines = "".join(f"{name},a fruit\n" for name in names if name != "train/pear/1.png")
    (photos / "metadata.csv").write_text(f"file_name,text\n{lines}")
    for words in (
        (*TRAIN, "--base", base, "--data", photos),
        (*CLASSIFY, "--train", photos, "--test", photos),
        (*EVALUATE, "--data", photos, "--ratios", 1.0),
    ):
        said = command(tmp_path, *words, "--dry_run")
        assert "does not list 1 of 6 images (train/pear/1.png); they are kept, without a text" in said
        assert "apple 2, pear 2" in said, said


def test_p06_without_any_label_the_columns_that_there_are_are_named(tmp_path):
    pictures.write(tmp_path, ["photos/a.png", "photos/b.png"])
    (tmp_path / "photos" / "metadata.csv").write_text("file_name,text\na.png,red\nb.png,green\n")
    line = refusal(tmp_path, *CLASSIFY, "--train", "photos", "--test", "photos", "--dry_run")
    assert "no label column in its metadata, found file_name, text" in line


def test_p03_half_a_jpeg_stops_the_experiment_before_it_begins(tmp_path):
    pictures.write(tmp_path, [f"photos/{name}/{i}.png" for name in ("apple", "pear") for i in range(5)])
    (tmp_path / "photos" / "apple" / "cut.jpg").write_bytes(pictures.half_a_jpeg())
    line = refusal(tmp_path, *EVALUATE, "--data", "photos", "--ratios", 1.0, "--steps", 1)
    assert "apple/cut.jpg" in line


def refuse_constants(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_p07_p14_a_class_missing_from_the_test_folder(tmp_path):
    """A network that learns three colours by heart is right by name, so a shifted class list would show."""
    colours = {"x": (250, 0, 0), "y": (0, 250, 0), "z": (0, 0, 250)}
    for label, colour in colours.items():
        for split, count in (("train", 4), ("test", 0 if label == "x" else 2)):
            for i in range(count):
                shade = tuple(min(255, value + 2 * i + (split == "test")) for value in colour)
                image = pictures.encoded(Image.new("RGB", (32, 32), shade))
                pictures.write(tmp_path, {f"photos/{split}/{label}/{i}.png": image})
    small = ("--steps", 40, "--size", 32, "--batch_size", 8, "--no_flip", "--precision", "fp32")
    command(tmp_path, *CLASSIFY, "--train", "photos", "--test", "photos", *small)
    scores = json.loads((tmp_path / "classifier" / "scores.json").read_text())
    assert scores["accuracy"] == 1.0
    assert scores["classes"]["x"] == {"images": 0, "right": 0, "recall": None}
    command(tmp_path, *EVALUATE, "--data", "photos", "--ratios", 1.0, "--seeds", 1, *small)
    lines = (tmp_path / "evaluation" / "records.jsonl").read_text().splitlines()
    (record,) = (json.loads(line, parse_constant=refuse_constants) for line in lines)
    assert record["accuracy"] == 1.0
    assert record["per_class"]["x"]["roc_auc"] is None
    assert record["roc_auc_classes"] == ["y", "z"]
    assert record["roc_auc"] == 1.0
    pictures.write(tmp_path, [f"other/{split}/{name}/0.png" for split in ("train", "test") for name in "yzw"])
    line = refusal(tmp_path, *CLASSIFY, "--train", "photos", "--test", "other", "--dry_run")
    assert "class w is not in --train photos" in line


def test_p15_an_empty_class_is_named_and_four_a_class_are_split(tmp_path):
    four = [f"photos/{name}/{i}.png" for name in ("apple", "pear", "plum") for i in range(4)]
    pictures.write(tmp_path, four)
    words = (*EVALUATE, "--data", "photos", "--ratios", 1.0, "--dry_run")
    assert "held out for test" in command(tmp_path, *words)
    for path in (tmp_path / "photos" / "plum").iterdir():
        path.unlink()
    line = refusal(tmp_path, *words)
    assert "class plum has 0 images" in line
    assert "needs at least 2" in line


def test_p17_a_caption_with_an_unquoted_comma_is_refused_and_a_quoted_one_read_whole(tmp_path, base):
    photos = pictures.write(
        tmp_path / "photos", [f"{name}/{i}.png" for name in ("apple", "pear") for i in (0, 1)]
    )
    said = "one apple, on a wooden table"
    (photos / "metadata.csv").write_text(f"file_name,text\napple/0.png,{said}\n")
    for words in (
        (*TRAIN, "--base", base, "--data", "photos"),
        (*CLASSIFY, "--train", "photos", "--test", "photos"),
        (*EVALUATE, "--data", "photos", "--ratios", 1.0),
    ):
        line = refusal(tmp_path, *words, "--dry_run")
        assert "photos/metadata.csv: line 2 (apple/0.png) has 3 values, the first line 2" in line
    # The tiny tokenizer spells words out: letters and commas, 30 in each of three chunks, are read.
    long = ", ".join([said] * 3)
    rows = "".join(f'apple/{i}.png,"{long}, very very ripe and so red"\n' for i in (0, 1))
    (photos / "metadata.csv").write_text(f"file_name,text\n{rows}")
    told = command(tmp_path, *TRAIN, "--base", base, "--data", "photos", "--dry_run")
    assert "captions  1 of 2 photos have their own" in told
    assert ".png is too long, the text encoder will not see 'red'" in told
    assert "warning   the caption of apple/" in told


def test_p18_a_class_in_a_recipe_is_the_one_that_was_written(tmp_path, base):
    pictures.write(tmp_path, [f"photos/{name}/{i}.png" for name in ("01", "1") for i in range(3)])
    (tmp_path / "recipe.yaml").write_text("classes: [01]\nsteps: 1\nsheets: no\nprecision: fp32\n")
    command(tmp_path, *TRAIN, "--config", "recipe.yaml", "--base", base, "--data", "photos")
    assert [path.name for path in (tmp_path / "adapters").glob("*.safetensors")] == ["01.safetensors"]
    with safe_open(tmp_path / "adapters" / "01.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["orchard"])["classes"] == ["01"]


def test_p21_inception_v3_trains_or_names_a_size_that_works(tmp_path):
    for side in (300, 64):
        images = {
            f"photos{side}/{split}/{name}/{i}.png": pictures.encoded(pictures.noise(seed, (side, side)))
            for seed, (split, name, i) in enumerate(product(("train", "test"), ("apple", "pear"), range(2)))
        }
        pictures.write(tmp_path, images)
    words = (*CLASSIFY, "--model", "inception_v3", "--steps", 1, "--batch_size", 2, "--precision", "fp32")
    large = ("--train", "photos300", "--test", "photos300")
    assert "inception_v3 at 256 px" in command(tmp_path, *words, *large, "--dry_run")
    command(tmp_path, *words, *large)
    assert json.loads((tmp_path / "classifier" / "scores.json").read_text())["images"] == 4
    small = ("--train", "photos64", "--test", "photos64")
    line = refusal(tmp_path, *words, *small, "--dry_run")
    advised = re.search(r"--size 64 .*use (--size) (\d+)", line)
    assert advised, line
    assert "next: " in command(tmp_path, *words, *small, *advised.groups())
