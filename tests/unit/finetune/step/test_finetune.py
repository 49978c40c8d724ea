"""The trainer's maths and its batches."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pipelines
import pytest
import torch
from accelerate import Accelerator
from encoded_photos import cache

from finetune.config import TrainLora
from finetune.models import lora
from finetune.models.families import family_of
from finetune.models.family import Network
from finetune.step.batches import EncodedImage, TrainingData, draw, rows_of
from finetune.step.loss import diffusion_loss, snr, snr_weights, target
from finetune.step.objective import UNWEIGHTED
from finetune.training import learner
from finetune.training.loop import train_steps
from finetune.training.schedules import learning_rate
from orchard.bases import bases

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


def test_an_epoch_sees_every_image_once():
    rows = [row for step in range(5) for row in rows_of(step, 10, 4, seed=1)]
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10] != rows[10:]


def test_a_step_is_the_same_whatever_ran_before_it():
    assert rows_of(7, 10, 4, seed=1) == rows_of(7, 10, 4, seed=1)
    assert rows_of(7, 10, 4, seed=1) != rows_of(7, 10, 4, seed=2)


def test_two_processes_share_the_batch_of_one():
    options = {"batch_size": 4, "seed": 3, "flip": True}
    whole = draw(cache(), 5, **options)
    halves = [draw(cache(), 5, **options, part=p, parts=2) for p in (0, 1)]
    for process, half in enumerate(halves):
        for name in ("latents", "noise", "times"):
            assert torch.equal(getattr(whole, name)[process::2], getattr(half, name)), name
        assert torch.equal(whole.prompts["prompt_embeds"][process::2], half.prompts["prompt_embeds"])
    assert whole.rows[1::2] == halves[1].rows


def test_without_flips_no_mirror_image_is_drawn():
    plain = cache()
    nought = torch.zeros_like(plain.images[0].std)
    sides = torch.stack([nought[0], nought[0] + 1])
    marked = replace(plain, images=[EncodedImage(mean=sides, std=nought)] * len(plain))
    batches = [draw(marked, k, batch_size=4, seed=0, flip=False) for k in range(4)]
    assert all((batch.latents == 0).all() for batch in batches)
    mixed = [draw(marked, k, batch_size=4, seed=0, flip=True) for k in range(4)]
    assert 0 < float(np.mean([batch.latents.mean() for batch in mixed])) < 1


def test_snr_is_alpha_over_its_rest():
    alphas = torch.tensor([0.9, 0.5, 0.0])
    assert torch.allclose(snr(alphas, torch.tensor([0, 1, 2])), torch.tensor([9.0, 1.0, 0.0]))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("epsilon", [5 / 9, 1.0, 1.0]), ("v_prediction", [5 / 10, 1 / 2, 0.0]), ("sample", [5.0, 1.0, 0.0])],
)
def test_min_snr_weights_follow_the_paper(kind, expected):
    weights = snr_weights(torch.tensor([9.0, 1.0, 0.0]), 5.0, kind)
    assert torch.allclose(weights, torch.tensor(expected))


def test_velocity_turns_back_into_the_latents():
    latents, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    alphas = torch.tensor([0.3, 0.8])
    spread = alphas.view(-1, 1, 1, 1)
    noisy = spread.sqrt() * latents + (1 - spread).sqrt() * noise
    velocity = target("v_prediction", latents, noise, alphas)
    assert torch.allclose(spread.sqrt() * noisy - (1 - spread).sqrt() * velocity, latents, atol=1e-5)


def test_the_loss_is_a_weighted_mean():
    predicted, wanted = torch.zeros(2, 1, 2, 2), torch.stack([torch.ones(1, 2, 2), 2 * torch.ones(1, 2, 2)])
    assert diffusion_loss(predicted, wanted, torch.tensor([1.0, 0.5])).item() == pytest.approx((1 + 2) / 2)


def test_the_learning_rate_rises_then_falls_to_nothing():
    rates = [learning_rate(step, TrainLora(steps=100, learning_rate=1.0)) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[52] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] < 1e-3


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_training_lowers_the_loss_on_what_it_saw(tmp_path, kind):
    base = bases.resolve(str(pipelines.tiny(tmp_path, prediction_type=kind)))
    family = family_of(bases.load(base, torch.float32, CPU), base)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    encoded = family.encode(images, ["a photo of apple"] * 2)
    parameters = lora.inject(family.pipe.unet, 4, 4, seed=0)
    config = TrainLora(steps=30, batch_size=4, accumulation=1, learning_rate=1e-2)
    batch = draw(encoded, 0, batch_size=64, seed=9, flip=True)

    def held() -> float:
        with torch.no_grad():
            return family.loss(Network(family), batch, UNWEIGHTED).item()

    before = held()
    accelerator = Accelerator()
    trained = learner.prepare(family, parameters, config, accelerator)
    data = TrainingData(photos=encoded, files=["a", "b"])
    losses = [s.loss for s in train_steps(family, data, trained, config, accelerator)]
    assert len(losses) == 30
    assert held() < before


def test_a_loss_that_is_not_finite_names_the_images(folder):
    base = bases.resolve(str(folder))
    family = family_of(bases.load(base, torch.float32, CPU), base)
    parameters = lora.inject(family.pipe.unet, 4, 4, seed=0)
    broken = cache(2)
    for image in broken.images:
        image.mean.fill_(math.nan)
    config, accelerator = TrainLora(steps=1, batch_size=2, accumulation=1), Accelerator()
    trained = learner.prepare(family, parameters, config, accelerator)
    data = TrainingData(photos=broken, files=["x.jpg", "y.jpg"])
    steps = train_steps(family, data, trained, config, accelerator)
    with pytest.raises(FloatingPointError, match=r"step 0.*x\.jpg|y\.jpg"):
        next(steps)


def test_an_adapter_trained_second_equals_the_same_one_trained_alone(folder):
    base = bases.resolve(str(folder))
    config = TrainLora(steps=3, batch_size=2, accumulation=1, learning_rate=1e-3)

    def train(pipe) -> list[torch.Tensor]:
        family = family_of(pipe, base)
        parameters = lora.inject(pipe.unet, 4, 4, seed=0)
        accelerator = Accelerator()
        trained = learner.prepare(family, parameters, config, accelerator)
        list(train_steps(family, TrainingData(photos=cache(), files=["x"] * 6), trained, config, accelerator))
        found = [parameter.detach().clone() for parameter in parameters]
        trained.release(accelerator)
        lora.remove(pipe.unet)
        return found

    twice = bases.load(base, torch.float32, CPU)
    train(twice)
    alone = bases.load(base, torch.float32, CPU)
    assert all(torch.equal(a, b) for a, b in zip(train(twice), train(alone), strict=True))
