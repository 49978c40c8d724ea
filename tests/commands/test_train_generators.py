"""GAN and VAE through the commands: trained, stopped, resumed to the bit; sampled, topped up, refused."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import stub_sampler
import torch
from conftest import ROOT
from safetensors.torch import load_file
from shell import ENVIRONMENT, GENERATE, TRAIN_GAN, TRAIN_VAE, command, refusal
from stub_sampler import rows

from finetune.generators.config import TrainGan, TrainVae
from generate.command import generate
from generate.config import Generate
from generate.screening import screens
from generate.screening.screens import contrast
from orchard import shards
from orchard.generators import files
from orchard.images.images import decode, sha256

TRAINERS = {"gan": TRAIN_GAN, "vae": TRAIN_VAE}
SIZES = ("--size", 32, "--width", 2, "--latent", 3, "--batch_size", 4, "--precision", "fp32")
PATIENCE = 300
STEPS = 150


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Photos, and a trained generator of each kind."""
    folder = tmp_path_factory.mktemp("generators")
    stub_sampler.photos(folder / "photos")
    for words in TRAINERS.values():
        command(folder, *words, "--data", "photos", *SIZES, "--steps", STEPS, "--preview_every", 100)
    return folder


def in_photos(folder: Path) -> set[str]:
    return {sha256(path.read_bytes()) for path in folder.glob("photos/train/*/*.png")}


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_run_leaves_a_generator_with_its_ledger_its_curve_and_samples(folder, kind):
    record = files.read(folder / "generators" / f"{kind}.safetensors")
    assert (record.kind, record.classes, record.all_classes) == (
        kind,
        stub_sampler.CLASSES,
        stub_sampler.CLASSES,
    )
    assert set(record.trained_on) == in_photos(folder) and len(record.trained_on) == 8
    assert record.options["steps"] == record.steps == STEPS
    lines = (folder / "generators" / "logs" / f"{kind}.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
    there = {path.name for path in (folder / "generators").iterdir()}
    assert {f"{kind}-loss.png", f"{kind}-samples.png"} <= there
    assert (folder / "generators" / "previews" / f"{kind}-000100.png").is_file()


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_run_that_is_stopped_goes_on_to_the_bit(folder, tmp_path, kind):
    words = (*TRAINERS[kind], "--data", folder / "photos", *SIZES, "--steps", STEPS, "--output", "off")
    process = subprocess.Popen(
        [str(word) for word in (*words, "--save_every", 0)],
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    log, end = tmp_path / "off" / "logs" / f"{kind}.jsonl", time.monotonic() + PATIENCE
    while not (log.is_file() and log.read_text().count("\n") > 2):
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143 and f"stopped; saved off/checkpoints/{kind}/step-" in said
    assert not (tmp_path / "off" / f"{kind}.safetensors").exists()
    assert "holds an unfinished run" in refusal(tmp_path, *words)
    assert "latent 3 (requested: 4)" in refusal(tmp_path, *words, "--resume", "latest", "--latent", 4)
    assert f"resuming  {kind} after step" in command(tmp_path, *words, "--resume", "latest")
    found = load_file(tmp_path / "off" / f"{kind}.safetensors")
    straight = load_file(folder / "generators" / f"{kind}.safetensors")
    assert found.keys() == straight.keys()
    assert all(torch.equal(found[name], value) for name, value in straight.items())
    again = command(tmp_path, *words, "--resume", "latest")
    assert f"finished  {kind}" in again and "wrote nothing" in again


def test_a_plan_writes_nothing_and_a_few_photos_of_a_class_are_its_ledger(folder, tmp_path):
    words = (*TRAIN_GAN, "--data", folder / "photos", *SIZES, "--steps", 2)
    said = command(tmp_path, *words, "--dry_run")
    assert "generator gan of apple, pear at 32 px: 2 steps of 4 images" in said
    assert not list(tmp_path.iterdir())
    command(tmp_path, *words, "--classes", "pear", "--shots", 2, "--fit", "crop", "--no_sheets")
    record = files.read(tmp_path / "generators" / "gan.safetensors")
    assert record.classes == ("pear",) and record.all_classes == stub_sampler.CLASSES
    assert len(record.trained_on) == 2 and set(record.trained_on) < in_photos(folder)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (TrainGan(batch_size=1), ("--batch_size 1", "give 2 or more")),
        (TrainGan(width=2000), ("--width 2000", "give 1 to 1024")),
        (TrainGan(diffaugment=("none", "color")), ("--diffaugment none", "name it alone")),
        (TrainGan(classes=("a", "a")), ("--classes: a is given twice",)),
        (TrainVae(beta=-1), ("--beta -1", "give 0 or more")),
        (TrainVae(ema_decay=1), ("--ema_decay 1",)),
        (TrainVae(learning_rate=0), ("--learning_rate 0",)),
    ],
)
def test_options_out_of_range_are_refused(refused, config, words):
    with refused(*words):
        config.require_valid()


