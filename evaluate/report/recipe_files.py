"""What searches took, as recipes that finetune, generate and evaluate read."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from classify.mixing import WEIGHTED
from evaluate.analysis.labels import label
from evaluate.analysis.summary import arm_of
from evaluate.config import Evaluate
from evaluate.experiment.own_generator import FIT
from evaluate.experiment.validation_search import ALONE, Candidate, of_recipe
from evaluate.generators import ARM_CLASSIFIER, ARM_PHOTOS, GENERATORS
from evaluate.records.records import Record, Stored, choice_key, complete
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


def write(records: Iterable[Stored], config: Evaluate) -> list[str]:
    """A file in ``recipes/`` of the output for each search that found one; a line about each search."""
    found = {choice_key(record): complete(record) for record in records}
    searched = [one for one in found.values() if one["mixing_choice"] and "recipe" in one["mixing_choice"]]
    return [_write(record, config) for record in searched]


def _write(record: Record, config: Evaluate) -> str:
    made = record["mixing_choice"]
    assert made is not None
    places = {name: record[name] for name in ("fold", "repeat") if record[name] is not None}
    draw = {"draw": record["subset_seed"]}
    name = ", ".join(
        [label(arm_of(record)), *(f"{key} {value}" for key, value in {**places, **draw}.items())]
    )
    found = of_recipe(made["recipe"])
    if not found.share:
        others = len(made["tried"]) - 1 + len(made["untried"])
        return f"{name}: none pays; of {others} recipes none is better than no synthetic images by an error"
    gain, error = made["tried"][ALONE.label] - made["tried"][found.label], made["errors"][found.label]
    what = f"{found.label} (loss lower by {gain:.3f} ± {error:.3f} nats)"
    path = config.output / FOLDER / f"{atomic.file_name(name)}.yaml"
    _save(path, f"# {name}: {what}", _sections(found, record, config))
    return f"{name}: {what}: {path}"


def _save(path: Path, title: str, sections: Sections) -> None:
    used = {name: options for name, options in sections.items() if options}
    usage = [f"#   {COMMANDS[name]} --config {path}" for name in used]
    atomic.writable(path.parent)
    with atomic.whole_file(path) as aside:
        text = yaml.safe_dump(used, sort_keys=False, allow_unicode=True)
        aside.write_text("\n".join([title, *usage, text]), encoding="utf-8")


def _sections(found: Candidate, record: Record, config: Evaluate) -> Sections:
    """Command -> its options; none where it has nothing to do."""
    common = {"data": config.data, "seed": config.seed, "precision": config.precision}
    training = common if config.flip else {**common, "flip": False}
    mixing = {"mixing": found.mixing.name, "real_weight": found.mixing.real_weight}
    real, synthetic = record["n_real"], record["n_synthetic"]
    evaluate = {
        **training,
        "design": "augment",
        "ratios": [round(real / (real + synthetic), 4)],
        **(mixing if found.mixing.name in WEIGHTED else {"mixing": found.mixing.name}),
    }
    if found.generator not in GENERATORS:  # the set in --synthetic
        return {"evaluate": {**evaluate, "synthetic": config.synthetic}}
    made = GENERATORS[found.generator]
    sampling = _options((*made.sampling, *found.sampling), config)
    generate = {
        **common,
        "base": config.base,
        **_origin(found, record["classes"]),
        "count": math.ceil(synthetic / len(record["classes"])),
        **sampling,
    }
    tuning = _options(made.tuning or (), config)
    classify = {name: value for name, value in training.items() if name != "data"}
    classify |= {"train": config.data, "test": config.data}
    finetune = {**training, "base": config.base, "steps": config.arm_steps, "fit": FIT, **tuning}
    return {
        "finetune": finetune if made.tuning is not None else {},
        "classify": classify if CLASSIFIER in sampling.values() else {},
        "generate": generate,
        "evaluate": evaluate,
    }


def _origin(found: Candidate, classes: Sequence[str]) -> dict[str, Any]:
    """The adapters as finetune writes them, or the classes that the base is asked for."""
    if GENERATORS[found.generator].tuning is None:
        return {"classes": [*classes]}
    at = f":{found.adapter_weight:g}" if found.adapter_weight != 1 else ""
    return {"lora": [f"{atomic.file_name(name)}.safetensors{at}" for name in classes]}


def _options(words: Sequence[str], config: Evaluate) -> dict[str, str]:
    """``("--contexts", "own")`` -> ``{"contexts": "own"}``, with the user's own places."""
    places = {ARM_PHOTOS: config.data, ARM_CLASSIFIER: CLASSIFIER}
    return {
        name.removeprefix("--"): places.get(value, value)
        for name, value in zip(words[::2], words[1::2], strict=True)
    }
