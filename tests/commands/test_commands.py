"""The commands as users type them: what they refuse, what they write, how many processes they run."""

import csv
import html
import json
import sys
import time
from pathlib import Path

import numpy as np
import pictures
import pipelines
import pytest
from conftest import ROOT
from safetensors.torch import load_file
from shell import CLASSIFY, EVALUATE, GENERATE, TRAIN, TWO, command, refusal

from evaluate.records import records
from orchard import shards


@pytest.fixture(scope="module")
def flow(tmp_path_factory, base) -> Path:
    """A folder in which the three commands ran, bare but for what makes them small."""
    folder = tmp_path_factory.mktemp("flow")
    small = ("--steps", 3, "--batch_size", 4, "--precision", "fp32")
    command(folder, *TRAIN, "--base", base, *small)
    loras = ("apple.safetensors", "banana.safetensors", "orange.safetensors")
    command(folder, *GENERATE, "--lora", *loras, "--count", 75, "--steps", 2, "--precision", "fp32")
    command(folder, *EVALUATE, "--ratios", "all", "--steps", 4, "--seeds", 2, "--batch_size", 8)
    return folder


@pytest.mark.parametrize("words", [TRAIN, GENERATE, CLASSIFY, EVALUATE], ids=lambda words: words[-1])
def test_help_answers_at_once_and_loads_no_torch(tmp_path, words):
    started = time.monotonic()
    output = command(tmp_path, *words, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert time.monotonic() - started < 10
    assert "--seed" in output
    imported = {line.rpartition("|")[2].strip() for line in output.splitlines() if "import time:" in line}
    assert "tyro" in imported
    assert not imported & {"torch", "datasets", "diffusers", "numpy"}


@pytest.mark.parametrize("words", [TRAIN, GENERATE, CLASSIFY, EVALUATE], ids=lambda words: words[-1])
def test_an_unknown_flag_is_named_with_the_nearest_one(tmp_path, words):
    line = refusal(tmp_path, *words, "--stepz", 4)
    assert "--stepz" in line
    assert "--steps" in line


@pytest.mark.parametrize("words", [TRAIN, (*EVALUATE, "--ratios", "1.0")], ids=["train", "evaluate"])
def test_a_wrong_path_is_refused(tmp_path, words):
    line = refusal(tmp_path, *words, "--data", "nowhere")
    assert "--data nowhere" in line
    assert "--data demo" in line


@pytest.mark.parametrize("words", [TRAIN, (*EVALUATE, "--ratios", "1.0")], ids=["train", "evaluate"])
def test_an_empty_folder_is_refused(tmp_path, words):
    (tmp_path / "photos").mkdir()
    assert "no images found" in refusal(tmp_path, *words, "--data", "photos")


def test_a_class_with_one_image_is_refused_by_the_experiment(tmp_path):
    files = [f"photos/{name}/{i}.png" for name in ("apple", "pear") for i in range(6)]
    pictures.write(tmp_path, [*files, "photos/plum/0.png"])
    line = refusal(tmp_path, *EVALUATE, "--ratios", "1.0", "--data", "photos")
    assert "class plum has 1 image" in line
    assert "needs at least 2" in line


def test_an_adapter_may_be_trained_on_one_image_with_a_warning(tmp_path, base):
    pictures.write(tmp_path, ["photos/apple/0.png", "photos/pear/0.png", "photos/pear/1.png"])
    words = ("--base", base, "--data", "photos", "--classes", "apple", "--steps", 1, "--batch_size", 1)
    output = command(tmp_path, *TRAIN, *words)
    assert "warning   apple has one image" in output
    assert (tmp_path / "adapters" / "apple.safetensors").is_file()


def test_an_unknown_base_is_refused(tmp_path):
    line = refusal(tmp_path, *TRAIN, "--data", "demo", "--base", "sd99")
    assert "--base sd99" in line
    assert "mini" in line


def test_a_missing_lora_is_refused_with_what_there_is(flow):
    line = refusal(flow, *GENERATE, "--lora", "kiwi.safetensors")
    assert "kiwi.safetensors" in line
    assert "apple.safetensors" in line


def test_a_lora_for_another_base_is_refused_before_loading(flow, tmp_path):
    other = pipelines.tiny(tmp_path / "wide", width=32)
    out = tmp_path / "out"
    words = ("--lora", flow / "adapters" / "apple.safetensors", "--base", other, "--output", out)
    line = refusal(tmp_path, *GENERATE, *words)
    assert "text width 16" in line
    assert "text width 32" in line


def test_half_a_jpeg_stops_the_trainer_or_is_skipped_on_request(tmp_path, base):
    pictures.write(tmp_path, [f"photos/apple/{i}.png" for i in range(3)])
    (tmp_path / "photos" / "apple" / "cut.jpg").write_bytes(pictures.half_a_jpeg())
    words = ("--base", base, "--data", "photos", "--steps", 1, "--batch_size", 2)
    line = refusal(tmp_path, *TRAIN, *words)
    assert "apple/cut.jpg" in line
    assert "--skip_bad" in line
    output = command(tmp_path, *TRAIN, *words, "--skip_bad")
    assert "skipped 1" in output


def test_the_flow_ends_in_adapters_shards_records_and_a_page(flow):
    names = ("apple", "banana", "orange")
    files = {path.name for path in (flow / "adapters").iterdir()}
    kinds = (".safetensors", "-loss.png", "-samples.png")
    assert files == {"README.md", "logs", *(f"{name}{kind}" for name in names for kind in kinds)}
    assert shards.read(flow / "shards").counts() == dict.fromkeys(names, 75)
    lines = records.read(flow / "evaluation")
    assert {(line["ratio"], line["seed"]) for line in lines} == {
        (ratio, seed) for ratio in (1.0, 0.5, 0.3, 0.0) for seed in (0, 1)
    }
    for line in lines:
        assert len(line["predictions"]) == 55
        assert line["n_real"] + line["n_synthetic"] == 220
        right = [
            max(p["probabilities"], key=p["probabilities"].get) == p["truth"] for p in line["predictions"]
        ]
        assert line["accuracy"] == pytest.approx(np.mean(right))
    page = (flow / "evaluation" / "report.html").read_text()
    assert "0.9636" in page
    assert "0.7455" in page


def test_numbers_of_the_page_are_in_files(flow):
    analysis = json.loads((flow / "evaluation" / "analysis.json").read_text())
    assert [row["arm"]["ratio"] for row in analysis["rows"]] == [1.0, 0.5, 0.3, 0.0]
    assert analysis["verdict"] in html.unescape((flow / "evaluation" / "report.html").read_text())
    kinds = {(entry["what"], entry["kind"]): entry["images"] for entry in analysis["strata"]}
    assert kinds["objects", "one"] + kinds["objects", "several"] == 55
    assert kinds["background", "white"] + kinds["background", "scene"] == 55
    with (flow / "evaluation" / "arms.csv").open(newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)][1:3] == ["50/50", "30/70"]
    found = json.loads((flow / "evaluation" / "fidelity.json").read_text())["gap"]
    gap = found["our real-trained classifier"]
    assert (gap["synthetic"]["images"], gap["test"]["images"]) == (225, 55)
    assert set(gap["synthetic"]["discriminator"]) == {"apple", "banana", "orange"}