def sampled(folder: Path, output: Path, kind: str = "gan", *more: object) -> str:
    file = folder / "generators" / f"{kind}.safetensors"
    sizes = ("--count", 5, "--shard_size", 4, "--batch_size", 3, "--precision", "fp32", "--screens", "none")
    # A larger `--count` comes later and wins.
    return command(folder, *GENERATE, "--generator", file, "--output", output, *sizes, *more)


def pixels(output: Path) -> dict[tuple[int, int], np.ndarray]:
    return {
        (row["label"], row["index"]): np.asarray(decode(row["image"]["bytes"], "")).astype(int)
        for row in rows(output)
    }


@pytest.mark.parametrize("kind", TRAINERS)
def test_a_set_from_a_generator_says_what_made_it_and_what_that_has_seen(folder, tmp_path, kind):
    said = sampled(folder, tmp_path / "set", kind)
    file = folder / "generators" / f"{kind}.safetensors"
    digest = sha256(file.read_bytes())
    assert f"class     apple: 5 images, 5 to sample; {kind} {kind}.safetensors, prompt 'apple'" in said
    manifest = shards.read_manifest(tmp_path / "set")
    assert set(manifest["trained_on"]) == in_photos(folder)
    assert manifest["rows"] == {"apple": 5, "pear": 5} and manifest["unknown_ledger"] == []
    for row in rows(tmp_path / "set"):
        assert row["prompt"] == stub_sampler.CLASSES[row["label"]]
        assert (row["base"], row["lora"], row["steps"], row["guidance"]) == (kind, digest, 1, 1.0)
    card = (tmp_path / "set" / "README.md").read_text()
    assert "sampled from a diffusion model" not in card and f"a {kind.upper()}" in card
    assert (tmp_path / "set" / "sheets" / "apple.png").is_file()


def test_rows_hang_on_seed_class_and_number_alone(folder, tmp_path):
    sampled(folder, tmp_path / "one")
    whole = pixels(tmp_path / "one")
    assert np.abs(whole[0, 0] - whole[0, 1]).max() > 0 and np.abs(whole[0, 0] - whole[1, 0]).max() > 0
    assert "nothing written" in sampled(folder, tmp_path / "one")
    sampled(folder, tmp_path / "other", "gan", "--batch_size", 4, "--count", 7, "--classes", "pear")
    other = pixels(tmp_path / "other")
    assert len(other) == 7
    assert all(np.abs(other[1, index] - whole[1, index]).max() <= 1 for index in range(5))
    sampled(folder, tmp_path / "one", "gan", "--count", 7)
    assert all(np.array_equal(pixels(tmp_path / "one")[key], value) for key, value in whole.items())
    line = refusal(
        folder,
        *GENERATE,
        "--generator",
        folder / "generators" / "vae.safetensors",
        "--output",
        tmp_path / "one",
        "--count",
        9,
        "--shard_size",
        4,
        "--precision",
        "fp32",
        "--screens",
        "none",
    )
    assert "apple is there with" in line and "base gan" in line


def test_what_the_screens_reject_is_kept_apart_and_further_rows_come(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(screens, "FLAT", 0.0)
    monkeypatch.setattr(screens, "LEAST", {"flat": middle_contrast(folder)})
    sizes = {"count": 4, "batch_size": 3, "precision": "fp32", "screens": ("flat",), "reject_limit": 20}
    generate(Generate(generator="gan.safetensors", output="screened", **sizes))
    kept, rejected = rows(folder / "screened"), rows(folder / "screened", shards.REJECTED)
    assert len(kept) == 8 and {row["reason"] for row in rejected} == {"flat"}
    for label in (0, 1):
        numbers = [row["index"] for row in (*kept, *rejected) if row["label"] == label]
        assert sorted(numbers) == list(range(len(numbers)))


def middle_contrast(folder: Path) -> float:
    """Half of the images have less contrast."""
    generate(
        Generate(generator="gan.safetensors", output="all", count=8, precision="fp32", screens=("none",))
    )
    return float(np.median([contrast(decode(row["image"]["bytes"], "")) for row in rows(folder / "all")]))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("lora", ("a.safetensors",)),
        ("base", "mini"),
        ("prompt", ("a {label}",)),
        ("vary", ("light=dim",)),
        ("contexts", "own"),
        ("steps", 4),
        ("guidance", 2),
        ("scheduler", "ddim"),
        ("attempts", 2),
        ("repaint", "object"),
        ("negative_prompt", "a drawing"),
        ("compile", True),
        ("no_safety_checker", None),
    ],
)
def test_options_of_diffusion_are_refused_by_name(refused, option, value):
    given = {option: value} if value is not None else {"safety_checker": False}
    with refused("--generator gan.safetensors", f"leave out --{option}"):
        Generate(generator="gan.safetensors", **given).require_valid()


def test_what_is_no_generator_or_not_its_class_is_refused(folder, refused):
    words = (*GENERATE, "--generator")
    assert "no file no.safetensors nor generators/no.safetensors" in refusal(folder, *words, "no.safetensors")
    assert "not a file of finetune/train_gan.py" in refusal(folder, *words, "photos/train/apple/0.png")
    line = refusal(folder, *words, "gan.safetensors", "--classes", "kiwi")
    assert "--classes kiwi: not among the generator's classes: apple, pear" in line
