"""What the base's safety checker flags, and images of one colour, never become data."""

from pathlib import Path

import numpy as np
import pipelines
import plans
import pytest
import torch
from checkers import ALWAYS, NEVER, with_checker
from transformers import BatchFeature

from generate.command import generate
from generate.config import Generate
from generate.sampling import decoder, tasks
from generate.sampling.sampler import Sampler
from generate.screening import screens
from orchard import shards
from orchard.bases import bases, safety_checker
from orchard.images.images import decode


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


class Stub(torch.nn.Module):
    """Flags the images whose numbers, counted over all calls, are in ``flagged``, and blackens them."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, flagged) -> None:
        super().__init__()
        self.flagged, self.seen = flagged, 0

    def forward(self, images, clip_input):
        flags = [number in self.flagged for number in range(self.seen, self.seen + len(images))]
        self.seen += len(images)
        for image, flag in zip(images, flags, strict=True):
            if flag:
                image.zero_()
        return images, flags


@pytest.fixture
def stub(monkeypatch):
    """``stub({1})``: every base now has a checker that flags the second image."""

    def install(flagged) -> None:
        def add(pipe, base) -> None:
            def prepared(images, return_tensors):
                return BatchFeature({"pixel_values": torch.zeros(len(images), 3, 8, 8)})

            pipe.register_modules(safety_checker=Stub(flagged))
            pipe.feature_extractor = prepared

        monkeypatch.setattr(safety_checker, "add", add)

    return install


def run(folder: Path, output: Path, **options) -> list[dict]:
    """Four apples in one batch."""
    usual = {"count": 4, "batch_size": 4, "steps": 2, "precision": "fp32", "data": "demo"}
    config = usual | {"classes": ("apple",), "base": str(folder), "output": output} | options
    generate(Generate(**config))
    return shards.rows_of(shards.path_of(output, "apple", 0))


def pixels(row: dict) -> np.ndarray:
    return np.asarray(decode(row["image"]["bytes"], "row"), dtype=int)


def test_a_flagged_image_is_replaced_by_one_of_another_seed(tmp_path, folder, stub, capsys):
    untouched = run(folder, tmp_path / "plain")
    stub({1})
    rows = run(folder, tmp_path / "s")
    assert [row["attempt"] for row in rows] == [0, 1, 0, 0]
    assert rows[0] == untouched[0]
    assert rows[2:] == untouched[2:]
    assert rows[1]["seed"] == plans.class_plan("apple").row(1).again().seed != untouched[1]["seed"]
    assert all(pixels(row).max() > 0 for row in rows)
    assert "requested 4, written 4, flagged 1, rejected 0" in capsys.readouterr().out
    pipe = stock(folder)
    generator = torch.Generator().manual_seed(rows[1]["seed"])
    image = pipe(rows[1]["prompt"], generator=generator, num_inference_steps=2, guidance_scale=2.0).images[0]
    assert np.abs(np.asarray(image, dtype=int) - pixels(rows[1])).max() <= 1


def stock(folder: Path):
    from diffusers import DPMSolverMultistepScheduler

    pipe = bases.load(bases.resolve(str(folder)), torch.float32, torch.device("cpu"))
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    return pipe


def test_a_row_may_be_flagged_several_times(tmp_path, folder, stub):
    # Image 1 of the first batch; then of the batch that is filled up with it all four, and again none.
    stub({1, 4, 5, 6, 7})
    assert [row["attempt"] for row in run(folder, tmp_path / "s")] == [0, 2, 0, 0]


def test_images_that_are_flagged_and_images_that_are_rejected_are_both_replaced(
    tmp_path, folder, stub, monkeypatch, capsys
):
    # The second image and the first one of the row that comes in the place of the third, which is flat.
    stub({1, 8})
    contrasts = iter([50, 50, 1, 50, 50])
    monkeypatch.setattr(screens, "contrast", lambda image: next(contrasts))
    monkeypatch.setattr(tasks, "WORKERS", 1)  # so that they are taken in order
    rows = run(folder, tmp_path / "s", screens=("flat",))
    assert [(row["index"], row["attempt"]) for row in rows] == [(0, 0), (1, 1), (3, 0), (4, 1)]
    assert rows[3]["seed"] == plans.class_plan("apple").row(4).again().seed
    (rejected,) = shards.rows_of(shards.path_of(tmp_path / "s", "apple", 0, shards.REJECTED))
    assert (rejected["index"], rejected["reason"], rejected["score"]) == (2, "flat", 1)
    assert "requested 4, written 4, flagged 2, rejected 1" in capsys.readouterr().out


def test_a_row_of_which_no_seed_gives_an_image_is_rejected_and_replaced(tmp_path, folder, stub, capsys):
    untouched = run(folder, tmp_path / "plain", count=5)
    # The second image of the first batch, then the whole batch that is filled up with its next seed.
    stub({1, 4, 5, 6, 7})
    rows = run(folder, tmp_path / "s", attempts=2, screens=("flat", "duplicate"))
    assert [row["index"] for row in rows] == [0, 2, 3, 4]
    assert rows[:3] == [untouched[0], *untouched[2:4]]
    assert "requested 4, written 4, flagged 1, rejected 1" in capsys.readouterr().out
    (given_up,) = shards.rows_of(shards.path_of(tmp_path / "s", "apple", 0, shards.REJECTED))
    assert (given_up["index"], given_up["attempt"]) == (1, 1)
    assert given_up["seed"] == plans.class_plan("apple").row(1).again().seed
    assert (given_up["reason"], given_up["score"], given_up["phash"]) == (shards.FLAGGED, None, None)
    assert pixels(given_up).shape == pixels(rows[0]).shape and pixels(given_up).max() == 0
    manifest = shards.read_manifest(tmp_path / "s")
    assert manifest["rejected"] == {"apple": {shards.FLAGGED: 1}} and not shards.rejections(manifest)
    assert not list(shards.rejected(tmp_path / "s", manifest))
    # Neither another choice of screens nor a repeated command makes data of it.
    generate(Generate(output=tmp_path / "s", rescreen=True, screens=("none",)))
    assert shards.read_manifest(tmp_path / "s")["rejected"] == {"apple": {shards.FLAGGED: 1}}
    generate(Generate(output=tmp_path / "s", rescreen=True, screens=("flat", "duplicate")))
    stub(())
    again = run(folder, tmp_path / "s", count=4, screens=("flat", "duplicate"))
    assert [row["index"] for row in again] == [0, 2, 3, 4]


def test_the_run_stops_where_the_first_images_are_all_flagged(tmp_path, folder, stub, refused):
    stub(range(10**6))
    with refused(
        "apple image 7",
        "flagged by the safety checker with 3 seeds, and so were all 8 images of its class so far",
        "--no_safety_checker",
    ):
        run(folder, tmp_path / "s", attempts=3, count=10, batch_size=8)
    assert not list((tmp_path / "s").rglob("*.parquet"))
    assert not (tmp_path / "s" / "manifest.json").exists()


def test_it_stops_at_the_class_of_which_none_is_any_good(tmp_path, folder, stub, refused):
    stub(range(8, 10**6))
    with refused("banana image 7", "all 8 images of its class so far"):
        run(folder, tmp_path / "s", classes=("apple", "banana"), attempts=1, count=8, batch_size=8)
    assert len(shards.rows_of(shards.path_of(tmp_path / "s", "apple", 0))) == 8


def test_a_class_with_rejected_rows_alone_is_named(tmp_path, folder, stub, refused):
    stub(range(10**6))
    with refused("4 rows were flagged"):
        run(folder, tmp_path / "s", attempts=1, count=2, batch_size=2)
    with refused("of class apple there are rejected images alone", "finish it, or remove"):
        run(folder, tmp_path / "s", classes=("banana",), count=2)


def test_a_small_set_that_is_all_flagged_says_what_to_try(tmp_path, folder, stub, refused):
    stub(range(10**6))
    flagged = "4 rows were flagged by the safety checker"
    with refused("written 0, flagged 8, rejected 4", flagged, "another --prompt"):
        run(folder, tmp_path / "s", attempts=3, count=2, batch_size=2)
    assert not (tmp_path / "s" / "manifest.json").exists()


def test_an_image_of_one_colour_is_sampled_again(folder, monkeypatch):
    pipe = stock(folder)
    decoded, calls = pipe.vae.decode, []

    def flat_at_first(latents, **options):
        (found,) = decoded(latents, **options)
        calls.append(len(found))
        if len(calls) == 1:
            found[2] = 0.3
        return (found,)

    monkeypatch.setattr(pipe.vae, "decode", flat_at_first)
    plan = plans.class_plan(count=4)
    sampler = Sampler(pipe, plans.settings(), batch_size=4, attempts=2)
    rows = [row for row, _ in sampler.sample(next(plan.shards(4)).batches(4))]
    assert [row.attempt for row in rows] == [0, 0, 1, 0]


def test_latents_that_are_not_numbers_never_become_images(folder, refused):
    pipe = stock(folder)
    (one,) = decoder.decode(pipe, torch.full((1, 4, 16, 16), float("nan")))
    assert one.fault == shards.ONE_COLOUR
    torch.nn.init.constant_(pipe.unet.conv_out.bias, float("nan"))
    sampler = Sampler(pipe, plans.settings(), batch_size=2, attempts=2)
    with refused("apple image 7", "of one colour with 2 seeds", "another --scheduler"):
        list(sampler.sample(next(plans.class_plan(count=10).shards(10)).batches(2)))


def test_single_precision_is_advised_where_it_is_not_in_use_already(folder):
    half = bases.load(bases.resolve(str(folder)), torch.float16, torch.device("cpu"))
    assert "--precision fp32" in decoder.remedy(half, shards.ONE_COLOUR)
    assert "--precision" not in decoder.remedy(stock(folder), shards.ONE_COLOUR)


@pytest.mark.parametrize(("make", "wanted"), [(pipelines.tiny, "float16"), (pipelines.tiny_sdxl, "float32")])
def test_the_autoencoder_that_overflows_in_half_precision_decodes_in_single(tmp_path, make, wanted):
    pipe = bases.load(bases.resolve(str(make(tmp_path))), torch.float16, torch.device("cpu"))
    (one,) = decoder.decode(pipe, torch.randn(1, 4, 16, 16, dtype=torch.float16))
    assert str(pipe.vae.dtype) == f"torch.{wanted}"
    assert one.fault is None


def test_the_checker_of_a_base_is_loaded_with_it_and_decides(tmp_path, folder, refused):
    lenient = with_checker(folder, tmp_path / "lenient", NEVER)
    rows = run(lenient, tmp_path / "a", count=2, batch_size=2)
    assert [row["attempt"] for row in rows] == [0, 0]
    strict = with_checker(folder, tmp_path / "strict", ALWAYS)
    with refused("flagged by the safety checker with 5 seeds", "--no_safety_checker"):
        run(strict, tmp_path / "b", count=10, batch_size=8)
    unchecked = run(strict, tmp_path / "c", count=2, batch_size=2, safety_checker=False)
    assert all(np.array_equal(pixels(a), pixels(b)) for a, b in zip(unchecked, rows, strict=True))


def test_a_checker_that_is_named_but_not_there_is_refused(tmp_path, folder, refused):
    base = with_checker(folder, tmp_path / "broken", NEVER)
    (base / "safety_checker" / "model.safetensors").unlink()
    with refused("safety checker cannot be read", "--no_safety_checker"):
        run(base, tmp_path / "s")
