"""The project's commands as the scripts call them, each as a user would type it."""

import shlex
import subprocess
import sys
import time
from pathlib import Path

from orchard.adapters import adapter

ROOT = Path(__file__).parents[1]
LAUNCH = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "1"]
LAUNCH += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]


def finetune(*options: object) -> float:
    """`finetune/train_lora.py`; seconds it took."""
    return run([*LAUNCH, "finetune/train_lora.py", *options])


def generate(*options: object) -> float:
    """`python -m generate`; seconds it took."""
    return run([sys.executable, "-m", "generate", *options])


def evaluate(*options: object) -> float:
    """`python -m evaluate`; seconds it took."""
    return run([sys.executable, "-m", "evaluate", *options])


def run(words: list[object]) -> float:
    """Print the command, run it, stop with its exit code when it fails; seconds it took."""
    command = [str(word) for word in words]
    started = time.monotonic()
    print(f"\n$ {shlex.join(command)}", flush=True)
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    seconds = time.monotonic() - started
    print(f"({seconds:.0f} s)", flush=True)
    return seconds


def go_on(folder: Path) -> list[str]:
    """What `finetune` has to be told where a stopped run left something in ``folder``."""
    return ["--resume", "latest"] if adapter.begun(folder) else []


def adapters(folder: Path) -> list[Path]:
    """The adapters that `finetune` wrote into ``folder``."""
    return sorted(folder.glob("*.safetensors"))
