"""The whole flow on the embedded base: `make demo`.

Uses the Kaggle fruit set where `ORCHARD_FRUIT` names it or kagglehub can fetch it, else the rendered
demo set, and says which and why. Each stage is the command that a user would type.
"""

import argparse
import os
import shutil
from pathlib import Path

import stages
from orchard.cli import cli
from orchard.datasets import sources
from orchard.errors import UserError
from orchard.files import atomic

FOLDERS = ("adapters", "shards", "evaluation")
MARK = ".demo"
"""Whose folder it is: each demo begins anew."""


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="real set; by default fruit where it can be had, else demo")
    parser.add_argument("--output", type=Path, default=stages.ROOT / "outputs" / "demo")
    parser.add_argument("--base", default="mini")
    parser.add_argument("--train_steps", type=int, default=200, help="optimiser steps an adapter")
    parser.add_argument("--count", type=int, default=80, help="synthetic images a class")
    parser.add_argument("--classify_steps", type=int, default=300, help="optimiser steps a classifier")
    parser.add_argument("--seeds", type=int, default=3)
    return parser.parse_args()


def choose() -> str:
    """``fruit`` when the Kaggle set can be had, else ``demo``; says why."""
    try:
        folder = sources.fruit_folder()
    except UserError as error:
        print(f"using --data demo: {error}")
        return "demo"
    found = sources.FRUIT_VARIABLE if os.environ.get(sources.FRUIT_VARIABLE) else "kagglehub"
    print(f"using --data fruit: {folder} (found by {found})")
    return "fruit"


def empty(output: Path) -> None:
    """Delete what an earlier demo made there.

    Raises:
        UserError: there are results that no demo made.
    """
    folders = [output / name for name in FOLDERS if (output / name).exists()]
    if folders and not (output / MARK).exists():
        raise UserError(
            f"--output {output}: has a folder {folders[0].name} that no demo made; choose another"
        )
    atomic.writable(output)
    (output / MARK).touch()
    for folder in folders:
        shutil.rmtree(folder)


def main() -> None:
    """Adapters, shards, experiment."""
    args = parse()
    data = args.data or choose()
    data = str(Path(data).resolve()) if Path(data).is_dir() else data
    adapters, shards, evaluation = (args.output.resolve() / name for name in FOLDERS)
    steps = ["--steps", args.train_steps, "--base", args.base]
    with cli.one_line():
        sources.load(data)
        empty(args.output.resolve())
    stages.finetune("--data", data, "--output", adapters, *steps)
    lora = ["--lora", *stages.adapters(adapters)]
    stages.generate(*lora, "--output", shards, "--count", args.count)
    sets = ["--data", data, "--synthetic", shards, "--output", evaluation]
    size = ["--steps", args.classify_steps, "--seeds", args.seeds]
    stages.evaluate("--ratios", "all", *sets, *size)


if __name__ == "__main__":
    main()
