"""Adapters, shards and records of an earlier version, in tests/older: its commands wrote them as noted here.

finetune/train_lora.py --base base --data demo --classes apple --shots 2 --steps 2 --batch_size 2 --rank 1
    --targets to_q --no_sheets --save_every 0 --cache none --precision fp32
generate --lora adapters/apple.safetensors --count 3 --steps 1 --precision fp32
generate --base base --data demo --classes banana orange --count 3 --steps 1 --precision fp32
evaluate --data demo --ratios 1 0 --total 9 --seeds 1 --steps 2 --size 32 --precision fp32
"""

import csv
import shutil
from pathlib import Path

import pipelines
import pytest
from conftest import ROOT
from datasets import load_dataset
from shell import EVALUATE, GENERATE, TRAIN, command

from orchard import shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the earlier version was at work."""
    folder = tmp_path_factory.mktemp("older") / "work"
    shutil.copytree(ROOT / "tests" / "older", folder)
    pipelines.tiny(folder / "base")
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_an_older_experiment_is_finished_and_shown_anew(folder):
    before = (folder / "evaluation" / "records.jsonl").read_bytes()
    numbers = table(folder / "evaluation" / "metrics.csv")
    words = ("--data", "demo", "--ratios", 1, 0, "--total", 9, "--seeds", 1, "--steps", 2)
    command(folder, *EVALUATE, *words, "--size", 32, "--precision", "fp32")
    assert (folder / "evaluation" / "records.jsonl").read_bytes() == before
    made = ("none", "given")
    again = [{**row, "generator": by} for row, by in zip(numbers, made, strict=True)]
    assert table(folder / "evaluation" / "metrics.csv") == again
    assert (folder / "evaluation" / "report.html").is_file()


def test_an_older_adapter_counts_as_finished(folder):
    before = (folder / "adapters" / "apple.safetensors").read_bytes()
    words = ("--base", "base", "--data", "demo", "--classes", "apple", "--shots", 2, "--steps", 2)
    words += ("--batch_size", 2, "--rank", 1, "--targets", "to_q", "--no_sheets", "--save_every", 0)
    words += ("--learning_rate", 1e-3)  # what was the default
    said = command(folder, *TRAIN, *words, "--cache", "none", "--precision", "fp32", "--resume", "latest")
    assert "nothing: all adapters are finished" in said
    assert (folder / "adapters" / "apple.safetensors").read_bytes() == before


def test_an_older_adapter_adds_rows_to_an_older_set(folder, tmp_path):
    path = shards.path_of(folder / "shards", "apple", 0)
    before = shards.rows_of(path)
    words = ("--lora", "adapters/apple.safetensors", "--count", 4, "--steps", 1, "--precision", "fp32")
    command(folder, *GENERATE, *words)
    found = [{name: row[name] for name in before[0]} for row in shards.rows_of(path)]
    assert found[:3] == before and len(found) == 4
    assert shards.read_manifest(folder / "shards")["rows"] == {"apple": 4, "banana": 3, "orange": 3}
    # Whoever loads the set reads old files beside new ones.
    files = str(folder / "shards" / "data" / "train-*.parquet")
    assert len(load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))) == 10
