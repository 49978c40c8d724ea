"""The log of a run, its trackers, and the loss on held-out photos."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import encoded_photos
import pytest
import stub_sampler
import torch
from PIL import Image
from shell import TRAIN, command, refusal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from finetune.command import train
from finetune.config import TrainLora
from finetune.data import training_data
from finetune.models.families import StableDiffusion
from finetune.models.family import Network
from finetune.outputs import logs
from finetune.training import validation
from orchard.bases import bases
from orchard.datasets import sources
from orchard.images.images import TRAIN as TRAINING


def words(base: Path, *more: object) -> tuple[object, ...]:
    size = ("--shots", 5, "--steps", 6, "--batch_size", 2, "--rank", 2)
    return (*TRAIN, "--base", base, "--classes", "apple", *size, *more)


def read(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "adapters/logs/apple.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_step_is_a_line_and_a_resumed_run_has_each_once(base, tmp_path):
    options = ("--validate_every", 3, "--log_with", "tensorboard", "--save_every", 4, "--keep", 0)
    command(tmp_path, *words(base, *options))
    lines = read(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "validation_loss" in line] == [3, 6]
    assert all(line["loss"] > 0 and line["images_per_second"] > 0 for line in lines)
    events = EventAccumulator(str(tmp_path / "adapters" / "logs" / "orchard"))
    events.Reload()
    tracked = [event.value for event in events.Scalars("apple/loss")]
    assert tracked == pytest.approx([line["loss"] for line in lines])

    (tmp_path / "adapters" / "apple.safetensors").unlink()
    command(tmp_path, *words(base, *options, "--resume", "latest"))
    again = read(tmp_path)
    for key in ("step", "loss", "learning_rate", "validation_loss"):
        assert [line.get(key) for line in again] == [line.get(key) for line in lines], key
    shutil.rmtree(tmp_path / "adapters")


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch, refused):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refused("--log_with wandb", "pip install wandb"):
        logs.require_tracker("wandb")
    logs.require_tracker("none")


class Tracker:
    """A tracker that notes what it is shown."""

    def __init__(self, name: str) -> None:
        self.name, self.shown = name, {}

    def log_images(self, values, step, **options) -> None:
        self.shown = {"values": values, "step": step, **options}

    def log(self, values, step) -> None:
        self.shown = {"values": values, "step": step}


def test_a_picture_goes_to_each_tracker_in_its_own_form(tmp_path, monkeypatch):
    trackio = SimpleNamespace(Image=lambda pixels: ("trackio image", pixels.shape))
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    trackers = [Tracker(name) for name in ("tensorboard", "wandb", "trackio")]
    accelerator = SimpleNamespace(trackers=trackers, is_main_process=False)
    log = logs.Log(TrainLora(output=tmp_path), "apple", accelerator, done=0)
    log.picture(7, "preview/apple", Image.new("RGB", (5, 3)))
    board, bias, hugging = (tracker.shown for tracker in trackers)
    assert board["step"] == bias["step"] == hugging["step"] == 7
    assert board["values"]["preview/apple"].shape == (1, 3, 5, 3) and board["dataformats"] == "NHWC"
    assert [pixels.shape for pixels in bias["values"]["preview/apple"]] == [(3, 5, 3)]
    assert hugging["values"] == {"preview/apple": ("trackio image", (3, 5, 3))}


def test_a_tenth_of_each_class_is_held_out_of_training(fruit):
    photos = sources.load(str(fruit)).of(TRAINING)
    kept, apart = training_data.hold_out(photos)
    assert apart.counts() == {"apple": 8, "banana": 7, "orange": 7}
    assert not kept.hashes() & apart.hashes()
    assert len(kept) + len(apart) == len(photos)


def test_the_held_out_loss_never_changes_by_itself(base):
    found = bases.resolve(str(base))
    family = StableDiffusion.of(bases.load(found, torch.float32, torch.device("cpu")), found)
    mean = torch.randn(3, 2, 4, 16, 16, generator=torch.Generator().manual_seed(0)).unbind()
    texts = family.encode_prompts(["a photo of apple"])
    std = [0.1 * both.abs() for both in mean]
    rows = torch.zeros(3, dtype=torch.long)
    dataset = encoded_photos.dataset(mean=mean, std=std, prompts=texts, prompt_of=rows)
    network = Network(family)
    first = validation.loss(family, network, dataset, seed=0)
    torch.rand(10)
    assert validation.loss(family, network, dataset, seed=0) == first
    assert validation.loss(family, network, dataset, seed=1) != first


def test_a_class_of_one_photo_cannot_be_validated(base, tmp_path):
    line = refusal(tmp_path, *words(base, "--validate_every", 2, "--data", "demo", "--shots", 10**6))
    assert "needs at least" in line


@pytest.mark.parametrize("joint", [False, True])
def test_copies_of_one_photo_cannot_be_validated(base, tmp_path, refused, joint):
    photos = stub_sampler.photos(tmp_path / "photos")
    for path in (photos / "train" / "pear").iterdir():
        path.write_bytes((photos / "train" / "pear" / "0.png").read_bytes())
    config = {"base": str(base), "data": str(photos), "output": tmp_path / "out", "dry_run": True}
    with refused("--validate_every: class pear has 4 training images, 1 of them different"):
        train(TrainLora(**config, validate_every=2, joint=joint))
    train(TrainLora(**config, joint=joint))
    train(TrainLora(**config, validate_every=2, classes=("apple",)))
