"""``python -m classify``: train, save, score."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from rich.console import Console
from rich.table import Table

from classify import image_sets
from classify.batch_parts import Part
from classify.config import Classify
from classify.image_sets import Sets
from classify.trainer import Fitted, Labelled, Step, Task, fit
from orchard import devices
from orchard.classifiers import classifier
from orchard.classifiers.networks import build, require_name
from orchard.classifiers.predict import probabilities
from orchard.classifiers.pretrained import FEATURES
from orchard.cli import cli
from orchard.cli.terminal import Terminal, bar, say
from orchard.errors import UserError
from orchard.files import atomic
from orchard.files.lock import writing
from orchard.images.arrays import joined
from orchard.images.images import ImageSet, sha256
from orchard.images.thumbnails import saved_again


class ClassScores(TypedDict):
    """How the test images of one class were recognised."""

    images: int
    right: int
    recall: float | None
    """None without test images: undefined, not 0."""


class Scores(TypedDict):
    """How the test images were recognised."""

    accuracy: float
    images: int
    right: int
    classes: dict[str, ClassScores]


@dataclass(frozen=True, kw_only=True)
class Classified:
    """A classifier that was trained and scored."""

    path: Path
    """Its file, for generate's --screen_classifier (the folder) and for --pretrained."""
    scores: Scores


SCORES, PREDICTIONS = "scores.json", "predictions.jsonl"


def run(config: Classify) -> None:
    """Run `classify` as a command."""
    classify(config)
    devices.processes().destroy_process_group()


def classify(config: Classify) -> Classified | None:
    """Train one classifier, save it, score it on real test images and print the result.

    None with dry_run, and in every process but the first. Several processes divide each batch.

    Raises:
        UserError: an option, a set or an image that the user can mend; found before training.
    """
    config.require_valid()
    require_name(config.model)
    state = devices.processes()
    part, device = Part(rank=state.process_index, count=state.num_processes), state.device
    dtype = devices.torch_dtype(config.precision, device)
    part.require_equal(config.batch_size)
    with state.main_process_first():  # it downloads what the others find
        found = image_sets.load(config)
    console = Terminal(quiet=not state.is_main_process)
    show_plan(console, config, found, part)
    # A network that does not take the size or the weights says so before any image is decoded.
    build(config.model, len(found.train.classes), found.sizes.size, config.seed, config.pretrained)
    if config.dry_run:
        return None
    devices.require_same(state, _identity(config, found, devices.dtype_name(dtype)))
    train, validation, test = _decoded(console, config, found, first=state.is_main_process)
    atomic.writable(config.output)
    task = Task(
        train=train,
        validation=validation,
        classes=len(found.train.classes),
        names=found.train.classes,
        options=config,
        seed=config.seed,
        device=device,
        dtype=dtype,
        part=part,
    )
    with writing(config.output, state):
        fitted = _fit(task, config)
        if not state.is_main_process:
            return None
        predicted = probabilities(fitted.model, test[0], device, dtype)
        scores = score(predicted, test[1], found.train.classes)
        made_with = {"precision": devices.dtype_name(dtype), "processes": part.count}
        write(config, found, fitted, predicted, scores, made_with)
    show_scores(console, config, fitted, scores)
    return Classified(path=config.output / classifier.FILE, scores=scores)


def _identity(config: Classify, found: Sets, precision: str) -> dict[str, Any]:
    """What all processes must have: each takes its rows of a batch by their place."""
    options = {name: value for name, value in cli.describe(config).items() if name != "output"}
    in_order = (f"{photo.label}:{photo.sha256}" for photo in found.train.photos)
    return {
        **options,
        "precision": precision,
        "size": found.sizes.size,
        "through": found.sizes.through,
        "train": sha256("\n".join(in_order).encode()),
        "test": found.test.digest(),
    }


def _decoded(
    console: Console, config: Classify, found: Sets, *, first: bool
) -> tuple[Labelled, Labelled, Labelled]:
    """What is trained on, validated on and scored, which the first process does and looks for copies in."""
    rest, held_out = image_sets.parts(found.train, config.validation, config.seed)
    sets = (rest, held_out, found.test if first else found.test.keep(()))
    with bar("decoding", sum(map(len, sets)), unit="images", show=first) as advance:
        train, validation, test = (image_sets.labelled(one, found.sizes, advance) for one in sets)
    known = found.train.keep((*rest.photos, *held_out.photos))
    for note in saved_again(sets[2], test[0], known, joined(train[0], validation[0])):
        say(console, f"note: {note}")
    return train, validation, test


