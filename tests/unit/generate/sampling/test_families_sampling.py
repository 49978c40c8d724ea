"""SD 1, SD with v, SDXL and SD 3: sampled as the stock pipelines do, from photos to shards."""

from pathlib import Path

import numpy as np
import pictures
import pipelines
import plans
import pytest
import single_files
import torch

from finetune.command import train
from finetune.config import TrainLora
from generate.command import generate
from generate.config import Generate
from generate.planning.init_images import InitImages
from generate.planning.jobs import jobs
from generate.sampling import pipeline
from generate.sampling.loras import Blend
from orchard import shards
from orchard.bases import bases
from orchard.images import images

PROMPT = "a photo of apple"


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("sd-v", "dpmsolver++"),
        ("sdxl", "dpmsolver++"),
        ("sdxl", "euler_a"),
        ("sdxl", "base"),
        ("sd3", "dpmsolver++"),
        ("sd3", "euler"),
        ("sd3", "base"),
    ],
)
def test_an_image_is_the_same_at_every_batch_size(folders, name, scheduler):
    plan = plans.class_plan(count=3, seed=3)
    found = [sampled(folders[name], plan, scheduler=scheduler, batch_size=size) for size in (1, 2)]
    assert max(np.abs(a - b).max() for a, b in zip(*found, strict=True)) <= 1
    assert np.abs(found[0][0] - found[0][1]).max() > 8


def sampled(folder: Path, plan, **options) -> list[np.ndarray]:
    _, pipe = pipelines.load(folder)
    return plans.sampled(pipe, plan, **options)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", pipelines.TINY)
def test_a_row_is_what_the_stock_call_gives(folders, name, guidance):
    plan = plans.class_plan(count=2)
    _, pipe = pipelines.load(folders[name])
    for row, ours in zip(plans.rows(plan), sampled(folders[name], plan, guidance=guidance), strict=True):
        generator = torch.Generator().manual_seed(row.seed)
        options = {"generator": generator, "num_inference_steps": 3, **pipelines.sized(pipe)}
        stock = pipe(PROMPT, guidance_scale=guidance, **options).images[0]
        assert np.abs(np.asarray(stock, dtype=int) - ours).max() <= 1


def test_both_flow_solvers_reach_the_same_image(folders):
    plan = plans.class_plan(count=1)
    (euler,) = sampled(folders["sd3"], plan, scheduler="euler", steps=200, batch_size=1)
    (solver,) = sampled(folders["sd3"], plan, scheduler="dpmsolver++", steps=50, batch_size=1)
    assert np.abs(euler - solver).max() <= 2


def guided(folder: Path, photo, **options) -> np.ndarray:
    """An image that is started from a photo, by the command's own pipeline."""
    config = Generate(image_guidance="photos", precision="fp32")
    pipe = pipeline.Loader(config, torch.float32, torch.device("cpu"))(bases.resolve(str(folder)), Blend())
    plan = plans.class_plan(count=1, guides=InitImages("apple", 0, (photo,)))
    return plans.sampled(pipe, plan, batch_size=1, depth=0, guidance=1.0, **options)[0]


@pytest.fixture(scope="module")
def photo():
    return pictures.photo("a", "apple", data=pictures.encoded(pictures.noise(1, (32, 32))))


def test_both_flow_solvers_reach_the_same_image_from_a_photo(folders, photo):
    fine = guided(folders["sd3"], photo, scheduler="euler", steps=200, strength=0.6)
    for scheduler, most in (("euler", 14), ("dpmsolver++", 4)):
        coarse = guided(folders["sd3"], photo, scheduler=scheduler, steps=20, strength=0.6)
        assert np.abs(coarse - fine).max() <= most, scheduler


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scheduler": "ddim"}, ("--scheduler ddim", "dpmsolver++, euler or base")),
        ({"scheduler": "unipc"}, ("--scheduler unipc",)),
        ({"steps": 500}, ("--steps 500", "--scheduler euler")),
    ],
)
def test_what_flow_matching_cannot_do_is_refused_before_loading(
    folders, refused, monkeypatch, options, words
):
    monkeypatch.setattr(bases, "load", None)
    with refused(*words):
        jobs(Generate(base=str(folders["sd3"]), data="demo", **options), "fp32")
    assert jobs(Generate(base=str(folders["sdxl"]), data="demo", **options), "fp32")


@pytest.mark.parametrize("kind", ["sdxl", "sd3", "one file"])
def test_the_commands_go_from_photos_to_shards(tmp_path, folders, kind):
    if kind == "one file":
        pipelines.tiny(tmp_path / "model")
        _, pipe = pipelines.load(tmp_path / "model")
        base = single_files.write(pipe, tmp_path / "model.safetensors")
    else:
        base, pipe = folders[kind], pipelines.load(folders[kind])[1]
    small = {"data": "demo", "classes": ("apple",), "precision": "fp32"}
    shape = {"steps": 3, "batch_size": 2, "learning_rate": 0.1, "alpha": 4.0, "export": "kohya"}
    train(TrainLora(base=str(base), output=tmp_path, **shape, **small))
    lora_file = tmp_path / "apple.safetensors"
    generate(
        Generate(lora=(str(lora_file),), output=tmp_path / "s", count=1, steps=3, scheduler="base", **small)
    )
    row = shards.rows_of(shards.path_of(tmp_path / "s", "apple", 0))[0]
    plain = sampled_by_hand(pipe, row)
    pipe.load_lora_weights(lora_file)
    ours = np.asarray(images.decode(row["image"]["bytes"], "row"), dtype=int)
    assert np.abs(sampled_by_hand(pipe, row) - ours).max() <= 1
    assert np.abs(plain - ours).max() > 1
    if kind != "sd3":  # stock diffusers reads no kohya files of SD 3
        pipe.unload_lora_weights()
        pipe.load_lora_weights(tmp_path / "kohya" / "apple.safetensors")
        assert np.abs(sampled_by_hand(pipe, row) - ours).max() <= 1


def sampled_by_hand(pipe, row: dict) -> np.ndarray:
    generator = torch.Generator().manual_seed(row["seed"])
    found = pipe(row["prompt"], generator=generator, num_inference_steps=3, guidance_scale=2.0).images[0]
    return np.asarray(found, dtype=int)
