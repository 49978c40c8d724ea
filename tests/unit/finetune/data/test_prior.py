"""Prior preservation: the base's own pictures, sampled once, as a second term of the loss."""

from pathlib import Path

import numpy as np
import pictures
import pipelines
import pytest
import stub_sampler
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from shell import TRAIN, command

from finetune.command import train
from finetune.config import TrainLora
from finetune.data import prior
from finetune.data.encoded_cache import keys_of
from finetune.data.encoding import Encoder
from finetune.models import lora
from finetune.models.families import StableDiffusion
from finetune.models.family import Network
from finetune.models.sampling import Settings
from finetune.step.batches import TrainingData, draw
from finetune.step.objective import Objective
from finetune.training import learner
from finetune.training.loop import train_steps
from orchard.adapters import adapter
from orchard.bases import bases
from orchard.errors import UserError
from orchard.images.images import sha256
from orchard.images.splits import stable_hash

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


def setting(folder: Path, output: Path, **options):
    base = bases.resolve(str(folder))
    family = StableDiffusion.of(bases.load(base, torch.float32, CPU), base)
    batches = {"batch_size": 2, "accumulation": 1}
    config = TrainLora(output=output, prior_weight=0.5, prior_count=3, steps=1, **batches, **options)
    keys = keys_of(base, "fp32", "cpu", {})
    return config, base, Encoder(family=family, keys=keys, folder=None, accelerator=Accelerator())


def test_pictures_are_sampled_once_and_kept_by_what_they_depend_on(tmp_path, folder, monkeypatch):
    config, base, encoder = setting(folder, tmp_path)
    found = prior.dataset(config, base, encoder, ["apple", "pear"])
    assert len(found) == 6 and found.prompt_of.tolist() == [0, 0, 0, 1, 1, 1]
    assert all(torch.equal(*image.mean) and not image.std.any() for image in found.images)
    assert not torch.equal(found.images[0].mean, found.images[1].mean)
    monkeypatch.setattr(prior, "_sample", None)
    again = prior.dataset(config, base, encoder, ["pear", "apple"])
    assert all(torch.equal(again.images[k].mean, found.images[3 + k].mean) for k in range(3))
    other, _, _ = setting(folder, tmp_path, seed=1)
    with pytest.raises(TypeError):
        prior.dataset(other, base, encoder, ["apple"])


def test_a_picture_is_what_the_pipeline_would_decode(tmp_path, folder):
    config, base, encoder = setting(folder, tmp_path)
    latents = prior.dataset(config, base, encoder, ["apple"]).images[0].mean[:1]
    seed = stable_hash("prior", config.seed, "a photo of apple", 0)
    expected = encoder.family.pipe(
        "a photo of apple",
        generator=torch.Generator().manual_seed(seed),
        num_inference_steps=Settings().steps,
        guidance_scale=Settings().guidance,
        output_type="pt",
    ).images
    vae = encoder.family.pipe.vae
    with torch.no_grad():
        decoded = vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5
    assert torch.allclose(decoded.clamp(0, 1), expected, atol=1e-4)


def test_the_loss_is_the_photos_loss_and_the_weighted_one_of_the_pictures(tmp_path, folder):
    config, base, encoder = setting(folder, tmp_path)
    kept = prior.dataset(config, base, encoder, ["apple"])
    family = encoder.family
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    photos = family.encode(pixels, ["a photo of sks apple"] * 4)
    parameters = lora.inject(family.denoiser, 2, 2, seed=0)
    options = {"batch_size": 2, "flip": True}
    objective = Objective.of(config)
    with torch.no_grad():
        first = family.loss(Network(family), draw(photos, 0, seed=0, **options), objective)
        seed = stable_hash("prior", 0)
        second = family.loss(Network(family), draw(kept, 0, seed=seed, **options), objective)
    data = TrainingData(photos=photos, files=["a", "b", "c", "d"], prior=kept)
    accelerator = Accelerator()
    trained = learner.prepare(family, parameters, config, accelerator)
    step = next(train_steps(family, data, trained, config, accelerator))
    assert step.loss == pytest.approx((first + 0.5 * second).item(), rel=1e-5)


def test_the_command_keeps_the_pictures_and_trains_another_adapter(tmp_path, folder):
    small = ("--base", folder, "--classes", "apple", "--shots", 4, "--steps", 3, "--batch_size", 2)
    more = ("--prompt", "a photo of sks {label}", "--learning_rate", 0.1)
    command(tmp_path, *TRAIN, *small, *more, "--output", "plain")
    prior_options = ("--prior_weight", 1, "--prior_count", 4)
    said = command(tmp_path, *TRAIN, *small, *more, "--output", "kept", *prior_options)
    assert "4 images of `a photo of {label}` per class, weight 1" in said
    assert len(list((tmp_path / "kept" / "prior").iterdir())) == 1
    files = [load_file(tmp_path / name / "apple.safetensors") for name in ("plain", "kept")]
    assert any(not torch.equal(files[0][key], files[1][key]) for key in files[0])


