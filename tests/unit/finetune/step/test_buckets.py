"""Aspect buckets: their sizes, which photo goes where, and batches of one shape from several."""

import collections
from pathlib import Path

import encoded_photos
import pictures
import pipelines
import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, StableDiffusionXLPipeline

from finetune.config import TrainLora
from finetune.data.encoded_cache import keys_of
from finetune.data.encoding import Encoder
from finetune.models import lora
from finetune.models.families import family_of
from finetune.step import buckets
from finetune.step.batches import EncodedDataset, TrainingData, draw, rows_of
from finetune.training import learner
from finetune.training.loop import train_steps
from orchard.bases import bases

CPU = torch.device("cpu")
SHAPES = [(4, 4), (4, 6), (6, 4)]


def mixed(counts: list[int]) -> EncodedDataset:
    """``counts`` images of each shape, in turn as long as there are some; image k is filled with k."""
    left, shapes = list(counts), []
    while any(left):
        for kind, count in enumerate(left):
            if count:
                shapes.append(SHAPES[kind])
                left[kind] -= 1
    mean = [torch.full((2, 1, *shape), float(row)) for row, shape in enumerate(shapes)]
    return encoded_photos.dataset(
        mean=mean,
        std=[torch.zeros_like(both) for both in mean],
        prompts={"prompt_embeds": torch.arange(len(mean)).float().reshape(-1, 1, 1)},
        prompt_of=torch.arange(len(mean)),
    )


@pytest.mark.parametrize("resolution", [512, 768, 1024])
def test_buckets_have_about_one_area_and_both_orientations(resolution):
    found = buckets.sizes(resolution)
    assert (resolution, resolution) in found and len(found) >= 7
    assert all((width, height) in found for height, width in found)
    for height, width in found:
        assert height % 64 == width % 64 == 0
        assert 0.9 < height * width / resolution**2 < 1.1
        assert max(height, width) <= 2 * min(height, width)


def test_a_small_base_has_the_square_alone():
    assert buckets.sizes(64) == [(64, 64)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((3000, 4000), (448, 576)),
        ((4000, 3000), (576, 448)),
        ((99, 100), (512, 512)),
        ((100, 900), (384, 704)),
    ],
)
def test_a_photo_goes_where_least_is_cut_off(size, expected):
    assert buckets.nearest(size, buckets.sizes(512)) == expected


def test_every_image_is_drawn_equally_often_in_batches_of_one_shape():
    cache = mixed([7, 4, 1])
    drawn = collections.Counter()
    for step in range(2 * 12):
        batch = draw(cache, step, batch_size=3, seed=5, flip=True)
        assert len({cache.images[row].mean.shape for row in batch.rows}) == 1
        assert torch.equal(batch.latents[:, 0, 0, 0], torch.tensor(batch.rows).float())
        assert torch.equal(batch.prompts["prompt_embeds"].flatten(), torch.tensor(batch.rows).float())
        assert batch.noise.shape == batch.latents.shape
        drawn.update(batch.rows)
    # As many steps as images are as many epochs as a batch has images.
    assert drawn == dict.fromkeys(range(12), 2 * 3)


def test_the_shapes_come_in_their_shares_at_every_time():
    counts = [70, 25, 5]
    found = collections.Counter()
    for step in range(100):
        found[buckets.bucket_of_step(step, counts, seed=0)[0]] += 1
        assert all(abs(found[k] - (step + 1) * counts[k] / 100) <= 2 for k in range(3))
    assert [found[k] for k in range(3)] == counts


def test_one_shape_is_drawn_in_the_order_of_plain_permutations():
    cache = mixed([5])
    drawn = [draw(cache, step, batch_size=4, seed=3, flip=False).rows for step in range(6)]
    assert drawn == [rows_of(step, 5, 4, 3) for step in range(6)]


def test_a_step_is_the_same_whatever_the_number_of_processes_and_what_ran_before():
    options = {"batch_size": 4, "seed": 3, "flip": True}
    for step in (11, 2, 7):
        whole = draw(mixed([5, 3]), step, **options)
        parts = [draw(mixed([5, 3]), step, **options, part=p, parts=2) for p in (0, 1)]
        assert [part.rows for part in parts] == [whole.rows[0::2], whole.rows[1::2]]
        for name in ("latents", "noise", "times"):
            both = torch.stack([getattr(part, name) for part in parts], 1).flatten(0, 1)
            assert torch.equal(both, getattr(whole, name)), name


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """An SDXL pipeline of 512 px, whose autoencoder takes an eighth of the sides."""
    folder = pipelines.tiny_sdxl(tmp_path_factory.mktemp("base"))
    pipe = StableDiffusionXLPipeline.from_pretrained(folder)
    pipe.vae = AutoencoderKL(
        sample_size=512,
        block_out_channels=(4, 4, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    pipe.unet.register_to_config(sample_size=64)
    pipe.save_pretrained(folder)
    return folder


def test_a_base_of_512_px_learns_from_every_shape_and_sdxl_is_told_its_size(wide):
    base = bases.resolve(str(wide))
    assert base.resolution == 512
    files = [pictures.noise(k, size) for k, size in enumerate([(40, 30), (30, 40), (30, 30), (40, 30)])]
    photos = [pictures.photo(f"{k}.png", "a", data=pictures.encoded(file)) for k, file in enumerate(files)]
    shapes = [(448, 576), (576, 448), (512, 512), (448, 576)]
    sizes = {photo.sha256: shape for photo, shape in zip(photos, shapes, strict=True)}
    family = family_of(bases.load(base, torch.float32, CPU), base)
    keys = keys_of(base, "fp32", "cpu", sizes)
    accelerator = Accelerator(cpu=True)
    encoder = Encoder(family=family, keys=keys, folder=None, accelerator=accelerator)
    dataset = encoder.dataset(photos, ["a photo of a"] * 4)
    latents = [tuple(image.mean.shape) for image in dataset.images]
    assert latents == [(2, 4, h // 8, w // 8) for h, w in shapes]

    told = []
    family.denoiser.register_forward_pre_hook(
        lambda _, arguments, options: told.append(options["added_cond_kwargs"]["time_ids"]), with_kwargs=True
    )
    parameters = lora.inject(family.denoiser, 2, 2, 0)
    config = TrainLora(steps=4, batch_size=2, accumulation=1)
    trained = learner.prepare(family, parameters, config, accelerator)
    data = TrainingData(photos=dataset, files=list("abcd"))
    losses = [s.loss for s in train_steps(family, data, trained, config, accelerator)]
    assert len(losses) == 4
    expected = {(h, w, 0, 0, h, w) for h, w in shapes}
    assert {tuple(row) for ids in told for row in ids.int().tolist()} == expected
    assert sum(tuple(ids[0].int().tolist()) == (448, 576, 0, 0, 448, 576) for ids in told) == 2
