"""Synthetic images in the frame of real photos that are not square."""

import json

import numpy as np
import pictures
import pipelines
import pytest
import stub_sampler
import torch
from PIL import Image
from shell import EVALUATE, command

from classify.augment import framed
from classify.config import TrainingOptions
from classify.mixing import UNION
from classify.sizes import Sizes
from classify.train import batch_stream
from evaluate.config import Evaluate
from evaluate.experiment import Pixels
from orchard import sources

CPU = torch.device("cpu")
SMALL = ("--steps", 3, "--batch_size", 4, "--size", 32, "--seeds", 1, "--precision", "fp32")
WORDS = (*EVALUATE, "--data", "photos", *SMALL, "--ratios", 1, 0)


def test_a_framed_image_lies_in_the_middle_of_white():
    images = torch.rand(2, 3, 16, 16) * 0.5
    half, whole = framed(images, torch.tensor([0.5, 1.0]))
    assert torch.allclose(whole, images[1], atol=1e-6)
    inside = half[:, 4:12, 4:12]
    assert torch.allclose(inside.mean(), images[0].mean(), atol=0.05)
    assert inside.max() < 0.51
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[3:13, 3:13] = False
    assert (half[:, outside] == 1).all()


def test_a_part_is_what_the_middle_square_of_a_photo_takes_up_where_it_is_shown_whole(tmp_path):
    for name, size in {"wide_1": (40, 20), "tall_1": (15, 60), "square_1": (30, 30)}.items():
        Image.new("RGB", size, "black").save(tmp_path / f"{name}.png")
    pixels = Pixels(Sizes(size=64, through=None))
    photos = sources.load(str(tmp_path)).photos
    shown = [(image < 128).all(axis=2) for image in pixels.rows(photos)]
    # A black photo is as high, or as wide, as its middle square.
    expected = [min(black.any(axis=0).sum(), black.any(axis=1).sum()) / 64 for black in shown]
    assert pixels.parts(photos) == pytest.approx(expected, abs=1 / 64)
    assert sorted(pixels.parts(photos)) == [0.25, 0.5, 1]


def test_real_images_are_never_framed_and_synthetic_ones_by_each_part():
    black = np.zeros((4, 32, 32, 3), np.uint8)
    labels = np.zeros(4, np.int64)
    options = TrainingOptions(batch_size=4, steps=20)

    def whites(real: int, parts) -> np.ndarray:
        batches = batch_stream((black, labels), real, 1, options, UNION, 0, CPU, parts)
        return np.concatenate(
            [(next(batches).images > 0.5).float().mean((1, 2, 3)).numpy() for _ in range(20)]
        )

    assert whites(4, np.array([0.5])).max() == 0
    assert whites(0, None).max() == 0
    mixed = whites(2, np.array([0.5]))
    assert 0.4 < (mixed > 0).mean() < 0.6
    both = whites(0, np.array([0.25, 1.0]))
    assert 0.3 < (both > 0.8).mean() < 0.7
    assert (both == 0).mean() == pytest.approx(1 - (both > 0.8).mean())


def test_the_command_frames_synthetic_images_alone_and_keeps_the_two_apart(tmp_path, monkeypatch):
    photos = stub_sampler.photos(tmp_path / "photos")
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        pictures.noise(number, (48, 24)).save(path)
    options = {"data": str(photos), "classes": stub_sampler.CLASSES, "count": 4}
    base = pipelines.tiny(tmp_path / "base")
    stub_sampler.generate(monkeypatch, base, tmp_path / "shards", **options)

    def losses(output: str, *words: str) -> dict[float, float]:
        said = command(tmp_path, *WORDS, "--output", output, *words)
        assert ("frame     synthetic images lie on white" in said) == bool(words)
        lines = (tmp_path / output / "records.jsonl").read_text().splitlines()
        return {record["ratio"]: record["nll"] for record in map(json.loads, lines)}

    filled, framed_ones = losses("filled"), losses("framed", "--frame", "photos")
    assert filled[1.0] == framed_ones[1.0]
    assert filled[0.0] != framed_ones[0.0]
    said = command(tmp_path, *WORDS, "--output", "filled", "--frame", "photos", code=2)
    assert "frame" in said.splitlines()[-1]


def test_features_that_are_solved_are_not_framed(refused):
    with refused("--frame photos", "--model features:resnet18"):
        Evaluate(model="features:resnet18", frame="photos").require_valid()
