"""What searches took, as recipes that finetune, generate and evaluate read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from classify.config import Training
from classify.mixing import WEIGHTED
from evaluate.analysis.labels import label
from evaluate.analysis.summary import arm_of
from evaluate.config import Evaluate
from evaluate.experiment.image_sets import Sets
from evaluate.experiment.mixtures import mix
from evaluate.experiment.own_generator import FIT, LARGEST_BATCH
from evaluate.experiment.validation_search import ALONE, Candidate, of_recipe
from evaluate.generators import ARM_CLASSIFIER, ARM_PHOTOS, GENERATORS
from evaluate.records.records import Record, Stored, choice_key, complete
from orchard.adapters.provenance import FULL
from orchard.cli import cli
from orchard.files import atomic

FOLDER = "recipes"
COMMANDS = {
    "finetune": "accelerate launch finetune/train_lora.py",
    "classify": "python -m classify",
    "generate": "python -m generate",
    "evaluate": "python -m evaluate",
}
CLASSIFIER = "classifier"
"""Where classify writes unless it is told otherwise."""
Sections = Mapping[str, dict[str, Any]]


def write(records: Iterable[Stored], config: Evaluate, sets: Sets) -> list[str]:
    """A file in ``recipes/`` of the output for each search that found one; lines about each search."""
    found = {choice_key(record): complete(record) for record in records}
    searched = [one for one in found.values() if one["mixing_choice"] and "recipe" in one["mixing_choice"]]
    return [line for record in searched for line in _write(record, config, sets)]


def _write(record: Record, config: Evaluate, sets: Sets) -> list[str]:
    made = record["mixing_choice"]
    assert made is not None
    places = {name: record[name] for name in ("fold", "repeat") if record[name] is not None}
    draw = {"draw": record["subset_seed"]}
    name = ", ".join(
        [label(arm_of(record)), *(f"{key} {value}" for key, value in {**places, **draw}.items())]
    )
    found, lines = (
        of_recipe(made["recipe"]),
        [f"{name}: could not be tried: {one}" for one in made["untried"]],
    )
    if not found.share:
        none = f"{name}: none pays: no recipe beats no synthetic images by more than a standard error"
        return [*lines, none]
    gain, error = made["tried"][ALONE.label] - made["tried"][found.label], made["errors"][found.label]
    what = f"{found.label} (loss lower by {gain:.3f} ± {error:.3f} nats)"
    path = config.output / FOLDER / f"{atomic.file_name(name)}.yaml"
    _save(path, f"# {name}: {what}", _sections(found, record, config, sets))
    return [*lines, f"{name}: {what}: {path}"]


def _save(path: Path, title: str, sections: Sections) -> None:
    used = {name: options for name, options in sections.items() if options}
    usage = [f"#   {COMMANDS[name]} --config {path}" for name in used]
    atomic.writable(path.parent)
    with atomic.whole_file(path) as aside:
        text = yaml.safe_dump(used, sort_keys=False, allow_unicode=True)
        aside.write_text("\n".join([title, *usage, text]), encoding="utf-8")


def _sections(found: Candidate, record: Record, config: Evaluate, sets: Sets) -> Sections:
    """Command -> its options; none where it has nothing to do.

    They are for the whole training split, with as many synthetic images for each real one as the search had.
    """
    common = {"data": config.data, "seed": config.seed, "precision": config.precision}
    flip = {} if config.flip else {"flip": False}
    real, synthetic = record["n_real"], record["n_synthetic"]
    ratio, counts = round(real / (real + synthetic), 4), sets.train.counts()
    evaluate = {**common, "design": "augment", "ratios": [ratio], **_mixing(found), **_training(config)}
    if found.generator not in GENERATORS:  # the set in --synthetic
        return {"evaluate": {**evaluate, "synthetic": config.synthetic}}
    assert sets.base is not None
    made = GENERATORS[found.generator]
    sampling = _options((*made.sampling, *found.sampling), config)
    count = max(mix("augment", ratio, counts).synthetic.values())
    origin = {"base": config.base, **_origin(found, record["classes"])}
    batch_size = min(LARGEST_BATCH, max(counts.values()))
    classify = {
        "train": config.data,
        "test": config.data,
        "size": sets.base.resolution,
        "seed": config.seed,
        "precision": config.precision,
        **flip,
    }
    finetune = {
        **common,
        "base": config.base,
        "steps": config.arm_steps,
        "batch_size": batch_size,
        "fit": FIT,
        **flip,
        **_options(made.tuning or (), config),
    }
    return {
        "finetune": finetune if made.tuning is not None else {},
        "classify": classify if CLASSIFIER in sampling.values() else {},
        "generate": {**common, **origin, "count": count, **sampling},
        "evaluate": evaluate,
    }


def _mixing(found: Candidate) -> dict[str, Any]:
    weight = {"real_weight": found.mixing.real_weight} if found.mixing.name in WEIGHTED else {}
    return {"mixing": found.mixing.name, **weight}


def _training(config: Evaluate) -> dict[str, Any]:
    """How the classifiers of the search were trained, where that is not what is usual."""
    usual = cli.describe(Evaluate())
    asked = {one.name: cli.describe(config)[one.name] for one in fields(Training)}
    return {name: value for name, value in asked.items() if value != usual[name]}


def _origin(found: Candidate, classes: Sequence[str]) -> dict[str, Any]:
    """The adapters as finetune writes them, or the classes that the base is asked for."""
    made = GENERATORS[found.generator]
    if made.tuning is None:
        return {"classes": [*classes]}
    at = f":{found.adapter_weight:g}" if found.adapter_weight != 1 else ""
    ending = "" if FULL in made.tuning else ".safetensors"
    return {"lora": [f"{atomic.file_name(name)}{ending}{at}" for name in classes]}


def _options(words: Sequence[str], config: Evaluate) -> dict[str, str]:
    """``("--contexts", "own")`` -> ``{"contexts": "own"}``, with the user's own places."""
    places = {ARM_PHOTOS: config.data, ARM_CLASSIFIER: CLASSIFIER}
    return {
        name.removeprefix("--"): places.get(value, value)
        for name, value in zip(words[::2], words[1::2], strict=True)
    }
