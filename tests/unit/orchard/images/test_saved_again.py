"""Test images that are training images under other bytes: one check for classify and evaluate."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from classify.command import classify
from classify.config import Classify
from evaluate.command import evaluate
from evaluate.config import Evaluate
from orchard import devices

SMALL = {"steps": 1, "batch_size": 2, "size": 64}


def picture(seed: int) -> Image.Image:
    """Smooth blots, as no two photos have them."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize((96, 96))


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Three test photos are training photos: half the size; low quality, mirrored; under another class."""
    folder = tmp_path / "set"
    monkeypatch.setattr(devices, "torch_dtype", lambda precision, device: torch.float32)
    for split, first in (("train", 0), ("test", 100)):
        for place, name in enumerate("xy"):
            (folder / split / name).mkdir(parents=True)
            for i in range(4):
                picture(first + 10 * place + i).save(folder / split / name / f"{i}.png")
    picture(1).resize((48, 48)).save(folder / "test" / "x" / "half.jpg", quality=90)
    ImageOps.mirror(picture(11)).save(folder / "test" / "y" / "low.jpg", quality=50)
    picture(2).save(folder / "test" / "y" / "other.webp", quality=80)
    return folder


def commands(photos: Path):
    data, out = str(photos), photos.parent / "out"
    yield lambda: classify(Classify(train=data, test=data, output=out / "c", **SMALL))
    yield lambda: evaluate(Evaluate(data=data, ratios=("1",), seeds=1, output=out / "e", **SMALL))


def test_test_photos_that_are_training_photos_saved_again_are_named_by_both_commands(photos, capsys):
    for command in commands(photos):
        command()
        said = " ".join(capsys.readouterr().out.split())
        assert "3 of 11 test images" in said and "1 of them under another class" in said
        for pair in ("half.jpg (train/x/1.png)", "low.jpg (train/y/1.png)", "other.webp (train/x/2.png)"):
            assert pair in said
    assert "half.jpg" in (photos.parent / "out" / "e" / "report.html").read_text()


def test_without_such_photos_nothing_is_said(photos, capsys):
    for name in ("x/half.jpg", "y/low.jpg", "y/other.webp"):
        (photos / "test" / name).unlink()
    for command in commands(photos):
        command()
        assert "saved again" not in capsys.readouterr().out


def test_a_test_file_among_the_training_files_is_refused_by_both_commands(photos, refused):
    data = (photos / "train" / "x" / "0.png").read_bytes()
    (photos / "test" / "y" / "twin.png").write_bytes(data)
    for command in commands(photos):
        with refused("1 training images are test images under another name", "train/x/0.png"):
            command()