def test_generators_saw_the_training_photos_and_no_test_photo(flow, fruit):
    from orchard.datasets import sources
    from orchard.images.images import TEST

    seen = set(json.loads((flow / "shards" / "manifest.json").read_text())["trained_on"])
    real = sources.load(str(fruit))
    assert len(seen) == 220
    assert not seen & real.of(TEST).hashes()


def test_a_finished_sweep_runs_nothing_again(flow):
    before = (flow / "evaluation" / "records.jsonl").read_bytes()
    output = command(flow, *EVALUATE, "--ratios", "all", "--steps", 4, "--seeds", 2, "--batch_size", 8)
    assert "report:" in output
    assert (flow / "evaluation" / "records.jsonl").read_bytes() == before


def test_a_generator_that_saw_a_test_image_is_refused(flow, tmp_path, fruit):
    photos = [p for p in (fruit / "test_zip" / "test").glob("*.jpg") if "mixed" not in p.name]
    swapped = {f"train/{p.stem.rsplit('_', 1)[0]}_{i}.jpg": p.read_bytes() for i, p in enumerate(photos)}
    for name in ("apple", "banana", "orange"):
        source = next((fruit / "train_zip" / "train").glob(f"{name}_*.jpg"))
        swapped[f"test/{name}_1.jpg"] = source.read_bytes()
    pictures.write(tmp_path / "swapped", swapped)
    words = ("--data", tmp_path / "swapped", "--synthetic", flow / "shards", "--seeds", 1)
    line = refusal(tmp_path, *EVALUATE, *words)
    assert "has seen 3 test images" in line