@pytest.mark.parametrize(
    ("captions", "options", "words"),
    [
        ({}, {}, ("train/apple/0.png has the prompt 'a photo of apple'", "'a photo of sks {label}'")),
        ({}, {"prompt": "my {label}", "prior_prompt": "My  {label}"}, ("'my apple'",)),
        ({}, {"joint": True, "prior_prompt": "a photo of {label}"}, ("'a photo of apple'",)),
        ({"apple/2": "a photo of apple"}, {"prompt": "sks {label}"}, ("apple/2.png", "'a photo of apple'")),
        # Of another class of the same adapter, whose prior it is all the same.
        ({"apple/1": "a photo of pear"}, {"prompt": "sks {label}", "joint": True}, ("apple/1.png",)),
    ],
)
def test_photos_under_the_very_prompt_of_the_prior_are_refused_in_the_plan(
    tmp_path, folder, refused, captions, options, words
):
    photos = stub_sampler.photos(tmp_path / "photos")
    for name, text in captions.items():
        (photos / "train" / f"{name}.txt").write_text(text)
    given = {"base": str(folder), "data": str(photos), "output": tmp_path / "out", "dry_run": True}
    with refused("--prior_weight 1: ", *words):
        train(TrainLora(**given, prior_weight=1.0, **options))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("captions", "options"),
    [
        ({}, {"prompt": "a photo of sks {label}"}),
        ({"apple/1": "a photo of pear"}, {"prompt": "sks {label}"}),
        ({}, {"prior_weight": 0.0}),
    ],
)
def test_photos_under_other_prompts_than_the_prior_are_taken(tmp_path, folder, captions, options):
    photos = stub_sampler.photos(tmp_path / "photos")
    for name, text in captions.items():
        (photos / "train" / f"{name}.txt").write_text(text)
    given = {"base": str(folder), "data": str(photos), "output": tmp_path / "out", "dry_run": True}
    train(TrainLora(**{**given, "prior_weight": 1.0, **options}))


def test_own_images_take_the_place_of_sampled_ones_and_are_in_the_ledger(tmp_path, folder, monkeypatch):
    photos = stub_sampler.photos(tmp_path / "photos")
    others = stub_sampler.photos(tmp_path / "others")
    extra = pictures.encoded(pictures.noise(99))
    (others / "train" / "apple" / "extra.png").write_bytes(extra)
    monkeypatch.setattr(prior, "dataset", None)
    given = {"base": str(folder), "data": str(photos), "prompt": "a photo of sks {label}", "sheets": False}
    given |= {"classes": ("apple",), "steps": 2, "batch_size": 2, "precision": "fp32", "learning_rate": 0.1}
    kept = {"prior_weight": 1.0, "prior_data": str(others)}
    train(TrainLora(**given, output=tmp_path / "plain"))
    train(TrainLora(**given, **kept, output=tmp_path / "kept", save_every=1))
    found = [adapter.read(tmp_path / name / "apple.safetensors") for name in ("plain", "kept")]
    weights = [load_file(one.path) for one in found]
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert sha256(extra) not in found[0].provenance.trained_on
    assert sha256(extra) in found[1].provenance.trained_on
    # The test split of the other set stays unseen, and other prior images are another run.
    tested = {sha256(path.read_bytes()) for path in (others / "test" / "apple").iterdir()}
    assert not tested & set(found[1].provenance.trained_on)
    (others / "train" / "apple" / "extra.png").unlink()
    (tmp_path / "kept" / "apple.safetensors").unlink()
    with pytest.raises(UserError, match="prior_photos"):
        train(TrainLora(**given, **kept, output=tmp_path / "kept", save_every=1, resume="latest"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prior_data": "demo"}, ("--prior_data demo", "--prior_weight")),
        ({"prior_data": "demo", "prior_weight": 1.0, "prior_count": 3}, ("--prior_count 3", "--prior_data")),
    ],
)
def test_own_images_without_a_weight_or_with_a_count_are_refused(refused, options, words):
    with refused(*words):
        TrainLora(**options).require_valid()


def test_own_images_that_lack_a_class_are_refused(tmp_path, folder, refused):
    photos = stub_sampler.photos(tmp_path / "photos")
    given = {"base": str(folder), "data": "demo", "classes": ("orange",), "output": tmp_path / "out"}
    with refused("orange"):
        train(TrainLora(**given, prompt="sks {label}", prior_weight=1.0, prior_data=str(photos)))