def show_plan(console: Console, config: Classify, found: Sets, part: Part) -> None:
    """Print what will be trained on what."""
    through = f" (by way of {found.sizes.through})" if found.sizes.through else ""
    begun = f" from {config.pretrained}" if config.pretrained else ""
    for note in dict.fromkeys((*found.train.notes, *found.test.notes)):
        say(console, f"note: {note}")
    say(console, f"train {len(found.train)}: {_counts(found.train)} ({config.train})")
    say(console, f"test {len(found.test)}: {_counts(found.test)} ({config.test})")
    solved = config.pretrained and config.model.startswith(FEATURES)  # nothing is trained in steps
    divided = f" divided among {part.count} processes" if part.count > 1 and not solved else ""
    say(
        console,
        f"{config.model}{begun} at {found.sizes.size} px{through}, "
        f"{config.steps} steps of {config.batch_size}{divided}, "
        f"learning rate {config.learning_rate:g}, {config.augmentation} augmentation, "
        f"{'flips' if config.flip else 'no flips'}, "
        f"seed {config.seed} -> {config.output}",
    )


def _counts(images: ImageSet) -> str:
    return ", ".join(f"{name} {count}" for name, count in images.counts().items())


def _fit(task: Task, config: Classify) -> Fitted:
    total = config.steps * config.batch_size
    with bar("training", total, unit="images", show=task.part.rank == 0) as advance:

        def on_step(step: Step) -> None:
            advance(config.batch_size, f"step {step.index}/{config.steps}, loss {step.loss:.3f}")

        try:
            return fit(task, on_step)
        except FloatingPointError as error:
            raise UserError(f"{error}; use a lower --learning_rate or --precision fp32") from None


def score(predicted: np.ndarray, truth: np.ndarray, classes: tuple[str, ...]) -> Scores:
    """(N, K) probabilities and (N,) labels -> how the images were recognised."""
    right = predicted.argmax(axis=1) == truth
    by_class: dict[str, ClassScores] = {}
    for place, name in enumerate(classes):
        here = right[truth == place]
        recall = float(here.mean()) if len(here) else None
        by_class[name] = {"images": len(here), "right": int(here.sum()), "recall": recall}
    return {
        "accuracy": float(right.mean()),
        "images": len(truth),
        "right": int(right.sum()),
        "classes": by_class,
    }


def write(
    config: Classify,
    found: Sets,
    fitted: Fitted,
    predicted: np.ndarray,
    scores: Scores,
    made_with: Mapping[str, Any],
) -> None:
    """Write the classifier, one line a test image, and last the scores with what else decided them."""
    record = classifier.Record(
        model=config.model,
        classes=found.train.classes,
        size=found.sizes.size,
        through=found.sizes.through,
        seed=config.seed,
        steps=config.steps,
        data=config.train,
        trained_on=tuple(sorted(found.seen)),
        validation_accuracy=fitted.validation_accuracy,
    )
    classifier.save(config.output / classifier.FILE, fitted.model, record)
    _write_predictions(config.output / PREDICTIONS, found, predicted)
    extra = {
        "config": cli.describe(config),
        "size": found.sizes.size,
        "through": found.sizes.through,
        **made_with,
        "validation_accuracy": fitted.validation_accuracy,
    }
    atomic.write_json(config.output / SCORES, {**scores, **extra})


def _write_predictions(path: Path, found: Sets, predicted: np.ndarray) -> None:
    with atomic.whole_file(path) as aside, aside.open("w", encoding="utf-8") as file:
        for photo, row in zip(found.test.photos, predicted.tolist(), strict=True):
            by_class = dict(zip(found.train.classes, row, strict=True))
            line = {"file": photo.path, "truth": photo.label, "probabilities": by_class}
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def show_scores(console: Console, config: Classify, fitted: Fitted, scores: Scores) -> None:
    """Print the table, where the classifier lies and what comes next."""
    table = Table("class", "test images", "right", "recall")
    for name, row in scores["classes"].items():
        recall = "undefined" if row["recall"] is None else f"{row['recall']:.4f}"
        table.add_row(name, str(row["images"]), str(row["right"]), recall)
    table.add_section()
    table.add_row("accuracy", str(scores["images"]), str(scores["right"]), f"{scores['accuracy']:.4f}")
    console.print(table)
    if fitted.validation_accuracy is not None:
        say(console, f"validation accuracy {fitted.validation_accuracy:.4f}")
    say(console, f"saved {config.output / classifier.FILE}")
    real = [] if config.test == Classify.data else ["--data", config.test]
    say(console, f"next: {shlex.join(['python', '-m', 'evaluate', '--ratios', 'all', *real])}")