def test_too_few_synthetic_images_are_refused_before_training(flow, tmp_path):
    words = ("--ratios", "0", "--total", 1000, "--synthetic", flow / "shards")
    line = refusal(tmp_path, *EVALUATE, *words)
    assert "75 images of apple" in line
    assert "--count" in line


@pytest.mark.parametrize(
    "words", [(*TRAIN, "--data", "demo"), (*EVALUATE, "--data", "demo", "--ratios", "1")]
)
def test_a_dry_run_writes_nothing(tmp_path, words):
    assert "real set" in command(tmp_path, *words, "--dry_run")
    assert list(tmp_path.iterdir()) == []


def test_two_processes_give_the_adapters_and_rows_of_one(tmp_path, base):
    small = ("--base", base, "--data", "demo", "--classes", "apple", "banana", "--batch_size", 4)
    train = ("--steps", 6, "--precision", "fp32", "--accumulation", 2, "--ema_decay", 0.5, *small)
    alone = command(tmp_path, *TRAIN, *train, "--output", "one")
    both = command(tmp_path, *TWO, TRAIN[1], *train, "--output", "two")
    assert "processes 1" in alone
    assert "processes 2" in both
    for name in ("apple", "banana"):
        one, two = (load_file(tmp_path / folder / f"{name}.safetensors") for folder in ("one", "two"))
        for key, value in one.items():
            np.testing.assert_allclose(two[key], value, atol=2e-5, err_msg=key)
    sample = ("--count", 10, "--steps", 2, "--shard_size", 4, "--batch_size", 4, "--precision", "fp32")
    loras = ("--lora", "one/apple.safetensors", "one/banana.safetensors")
    command(tmp_path, *GENERATE, *loras, *sample, "--output", "s1")
    assert "processes 2" in command(tmp_path, *TWO, "-m", "generate", *loras, *sample, "--output", "s2")
    assert _rows(tmp_path / "s1") == _rows(tmp_path / "s2")
    manifests = [json.loads((tmp_path / s / "manifest.json").read_text()) for s in ("s1", "s2")]
    assert manifests[0]["rows"] == manifests[1]["rows"]


def _rows(folder: Path) -> dict[str, list]:
    return {shard.path.name: shards.rows_of(shard.path) for shard in shards.existing(folder)}


def test_traffic_signs_go_through_the_same_commands(tmp_path, base, signs):
    data = ("--data", signs)
    command(tmp_path, *TRAIN, *data, "--base", base, "--steps", 1, "--batch_size", 2, "--joint", "--no_flip")
    command(tmp_path, *GENERATE, "--lora", "joint.safetensors", "--count", 20, "--steps", 1)
    output = command(tmp_path, *EVALUATE, *data, "--ratios", "1.0", "0.3", "--steps", 2, "--seeds", 1)
    assert "report:" in output
    assert [len(one["predictions"]) for one in records.read(tmp_path / "evaluation")] == [19, 19]
    assert "0.7455" not in (tmp_path / "evaluation" / "report.html").read_text()


@pytest.mark.slow
def test_accelerate_launches_the_trainer(tmp_path, base):
    launch = (Path(sys.executable).with_name("accelerate"), "launch", "--num_processes", 1)
    words = ("--data", "demo", "--base", base, "--classes", "apple", "--steps", 1, "--batch_size", 1)
    output = command(ROOT, *launch, "finetune/train_lora.py", *words, "--output", tmp_path / "a")
    assert "next: python -m generate" in output
    assert (tmp_path / "a" / "apple.safetensors").is_file()
