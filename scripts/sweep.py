"""Guidance scales and step counts, compared on validation images alone.

    python scripts/sweep.py --guidance 1 2 3 5 --steps 20

Holds out a fifth of the training split, tunes adapters on the rest, samples with every pair of settings and
trains classifiers on synthetic images only, scored on the held-out photos. The test split is only
hashed. A stopped sweep goes on where it stood; more pairs of settings may join it.
"""

import argparse
import csv
import json
from itertools import product
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import run_options
import stages
from orchard.cli import cli
from orchard.datasets import folders, sources
from orchard.files import atomic
from orchard.images import splits
from orchard.images.images import TRAIN, ImageSet

SHARE = 0.2
IDENTITY = ("data", "base", "count", "train_steps", "classify_steps")
COLUMNS = ("guidance", "steps", "accuracy", "sd", "log_loss", "images_per_second")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="fruit", help="real set")
    parser.add_argument("--base", default="mini")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 2.0, 3.0, 5.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50], help="sampling steps")
    parser.add_argument("--count", type=int, default=200, help="synthetic images a class")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--train_steps", type=int, default=400, help="optimiser steps an adapter")
    parser.add_argument("--classify_steps", type=int, default=400, help="optimiser steps a classifier")
    parser.add_argument("--output", type=Path, default=stages.ROOT / "outputs" / "sweep")
    return parser.parse_args()


def main() -> None:
    """Refuse what cannot end well, then compare."""
    args = parse()
    with cli.one_line():
        for name in ("count", "seeds", "train_steps", "classify_steps"):
            cli.check(getattr(args, name) > 0, f"--{name} {getattr(args, name)}: give 1 or more")
        train = sources.load(args.data).of(TRAIN)
        args.output = args.output.resolve()
        run_options.require_same(args.output, {name: getattr(args, name) for name in IDENTITY})
        compare(args, train)


def compare(args: argparse.Namespace, train: ImageSet) -> None:
    """Adapters once, then one row a pair of settings."""
    photos, adapters = args.output / "photos", args.output / "adapters"
    counts = hold_out(train, photos)
    # Classes keep their shares, and none needs more than there is of it.
    total = args.count * sum(counts.values()) // max(counts.values())
    if len(stages.adapters(adapters)) < len(train.classes):
        options = ("--base", args.base, "--steps", args.train_steps, "--output", adapters)
        stages.finetune("--data", photos, *options, *stages.go_on(adapters))
    rows = [row(args, total, *pair) for pair in product(args.guidance, args.steps)]
    with (args.output / "sweep.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    table = Table(*COLUMNS)
    for values in rows:
        table.add_row(*("" if value is None else f"{value:.4g}" for value in values))
    Console().print(table)


def hold_out(train: ImageSet, folder: Path) -> dict[str, int]:
    """Lay the training split out as ``train/CLASS`` and ``test/CLASS``, a fifth of each class in test.

    Photos left to train on, by class.
    """
    held_out = splits.hold_out(train, SHARE, "sweep")
    rest = train.keep(photo for photo in train.photos if photo.sha256 not in held_out)
    folders.write(folder, rest, train.keep(photo for photo in train.photos if photo.sha256 in held_out))
    return rest.counts()


def row(args: argparse.Namespace, total: int, guidance: float, steps: int) -> tuple[float | None, ...]:
    """Sample and score one pair of settings; values in the order of `COLUMNS`."""
    name = f"guidance{guidance:g}-steps{steps}"
    shards, scores = args.output / f"shards-{name}", args.output / f"scores-{name}"
    speed = args.output / f"speed-{name}.json"
    if not speed.exists():
        whole = not shards.exists()
        lora = ["--lora", *stages.adapters(args.output / "adapters")]
        settings = ["--guidance", guidance, "--steps", steps, "--count", args.count]
        seconds = stages.generate(*lora, *settings, "--output", shards)
        # Of a set that was begun before, nobody knows how many images these seconds made.
        atomic.write_json(speed, len(lora[1:]) * args.count / seconds if whole else None)
    sets = ["--data", args.output / "photos", "--synthetic", shards, "--output", scores]
    size = ["--steps", args.classify_steps, "--seeds", args.seeds]
    stages.evaluate("--ratios", "0", "--total", total, *sets, *size)
    records = [json.loads(line) for line in (scores / "records.jsonl").read_text().splitlines()]
    accuracy = [record["accuracy"] for record in records]
    loss = np.mean([record["nll"] for record in records])
    spread = np.std(accuracy, ddof=1) if len(accuracy) > 1 else 0.0
    rate = json.loads(speed.read_text())
    return guidance, steps, float(np.mean(accuracy)), float(spread), float(loss), rate


if __name__ == "__main__":
    main()
