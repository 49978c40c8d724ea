"""The whole flow on the embedded base: `make demo`.

Uses the Kaggle fruit set where `ORCHARD_FRUIT` names it or kagglehub can fetch it, else the rendered
demo set, and says which and why. Each stage is the command that a user would type.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from orchard import sources
from orchard.errors import UserError

ROOT = Path(__file__).parents[1]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="real set; by default fruit where it can be had, else demo")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "demo")
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


def run(command: list[str]) -> None:
    """One stage: print the command, run it, stop with its exit code when it fails."""
    started = time.monotonic()
    print(f"\n$ {shlex.join(command)}", flush=True)
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    print(f"({time.monotonic() - started:.0f} s)", flush=True)


def main() -> None:
    """Adapters, shards, experiment."""
    args = parse()
    data = args.data or choose()
    data = str(Path(data).resolve()) if Path(data).is_dir() else data
    folders = [args.output.resolve() / name for name in ("adapters", "shards", "evaluation")]
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    adapters, shards, evaluation = map(str, folders)
    launch = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "1"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    steps = ["--steps", str(args.train_steps), "--base", args.base]
    run([*launch, "finetune/train_lora.py", "--data", data, "--output", adapters, *steps])
    files = sorted(str(path) for path in Path(adapters).glob("*.safetensors"))
    count = ["--count", str(args.count)]
    run([sys.executable, "-m", "generate", "--lora", *files, "--output", shards, *count])
    evaluate = [sys.executable, "-m", "evaluate", "--ratios", "all", "--data", data]
    evaluate += ["--synthetic", shards, "--output", evaluation]
    run([*evaluate, "--steps", str(args.classify_steps), "--seeds", str(args.seeds)])


if __name__ == "__main__":
    main()
