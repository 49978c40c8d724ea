"""The loss of single photos: against a computation of its own, and what is refused."""

import json

import numpy as np
import pipelines
import pytest
import torch
from diffusers import DDPMScheduler
from diffusers import StableDiffusionPipeline as Stock
from squares import write_images

from finetune.command import train
from finetune.config import TrainLora
from finetune.losses import command
from finetune.losses.command import losses
from finetune.losses.config import Losses
from orchard.adapters import adapter
from orchard.datasets import sources
from orchard.images.splits import stable_hash

DRAWS = 4


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    for split, count in (("train", 2), ("test", 2)):
        write_images(folder / split, {"x": count, "y": count}, seed=len(split))
    return folder


@pytest.fixture(scope="module")
def adapter_file(photos, tmp_path_factory):
    """An adapter of class x on a tiny base, trained so fast that it changes every loss."""
    base = pipelines.tiny(tmp_path_factory.mktemp("base"))
    output = tmp_path_factory.mktemp("adapters")
    options = {"steps": 4, "batch_size": 2, "rank": 2, "learning_rate": 0.2, "precision": "fp32"}
    train(TrainLora(base=str(base), data=str(photos), classes=("x",), output=output, sheets=False, **options))
    return base, output / "x.safetensors"


def measured(photos, adapter_file, output, **options):
    config = Losses(
        lora=(str(adapter_file[1]),),
        data=str(photos),
        draws=DRAWS,
        output=output,
        precision="fp32",
        **options,
    )
    (found,) = losses(config).values()
    return found


def test_each_photo_has_its_loss_with_and_without_the_adapter(photos, adapter_file, tmp_path):
    found = measured(photos, adapter_file, tmp_path / "losses.json")
    assert [(one.file, one.member) for one in found] == [
        ("test/x/0.png", False), ("test/x/1.png", False), ("train/x/0.png", True), ("train/x/1.png", True),
    ]  # fmt: skip
    assert all(one.base != one.adapted for one in found)
    (written,) = json.loads((tmp_path / "losses.json").read_text())["adapters"]
    assert (written["file"], written["told_by"]) == ("x.safetensors", "ledger")
    assert [photo["base"] for photo in written["photos"]] == [one.base for one in found]
    again = measured(photos, adapter_file, tmp_path / "again.json")
    assert again == found
    assert measured(photos, adapter_file, tmp_path / "other.json", seed=1) != found


@torch.no_grad()
def test_the_loss_is_that_of_the_stock_pipeline(photos, adapter_file, tmp_path):
    base, file = adapter_file
    found = measured(photos, adapter_file, tmp_path / "losses.json")[0]
    photo = next(one for one in sources.load(str(photos)).photos if one.path == found.file)
    pipe = Stock.from_pretrained(base, safety_checker=None)
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    pixels = np.asarray(photo.image().resize((side, side), 1))
    both = torch.from_numpy(np.stack([pixels, pixels[:, ::-1]])).permute(0, 3, 1, 2) / 127.5 - 1
    posterior = pipe.vae.encode(both).latent_dist
    generator = torch.Generator().manual_seed(stable_hash("losses", 0, photo.sha256))
    shape = (DRAWS, *posterior.mean.shape[1:])
    first, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    latents = (
        posterior.mean[[0, 1, 0, 1]] + posterior.std[[0, 1, 0, 1]] * first
    ) * pipe.vae.config.scaling_factor
    times = (torch.arange(DRAWS) + torch.rand(DRAWS, generator=generator, dtype=torch.float64)) / DRAWS
    schedule = DDPMScheduler.from_config(pipe.scheduler.config)
    steps = (times * schedule.config.num_train_timesteps).long()
    noisy = schedule.add_noise(latents, noise, steps)
    words, _ = pipe.encode_prompt("a photo of x", "cpu", 1, False)
    for expected, load in ((found.base, False), (found.adapted, True)):
        if load:
            pipe.load_lora_weights(file)
            words, _ = pipe.encode_prompt("a photo of x", "cpu", 1, False)
        said = pipe.unet(noisy, steps, words.expand(DRAWS, -1, -1)).sample
        wanted = (
            noise
            if schedule.config.prediction_type == "epsilon"
            else schedule.get_velocity(latents, noise, steps)
        )
        assert expected == pytest.approx((said - wanted).square().mean().item(), rel=1e-4)


def test_what_cannot_be_measured_is_refused_before_a_weight_is_loaded(
    photos, adapter_file, tmp_path, refused
):
    with refused("--lora: give"):
        losses(Losses(data=str(photos)))
    with refused("--draws 0"):
        losses(Losses(lora=(str(adapter_file[1]),), draws=0))
    strangers = write_images(tmp_path / "strangers", {"x": 3, "y": 3}, seed=9)
    with refused("strangers", "x.safetensors was trained on"):
        losses(Losses(lora=(str(adapter_file[1]),), data=str(strangers), output=tmp_path / "none.json"))
    assert not (tmp_path / "none.json").exists()


def test_a_private_adapter_of_few_photos_is_taken_to_know_those_that_its_options_draw(photos, tmp_path):
    base = pipelines.tiny(tmp_path / "base")
    options = {"steps": 1, "batch_size": 1, "rank": 2, "precision": "fp32", "shots": 1, "seed": 5}
    train(TrainLora(base=str(base), data=str(photos), output=tmp_path / "a", sheets=False, **options))
    for name in ("x", "y"):
        said = adapter.read(tmp_path / "a" / f"{name}.safetensors").provenance
        own = [photo for photo in sources.load(str(photos)).photos if photo.label == name]
        assert sorted(command._drawn(said, own)) == said.ledger
