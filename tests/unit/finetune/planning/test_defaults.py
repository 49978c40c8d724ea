"""Options that are left out: what is usual for the base."""

from dataclasses import replace
from pathlib import Path

import pictures
import pipelines
import pytest

from finetune import command
from finetune.config import TrainLora
from finetune.planning import defaults
from orchard.adapters import adapter
from orchard.bases import bases

FAMILIES = {
    "mini": "sd",
    "sd15": "sd",
    "sd21": "sd",
    "sdxl": "sdxl",
    "sd35-medium": "sd3",
    "sd35-large": "sd3",
    "sana": "sana",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, bases.Base]:
    """A small base of each family."""
    root = tmp_path_factory.mktemp("bases")
    return {name: bases.resolve(str(pipelines.TINY[name](root / name))) for name in set(FAMILIES.values())}


USUAL = [
    ("mini", 1e-3, (16, 1), 1),
    ("sd15", 1e-4, (4, 1), 1),
    ("sd21", 1e-4, (4, 1), 1),
    ("sdxl", 1e-4, (1, 4), 1),
    ("sd35-medium", 1e-4, (1, 4), 3),
    ("sd35-large", 1e-4, (1, 4), 3),
    ("sana", 1e-4, (1, 4), 3),
]


@pytest.mark.parametrize(("name", "rate", "batches", "shift"), USUAL)
def test_what_is_left_out_is_usual_for_the_base_and_what_is_given_stays(made, name, rate, batches, shift):
    base = replace(made[FAMILIES[name]], name=name)
    found = defaults.resolve(TrainLora(), base, 1)
    assert (found.learning_rate, (found.batch_size, found.accumulation), found.shift) == (
        rate,
        batches,
        shift,
    )
    given = TrainLora(learning_rate=0.5, batch_size=6, shift=float(shift))
    assert defaults.resolve(given, base, 1) == replace(given, accumulation=1)
    assert defaults.resolve(TrainLora(optimizer="prodigy"), base, 1).learning_rate == 1
    (line,) = defaults.lines(found, base)
    assert f"learning rate {rate:g}" in line and ("shift 3" in line) == (shift == 3)
    assert not defaults.lines(
        defaults.resolve(TrainLora(learning_rate=0.5, batch_size=6), made["sd"], 1), base
    )


def test_several_processes_take_the_usual_step_in_larger_batches_where_they_can(made):
    found = [defaults.resolve(TrainLora(), made["sdxl"], processes) for processes in (1, 2, 4, 3)]
    assert [(one.batch_size, one.accumulation) for one in found] == [(1, 4), (2, 2), (4, 1), (1, 4)]


def test_a_shift_that_is_no_number_is_refused_with_the_base_that_has_it(tmp_path, refused):
    folder = pipelines.tiny_sd3(tmp_path / "base")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace('"shift": 3.0', '"shift": "much"'))
    with refused("--base", "shift of 'much'"):
        defaults.resolve(TrainLora(), bases.resolve(str(folder)), 1)


def test_the_plan_names_the_source_and_the_adapter_keeps_the_numbers(tmp_path: Path, made, capsys):
    photos = pictures.write(
        tmp_path / "photos", ["test/apple/0.png", "train/apple/0.png", "train/apple/1.png"]
    )
    places = {"data": str(photos), "base": made["sd3"].name, "output": tmp_path / "out", "cache": "none"}
    command.train(TrainLora(**places, steps=1, sheets=False))
    assert "train_dreambooth_lora_sd3.py), shift 3 (its scheduler)" in " ".join(
        capsys.readouterr().out.split()
    )
    provenance = adapter.read(tmp_path / "out" / "apple.safetensors").provenance
    assert provenance is not None
    kept = {
        name: provenance.options[name] for name in ("learning_rate", "batch_size", "accumulation", "shift")
    }
    assert kept == {"learning_rate": 1e-4, "batch_size": 1, "accumulation": 4, "shift": 3.0}
