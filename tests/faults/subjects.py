"""The four commands: what each is told here, and how to look at what it writes."""

import json
from collections.abc import Callable
from pathlib import Path

import pipelines
import stub_sampler
from outputs import contents
from safetensors.torch import load_file
from trials import Subject

from evaluate.records import records
from finetune.training import checkpoints
from orchard import shards
from orchard.adapters import adapter
from orchard.classifiers import classifier

CACHE = "cache"
NUMBERS = ("experiment.json", "arms.csv", "analysis.json", "fidelity.json")


def finetune(home: Path) -> Subject:
    """Two adapters, one after the other."""
    base, photos = pipelines.tiny(home / "base"), stub_sampler.photos(home / "photos")
    sizes = ("--steps", 4, "--save_every", 2, "--keep", 1, "--batch_size", 2, "--rank", 1)
    return Subject(
        command="finetune",
        words=(
            "--base",
            base,
            "--data",
            photos,
            *sizes,
            "--precision",
            "fp32",
            "--export",
            "kohya",
            "--no_sheets",
        ),
        home=home,
        seen=_adapters,
        finished=_steps,
        going_on=_resuming,
    )


def _adapters(output):
    """Weights, headers and the card; the log without speeds; one checkpoint of each."""
    found = {}
    for path in output.rglob("*.safetensors"):
        if not {checkpoints.FOLDER, CACHE} & set(path.parts):
            found[path.relative_to(output)] = _weights(path), adapter.read(path).provenance
    found["card"] = (output / "README.md").read_bytes()
    for path in output.glob("logs/*"):
        lines = path.read_text().splitlines()
        found[path.name] = [line.partition(', "images_per_second"')[0] for line in lines]
    # Of another step where a signal asked for one.
    return found | {"checkpoints": sorted(path.parent.name for path in output.glob("checkpoints/*/*"))}


def _steps(output):
    """Adapters, and steps of each that a checkpoint holds."""
    steps = [
        (path.parent.name, step)
        for path in output.glob("checkpoints/*/step-*")
        for step in range(int(path.name.removeprefix(checkpoints.PREFIX)) + 1)
    ]
    return {*steps, *(path.name for path in output.glob("*.safetensors"))}


def _resuming(output):
    """A cache of its own, and what a stopped run asks for once there is something to go on from."""
    there = adapter.begun(output)
    return ("--cache", output / CACHE, *(("--resume", "latest") if there else ()))


def generate(home: Path) -> Subject:
    """Three shards of one class, some of whose images are rejected."""
    base, photos = pipelines.tiny(home / "base"), stub_sampler.photos(home / "photos")
    sizes = ("--classes", "apple", "--count", 12, "--batch_size", 4, "--shard_size", 4, "--precision", "fp32")
    return Subject(
        command="generate",
        words=("--base", base, "--data", photos, *sizes),
        home=home,
        seen=lambda output: {path.relative_to(output): data for path, data in contents(output).items()},
        finished=lambda output: {
            row["index"]
            for split in (shards.TRAIN, shards.REJECTED)
            for row in stub_sampler.rows(output, split)
        },
        draw="unlucky",
    )


def classify(home: Path) -> Subject:
    """A classifier of two steps."""
    photos = stub_sampler.photos(home / "photos")
    sizes = ("--size", 32, "--steps", 2, "--batch_size", 4, "--precision", "fp32")
    return Subject(
        command="classify",
        words=("--train", photos, "--test", photos, *sizes),
        home=home,
        seen=_classifier,
        finished=lambda output: {path.name for path in output.glob("*") if path.suffix != ".part"},
    )


def _classifier(output):
    """Weights and header of the classifier, predictions, and scores but for the name of the output."""
    path = output / classifier.FILE
    scores = (output / "scores.json").read_text().replace(f'"{output}"', "")
    return _weights(path), classifier.read(output), (output / "predictions.jsonl").read_bytes(), scores


def evaluate(home: Path) -> Subject:
    """Two arms of two seeds, on a set of noise images that generate made."""
    photos = stub_sampler.photos(home / "photos")
    sizes = ("--size", 32, "--steps", 1, "--batch_size", 4, "--precision", "fp32", "--seeds", 2)
    return Subject(
        command="evaluate",
        words=("--data", photos, "--synthetic", _synthetic(home, photos), "--ratios", 1, 0.5, *sizes),
        home=home,
        seen=_experiment,
        finished=lambda output: {
            json.dumps(_plain(records.as_line(record))) for record in records.read(output)
        },
    )


def _synthetic(home, photos):
    sizes = ("--count", 4, "--batch_size", 4, "--precision", "fp32", "--classes", *stub_sampler.CLASSES)
    words = ("--base", pipelines.tiny(home / "base"), "--data", photos, *sizes)
    maker = Subject(
        command="generate", words=words, home=home, seen=bool, finished=lambda output: set(), draw="noise"
    )
    assert maker.run(home / "shards").code == 0
    return home / "shards"


def _experiment(output):
    """Records but for seconds, the numbers made of them, and that there is a page."""
    found = {name: (output / name).read_text().replace(str(output), "OUTPUT") for name in NUMBERS}
    kept = classifier.read(output / "real_only_ratio.safetensors")
    return (
        found,
        [_plain(record) for record in records.read(output)],
        kept,
        (output / "report.html").is_file(),
    )


def _plain(record):
    """A record without what no two runs have in common."""
    return {name: value for name, value in record.items() if not name.startswith("seconds")}


def _weights(path):
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}


SUBJECTS: dict[str, Callable[[Path], Subject]] = {
    "finetune": finetune,
    "generate": generate,
    "classify": classify,
    "evaluate": evaluate,
}
