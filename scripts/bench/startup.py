"""How long each command takes to say what it can do."""

import subprocess
import sys
import time
from pathlib import Path

from rich.table import Table

ROOT = Path(__file__).parents[2]
COMMANDS = ("finetune/train_lora.py", "-m generate", "-m review", "-m classify", "-m evaluate")
LIMIT = 1.0
"""Seconds that a user should wait at most."""


def bench(turns: int = 3) -> Table:
    """The fastest of ``turns`` calls of ``--help``, seconds, and how often it fits into `LIMIT`."""
    table = Table("--help", "seconds", f"of {LIMIT:g} s")
    for words in COMMANDS:
        best = min(_seconds(words) for _ in range(turns))
        table.add_row(words, f"{best:.2f}", f"{best / LIMIT:.0%}")
    return table


def _seconds(words: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, *words.split(), "--help"]
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started
