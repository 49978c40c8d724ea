"""From plan to shards: rows that depend on their place alone, folders that can be gone on with."""

import json
from pathlib import Path

import loras as random_loras
import numpy as np
import pipelines
import plans
import pytest
import torch

from generate.command import generate
from generate.config import Generate
from orchard import shards
from orchard.bases import bases

CPU = torch.device("cpu")
CLASSES = ["apple", "pear"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return pipelines.tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def loras(tmp_path_factory, folder) -> dict[str, str]:
    """An adapter for each of two classes."""
    return random_loras.trained(tmp_path_factory.mktemp("adapters"), folder, CLASSES)


def run(loras: dict[str, str], output: Path, *names: str, **options) -> dict[tuple[str, int], bytes]:
    """Run the command and give (class, index) -> PNG bytes of everything in the folder."""
    settings = {"count": 5, "steps": 2, "batch_size": 2, "shard_size": 4, "precision": "fp32"} | options
    generate(Generate(lora=tuple(loras[name] for name in names), output=output, **settings))
    return images(output)


def images(output: Path) -> dict[tuple[str, int], bytes]:
    rows = [row for shard in shards.existing(output) for row in shards.rows_of(shard.path)]
    return {(CLASSES[row["label"]], row["index"]): row["image"]["bytes"] for row in rows}


def pixels(data: bytes) -> np.ndarray:
    from orchard.images.images import decode

    return np.asarray(decode(data, "row"), dtype=int)


def test_a_row_depends_on_seed_class_and_index_alone():
    wanted = plans.class_plan("apple", count=4).row(3)
    assert wanted == plans.class_plan("apple", count=10).row(3)
    assert wanted == next(next(plans.class_plan("apple", count=9).shards(256)).batches(4))[3]
    others = (plans.class_plan("apple", seed=1).row(3), plans.class_plan("pear").row(3))
    seeds = {row.seed for row in (*others, plans.class_plan("apple").row(2))}
    assert len(seeds) == 3
    assert wanted.seed not in seeds


def test_a_larger_count_begins_with_the_smaller_one():
    small, large = (plans.rows(plans.class_plan(count=n)) for n in (6, 11))
    assert large[:6] == small
    assert [len(s.indices) for s in plans.class_plan(count=11).shards(4)] == [4, 4, 3]


def test_batches_do_not_cross_a_shard():
    first, second = plans.class_plan(count=7).shards(5)
    assert [[row.index for row in block] for block in first.batches(2)] == [[0, 1], [2, 3], [4]]
    assert [[row.index for row in block] for block in second.batches(2)] == [[5, 6]]


def test_a_shard_goes_on_at_the_batch_that_holds_its_first_missing_row():
    (shard,) = plans.class_plan(count=7).shards(7, range(4, 7))
    assert [[row.index for row in block] for block in shard.batches(3)] == [[3, 4, 5], [6]]


def test_rows_that_are_missing_here_and_there_keep_their_places_in_their_batches():
    first, second, _ = plans.class_plan(count=20).shards(8, np.array([1, 7, 12, 13, 21]))
    assert [[row.index for row in block] for block in first.batches(3)] == [[0, 1], [6, 7]]
    assert [[row.index for row in block] for block in second.batches(3)] == [[11, 12, 13]]


@pytest.mark.parametrize("scheduler", ["dpmsolver++", "euler_a"])
def test_an_image_is_the_same_at_every_batch_size(folder, scheduler):
    found = []
    for batch_size in (1, 2, 3):
        pipe = bases.load(bases.resolve(str(folder)), torch.float32, CPU)
        plan = plans.class_plan(count=4, seed=3)
        found.append(plans.sampled(pipe, plan, scheduler=scheduler, batch_size=batch_size))
    assert [len(images) for images in found] == [4, 4, 4]
    for other in found[1:]:
        assert max(np.abs(a - b).max() for a, b in zip(found[0], other, strict=True)) <= 1
    assert np.abs(found[0][0] - found[0][1]).max() > 8


def test_denoising_ahead_of_the_decoder_changes_no_image(folder):
    pipe = bases.load(bases.resolve(str(folder)), torch.float32, CPU)
    plan = plans.class_plan(count=5)
    alone, ahead = (plans.sampled(pipe, plan, depth=depth) for depth in (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(alone, ahead, strict=True))


def test_a_row_is_what_stock_diffusers_gives(tmp_path, folder, loras):
    run(loras, tmp_path / "s", "apple", count=2)
    first = shards.rows_of(shards.path_of(tmp_path / "s", "apple", 0))[0]
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(loras["apple"])
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    image = pipe(
        first["prompt"],
        generator=torch.Generator().manual_seed(first["seed"]),
        num_inference_steps=2,
        guidance_scale=2.0,
    ).images[0]
    assert np.abs(np.asarray(image, dtype=int) - pixels(first["image"]["bytes"])).max() <= 1


def test_datasets_opens_the_folder_as_it_is(tmp_path, loras):
    run(loras, tmp_path / "s", *CLASSES)
    from datasets import load_dataset

    rows = load_dataset(str(tmp_path / "s"), cache_dir=str(tmp_path / "cache"))["train"]
    assert rows.features["label"].names == CLASSES
    assert len(rows) == 10
    assert rows[0]["image"].size == (32, 32)
    assert {"prompt", "seed", "index", "steps", "guidance", "scheduler", "lora", "base"} <= set(rows.features)


def test_the_manifest_names_files_counts_and_what_the_generator_saw(tmp_path, loras):
    run(loras, tmp_path / "s", *CLASSES)
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["rows"] == {"apple": 5, "pear": 5}
    assert manifest["classes"] == CLASSES
    assert manifest["trained_on"] == [f"{0:064x}", f"{1:064x}"]
    assert sum(entry["rows"] for entry in manifest["files"]) == 10


def test_running_again_writes_nothing(tmp_path, loras):
    run(loras, tmp_path / "s", "apple")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")}
    run(loras, tmp_path / "s", "apple")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("*")} == before


def test_a_larger_count_adds_rows_and_keeps_the_others(tmp_path, loras):
    small = run(loras, tmp_path / "s", "apple", count=5)
    large = run(loras, tmp_path / "s", "apple", count=11)
    assert len(large) == 11
    assert {key: large[key] for key in small} == small
    assert large == run(loras, tmp_path / "whole", "apple", count=11)


def test_another_class_joins_the_folder(tmp_path, loras):
    run(loras, tmp_path / "s", "apple")
    both = run(loras, tmp_path / "s", "pear")
    assert both == run(loras, tmp_path / "together", *CLASSES)
    assert json.loads((tmp_path / "s" / "manifest.json").read_text())["rows"] == {"apple": 5, "pear": 5}


def test_a_missing_shard_is_filled_with_its_own_rows(tmp_path, loras):
    before = run(loras, tmp_path / "s", "apple", count=10)
    shards.path_of(tmp_path / "s", "apple", 1).unlink()
    assert run(loras, tmp_path / "s", "apple", count=10) == before


def test_a_run_stopped_in_the_middle_goes_on(tmp_path, loras, monkeypatch):
    store, calls = shards.store, []

    def stop_at_second(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        store(*arguments)

    monkeypatch.setattr(shards, "store", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        run(loras, tmp_path / "s", "apple", count=10)
    assert not (tmp_path / "s" / "manifest.json").exists()
    monkeypatch.setattr(shards, "store", store)
    assert run(loras, tmp_path / "s", "apple", count=10) == run(loras, tmp_path / "o", "apple", count=10)


@pytest.mark.parametrize(
    ("change", "word"), [({"guidance": 3.0}, "guidance 2.0 (requested: 3.0)"), ({"seed": 1}, "seed 0")]
)
def test_other_arguments_for_a_class_that_is_there_are_refused(tmp_path, loras, refused, change, word):
    before = run(loras, tmp_path / "s", "apple")
    with refused("apple", word):
        run(loras, tmp_path / "s", "apple", **change)
    assert images(tmp_path / "s") == before
    assert (tmp_path / "s" / "manifest.json").exists()


def test_readers_require_the_manifest(tmp_path, loras, refused):
    run(loras, tmp_path / "s", "apple")
    assert shards.read(tmp_path / "s").counts() == {"apple": 5, "pear": 0}
    (tmp_path / "s" / "manifest.json").unlink()
    with refused("no manifest.json"):
        shards.read(tmp_path / "s")


def test_a_damaged_shard_is_named(tmp_path, loras, refused):
    run(loras, tmp_path / "s", "apple")
    path = shards.path_of(tmp_path / "s", "apple", 0)
    path.write_bytes(path.read_bytes()[:100])
    with refused("train-apple-00000.parquet", "not a whole shard"):
        run(loras, tmp_path / "s", "apple")


def test_the_untuned_base_is_sampled_without_a_lora(tmp_path, folder):
    options = {"count": 1, "steps": 1, "batch_size": 1, "precision": "fp32"}
    generate(Generate(base=str(folder), data="demo", output=tmp_path / "s", **options))
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["rows"] == {"apple": 1, "banana": 1, "orange": 1}
    assert manifest["trained_on"] == []


def test_a_class_with_an_awkward_name_gets_a_safe_file(tmp_path):
    path = shards.path_of(tmp_path, "a/b <c>-7", 3)
    assert path.parent == tmp_path / "data"
    assert shards.NAME.match(path.name)["number"] == "00003"


def test_a_class_twice_is_refused(tmp_path, loras, refused):
    with refused("class apple is sampled by two adapters"):
        run(loras, tmp_path / "s", "apple", "apple")


def test_a_stopped_class_keeps_another_from_being_called_complete(tmp_path, loras, refused):
    run(loras, tmp_path / "s", "apple", count=10)
    shards.path_of(tmp_path / "s", "apple", 1).unlink()
    (tmp_path / "s" / "manifest.json").unlink()
    with refused("apple has 6 of 10 images", "run the command for apple again"):
        run(loras, tmp_path / "s", "pear")


def test_braces_in_a_prompt_stay_as_they_are(tmp_path, loras):
    run(loras, tmp_path / "s", "apple", count=1, prompt=("{label} {x} {",))
    assert shards.read(tmp_path / "s").photos[0].text == "apple {x} {"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steps": 2000}, "--steps 2000"),
        ({"count": 10**6, "shard_size": 1}, "--shard_size 1"),
        ({"guidance": float("inf")}, "--guidance inf"),
        ({"seed": 2**40}, "--seed"),
        ({"classes": ("apple", "apple")}, "apple is given twice"),
        ({"precision": "fp16"}, "--precision fp16"),
    ],
)
def test_options_out_of_range_leave_the_folder_as_it_was(tmp_path, loras, refused, change, word):
    before = run(loras, tmp_path / "s", "apple")
    with refused(word):
        run(loras, tmp_path / "s", "apple", **change)
    assert images(tmp_path / "s") == before
    assert (tmp_path / "s" / "manifest.json").exists()
