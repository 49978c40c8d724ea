"""Bases that inpaint: masks, what the denoiser sees of a photo, adapters in generate and stock diffusers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pictures
import pipelines
import pytest
import single_files
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from finetune.command import train
from finetune.config import TrainLora
from finetune.context import Job
from finetune.data import masks, prior
from finetune.data.encoded_cache import keys_of
from finetune.data.encoding import Encoder
from finetune.models.families import family_of
from finetune.models.sampling import Settings
from finetune.planning import resume
from finetune.step.batches import draw
from finetune.step.objective import UNWEIGHTED
from generate.command import generate
from generate.config import Generate
from generate.sampling.repainting import whole_cells
from orchard import shards
from orchard.adapters import adapter
from orchard.datasets import sources
from orchard.images.boxes import Annotated, Box
from orchard.images.images import decode, square

CPU = torch.device("cpu")
SIDE, CELLS, CELL = 32, 16, 2
BOX = Box(8, 4, 20, 16)
"""Edges between latent cells."""
PLAIN = pictures.photo("a.png", "apple", data=pictures.encoded(pictures.noise(3, (SIDE, SIDE))))
BOXED = replace(PLAIN, annotations=(lambda: Annotated((BOX,)),))
SMALL = {"data": "demo", "classes": ("apple",), "shots": 4, "precision": "fp32", "batch_size": 2, "rank": 2}


@pytest.fixture(scope="module")
def inpainting(tmp_path_factory) -> dict[str, Path]:
    return {
        name: make(tmp_path_factory.mktemp("bases") / name) for name, make in pipelines.INPAINTING.items()
    }


def encoder_of(folder: Path, cache: Path | None = None) -> Encoder:
    base, pipe = pipelines.load(folder)
    keys = keys_of(base, "fp32", "cpu", {PLAIN.sha256: (SIDE, SIDE)})
    accelerator = Accelerator(cpu=True)
    return Encoder(family=family_of(pipe, base), keys=keys, folder=cache, accelerator=accelerator)


def trained(base: Path, output: Path, **options) -> adapter.Adapter:
    train(TrainLora(base=str(base), output=output, **{**SMALL, "steps": 4, "learning_rate": 0.05, **options}))
    return adapter.read(output / "apple.safetensors")


def drawn(photo, boxes=()) -> np.ndarray:
    return masks.of_photo(photo, boxes, (SIDE, SIDE), CELL)


def test_masks_are_those_of_the_photo_alone_and_others_for_its_mirror_image():
    assert np.array_equal(drawn(PLAIN), drawn(replace(PLAIN, path="b.png", label="pear")))
    other = drawn(replace(PLAIN, sha256="0" * 64))
    assert not np.array_equal(drawn(PLAIN)[0, 1:], other[0, 1:])
    assert not np.array_equal(drawn(PLAIN)[0, 1:], drawn(PLAIN)[1, 1:])


def test_masks_cover_everything_the_boxes_all_but_them_and_shapes():
    box = np.zeros((CELLS, CELLS), bool)
    box[2:8, 4:10] = True
    for number in range(20):
        plain, mirrored = drawn(replace(PLAIN, sha256=f"{number:064}"), [BOX])
        for everything, inside, outside, shape in (plain, mirrored[..., ::-1]):
            assert everything.all() and shape.any()
            assert inside[box].all() and (inside != outside).all()
            rows, columns = np.nonzero(inside)
            # The box, and at most an eighth of the image on each side.
            assert inside.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1) <= 10 * 10


def test_without_boxes_masks_are_rectangles_and_ellipses_of_all_sizes():
    shapes = [one for number in range(50) for one in drawn(replace(PLAIN, sha256=f"{number:064}"))[0, 1:]]
    assert all(one.any() for one in shapes)
    filled = []
    for one in shapes:
        rows, columns = np.nonzero(one)
        filled.append(one.sum() / ((np.ptp(rows) + 1) * (np.ptp(columns) + 1)))
    rectangles = np.isclose(filled, 1)
    assert 0.3 < rectangles.mean() < 0.8  # an ellipse of few cells is a rectangle too
    assert np.median(np.array(filled)[~rectangles]) == pytest.approx(np.pi / 4, abs=0.08)
    shares = [one.mean() for one in shapes]
    assert min(shares) < 0.05 and max(shares) > 0.5


def test_boxes_that_leave_nothing_count_as_none():
    everything, *others = drawn(PLAIN, [Box(0, 0, SIDE, SIDE)])[0]
    assert everything.all() and not all(one.all() for one in others) and all(one.any() for one in others)


@pytest.mark.parametrize("name", pipelines.INPAINTING)
def test_the_denoiser_sees_of_a_photo_what_the_stock_pipeline_prepares(inpainting, name):
    encoder = encoder_of(inpainting[name])
    data = encoder.dataset([BOXED], ["an apple"])
    pipe = encoder.family.pipe
    assert type(pipe).__name__.endswith("InpaintPipeline")
    photo = BOXED.image()
    for side, image in enumerate((photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))):
        for place in range(len(masks.KINDS)):
            mask = data.images[0].masked.masks[side, place, 0].numpy()
            pixels = whole_cells(np.kron(mask, np.ones((CELL, CELL), bool)), CELL)
            given = pipe.mask_processor.preprocess(pixels, height=SIDE, width=SIDE)
            masked = pipe.image_processor.preprocess(image, height=SIDE, width=SIDE) * (given < 0.5)
            options = (given, masked, 1, SIDE, SIDE, torch.float32, CPU, torch.Generator().manual_seed(7))
            if name == "sd3":
                options = (given, masked, 1, 1, SIDE, SIDE, *options[5:])
            expected = torch.cat(pipe.prepare_mask_latents(*options, False), dim=1)[0]
            noise = torch.randn(expected[1:].shape, generator=torch.Generator().manual_seed(7))
            ours = data.images[0].masked.condition(side, place / len(masks.KINDS), noise)
            assert torch.allclose(ours, expected, atol=1e-5), (side, place)


@pytest.mark.parametrize("name", pipelines.INPAINTING)
def test_a_step_gives_the_denoiser_noisy_latents_mask_and_what_it_leaves(inpainting, name):
    encoder = encoder_of(inpainting[name])
    data = encoder.dataset([BOXED], ["an apple"])
    batch = draw(data, 3, batch_size=4, seed=1, flip=True)
    seen = []

    def network(given, timesteps, prompts):
        seen.append(given)
        return torch.zeros_like(batch.latents)

    encoder.family.loss(network, batch, UNWEIGHTED)
    channels = batch.latents.shape[1]
    assert seen[0].shape[1] == encoder.family.denoiser.config.in_channels == 2 * channels + 1
    assert torch.equal(seen[0][:, channels:], batch.condition)
    assert set(seen[0][:, channels].unique().tolist()) <= {0.0, 1.0}


def test_every_step_draws_among_all_masks_and_depends_on_nothing_else(inpainting):
    data = encoder_of(inpainting["sd"]).dataset([BOXED], ["an apple"])
    options = {"batch_size": 4, "seed": 1, "flip": False}
    batches = [draw(data, step, **options) for step in range(20)]
    again = draw(data, 7, **options)
    assert torch.equal(batches[7].condition, again.condition)
    halves = [draw(data, 7, **options, part=part, parts=2) for part in range(2)]
    for part, half in enumerate(halves):
        assert torch.equal(half.condition, again.condition[part::2])
    found = [
        place
        for batch in batches
        for mask in batch.condition[:, 0]
        for place, one in enumerate(data.images[0].masked.masks[0, :, 0])
        if torch.equal(mask, one.float())
    ]
    assert sorted(set(found)) == [0, 1, 2, 3]
    assert min(np.bincount(found)) > 10  # of 80, a quarter each
    plain = [replace(image, masked=None) for image in data.images]
    without = draw(replace(data, images=plain), 7, **options)
    assert without.condition is None
    assert torch.equal(without.latents, again.latents) and torch.equal(without.noise, again.noise)


def test_a_full_cache_gives_the_masks_of_an_empty_one_and_boxes_are_part_of_its_key(tmp_path, inpainting):
    encoder = encoder_of(inpainting["sd"], tmp_path)
    first, again = (encoder.dataset([BOXED], ["an apple"]).images[0].masked for _ in range(2))
    assert len(list(tmp_path.rglob("photos/*"))) == 1
    assert all(torch.equal(getattr(first, name), getattr(again, name)) for name in ("masks", "mean", "std"))
    encoder.dataset([PLAIN], ["an apple"])
    assert len(list(tmp_path.rglob("photos/*"))) == 2


def test_boxes_and_kinds_of_masks_are_part_of_what_an_adapter_depends_on(inpainting):
    base, _ = pipelines.load(inpainting["sd"])
    sets = [pictures.image_set([photo]) for photo in (PLAIN, BOXED)]
    jobs = [Job(name="a", classes=("apple",), photos=photos) for photos in sets]
    plain, boxed = (resume.identity(TrainLora(), base, job, {}) for job in jobs)
    assert plain["masks"] == boxed["masks"] == list(masks.KINDS)
    assert "boxes" in boxed and "boxes" not in plain


def test_prior_images_are_trained_on_as_they_were_sampled_with_nothing_kept(tmp_path, inpainting):
    base, _ = pipelines.load(inpainting["sd"])
    encoder = encoder_of(inpainting["sd"])
    config = TrainLora(output=tmp_path, prior_weight=1.0, prior_count=2)
    found = prior.dataset(config, base, encoder, ["apple"])
    seen, unet = [], encoder.family.pipe.unet
    unet.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    prior._sample(config.seed, Settings(), encoder.family, "a photo of apple", range(1))
    masked = found.images[0].masked
    mask, latents = masked.masks, masked.mean
    assert mask.all() and (seen[0][:, 4] == 1).all()
    # What is left of an image of which nothing is left, as the pipeline sampled it: within its posterior.
    deviation = (seen[0][0, 5:] - latents[0, 0]) / masked.std[0, 0]
    assert deviation.abs().max() < 5 and deviation.std() == pytest.approx(1, abs=0.1)


def test_training_lowers_the_validation_loss(tmp_path, inpainting):
    options = {
        "targets": ("all",),
        "rank": 4,
        "steps": 40,
        "batch_size": 4,
        "learning_rate": 0.01,
        "sheets": False,
    }
    trained(inpainting["sd"], tmp_path, **options, validate_every=20)
    log = [json.loads(line) for line in (tmp_path / "logs" / "apple.jsonl").read_text().splitlines()]
    losses = [line["validation_loss"] for line in log if "validation_loss" in line]
    assert losses[-1] < 0.97 * losses[0]


def test_plan_card_and_next_command_are_for_a_base_that_inpaints_and_samples_are_written(
    tmp_path, inpainting, capsys
):
    one = trained(inpainting["sd"], tmp_path, steps=1, preview_every=1)
    said = " ".join(capsys.readouterr().out.split())
    assert "masks hide everything, the boxes, all but the boxes or a rectangle or ellipse of a photo" in said
    assert f"next: python -m generate --lora {one.path} --repaint object" in said.replace(" \n", " ")
    for path in ("apple-samples.png", "previews/apple-000001.png"):
        assert np.asarray(Image.open(tmp_path / path)).std() > 1
    card = (tmp_path / "README.md").read_text()
    assert "--repaint object" in card and 'mask_image=load_image("mask.png")' in card
    assert one.provenance.inpaints and one.provenance.options["masks"] == list(masks.KINDS)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_resumed_run_ends_in_the_same_bits(tmp_path, inpainting, name):
    options = {"steps": 4, "save_every": 2, "keep": 0, "sheets": False, "prior_weight": 0.5, "prior_count": 2}
    options |= {"prompt": "a photo of sks {label}"}
    straight = load_file(trained(inpainting[name], tmp_path, **options).path)
    (tmp_path / "apple.safetensors").unlink()
    again = load_file(trained(inpainting[name], tmp_path, **options, resume="latest").path)
    assert straight.keys() == again.keys()
    assert all(torch.equal(straight[key], again[key]) for key in straight)


@pytest.mark.parametrize("method", ["dora", "loha", "lokr"])
def test_every_method_trains_on_the_nine_channels_too(tmp_path, inpainting, method):
    one = trained(inpainting["sd"], tmp_path, method=method, targets=("all",), sheets=False, steps=2)
    assert one.methods == (method,)
    assert any("conv_in" in key for key in load_file(one.path))


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_stock_diffusers_draws_with_the_adapter_what_generate_draws(tmp_path, inpainting, name):
    import diffusers

    one = trained(inpainting[name], tmp_path / "a", targets=("all",), learning_rate=0.3, sheets=False)
    small = {"steps": 3, "count": 2, "precision": "fp32", "data": "demo", "screens": ("none",)}
    small |= {"scheduler": "base", "repaint": "centre", "strength": 0.7, "batch_size": 1}
    generate(Generate(lora=(str(one.path),), output=str(tmp_path / "s"), **small))
    kind = {"sd": "StableDiffusionInpaintPipeline", "sdxl": "StableDiffusionXLInpaintPipeline"}[name]
    pipe = getattr(diffusers, kind).from_pretrained(inpainting[name], safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(one.path)
    photos = {photo.sha256: photo for photo in sources.load("demo").photos}
    middle = np.zeros((SIDE, SIDE), bool)
    middle[8:24, 8:24] = True
    for row in shards.rows_of(shards.path_of(tmp_path / "s", "apple", 0)):
        given = {
            "image": square(photos[row["guide"]].image(), SIDE),
            "mask_image": Image.fromarray(middle.astype(np.uint8) * 255),
            "generator": torch.Generator().manual_seed(row["seed"]),
            "num_inference_steps": 3,
            "guidance_scale": row["guidance"],
            "strength": 0.7,
        }
        ours = np.asarray(decode(row["image"]["bytes"], "row"), dtype=int)
        stock = np.asarray(pipe(row["prompt"], **given).images[0], dtype=int)
        assert np.abs(ours - stock)[middle].max() <= 1
        pipe.disable_lora()
        given["generator"].manual_seed(row["seed"])
        assert np.abs(ours - np.asarray(pipe(row["prompt"], **given).images[0], dtype=int))[middle].max() > 10
        pipe.enable_lora()


def test_one_file_that_inpaints_is_trained_and_repaints(tmp_path, inpainting):
    _, pipe = pipelines.load(inpainting["sd"])
    shutil.copytree(inpainting["sd"], tmp_path / "model")
    file = single_files.write(pipe, tmp_path / "model.safetensors")
    one = trained(file, tmp_path / "a", sheets=False)
    folder = trained(inpainting["sd"], tmp_path / "b", sheets=False)
    ours, theirs = load_file(one.path), load_file(folder.path)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert (
        'StableDiffusionInpaintPipeline.from_single_file("model.safetensors'
        in (tmp_path / "a" / "README.md").read_text()
    )
    small = {"steps": 2, "count": 1, "precision": "fp32", "data": "demo", "screens": ("none",)}
    generate(Generate(lora=(str(one.path),), output=str(tmp_path / "s"), repaint="object", **small))
    assert len(shards.rows_of(shards.path_of(tmp_path / "s", "apple", 0))) == 1
